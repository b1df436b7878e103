"""A question: what is asked, the plan that all candidates change, and the name under which answers are kept."""

import re

import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.sim.planning.question import DIMENSIONS, Question
from athanor.workloads.plan.plan import Plan
from support.small_searches import FEW, asked, sized

CLUSTER = load_machine("cluster-64")


def of(options=None, tries=(), gpus=4, **more):
    return Question.of(CLUSTER, sized(), {"global_batch": 8, **(options or {})}, tries, gpus, **more)


def test_ranks_are_asked_for_by_number_or_by_nodes():
    assert of(gpus=6).ranks == 6
    assert of(gpus=None, nodes=3).ranks == 3 * of(gpus=None, nodes=3).ranks_per_node
    assert of({"ranks_per_node": 2}, gpus=None, nodes=3).ranks == 6
    most = CLUSTER.nodes * 2
    assert of({"ranks_per_node": 2}, gpus=most).ranks == most
    assert of(gpus=1).ranks == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"gpus": None, "nodes": 0}, "--nodes 0: must be at least 1"),
        ({"gpus": 4, "nodes": 4}, "--gpus and --nodes: give one of the two"),
        ({"options": {"ranks_per_node": 2}, "gpus": CLUSTER.nodes * 2 + 1}, "nodes of 2 ranks"),
        ({"options": {"ranks_per_node": 2}, "gpus": None, "nodes": CLUSTER.nodes + 1}, "nodes of 2 ranks"),
        ({"options": {"global_batch": None}}, "--global-batch: say how many"),
        ({"options": {"stage_layers": "2,2"}}, "--stage-layers 2,2: a search has meshes"),
        ({"memory": 0.0}, "--max-memory 0: must be above 0"),
        ({"tries": ("tp=0",)}, "--try tp=0: 0 is no number from 1 on"),
        ({"tries": ("micro-batch=0",)}, "--try micro-batch=0: 0 is no number from 1 on"),
        ({"tries": ("tp=",)}, "write tp=VALUE"),
        ({"tries": ("tp=,",)}, "write tp=VALUE"),
        ({"tries": ("recompute=none,ful",)}, "no such value ful"),
        ({"tries": ("offload=optimizer:x+disk",)}, "no such value disk"),
        ({"tries": ("pipeline=module:Class",)}, ""),
    ],
)
def test_what_cannot_be_asked(more, message):
    if not message:  # a class of one's own is taken where there is a registry, and refused where it is made
        assert of(**more).tries == {"pipeline": ("module:Class",)}
        return
    with pytest.raises(InputError, match=re.escape(message)):
        of(**more)


def test_a_rank_may_take_what_it_has_and_no_more():
    room = CLUSTER.processor(1).memory
    assert of().memory == room
    assert of(memory=room / 3).memory == room / 3
    assert of(memory=3 * room).memory == room
    shared = of({"ranks_per_node": 2}, gpus=8)
    assert shared.memory == CLUSTER.processor(2).memory


def test_values_to_try_have_the_types_of_their_options():
    found = of(
        tries=("sequence-parallel=on,off", "micro-batch=1,4", "zero=0,3", "tp=1,2", "offload=optimizer+activations;none",
               "placement=block:tp,dp;moda", "recompute=full")
    )  # fmt: skip
    assert found.tries == {
        "sequence_parallel": (True, False),
        "micro_batch": (1, 4),
        "zero": ("0", "3"),
        "offload": ("optimizer,activations", "none"),
        "placement": ("block:tp,dp", "moda"),
        "recompute": ("full",),
    }
    assert found.axes == {"tp": (1, 2)}


def test_what_is_not_given_is_not_fixed():
    found = of({"zero": 1, "recompute": None, "overlap": "none"})
    assert found.fixed == {"global_batch": 8, "zero": "1", "overlap": "none"}
    with pytest.raises(InputError, match="--try overlap: --overlap fixes it already"):
        of({"overlap": "none"}, tries=("overlap=all",))
    assert of({"overlap": None}, tries=("overlap=all",)).tries == {"overlap": ("all",)}


def test_a_model_s_own_plan_holds_where_nothing_else_does():
    """Not what is searched, nor sizes, but choices that are tried only where they are asked for."""
    own = {
        "mesh": {"dp": 2},
        "seq_len": 16,
        "precision": "O3",
        "recompute": "full",
        "attention": "fused",
        "micro_batch": 4,
        "global_batch": 64,
        "overlap": "all",
        "zero": "3",
    }
    question = asked(model=sized(plan=own), tries=(), overlap="none")
    plan = question.plan
    assert plan.mesh == {"dp": 4}
    assert (plan.ranks_per_node, plan.global_batch, plan.micro_batch) == (1, 8, None)
    assert (plan.precision, plan.overlap) == ("O3", "none")
    assert question.seq_len == 16
    assert asked().seq_len == sized().seq_len
    usual = Plan.options()
    for name in DIMENSIONS:
        if name in own and name not in question.fixed:
            expected = own[name] if usual[name].tried == () else usual[name].default
            assert getattr(plan, name) == expected, name
    assert {name for name in DIMENSIONS if name in own and usual[name].tried == ()}, "there are such"


CHANGES = {
    "machine": CLUSTER.model_copy(update={"nodes": 63}),
    "model": sized(layers=6),
    "ranks": 8,
    "ranks_per_node": 2,
    "fixed": {"global_batch": 8, **FEW, "overlap": "all"},
    "tries": {"zero": ("0",)},
    "axes": {"tp": (1,)},
    "memory": 1e9,
}


def test_every_part_of_a_question_is_in_its_name():
    question = asked(**FEW)
    names = {question.digest}
    for key, value in CHANGES.items():
        other = question.changed(**{key: value})
        assert getattr(other, key) == value
        assert all(getattr(other, name) == getattr(question, name) for name in CHANGES if name != key)
        names.add(other.digest)
    assert len(names) == 1 + len(CHANGES)
    usual = question.plan.to_plain()["tensor_overlap"]
    said = question.changed(fixed={**question.fixed, "tensor_overlap": usual})
    assert said.digest != question.digest, "what is fixed is not tried, though it be the default"
    assert asked(**FEW).digest == question.digest == question.changed(said=("run.toml",)).digest
    assert re.fullmatch("[0-9a-f]{12}", question.digest)
