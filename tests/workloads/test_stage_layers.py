"""Stages of unequal length: which layers each has, what they hold and compute, and what is refused."""

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.sim.planning.question import Question
from athanor.sim.planning.search import command
from athanor.sim.planning.space import Space
from athanor.workloads.lowering.unroll import ARRIVALS, unrolled
from athanor.workloads.memory import account
from athanor.workloads.model.model import Model, list_models, load_model
from athanor.workloads.pipelines.stage_layers import layers_by_part, parse
from athanor.workloads.plan.plan import Plan
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.schedule import Schedule
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import SHAPE, flat, lowered, plan, simulated, sped_up

DEEP = Model(**{**SHAPE, "name": "deep", "layers": 10})


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 5), st.data())
def test_every_layer_is_in_one_part_and_all_in_order(stages, chunks, each, data):
    parts = stages * chunks
    inner = [data.draw(st.integers(1, 4)) for _ in range(parts - 2)]
    counts = [data.draw(st.integers(0, 4)), *inner, data.draw(st.integers(1, 4))]
    ways = {"even": each * parts, "ends": each * parts - 2, ",".join(map(str, counts)): sum(counts)}
    for way, layers in ways.items():
        if layers:
            found = layers_by_part(way, layers, stages, chunks)
            assert [layer for part in found for layer in part] == list(range(layers))
            assert len(found) == parts
    assert [len(part) for part in found] == counts


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 5))
def test_embedding_and_output_count_as_a_layer_each(stages, chunks, each):
    parts = stages * chunks
    if each * parts == 2:
        return
    found = [len(part) for part in layers_by_part("ends", each * parts - 2, stages, chunks)]
    found[0] += 1
    found[-1] += 1
    assert found == [each] * parts


def test_published_stages():
    """BLOOM: 72 over 12; Llama 3 405B: the first and the last chunk have no layer; 61 layers and a second token's of DeepSeek-V3."""
    assert {len(part) for part in layers_by_part("ends", 70, 12, 1)[1:-1]} == {6}
    llama = [len(part) for part in layers_by_part("ends", 126, 16, 8)]
    assert llama == [0, *[1] * 126, 0]
    assert [len(part) for part in layers_by_part("ends", 62, 8, 4)] == [1, *[2] * 30, 1]
    assert [len(part) for part in layers_by_part("4,2", 6, 2, 2)] == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("how", "layers", "stages", "chunks", "message"),
    [
        (
            "even",
            70,
            12,
            1,
            "even: 70 layers do not divide over pp=12 stages; ends would, with embedding and output as a layer each: 72",
        ),
        (
            "even",
            94,
            8,
            4,
            "even: 94 layers do not divide over pp=8 stages of 4 chunks; ends would, with embedding and output as a layer each: 96",
        ),
        ("even", 61, 16, 1, "even: 61 layers do not divide over pp=16 stages; N,N,... says how many each has"),
        (
            "ends",
            70,
            16,
            1,
            "ends: 70 layers with embedding and output are 72, which do not divide over pp=16 stages; N,N,... says how many each has",
        ),
        ("1,2,3", 6, 2, 1, "1,2,3: 3 numbers, must be 2, one a stage"),
        ("1,2,3", 6, 2, 2, "1,2,3: 3 numbers, must be 2, one a stage, or 4, one for each of its chunks"),
        ("1,2", 6, 2, 1, "1,2: 3 layers in all, the model has 6"),
        ("3,3", 6, 2, 2, "3,3: 3 layers do not divide over the 2 chunks of a stage"),
        (
            "1,0,5",
            6,
            3,
            1,
            "1,0,5: stage 1 has no layers; only the first and the last, with embedding and output, may have none",
        ),
        (
            "1,4,0,1",
            6,
            2,
            2,
            "1,4,0,1: stage 0 has a chunk without layers; only the first and the last, with embedding and output, may have none",
        ),
    ],
)
def test_numbers_that_do_not_add_up_are_told(how, layers, stages, chunks, message):
    with pytest.raises(InputError) as refused:
        layers_by_part(how, layers, stages, chunks)
    assert str(refused.value) == f"--stage-layers {message}"


@pytest.mark.parametrize("how", ["end", "1,,2", "", "-1,3", "1.5,2"])
def test_what_is_no_way_is_refused(how):
    with pytest.raises(InputError, match=r"--stage-layers .*: write even, ends, or layers of each stage as 5,6,6,5"):
        parse(how)


