"""Experts that are copied: EPLB's placement, FasterMoE's rule, and what both cost a step."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.lowering import lower_step
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.balancers import BALANCERS, ExpertReplicas, ExpertShadows, Past
from athanor.workloads.routing.balancers.copying import copied, spread
from athanor.workloads.routing.balancers.eplb import near_home, packed, placement, replicated
from athanor.workloads.schedule.operation import Role
from hypothesis import given
from hypothesis import strategies as st

PUBLISHED = {
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86): [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27): [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
}
"""The example of EPLB's README: two layers of 12 experts in 4 groups, 16 replicas on 2 nodes of 4 GPUs each."""


@pytest.mark.parametrize("loads", PUBLISHED)
def test_experts_are_placed_as_eplb_places_them(loads):
    assert placement(np.array(loads, dtype=float), 16, 4, 2, 8).tolist() == PUBLISHED[loads]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 12), st.integers(0, 1000))
def test_packs_and_replicas_are_the_greedy_ones(packs, each, extra, seed):
    """As many items a pack; each replica to what is then the fullest, so that no other choice has a smaller largest share."""
    weights = np.random.default_rng(seed).integers(1, 100, packs * each).astype(float)
    pack, place = packed(weights, packs)
    assert np.bincount(pack, minlength=packs).tolist() == [each] * packs
    assert sorted(zip(pack, place, strict=True)) == [(a, b) for a in range(packs) for b in range(each)]
    of_slot, count = replicated(weights, len(weights) + extra)
    assert np.bincount(of_slot).tolist() == count.tolist() and count.min() >= 1
    largest = (weights / count).max()
    assert sum(int(np.ceil(weight / largest * (1 - 1e-12))) for weight in weights) <= count.sum()
    fewer = largest * (1 - 1e-9)
    assert extra == 0 or sum(int(np.floor(weight / fewer)) + 1 for weight in weights) > count.sum() - 1


@pytest.mark.parametrize("nodes", [1, 2])
def test_ranks_take_the_slots_that_copy_least_and_loads_stay(nodes):
    """Sets of slots trade ranks inside a node: what lives there stays there where it can."""
    random = np.random.default_rng(1)
    placed = random.permutation(16).reshape(8, 2)
    found = near_home(placed, 2, nodes)
    assert sorted(map(tuple, found)) == sorted(map(tuple, placed))
    for first in range(0, 8, 8 // nodes):
        of_node = slice(first, first + 8 // nodes)
        assert sorted(map(tuple, found[of_node])) == sorted(map(tuple, placed[of_node]))
    home = np.arange(16).reshape(8, 2)
    assert (near_home(home[::-1], 2, 1) == home).all()
    assert copied(found, 2)[0].sum() <= copied(placed, 2)[0].sum()


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 1000))
def test_tokens_are_spread_evenly_and_none_is_lost(ranks, local, seed):
    """All copies of an expert take as many, to within one; shadows take those of their own rank."""
    random = np.random.default_rng(seed)
    experts = ranks * local
    everyone = random.integers(0, 30, (ranks, experts))
    shadowed = random.permutation(experts)[: random.integers(1, experts + 1)]
    own = np.arange(experts).reshape(ranks, local)
    stay = np.concatenate([own, np.tile(shadowed, (ranks, 1))], axis=1)
    slots = np.concatenate([own.reshape(-1), random.integers(0, experts, ranks)])
    for held, way in ((stay, True), (random.permutation(slots).reshape(ranks, -1), False)):
        sent = spread(everyone, held, way)
        for expert in range(experts):
            of_expert = sent[:, held == expert]
            assert (of_expert.sum(axis=1) == everyone[:, expert]).all()
            if not way:
                assert np.ptp(of_expert.sum(axis=0)) <= 1
        if way:
            away = sent.copy()
            away[np.arange(ranks), np.arange(ranks)] = 0
            assert not away[:, np.isin(held, shadowed)].any()


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 1000))
def test_what_is_carried_is_what_is_spread(ranks, local, seed):
    """Whoever sends the tokens; shadows keep those of their rank, of which there are as many on each to within one."""
    random = np.random.default_rng(seed)
    loads = [random.integers(0, 90, ranks * local).tolist() for _ in range(2)]
    past = past_of(*loads, step=1)
    everyone = random.multinomial(np.array(loads[1]), np.full(ranks, 1 / ranks)).T
    wanted = np.array(loads[1]).reshape(1, 1, ranks, local).sum(axis=3)
    for policy in (ExpertReplicas(), ExpertShadows(3.0)):
        held, carried = policy.held(np.array(loads[1]), ranks, past), policy.carry(wanted, 0, past)
        found = spread(everyone, held, policy.stay)
        assert carried.tokens.sum() == found.sum()
        sent, received = copied(held, local)
        assert carried.copies.sent[0].tolist() == sent.tolist() and carried.copies.held[0].tolist() == received.tolist()
        if not policy.stay:
            assert carried.tokens[0].tolist() == found.sum(axis=(0, 2)).tolist()
            continue
        even = np.diff(np.array(loads[1]) * np.arange(ranks + 1)[:, None] // ranks, axis=0)
        assert carried.tokens[0].tolist() == spread(even, held, True).sum(axis=(0, 2)).tolist()
        assert carried.copies.kept[0].tolist() == even[:, held[0, local:]].sum(axis=1).tolist()


def past_of(*loads, step=None):
    """The past of an only group after steps of these loads."""
    step = len(loads) if step is None else step
    return Past(step, 0, 0, group=0, experts=lambda at: np.array(loads[at])[None, None] if at < len(loads) else None)


def test_replicas_follow_the_loads_of_earlier_steps():
    """In the first step there are none; with ``every`` they stay for as many steps, by the load of as many before."""
    policy = ExpertReplicas(replicas=2)
    first = policy.held(np.array([9, 1, 1, 1]), 2, past_of(step=0))
    assert first.tolist() == [[0, 1, -1], [2, 3, -1]]
    held = policy.held(np.array([1, 1, 1, 9]), 2, past_of([9, 1, 1, 1]))
    assert np.bincount(held.reshape(-1), minlength=4)[0] > 1
    slow = ExpertReplicas(replicas=2, every=2)
    loads = [[9, 1, 1, 1], [1, 9, 1, 1], [1, 1, 50, 1], [1, 1, 1, 99]]
    assert (slow.held(np.ones(4), 2, past_of(*loads[:2])) == slow.held(np.ones(4), 2, past_of(*loads[:3]))).all()
    assert np.bincount(slow.held(np.ones(4), 2, past_of(*loads)).reshape(-1), minlength=4)[3] > 1


def test_shadows_are_those_that_save_more_than_they_cost():
    """The fullest rank's most popular expert, as long as the fullest rank has less by what sending it is worth."""
    loads = np.array([100, 20, 10, 10, 10, 10, 10, 30])
    for worth, expected in ((0.0, [0, 7]), (12.0, [0, 7]), (13.0, [0]), (54.0, [0]), (55.0, [])):
        held = ExpertShadows(worth).held(loads, 4, past_of())
        assert held[:, :2].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert held[:, 2:].tolist() == [expected] * 4, worth
    assert (
        ExpertShadows(5.0).priced(1.0, 1e-3) == ExpertShadows(5.0) and ExpertShadows().priced(1.0, 1e-3).worth == 1000
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("eplb:x", "takes a number of replicas, and groups, nodes and every"),
        ("eplb:4,every=9", "takes every=N up to 8"),
        ("eplb:4,groups=0", "takes a number of replicas, and groups, nodes and every"),
        ("shadow:-1", "takes the tokens that sending an expert is worth, such as shadow:64"),
    ],
)
def test_what_cannot_be_is_said(spec, message):
    with pytest.raises(InputError, match=message):
        BALANCERS.find(spec)


