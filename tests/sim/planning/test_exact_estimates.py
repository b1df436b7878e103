"""Where exchanges share no links, the estimate is the engine's to the last digits; and no plan changes what another takes."""

import random
from dataclasses import replace

import athanor
import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.planning import estimate, pass_times, pipeline_times, step_times
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.memory_estimate import Rooms
from athanor.sim.planning.question import Question
from athanor.sim.planning.space import Space
from athanor.sim.planning.spans import Span
from athanor.sim.planning.step_times import HeldLayers
from athanor.sim.planning.timeline import REPEATED, SpanTimeline, TimelineEntry
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.memory import PARTS, memory, sample_loads
from athanor.workloads.model.model import Layer, Model, load_model
from athanor.workloads.plan.setting import WHATEVER_THE_BATCH, Setting


def sized(name, **changed):
    """A model of the catalogue with other values, and no plan of its own."""
    return Model(**{**load_model(name).model_dump(), "plan": {}, **changed})


DENSE = sized("megatron-1.7b", layers=6)
EXPERTS = sized("moda-tiny", layers=6)
MIXED = sized("moda-tiny", layers=7, moe_every=2, dense_first=1)
TWO_STACKS = sized("t5-large", layers=5, encoder_layers=3)
EXPERTS_IN_BOTH = sized("switch-xxl", layers=3, encoder_layers=5)
SMALL = sized("gpt-tiny", layers=6)
PATCHWORK = sized(
    "gpt-tiny",
    layers=6,
    mixers=["window", "state", "attention"],
    window=32,
    further_tokens=1,
    query_key_norm="head",
    recurrent={"state": {"kind": "mamba-2", "state_size": 16, "head_size": 16, "chunk": 32}},
    experts=4,
    top_k=2,
    moe_every=2,
    dense_beside=64,
    tied=False,
)
ADAPTED = sized("gpt-tiny", layers=6, gated=True, lora={"rank": 4, "targets": ["qkv", "up", "down"]}, tied=False)

BATCH = {"global_batch": 16, "micro_batch": 1}
QUIET = {"balancer": "even", "overlap": "none"}

ONE_STAGE = [
    ("selene", DENSE, {"mesh": {"dp": 16}}),
    ("cluster-64", DENSE, {"mesh": {"dp": 4, "tp": 4}}),
    ("cloud-brain-2", DENSE, {"mesh": {"dp": 4, "tp": 4}, "recompute": "full"}),
    ("cluster-64", DENSE, {"mesh": {"dp": 4, "tp": 4}, "recompute": "full", "recompute_layers": "every:4"}),
    ("cluster-64", MIXED, {"mesh": {"ep": 4, "dp": 2}, "recompute": "modules:layernorm+moe_act", **QUIET}),
    ("cluster-64", DENSE, {"mesh": {"dp": 8}, "precision": "O1:1,O2"}),
    *(
        ("selene", DENSE, {"mesh": {"dp": 8}, "zero": zero, "overlap": overlap})
        for zero in "0123"
        for overlap in ("none", "gradients", "all")
    ),
    ("selene", DENSE, {"mesh": {"dp": 8}, "offload": "activations"}),
    ("selene", DENSE, {"mesh": {"dp": 8}, "zero": "1", "offload": "optimizer"}),
    ("selene", DENSE, {"mesh": {"dp": 8}, "zero": "1", "offload": "parameters:0.5"}),
    ("selene", DENSE, {"mesh": {"cp": 8}}),
    ("selene", DENSE, {"mesh": {"cp": 8}, "attention": "fused"}),
    ("selene", DENSE, {"mesh": {"tp": 8}, "tensor_overlap": True, "sequence_parallel": True}),
    ("selene", DENSE, {"mesh": {"tp": 8}, "tensor_async": True, "sequence_parallel": True, "framework": "deepspeed"}),
    ("selene", DENSE, {"mesh": {"tp": 4}, "tensor": "2d", "micro_batch": 2}),
    ("cluster-64", EXPERTS, {"mesh": {"ep": 4, "dp": 2}, **QUIET}),
    ("cluster-64", MIXED, {"mesh": {"ep": 4, "tp": 2}, **QUIET}),
    ("cluster-64", EXPERTS_IN_BOTH, {"mesh": {"ep": 4, "dp": 2}, **QUIET}),
    ("cluster-64", PATCHWORK, {"mesh": {"ep": 4, "tp": 2}, "sequence_parallel": True, "recompute": "full", **QUIET}),
    ("cluster-64", PATCHWORK, {"mesh": {"ep": 4, "dp": 2}, "recompute": "modules:layernorm", "zero": "3", **QUIET}),
    ("cluster-64", ADAPTED, {"mesh": {"tp": 2, "dp": 4}, "sequence_parallel": True, "zero": "1"}),
    ("cluster-64", ADAPTED, {"mesh": {"dp": 8}, "zero": "1", "overlap": "all"}),
    ("selene", TWO_STACKS, {"mesh": {"tp": 8}}),
    ("selene", TWO_STACKS, {"mesh": {"dp": 8}, "overlap": "gradients", "zero": "1"}),
    ("selene", DENSE, {"mesh": {"dp": 2}, "zero": "1", "offload": "optimizer"}),  # alone on a node of eight
    ("cluster-64", DENSE, {"mesh": {"dp": 8}, "zero": "1", "overlap": "all"}),  # the first pass waits for its weights
    ("cluster-64", SMALL, {"mesh": {"dp": 8}, "zero": "2", "overlap": "all", "global_batch": 32}),
]


