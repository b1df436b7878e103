"""The estimate against the engine: random plans on several machines, and the cases in which formulas of its own went wrong."""

import random

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.question import Question
from athanor.workloads.model.model import Model, load_model
from athanor.workloads.pipelines import Pipeline, Slot
from athanor.workloads.pipelines.stage_layers import nearly_even
from athanor.workloads.plan.setting import Setting
from athanor.workloads.sharding import SHARDINGS

ALONE, SHARING = 0.03, 0.15
"""How far the estimate may be off: where one exchange is under way at a time, and where several share links."""


def sized(name, layers):
    """A model of the catalogue with so many layers, and no plan of its own."""
    return Model(**{**load_model(name).model_dump(), "layers": layers, "plan": {}})


DENSE, EXPERTS = sized("megatron-1.7b", 8), sized("moda-tiny", 6)
MACHINES = ("selene", "cluster-64", "cloud-brain-2", "eos-h100")
MESHES = (
    {"dp": 16},
    {"dp": 4, "tp": 4},
    {"dp": 4, "pp": 4},
    {"dp": 4, "pp": 2, "tp": 2},
    {"fsdp": 2, "dp": 4, "tp": 2},
    {"dp": 2, "cp": 2, "pp": 4},
    {"dp": 2, "ep": 4, "tp": 2},
    {"dp": 4, "ep": 4},
)


def both(machine, model, **options):
    """(estimated, simulated) seconds of a step, on links that are looked at as the estimate does."""
    setting = Setting.of(load_machine(machine), model, options)
    asked = Question(setting.machine, model, setting.mesh.ranks, setting.ranks_per_node, {}, {}, {}, 1e15)
    true = athanor.simulate(machine, model, depth="links", allow_overcommit=True, **options).summary()["step_seconds"]
    return Estimator(asked).seconds(setting), true


