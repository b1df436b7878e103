"""Names of operations are labels: whatever they are, every result is the same."""

import json
from dataclasses import replace

import athanor
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.question import Question
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.unroll import unrolled
from athanor.workloads.plan.setting import Setting
from athanor.workloads.results.run import VOLATILE
from athanor.workloads.schedule.operation import Operation
from support.labels import MISLEADING, mislead
from support.mpi_jobs import job, needs_mpi
from support.paths import JOBS
from support.strategies import BOTH, DENSE, EXPERTS, GATED, LATENT, SHARED, flat, hosted, plan

OVER_TP = {"mesh": {"tp": 4}, "sequence_parallel": True}
PLANS = {
    "dp, early": (DENSE, {"mesh": {"dp": 4}, "overlap": "gradients", "zero": "1"}),
    "dp, gathered late": (DENSE, {"mesh": {"dp": 4}, "overlap": "all", "zero": "1"}),
    "tp": (GATED, {"mesh": {"tp": 2, "dp": 2}, "recompute": "full"}),
    "tp by tokens, beside products": (DENSE, {**OVER_TP, "tensor_overlap": True, "recompute": "selective"}),
    "tp, latent attention": (LATENT, {"mesh": {"tp": 4}}),
    "tp, encoder and decoder": (BOTH, {"mesh": {"tp": 2, "dp": 2}}),
    "grid": (DENSE, {"mesh": {"tp": 4}, "tensor": "2d"}),
    "ring": (DENSE, {"mesh": {"cp": 4}}),
    "fused ring": (DENSE, {"mesh": {"cp": 4}, "attention": "fused"}),
    "zero 3": (DENSE, {"mesh": {"dp": 4}, "zero": "3", "overlap": "gradients", "recompute": "full"}),
    "zero ++": (DENSE, {"mesh": {"dp": 2, "fsdp": 2}, "zero": "++"}),
    "products again": (GATED, {"mesh": {"dp": 4}, "recompute": "products", "attention": "fused"}),
    "offload": (DENSE, {"mesh": {"dp": 4}, "zero": "2", "offload": "optimizer:0.5,activations,parameters:0.3"}),
    "offload, late": (DENSE, {"mesh": {"dp": 4}, "offload": "optimizer", "offload_delay": True}),
    "pipeline": (DENSE, {"mesh": {"pp": 2, "tp": 2}, "micro_batch": 1, "scatter_gather": True, "overlap": "gradients"}),
    "pipeline, split": (DENSE, {"mesh": {"pp": 2, "dp": 2}, "micro_batch": 1, "pipeline": "zb-h1", "zero": "2"}),
    "pipeline, split, by tokens": (
        DENSE,
        {"mesh": {"pp": 2, "tp": 2}, "micro_batch": 1, "pipeline": "zb-h2", "sequence_parallel": True},
    ),
    "pipeline, split, fused ring": (
        DENSE,
        {"mesh": {"pp": 2, "cp": 2}, "micro_batch": 1, "pipeline": "zb-h1", "attention": "fused"},
    ),
    "pipeline, endless": (DENSE, {"mesh": {"pp": 2, "dp": 2}, "micro_batch": 1, "pipeline": "2bw"}),
    "experts": (EXPERTS, {"mesh": {"ep": 4}, "balancer": "swipe", "router": "zipf:1.0", "top_k": 2}),
    "experts, dropped": (EXPERTS, {"mesh": {"ep": 2, "dp": 2}, "balancer": "capacity:1.1", "router": "zipf:1.0"}),
    "experts, unbalanced": (EXPERTS, {"mesh": {"ep": 4}, "balancer": "none", "router": "zipf:1.0", "micro_batch": 1}),
    "experts, whole beside tp": (SHARED, {"mesh": {"ep": 2, "tp": 2}, "expert_tensor": "whole"}),
    "experts, in stages": (EXPERTS, {"mesh": {"pp": 2, "ep": 2}, "micro_batch": 1, "balancer": "none"}),
}
SLOW = hosted(flat())
BY_MESSAGES = ("tp", "experts, unbalanced", "zero 3", "ring")


def results(model, options, depth):
    """All that a simulation gives, without names."""
    run = athanor.simulate(SLOW, model, **plan(depth=depth, jitter=0.02, **options))
    totals = {key: value for key, value in run.summary().items() if key not in VOLATILE}
    return totals, [row._replace(operation="", label="") for row in run.trace]


@pytest.mark.parametrize("name", PLANS)
def test_simulations_do_not_depend_on_labels(name, monkeypatch):
    model, options = PLANS[name]
    depths = ["fluid", "message"] if name in BY_MESSAGES else ["fluid"]
    expected = [results(model, options, depth) for depth in depths]
    mislead(monkeypatch.setattr)
    assert [results(model, options, depth) for depth in depths] == expected