def both(machine, model, options):
    """(estimated, simulated) seconds of a step, on links that are looked at as the estimate does."""
    setting = Setting.of(load_machine(machine), model, options)
    asked = Question(setting.machine, model, setting.mesh.ranks, setting.ranks_per_node, {}, {}, {}, 1e15)
    true = athanor.simulate(machine, model, depth="links", allow_overcommit=True, **options).summary()["step_seconds"]
    return Estimator(asked).seconds(setting), true


@pytest.mark.parametrize(("machine", "model", "options"), ONE_STAGE)
def test_a_step_in_one_stage_takes_what_the_engine_says_to_the_digit(machine, model, options):
    estimated, true = both(machine, model, {**BATCH, **options})
    assert estimated == pytest.approx(true, rel=1e-12)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (DENSE, {"mesh": {"pp": 3, "dp": 2}, "pipeline": "gpipe"}),
        (DENSE, {"mesh": {"pp": 3, "dp": 2}, "pipeline": "1f1b", "zero": "1", "overlap": "gradients"}),
        (DENSE, {"mesh": {"pp": 3, "tp": 2}, "pipeline": "interleaved", "chunks": 2, "global_batch": 6}),
        (DENSE, {"mesh": {"pp": 3, "dp": 2}, "pipeline": "zb-h1", "recompute": "full", "recompute_layers": "first:1"}),
        (DENSE, {"mesh": {"pp": 2, "tp": 2}, "pipeline": "zb-h2", "precision": "O1:1,O2"}),
        (DENSE, {"mesh": {"pp": 2, "tp": 4}, "pipeline": "1f1b", "scatter_gather": True}),
        (EXPERTS, {"mesh": {"pp": 2, "ep": 4}, "pipeline": "1f1b", **QUIET}),
    ],
)
def test_a_step_in_stages_takes_what_the_engine_says_but_for_a_message(model, options):
    """How ends of messages fall between passes is all that a closed form leaves out."""
    estimated, true = both("cluster-64", model, {**BATCH, **options})
    assert estimated == pytest.approx(true, rel=2e-3)