def plan(draw):
    """A machine, a model and options, of which many are no plan."""
    mesh = draw.choice(MESHES)
    model = EXPERTS if "ep" in mesh else DENSE
    options = {
        "mesh": mesh,
        "zero": draw.choice(list(SHARDINGS)),
        "overlap": draw.choice(["none", "gradients", "all"]),
        "recompute": draw.choice(["none", "selective", "full"]),
        "attention": draw.choice(["unfused", "fused"]),
        "tensor_overlap": draw.choice([False, True]),
        "sequence_parallel": draw.choice([False, True]),
        "offload": draw.choice(["none", "none", "none", "activations", "optimizer", "parameters:0.5"]),
        "global_batch": 16 * draw.choice([1, 2, 4]),
        "micro_batch": 1,
    }
    if "pp" in mesh:
        options["pipeline"] = draw.choice(["gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "pipedream", "2bw"])
        options["chunks"] = 2 if options["pipeline"] == "interleaved" else 1
        options["scatter_gather"] = draw.choice([False, True])
        if draw.random() < 0.4 and model is DENSE:
            model = sized("megatron-1.7b", 11)
            options["stage_layers"] = nearly_even(11, mesh["pp"], options["chunks"])
    if "ep" in mesh:
        options |= {"balancer": "even", "expert_tensor": draw.choice(["split", "whole"])}
    return draw.choice(MACHINES), model, options


def shares_links(options):
    """Whether exchanges of a plan run beside each other."""
    ways = {axis for axis in options["mesh"] if options["mesh"][axis] > 1}
    beside = (
        options["overlap"] != "none" or options["tensor_overlap"] or ("cp" in ways and options["attention"] == "fused")
    )
    return beside and len(ways - {"pp"}) > 1


@pytest.mark.parametrize("seed", range(6))
def test_plans_take_what_the_engine_says(seed):
    """Most random plans to the digit, all of them within what sharing of links explains."""
    draw, errors = random.Random(seed), []
    while len(errors) < 5:
        machine, model, options = plan(draw)
        try:
            estimated, true = both(machine, model, **options)
        except InputError:
            continue
        errors.append(abs(estimated / true - 1))
        most = SHARING if shares_links(options) else ALONE
        assert estimated == pytest.approx(true, rel=most), (machine, options)


@pytest.mark.parametrize(
    ("machine", "name", "options"),
    [
        ("selene", "gpt3-6.7b", {"mesh": {"dp": 256}, "zero": "3", "overlap": "gradients", "recompute": "full"}),
        ("selene", "gpt3-6.7b", {"mesh": {"dp": 4, "tp": 8}, "tensor_overlap": True, "sequence_parallel": True}),
        ("cluster-64", "moda-tiny", {"mesh": {"dp": 8, "ep": 4, "tp": 4}, "overlap": "gradients"}),
        ("cluster-64", "moda-tiny", {"mesh": {"dp": 8, "ep": 4, "tp": 4}, "overlap": "none"}),
        ("cluster-64", "moda-tiny", {"mesh": {"dp": 8, "ep": 2, "tp": 4}, "expert_tensor": "2", "balancer": "even"}),
        ("sunway-oceanlight", "moda-1.93t", {"mesh": {"ep": 20, "dp": 12}, "zero": "3"}),
        ("selene", "gpt3-6.7b", {"mesh": {"dp": 2, "pp": 4}, "overlap": "all", "zero": "1"}),
    ],
)
def test_what_runs_beside_what(machine, name, options):
    model = load_model(name)
    sizes = {} if model.experts else {"micro_batch": 1, "global_batch": 2 * options["mesh"]["dp"]}
    estimated, true = both(machine, model, **options, **sizes)
    assert estimated == pytest.approx(true, rel=0.01)


def test_degrees_of_experts_are_told_apart():
    """By one estimator, which keeps what plans have in common."""
    machine, model = load_machine("eos-h100"), load_model("mixtral-8x7b")
    plan = {"mesh": {"dp": 2, "tp": 8}, "global_batch": 16, "micro_batch": 1, "balancer": "even"}
    ways = [{**plan, "expert_tensor": degree} for degree in ("whole", "4", "split")]
    setting = Setting.of(machine, model, plan)
    one = Estimator(Question(machine, model, 16, setting.ranks_per_node, {}, {}, {}, 1e15))
    found = [one.seconds(Setting.of(machine, model, way)) for way in ways]
    alone = [both("eos-h100", model, **way) for way in ways]
    assert found == [estimated for estimated, _ in alone]
    assert [true for _, true in alone] == pytest.approx(found, rel=0.01)
    assert len({*found}) == 3


class Sequential(Pipeline):
    """A pipeline of a user, without a closed form."""

    name, about = "sequential", "one micro-batch at a time"

    def orders(self, stages, micro_batches, chunks=1):
        return [[Slot(kind, m, 0) for m in range(micro_batches) for kind in ("F", "B")] for _ in range(stages)]


def test_a_pipeline_without_a_closed_form_is_played():
    options = {"mesh": {"pp": 4, "dp": 2}, "pipeline": f"{__name__}:Sequential", "global_batch": 32, "micro_batch": 1}
    estimated, true = both("selene", DENSE, **options)
    assert estimated == pytest.approx(true, rel=0.03)
    assert true > 2 * both("selene", DENSE, **{**options, "pipeline": "1f1b"})[1]


def test_the_update_s_tail_counts():
    """What comes after the passes is all of the difference between two sizes of optimizer state."""
    options = {"mesh": {"dp": 8}, "global_batch": 8, "micro_batch": 1}
    estimated, true = both("selene", DENSE, **options)
    setting = Setting.of(load_machine("selene"), DENSE, options)
    asked = Question(setting.machine, DENSE, 8, setting.ranks_per_node, {}, {}, {}, 1e15)
    estimator = Estimator(asked)
    (part,) = estimator.steps.parts(setting, estimator.wires(setting))
    passes = part.forward + part.backward
    update = athanor.simulate("selene", DENSE, depth="links", **options).summary()["phases"]["update"]
    assert 0.0 < update == pytest.approx(estimated - passes, rel=1e-6)
    assert true == pytest.approx(passes + update, rel=1e-9)
