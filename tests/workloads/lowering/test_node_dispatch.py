"""Tokens that go once to each node: how many nodes their experts lie on, and what is left of an exchange's bytes."""

import athanor
import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.question import Question
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.layer.node_dispatch import distinct
from athanor.workloads.model.model import Model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Role
from pytest import approx

MODEL = Model(
    name="fine", layers=2, heads=8, hidden=1024, ffn_hidden=512, experts=64, top_k=8, vocabulary=1000, seq_len=1024
)
PLAN = {"mesh": {"ep": 32}, "global_batch": 32, "micro_batch": 1, "balancer": "even", "placement": "megatron"}
ONCE = {**PLAN, "dispatch": "node-limited"}


def sent(machine="eos-h100", **plan):
    operations = lower_step(Setting.of(machine, MODEL, plan))[0].operations
    return {each.task.role: each.work.nbytes for each in operations if each.task.role in (Role.DISPATCH, Role.COMBINE)}


@pytest.mark.parametrize(("experts", "nodes", "top_k"), [(64, 4, 8), (16, 8, 2), (8, 8, 8), (6, 2, 6), (9, 3, 1)])
def test_the_nodes_of_a_token_s_experts_are_those_of_draws_without_replacement(experts, nodes, top_k):
    random, each = np.random.default_rng(0), experts // nodes
    drawn = [len(set(random.permutation(experts)[:top_k] // each)) for _ in range(4000)]
    assert distinct(experts, nodes, top_k) == approx(np.mean(drawn), abs=4 * np.std(drawn) / 4000**0.5 + 1e-12)


def test_what_goes_between_nodes_is_a_token_for_each_node_and_no_more():
    plain, once = sent(**PLAN), sent(**ONCE)
    assert once[Role.DISPATCH] / plain[Role.DISPATCH] == approx(distinct(64, 4, 8) / 8)
    assert once[Role.COMBINE] == once[Role.DISPATCH]


def test_a_limit_of_nodes_leaves_less_to_send():
    found = [sent(**ONCE, route_nodes=limit)[Role.DISPATCH] for limit in (1, 2, 3, 4)]
    assert found == sorted(found) and found[0] < found[-1] == sent(**ONCE, route_nodes=9)[Role.DISPATCH]
    assert found[1] / found[3] == approx(distinct(32, 2, 8) / distinct(64, 4, 8))


def test_within_a_node_nothing_is_saved_and_slow_links_inside_hold_it_up():
    inside = {"mesh": {"ep": 8}, "global_batch": 8, "micro_batch": 1, "balancer": "even"}
    assert sent(**inside) == sent(**inside, dispatch="node-limited")
    slow = load_machine("eos-h100").changed({"node.ring_bandwidth": "40 GB/s"})
    assert sent(slow, **ONCE)[Role.DISPATCH] > sent(**ONCE)[Role.DISPATCH]


def test_a_step_is_shorter_and_the_planner_says_the_same():
    seconds, machine = {}, load_machine("eos-h100").changed({"core_group.launch": "0 s"})
    for plan in (PLAN, ONCE):
        setting = Setting.of(machine, MODEL, plan)
        true = athanor.simulate(machine, MODEL, depth="links", **plan).summary()["step_seconds"]
        asked = Question(setting.machine, MODEL, setting.mesh.ranks, setting.ranks_per_node, {}, {}, {}, 1e15)
        assert Estimator(asked).seconds(setting) == approx(true, rel=1e-6)
        seconds[plan is ONCE] = true
    assert seconds[True] < seconds[False]