@pytest.mark.parametrize("pipeline", ["1f1b", "zb-h1"])
def test_stages_of_unlike_layers_are_near(pipeline):
    """Waits of stages that differ are a closed form's: some percent."""
    options = {"mesh": {"pp": 3, "ep": 2}, "stage_layers": "2,3,2", "pipeline": pipeline, **QUIET, **BATCH}
    for model, ways in ((MIXED, options), (PATCHWORK, {**options, "stage_layers": "2,3,1"})):
        estimated, true = both("cluster-64", model, ways)
        assert estimated == pytest.approx(true, rel=0.03)


WAYS = {
    "zero": ["0", "1", "2", "3"],
    "overlap": ["none", "gradients", "all"],
    "recompute": ["none", "full"],
    "recompute_layers": ["all", "every:2", "first:1"],
    "attention": ["unfused", "fused"],
    "sequence_parallel": [False, True],
    "offload": ["none", "optimizer", "activations"],
    "micro_batch": [1, 2, 4, 8],
    "pipeline": ["1f1b", "zb-h1", "interleaved"],
    "chunks": [1, 2, 3],
    "placement": ["megatron", "block:tp,dp", "block:dp,tp"],
}
MESHES = ({"dp": 8}, {"dp": 4, "tp": 2}, {"dp": 2, "tp": 4}, {"pp": 2, "dp": 4}, {"pp": 2, "tp": 2, "dp": 2}, {"pp": 6})


def some_plans(asked, count, seed):
    """Settings that are plans, of all kinds, many of them alike in much."""
    draw, estimator, found = random.Random(seed), Estimator(asked), []
    while len(found) < count:
        mesh = draw.choice(MESHES)
        options = {name: draw.choice(values) for name, values in WAYS.items()}
        options["chunks"] = options["chunks"] if options["pipeline"] == "interleaved" and "pp" in mesh else 1
        if "tp" not in mesh or "pp" in mesh:
            options["placement"] = "megatron"
        try:
            found.append(estimator.setting(mesh, options))
        except athanor.InputError:
            continue
    return found


@pytest.mark.parametrize("kept", [0, 10_000])
def test_what_is_known_of_one_plan_serves_others_only_where_it_is_the_same(kept, monkeypatch):
    """However many answers are kept, an estimator that has seen other plans says what a fresh one does."""
    monkeypatch.setattr(step_times, "KEPT", kept)
    monkeypatch.setattr(pipeline_times, "KEPT", kept)
    monkeypatch.setattr(estimate, "KEPT_LAYOUTS", kept)
    asked = Question(load_machine("cluster-64"), SMALL, 8, 1, {"global_batch": 32}, {}, {}, 1e9)
    used = Estimator(asked)
    for setting in some_plans(asked, 40, kept):
        fresh = Estimator(asked)
        need = used.memory(setting)
        exact = memory(setting, sample_loads(setting))
        assert used.seconds(setting) == fresh.seconds(setting), setting.plan
        assert (need.total, need.host) == pytest.approx((exact.total, exact.host), rel=1e-12), setting.plan
        assert used.memory(setting) == need == fresh.memory(setting)
        assert used.wires(setting) is used.wires(setting)
    assert len(used.steps._parts) <= kept + 1
    assert len(used._wires) <= kept + 1


def test_plans_that_differ_in_their_micro_batches_are_set_and_refused_as_any_other():
    """Whatever was asked before: the same setting, with the same that follows from its choices, or the same reason."""
    asked = Question(load_machine("cluster-64"), SMALL, 8, 1, {"global_batch": 32}, {}, {}, 1e9)
    draw, used, refused = random.Random(1), Estimator(asked), set()
    for _ in range(150):
        mesh, options = draw.choice(MESHES), {name: draw.choice(values) for name, values in WAYS.items()}
        for size in draw.sample([1, 2, 3, 4, 8, 16, 32, None], 3):
            found = []
            for estimator in (used, Estimator(asked)):
                try:
                    found.append(estimator.setting(mesh, {**options, "micro_batch": size}))
                except athanor.InputError as wrong:
                    found.append(str(wrong))
            assert found[0] == found[1]
            if isinstance(found[0], str):
                refused.add(found[0])
                continue
            alone = replace(found[0])
            for name in (*WHATEVER_THE_BATCH, "rank_work", "composed"):
                assert name == "holdings" or getattr(found[0], name) == getattr(alone, name)
            assert found[0].holdings is found[0].resized(found[0].plan, found[0].batch).holdings
    assert len(refused) > 10