@pytest.mark.parametrize(
    "options",
    [
        {"mesh": {"pp": 3, "dp": 2}, "stage_layers": "ends"},
        {"mesh": {"pp": 4}, "stage_layers": "2,3,3,2", "pipeline": "gpipe"},
        {"mesh": {"pp": 4}, "stage_layers": "0,5,5,0", "pipeline": "2bw"},
        {"mesh": {"pp": 6, "tp": 2}, "stage_layers": "ends", "pipeline": "interleaved", "chunks": 2},
    ],
    ids=str,
)
def test_ranks_do_what_one_stage_would(options):
    """All products together are those of the model without stages; each rank does those of its own layers."""
    options = {**options, "tokens_per_rank": 12 * 32, "micro_batch": 1}
    schedule = lowered(DEEP, **options)
    mesh, stages = schedule.mesh, options["mesh"]["pp"]
    parts = layers_by_part(options["stage_layers"], DEEP.layers, stages, options.get("chunks", 1))
    for coordinate in ((stage, *[0] * (len(mesh.axes) - 1)) for stage in range(stages)):
        names = [each.name for each in unrolled(schedule, coordinate) if each.name.startswith("m3.")]
        done = {int(name.split(".")[1][1:]) for name in names if name.endswith(".qkv")}
        assert done == {layer for part in parts[coordinate[0] :: stages] for layer in part}
        assert ("m3.embedding.lookup" in names) == (coordinate[0] == 0)
        assert ("m3.output.loss" in names) == (coordinate[0] == stages - 1)
    whole = {key: value for key, value in options.items() if key not in ("stage_layers", "pipeline", "chunks")}
    alone = simulated(
        DEEP, **{**whole, "mesh": {axis: size for axis, size in options["mesh"].items() if axis != "pp"} or {"dp": 1}}
    )
    staged = simulated(DEEP, **options)
    assert staged["flops_per_step"] == pytest.approx(alone["flops_per_step"], rel=2e-3)  # ends update as well
    assert Schedule.from_json(schedule.to_json()) == schedule


def test_a_stage_without_layers_passes_on_what_it_embeds():
    """Its messages bear the number of the layer that they enter, which no other message of its has."""
    options = {"mesh": {"pp": 3}, "stage_layers": "0,10,0", "tokens_per_rank": 4 * 32, "micro_batch": 1}
    schedule = lowered(DEEP, **options)
    first, middle, last = (unrolled(schedule, (stage,)) for stage in range(3))
    assert not [each for each in first if ".qkv" in each.name] and "m0.embedding.lookup" in {
        each.name for each in first
    }
    came = [each.name for each in middle if each.stream == ARRIVALS]
    assert {name for name in came if name.startswith("m1.")} == {"m1.l0.activations", "m1.l0.activations.grad"}
    assert [each.name for each in last if each.stream == ARRIVALS] == [
        f"m{number}.l10.activations" for number in range(4)
    ]


def test_stages_hold_what_their_layers_need():
    """Weights by stage, by hand; activations of 1F1B: p - s micro-batches of each layer, and the ends' own."""
    options = plan(mesh={"pp": 3}, stage_layers="ends", tokens_per_rank=6 * 32, micro_batch=1, precision="O0")
    setting = Setting.of(flat(), DEEP, options)
    found = account(setting, [])
    layer = DEEP.of_layer(DEEP.stack[0]).total
    words, last = DEEP.of_input.total, DEEP.of_output.total + DEEP.vocabulary * DEEP.hidden
    assert [each.parameters for each in found.by_stage] == [
        4 * (3 * layer + words),
        4 * 4 * layer,
        4 * (3 * layer + last),
    ]
    queries = {line.what: line.nbytes for line in found.lines if line.name == "attention.queries"}["queries"]
    each = 32 * DEEP.hidden * 4
    assert queries.tolist() == [3 * 3 * each, 2 * 4 * each, 1 * 3 * each]


def test_two_ways_to_say_the_same():
    lists = {"mesh": {"pp": 3, "dp": 2}, "tokens_per_rank": 6 * 32, "micro_batch": 1}
    assert lowered(DEEP, **lists, stage_layers="ends") == lowered(DEEP, **lists, stage_layers="3,4,3")
    two = {**lists, "mesh": {"pp": 2}}
    assert lowered(DEEP, **two) == lowered(DEEP, **two, stage_layers="5,5")