def test_replicas_have_to_divide():
    setting = Setting.of("cluster-64", "moda-tiny", {"mesh": {"ep": 4}, "balancer": "eplb:3"})
    with pytest.raises(InputError, match=r"and 3 replicas on 4 ranks .* do not divide; try eplb:4"):
        LoadModel(setting)


PLAN = {"mesh": {"ep": 4, "dp": 2}, "router": "zipf:1.2", "steps": 2}


@pytest.mark.parametrize(
    ("spec", "way", "back"), [("eplb:8", "all-to-all", "all-to-all"), ("shadow:1", "broadcast", "reduce")]
)
def test_weights_of_copies_and_their_gradients_are_charged(spec, way, back):
    """Both exchanges of every layer, of the bytes of the copies that ranks have; tokens that stay are not sent."""
    setting = Setting.of("cluster-64", "moda-tiny", {**PLAN, "balancer": spec})
    schedule, loads = lower_step(setting, 1)
    model, formats = setting.model, setting.plan.precisions.at(1)["expert"]
    size = {"fp16": 2, "fp32": 4}
    numbers = model.matrices * model.hidden * model.expert_width
    found = [each for each in schedule.operations if each.task.role is Role.EXPERT_COPIES]
    assert [each.work.operation for each in found[: model.layers]] == [way] * model.layers
    assert [each.work.operation for each in found[model.layers :]] == [back] * model.layers
    load = next(each for each in loads if not each.micro_batch)
    held, sent = (np.broadcast_to(each, setting.mesh.shape) for each in (load.copies_held, load.copies_sent))
    assert held.sum() == sent.sum() > 0
    out, gradients = found[0].work, found[-1].work
    copies = sent if way == "all-to-all" else held + sent / 3
    assert np.broadcast_to(out.nbytes, setting.mesh.shape) == pytest.approx(copies * numbers * size[formats.compute])
    assert np.max(gradients.nbytes) > 0 and gradients.element == formats.gradient
    dispatch = next(each.work for each in schedule.operations if each.task.role is Role.DISPATCH)
    token = model.hidden * size[formats.compute]
    mean = setting.micro_tokens() * setting.top_k
    assert np.sum(np.broadcast_to(dispatch.nbytes, setting.mesh.shape)) == pytest.approx(
        (8 * mean - np.broadcast_to(load.kept, setting.mesh.shape).sum()) * token
    )
    assert not any(each.task.role is Role.TOKEN_COUNTS for each in schedule.operations)
    none = LoadModel(Setting.of("cluster-64", "moda-tiny", {**PLAN, "balancer": "none"})).sample(0, 1, 0)
    assert load.max_over_mean < none.max_over_mean == load.wanted_max_over_mean