@pytest.mark.parametrize("first", [0, 1])
def test_gradients_are_added_up_where_a_step_has_several_micro_batches(first):
    """Products then read what there is of earlier ones: micro-batches of one size differ, whichever plan came first."""
    short = sized("megatron-1.7b", layers=6, seq_len=32)  # so few tokens that memory bounds products
    asked = Question(load_machine("selene"), short, 8, 8, {"global_batch": 8}, {}, {}, 1e15)
    plans = [({"dp": 8}, {"micro_batch": 1}), ({"pp": 2, "dp": 4}, {"micro_batch": 1, "pipeline": "1f1b"})]
    used = Estimator(asked)
    used.estimate(*plans[first])
    assert used.estimate(*plans[1 - first]) == Estimator(asked).estimate(*plans[1 - first])


def test_no_plan_takes_less_than_its_passes():
    """A step takes at least what its busiest stage's passes do, whatever is around them."""
    asked = Question(load_machine("cluster-64"), SMALL, 8, 1, {"global_batch": 32}, {}, {}, 1e9)
    estimator, near = Estimator(asked), 0
    for setting in some_plans(asked, 60, 3):
        least, seconds = estimator.steps.least(setting, estimator.wires(setting)), estimator.seconds(setting)
        assert 0.0 < least <= seconds
        assert estimator.seconds(setting, lambda bound, most=seconds: bound <= most) == seconds
        assert estimator.seconds(setting, lambda bound, most=least: bound < most) is None
        near += least > 0.5 * seconds
    assert near > 10


def test_blocks_that_are_bare_have_nothing_but_spans():
    """Of whichever layers: they serve every mesh. Without overlap nothing of a replicated model is around a block."""
    asked, seen = Question(load_machine("cluster-64"), SMALL, 8, 1, {"global_batch": 32}, {}, {}, 1e9), set()
    estimator = Estimator(asked)
    for setting in some_plans(asked, 40, 5):
        blocks = estimator.steps.around(setting, estimator.wires(setting)).made
        split = setting.mesh.size("pp") > 1 and estimator.steps.pipeline(setting).splits_backward
        for which in ("F", "B", "W") if split else ("F", "B"):
            for ends in ((True, True), (False, False)):
                for last, first in ((False, False), (True, False), (False, True)):
                    block = blocks.make(range(2), which, split, ends, {}, last, first)
                    bare, spans = (
                        blocks.bare(which, split, ends, last, first),
                        all(isinstance(each.work, Span) for each in block),
                    )
                    assert spans or not bare
                    assert bare or (setting.plan.zero, setting.plan.overlap, setting.plan.offload) != (
                        "0",
                        "none",
                        "none",
                    )
                    seen.add((bare, spans))
    assert seen >= {(False, False), (True, True)}


@pytest.mark.parametrize(
    "plans",
    [
        [{"micro_batch": 16}, {"micro_batch": 8}, {"micro_batch": 4}],
        [{"optimizer": "adam"}, {"optimizer": "sgd"}],
        [{"precision": "O1"}, {"precision": "O2"}],
    ],
    ids=str,
)
def test_memory_of_plans_that_differ_in_one_thing(plans):
    """Also whichever comes first."""
    asked = Question(load_machine("cluster-64"), SMALL, 2, 1, {"global_batch": 32}, {}, {}, 1e9)
    for order in (plans, plans[::-1]):
        estimator = Estimator(asked)
        for options in order:
            setting = estimator.setting({"dp": 2}, options)
            assert estimator.memory(setting).total == memory(setting, sample_loads(setting)).total