def test_the_slowest_stage_sets_the_pace():
    """A stage with twice the layers of the others takes a pipeline that never drains about twice as long."""
    pace = {"mesh": {"pp": 4}, "tokens_per_rank": 32 * 32, "micro_batch": 1, "pipeline": "2bw"}
    wide = Model(name="wide", **{**SHAPE, "layers": 8, "hidden": 512, "ffn_hidden": 2048, "vocabulary": 64})
    machine = sped_up(flat(), 1e6)
    even = simulated(wide, machine, **pace)["step_seconds"]
    assert simulated(wide, machine, **pace, stage_layers="1,4,2,1")["step_seconds"] == pytest.approx(2 * even, rel=0.1)


def test_a_model_s_own_stages_are_for_its_own_mesh():
    own = {"mesh": {"pp": 3, "dp": 2}, "stage_layers": "ends"}
    model = DEEP.model_copy(update={"plan": own})
    assert Plan.of(model, {}).stage_layers == "ends"
    assert Plan.of(model, {"mesh": {"pp": 3, "dp": 4}}).stage_layers == "ends"
    assert Plan.of(model, {"mesh": {"pp": 5}}).stage_layers == "even"
    assert Plan.of(model, {"mesh": {"dp": 5}}).stage_layers == "even"
    assert Plan.of(model, {"mesh": {"pp": 5}, "stage_layers": "2,2,2,2,2"}).stage_layers == "2,2,2,2,2"


@pytest.mark.parametrize("name", [model.name for model in list_models() if "stage_layers" in model.plan])
def test_models_of_the_catalogue_that_have_such_stages(name):
    """They run in the stages that their authors gave them, here with one replica."""
    model = load_model(name)
    mesh = {**model.plan["mesh"], "dp": 1}
    batch = {"mesh": mesh, "global_batch": 16 * mesh.get("ep", 1), "micro_batch": 1}
    run = athanor.simulate("eos-h100", model, ranks_per_node=8, allow_overcommit=True, **batch)
    assert run.plan["stage_layers"] == model.plan["stage_layers"] != "even"
    assert run.summary()["breakdown"]["pipeline_bubble"] > 0


# --- the planner -------------------------------------------------------------------------------------------------------------


def question(tries=(), **fixed):
    model = load_model("megatron-1.7b").model_copy(update={"layers": 22})
    return Question.of(athanor.load_machine("selene"), model, {"global_batch": 48, **fixed}, tries, 24)


def test_the_search_looks_at_unequal_stages():
    """22 layers over 24 ranks: by itself the search makes nearly even stages, unless a choice of stages is given."""
    asked = {
        "open": question(),
        "even": question(stage_layers="even"),
        "ends": question(stage_layers="ends"),
        "both": question(("stage-layers=even,ends",)),
    }
    stages = {name: {mesh.get("pp", 1) for mesh in Space(each).meshes} for name, each in asked.items()}
    ends = {1, 2, 3, 4, 6, 8, 12, 24}
    assert stages == {"open": ends - {24}, "even": {1, 2}, "ends": ends, "both": ends}
    space = Space(question())
    for mesh in space.meshes:
        for options in space.plans(mesh):
            layers = [int(each) for each in options.get("stage_layers", "22").split(",")]
            assert sum(layers) == 22
            assert max(layers) - min(layers) <= 1
            assert ("stage_layers" in options) == (22 % mesh.get("pp", 1) != 0)
    space = Space(question(stage_layers="ends"))
    for mesh in space.meshes:
        plans = list(space.plans(mesh))
        assert len(plans) == space.count(mesh)
        assert {each.get("stage_layers") for each in plans} == {"ends" if "pp" in mesh else "even"}
    assert {each["chunks"] for each in space.plans({"pp": 3, "dp": 8})} == {1, 2, 4, 8}


def test_the_search_refuses_a_list_of_layers():
    with pytest.raises(
        InputError, match="--stage-layers 11,11: a search has meshes of other stages; write even or ends"
    ):
        question(stage_layers="11,11")
    with pytest.raises(InputError, match=r"--try stage-layers=odd: no such value odd \(even, ends\)"):
        question(("stage-layers=odd",))


def test_commands_of_a_search_say_which_stages():
    from athanor.sim.planning.ranking import Ranked

    asked = question(stage_layers="ends")
    options = next(each for each in Space(asked).plans({"pp": 3, "dp": 8}))
    text = command(asked, Ranked({"pp": 3, "dp": 8}, options, 1.0, {"total": 1.0}))
    assert "--stage-layers ends" in text
