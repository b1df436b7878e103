"""Balancing policies that act on what was in earlier steps."""

from dataclasses import dataclass

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.balancers import Balancer, Carried, Past, Swipe
from athanor.workloads.routing.balancers.balancer import carried_by

OPTIONS = {"mesh": {"ep": 4, "dp": 2}, "router": "zipf:1.0", "drift": 0.5, "tokens_per_rank": 256, "steps": 5}
SEEN = []


@dataclass(frozen=True)
class Learning(Balancer):
    """Ranks take at most what they took a step ago; the rest goes to the rank that took least then."""

    def carry(self, wanted, tokens, past):
        SEEN.append((past.step, past.layer, past.micro_batch))
        every = wanted.sum(axis=0)
        before = past.carried()
        if before is None:
            return Carried(every, 0 * every[:, 0], 0 * every[:, 0])
        kept = np.minimum(every, before)
        surplus = (every - kept).sum(axis=-1)
        kept[np.arange(len(kept)), before.argmin(axis=-1)] += surplus
        return Carried(kept, moved=surplus, dropped=0 * surplus)


class Asking(Learning):
    """What is known of the past is what was."""

    def carry(self, wanted, tokens, past):
        assert (past.wanted(1) is None) == (past.step == 0)
        assert (past.carried(3) is None) == (past.step < 3)
        return super().carry(wanted, tokens, past)


def setting(**options):
    return Setting.of("cluster-64", "moda-tiny", {**OPTIONS, "balancer": f"{__name__}:Learning", **options})


@pytest.fixture(autouse=True)
def importable(monkeypatch, request):
    monkeypatch.syspath_prepend(request.path.parent)


def test_a_policy_sees_step_layer_and_what_was_before():
    SEEN.clear()
    run = athanor.simulate(
        "cluster-64", "moda-tiny", **OPTIONS, balancer=f"{__name__}:Asking", micro_batch=1, seq_len=128
    )
    assert {at[0] for at in SEEN} == set(range(5))
    assert {at[1:] for at in SEEN} == {(layer, part) for layer in (0, 1) for part in (0, 1)}
    assert run.summary()["load_balance"]["moved_fraction"] > 0


def test_what_a_rank_carries_follows_from_all_steps_before():
    """Step by step, or one step asked for alone: the same, and as the policy says by hand."""
    loads = LoadModel(setting())
    found = [loads.sample(1, step, 0) for step in range(5)]
    assert all((LoadModel(setting()).sample(1, step, 0).received == found[step].received).all() for step in (4, 2))
    before = None
    for step in range(5):
        every = loads.wanted(1, step, 0).sum(axis=0)
        carried = every.copy()
        if before is not None:
            carried = np.minimum(every, before)
            for group in range(2):
                carried[group, before[group].argmin()] += (every - carried)[group].sum()
        assert found[step].received.reshape(-1).tolist() in (
            carried.T.reshape(-1).tolist(),
            carried.reshape(-1).tolist(),
        )
        assert found[step].carried.tolist() == carried[0].tolist()
        before = carried


def test_messages_bring_what_is_carried():
    """Also where every message is looked at: each group asks for its own past."""
    from athanor.workloads.loads.token_assignment import between

    loads = LoadModel(setting())
    for step in range(3):
        carried = loads.past(0, step + 1, 0).carried()
        assert (between(loads, 0, step, 0).sum(axis=1) == carried).all()


def test_policies_of_two_arguments_and_pasts_out_of_reach():
    class Short(Swipe):
        def carry(self, wanted, tokens):
            return Swipe().carry(wanted, tokens)

    wanted = np.array([[[3, 1]]])
    assert carried_by(Short(), wanted, 2, Past(step=7)).tokens.tolist() == [[2, 2]]
    assert Past(step=7).wanted() is None
    for ago in (0, 17):
        with pytest.raises(InputError, match=f"asks for loads of {ago} steps ago; 1 to 16 can be had"):
            Past(step=40).carried(ago)


@dataclass(frozen=True)
class Remembering(Balancer):
    """Ranks take at most the mean of what wanted them in all steps so far, or the mean rank's; the rest is dropped."""

    remembers = True

    def carry(self, wanted, tokens, past):
        every = wanted.sum(axis=0)
        assert len(every) == 1 and past.group is not None  # a memory is of one group
        assert past.state.get("steps", []) == list(range(past.step)) and past.rank is None
        past.state["steps"] = [*past.state.get("steps", []), past.step]
        past.state["total"] = past.state.get("total", 0) + every
        kept = np.minimum(every, np.maximum(past.state["total"] // (past.step + 1), tokens))
        return Carried(kept, 0 * every[:, 0], (every - kept).sum(axis=-1))


def test_what_a_policy_remembers_is_that_of_all_steps_before_in_whatever_order_they_are_asked_for():
    """Once for each layer, micro-batch and group; asked for a step again, it remembers what it did before."""
    from athanor.workloads.loads.token_assignment import between

    options = {"balancer": f"{__name__}:Remembering", "micro_batch": 1, "seq_len": 128}
    loads, other = LoadModel(setting(**options)), LoadModel(setting(**options))
    for step in (0, 1, 3, 2, 4, 4):
        every = np.array([loads.wanted(1, at, 1).sum(axis=0) for at in range(step + 1)])
        expected = np.minimum(every[-1], np.maximum(every.sum(axis=0) // (step + 1), 128))
        found = loads.sample(1, step, 1)
        assert found.carried.tolist() == expected[0].tolist()
        assert found.dropped_fraction == pytest.approx(1 - expected.sum() / (8 * 128))
        assert (between(other, 1, step, 1).sum(axis=1) == expected).all()
        assert (loads.past(1, step + 1, 1).carried() == expected).all()
    run = athanor.simulate("cluster-64", "moda-tiny", **{**OPTIONS, **options})
    assert run.summary()["load_balance"]["dropped_fraction"] > 0