@pytest.mark.parametrize("room", [1e4, 1e15])
def test_the_fullest_stage_is_that_which_lacks_most(room):
    """Of device and host, whichever is nearer to its end: with a small host another stage may be the fullest."""
    machine = load_machine("selene")
    asked = Question(machine, SMALL, 2, 8, {"global_batch": 8}, {}, {}, room)
    estimator = Estimator(asked)
    setting = estimator.setting(
        {"pp": 2}, {"offload": "optimizer", "zero": "1", "stage_layers": "5,1", "micro_batch": 1}
    )
    need = estimator.memory(setting)
    assert need.fits == (room > 1e9)
    there = replace(
        setting, machine=machine.changed({"core_group.memory": room})
    )  # what is idle depends on what there is
    account = memory(there, sample_loads(there))
    assert need.stage == account.stage
    assert (need.capacity, need.host_capacity) == (room, account.host_capacity)
    assert need.host > 0
    assert {part: size for part, size in need.table().items() if size} == pytest.approx(
        {part: size for part, size in account.table().items() if size}
    )


MOE, PLAIN = Layer(moe=True), Layer()


def test_parts_that_take_as_long_are_known_by_one_key():
    """Equal layers wherever they stand; of layers that differ those with the same at the same places."""
    middle = (False, False)
    assert HeldLayers(range(2, 4), (PLAIN, PLAIN), middle).key == HeldLayers(range(4, 6), (PLAIN, PLAIN), middle).key
    every = [
        HeldLayers(range(2, 4), (PLAIN, PLAIN), middle),
        HeldLayers(range(2, 5), (PLAIN,) * 3, middle),
        HeldLayers(range(2, 4), (PLAIN, PLAIN), (True, False)),
        HeldLayers(range(2, 4), (PLAIN, PLAIN), (False, True)),
        HeldLayers(range(2, 4), (MOE, MOE), middle),
        HeldLayers(range(2, 4), (PLAIN, MOE), middle),
        HeldLayers(range(4, 6), (PLAIN, MOE), middle),
        HeldLayers(range(2, 4), (MOE, PLAIN), middle),
        HeldLayers(range(2, 4), (PLAIN, MOE), (False, True)),
    ]
    assert len({held.key for held in every}) == len(every)


def test_ranks_of_experts_count_as_the_fullest_of_them():
    """Loads that differ from rank to rank are those of the fullest, and estimates no less than what an even load takes."""
    asked = Question(load_machine("cluster-64"), EXPERTS, 8, 2, {"global_batch": 16, "overlap": "none"}, {}, {}, 1e15)
    estimator, seconds = Estimator(asked), {}
    for balancer in ("even", "none"):
        setting = estimator.setting({"ep": 4, "dp": 2}, {"balancer": balancer, "micro_batch": 1})
        true = sample_loads(setting)
        known = estimator.passes.loads(setting)
        assert len(known) == EXPERTS.layers
        for load in known:
            assert np.size(load.sent) == np.size(load.received) == 1
        assert known[0].received == pytest.approx(float(np.max(true[0].received)))
        assert known[0].sent == pytest.approx(float(np.max(true[0].sent)))
        seconds[balancer] = estimator.seconds(setting)
    assert seconds["none"] > seconds["even"]


def test_spaces_of_mixed_models_hold_what_their_memory_takes():
    """Layers of two kinds in stages: every plan's memory is the account's."""
    asked = Question.of(
        load_machine("cluster-64"),
        MIXED,
        {"global_batch": 8, "micro_batch": 1, "balancer": "even"},
        ("pp=1,2,3", "ep=1,2"),
        6,
    )
    estimator, seen = Estimator(asked), 0
    for mesh in Space(asked).meshes:
        plans = list(Space(asked).plans(mesh))
        for options in random.Random(1).sample(plans, min(8, len(plans))):
            try:
                setting = estimator.setting(mesh, options)
            except athanor.InputError:
                continue
            exact = memory(setting, sample_loads(setting))
            assert estimator.memory(setting).total == pytest.approx(exact.total, rel=1e-12)
            seen += 1
    assert seen > 5