@pytest.mark.parametrize("name", [name for name, (_, options) in PLANS.items() if "pp" in options["mesh"]])
def test_what_a_rank_does_of_a_pipeline_does_not_depend_on_labels(name, monkeypatch):
    model, options = PLANS[name]
    setting = Setting.of(SLOW, model, plan(**options))
    ranks = [(0, 0), (1, 1)]

    def done():
        schedule = lower_step(setting)[0]
        every = [unrolled(schedule, rank) for rank in ranks]
        return [[(each.task, each.phase, each.stream, str(each.work), each.after) for each in one] for one in every]

    expected, names = done(), {each.name for rank in ranks for each in unrolled(lower_step(setting)[0], rank)}
    assert len(names) > 100
    mislead(monkeypatch.setattr)
    assert done() == expected


def test_the_planner_does_not_depend_on_labels(monkeypatch):
    asked = [
        Question.of(load_machine("selene"), load, {"global_batch": 32, "recompute": again}, (), 16)
        for load, again in ((athanor.load_model("megatron-1.7b"), "full"), (athanor.load_model("mixtral-8x7b"), "none"))
    ]
    plans = [
        {"mesh": {"dp": 8, "tp": 2}, "zero": "1", "overlap": "gradients", "micro_batch": 1},
        {"mesh": {"dp": 16}, "zero": "3", "overlap": "gradients", "micro_batch": 1},
        {"mesh": {"dp": 16}, "zero": "2", "offload": "activations,optimizer", "micro_batch": 1},
        {"mesh": {"pp": 4, "dp": 4}, "pipeline": "zb-h1", "zero": "0", "micro_batch": 1},
        {"mesh": {"dp": 16}, "zero": "1", "overlap": "all", "micro_batch": 1},
    ]

    def estimated():
        found = []
        for question in asked:
            estimator = Estimator(question)
            for options in plans:
                rest = {key: value for key, value in options.items() if key != "mesh"}
                mesh = options["mesh"]
                if question.model.experts:
                    mesh = {**mesh, "ep": 2, "dp": mesh["dp"] // 2}
                each = estimator.estimate(mesh, rest)
                found.append((each.seconds, each.memory))
        return found

    expected = estimated()
    mislead(monkeypatch.setattr)
    assert estimated() == expected


def test_inference_does_not_depend_on_labels(monkeypatch):
    def inferred():
        return athanor.infer("cloud-brain-2", "pangu-13b", prompt=100, new_tokens=4).summary()

    expected = inferred()
    mislead(monkeypatch.setattr)
    found = inferred()
    assert {key: found[key] for key in expected if key not in VOLATILE} == {
        key: value for key, value in expected.items() if key not in VOLATILE
    }


def test_labels_are_misled(monkeypatch):
    before = lower_step(Setting.of(SLOW, DENSE, plan(mesh={"dp": 4})))[0]
    mislead(monkeypatch.setattr)
    after = lower_step(Setting.of(SLOW, DENSE, plan(mesh={"dp": 4})))[0]
    begin = MISLEADING.format("")
    assert all(begin in each.name for each in after.operations)
    assert not any(begin in each.name for each in before.operations)
    copy: Operation = replace(after.operations[0], stream="x")
    assert copy.name != after.operations[0].name


EXECUTED = {
    "dense": [
        {"mesh": {"tp": 2, "dp": 2}, "sequence_parallel": True, "zero": "2", "micro_batch": 2},
        {"mesh": {"tp": 4}, "tensor": "2d"},
        {"mesh": {"cp": 2, "dp": 2}, "attention": "fused", "zero": "3"},
        {"mesh": {"pp": 2, "dp": 2}, "pipeline": "zb-h1", "micro_batch": 1},
    ],
    "experts": [
        {"model": "moda-tiny", "mesh": {"ep": 2, "dp": 2}, "balancer": "swipe", "router": "zipf:1.0"},
        {"model": "moda-tiny", "mesh": {"ep": 4}, "balancer": "capacity:1.0", "overlap": "gradients"},
    ],
}


@needs_mpi
@pytest.mark.parametrize("kind", EXECUTED)
def test_the_runtime_does_not_depend_on_labels(kind):
    """Dense models in all strategies and tokens routed to experts; the job itself checks what came out."""
    plans = [json.dumps({"tokens_per_rank": 128, "steps": 1, **each}) for each in EXECUTED[kind]]
    done = job(4, "python", JOBS / "dense.py", "mislead", *plans, timeout=240)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(plans)
    for each in found:
        checked = each["summary"]["measured"]["checked"]
        assert checked["gradients"] > 0 and checked["weights"] > 0
        assert all("again.l99" in name for names in each["names"].values() for name in names)