def test_what_runs_beside_other_things_is_no_sum():
    """Operations on a stream of their own; all others come one after another."""
    setting = Setting.of("selene", DENSE, {"mesh": {"tp": 8}, "tensor_overlap": True, **BATCH})
    asked = Question(setting.machine, DENSE, 8, 8, {}, {}, {}, 1e15)
    estimator = Estimator(asked)
    estimator.seconds(setting)
    (works,) = estimator.passes._lowered.values()
    assert any(work.beside for work in works.values())
    for work in works.values():
        assert bool(work.beside) == (not pass_times.in_turn(work.beside))


@pytest.mark.parametrize("device", [1e3, 10.0, 1e-3])
def test_the_fullest_stage_is_that_with_most_pressure(device):
    """Whatever stages need of the device and of the host: on a device with much room the host decides, and the other way round."""
    draw, rooms = np.random.default_rng(0), Rooms(capacity=device, host_capacity=2.0)
    for _ in range(50):
        nbytes = draw.random((len(PARTS) + 3, 4))
        need = rooms._worst(nbytes)
        pressures = np.maximum(nbytes[: len(PARTS)].sum(axis=0) / device, nbytes[len(PARTS)] / 2.0)
        assert need.stage == pressures.argmax()
        assert need.pressure == pytest.approx(pressures.max())


# --- layers that are put in between ----------------------------------------------------------------------------------------


def layers_after(begin, layers, back):
    """A timeline of so many layers, each a span and a message beside it that waits for the entry ``back`` places before."""
    entries = [TimelineEntry(0, 1.0 + at, None, ()) for at in range(begin)]
    for _ in range(layers):
        number = len(entries)
        entries.append(TimelineEntry(1, 5.0, None, (number - back,)))
        entries.append(TimelineEntry(0, 0.0, Span("layer", layer=PLAIN), (number,)))
    return SpanTimeline._made(entries, 2, (len(entries) - 1,), serial=False)


@pytest.mark.parametrize("back", [1, 2, 3])
@pytest.mark.parametrize("times", [1, 3])
def test_layers_in_between_are_as_if_all_had_been_lowered(back, times):
    """Where a layer waits for nothing before the layer before; else there is no answer, and all are lowered."""
    begin, spans = 6, {Span("layer", layer=PLAIN): 3.0}
    found, whole = layers_after(begin, REPEATED, back).repeated(times), layers_after(begin, REPEATED + times, back)
    if back <= 2:
        assert found == whole
        assert found.run(spans) == whole.run(spans)
    else:
        assert found is None


def test_what_hands_nothing_on_hands_it_on_at_once():
    """Operations beside the passes take their time, and nothing waits for them."""
    beside = SpanTimeline._made([TimelineEntry(0, 2.0, None, ())], 1, (), serial=False)
    assert beside.run({}) == (2.0, 0.0)
    assert SpanTimeline.of([], lambda each: 1.0).run({}) == (0.0, 0.0)


def test_level_loads_are_those_of_one_group_for_all():
    """What ranks send and carry is what a step has, from the draw of a single group: others would change nothing."""
    setting = Setting.of("cluster-64", EXPERTS, {"mesh": {"ep": 4, "dp": 4}, "balancer": "swipe", **BATCH})
    alone, every = LoadModel(setting, carried_only=True), LoadModel(setting)
    assert (alone.groups, every.groups) == (1, 4)
    one, all_of_them = (each.sample(0, 0, 0) for each in (alone, every))
    assert (one.sent, one.received) == (all_of_them.sent, all_of_them.received)
    assert (one.carried == all_of_them.carried).all() and one.moved_fraction == all_of_them.moved_fraction
    uneven = Setting.of("cluster-64", EXPERTS, {"mesh": {"ep": 4, "dp": 4}, "balancer": "none", **BATCH})
    assert LoadModel(uneven, carried_only=True).groups == 4
