"""When strategies let things happen: what overlaps, what the host takes, what blocks stand for."""

import athanor
import pytest
from athanor.workloads.plan import setting
from athanor.workloads.schedule.costs import Costs
from athanor.workloads.schedule.work import Exchange, HostCopy
from pytest import approx
from support.strategies import (
    DENSE,
    EXPERTS,
    PARAMETERS,
    SHARED,
    flat,
    hosted,
    lowered,
    plan,
    simulated,
    sped_up,
    two_levels,
)

SINGLE = 4
WEIGHTS = SINGLE * PARAMETERS
ENDS = SINGLE * (DENSE.vocabulary * DENSE.hidden + 2 * DENSE.hidden)
ADAM = SINGLE + 2 * 3 * SINGLE  # gradient; both moments and the weight, of which there is no other copy, in and out
LINK, MEMORY = 2e7, 4e7  # bytes per second of a host
FAST = flat(injection=1e7)


class TestOverlap:
    @pytest.mark.parametrize("injection", [1e6, 1e7, 1e8])
    @pytest.mark.parametrize("zero", ["0", "1", "2"])
    def test_gradients_hide_behind_what_is_left_to_compute(self, injection, zero):
        options = {"machine": flat(injection=injection), "mesh": {"dp": 4}, "zero": zero}
        apart, beside = (simulated(**options, overlap=way) for way in ("none", "gradients"))
        total, computing = apart["breakdown"]["gradient_sync"], apart["breakdown"]["compute"]
        assert beside["breakdown"]["gradient_sync"] < total
        assert max(total, computing) <= beside["step_seconds"] < apart["step_seconds"]
        assert apart["step_seconds"] == approx(total + computing + apart["breakdown"]["optimizer"])

    def test_the_last_bucket_is_always_exposed(self):
        """Nothing is left to compute when the embedding's gradient is there; all layers' are hidden by a fast network."""
        summary = simulated(machine=flat(injection=1e12), mesh={"dp": 4}, overlap="gradients")
        last = 2 * 3 / 4 * ENDS / 1e12
        assert summary["breakdown"]["gradient_sync"] == approx(last, rel=1e-6)

    def test_weights_come_beside_the_layer_before(self):
        options = {"machine": FAST, "mesh": {"dp": 4}, "zero": "3"}
        apart, beside = (simulated(**options, overlap=way) for way in ("none", "gradients"))
        assert beside["breakdown"]["gradient_sync"] < 0.7 * apart["breakdown"]["gradient_sync"]
        assert beside["step_seconds"] >= apart["breakdown"]["gradient_sync"]


class TestOffload:
    machine = hosted(FAST, link=LINK, bandwidth=MEMORY)

    def copies(self, **options):
        found = {"in": 0.0, "out": 0.0}
        for each in lowered(machine=self.machine, **options).operations:
            if isinstance(each.work, HostCopy):
                found[each.work.direction] += each.work.nbytes
        return found

    @pytest.mark.parametrize("overlap", ["none", "gradients"])
    @pytest.mark.parametrize(("zero", "shards"), [("0", 1), ("1", 4), ("2", 4), ("3", 4)])
    def test_gradients_go_out_and_weights_come_in(self, zero, shards, overlap):
        """Of each rank's own shard (ZeRO-Offload, Ren et al. 2021)."""
        found = self.copies(mesh={"dp": 4}, zero=zero, overlap=overlap, offload="optimizer")
        assert found == approx({"in": WEIGHTS / shards, "out": WEIGHTS / shards})

    @pytest.mark.parametrize("zero", ["0", "1", "3"])
    def test_seconds_of_the_host(self, zero):
        shards = 1 if zero == "0" else 4
        summary = simulated(machine=self.machine, mesh={"dp": 4}, zero=zero, offload="optimizer")
        copies, update = 2 * WEIGHTS / shards / LINK, ADAM * PARAMETERS / shards / MEMORY
        assert summary["breakdown"]["offload"] == approx(copies + update)
        assert summary["breakdown"]["optimizer"] == 0

    def test_a_delayed_update_is_hidden(self):
        """Adam runs beside the whole next step; copies remain (section 5.2 of the same)."""
        options = {"mesh": {"dp": 4}, "zero": "1", "offload": "optimizer"}
        waited, delayed = (simulated(machine=self.machine, offload_delay=way, **options) for way in (False, True))
        update = ADAM * PARAMETERS / 4 / MEMORY
        assert update < delayed["step_seconds"]
        assert waited["step_seconds"] - delayed["step_seconds"] == approx(update)
        slow = hosted(FAST, link=LINK, bandwidth=MEMORY / 1000)
        bound = simulated(machine=slow, offload_delay=True, **options)
        after = WEIGHTS / 4 / LINK + 3 / 4 * WEIGHTS / 1e7  # new weights come in and are gathered
        assert bound["step_seconds"] == approx(1000 * update + after), (
            "it cannot end before the update of the step before"
        )

    def test_a_share_is_updated_on_each_side(self):
        options = {"mesh": {"dp": 4}, "zero": "1"}
        half = simulated(machine=self.machine, offload="optimizer:0.5", **options)
        sides = [simulated(machine=self.machine, offload=which, **options) for which in ("none", "optimizer")]
        for key in ("optimizer", "offload"):
            assert half["breakdown"][key] == approx(sum(each["breakdown"][key] for each in sides) / 2)

    @pytest.mark.parametrize(("zero", "shards"), [("0", 1), ("1", 1), ("3", 4)])
    def test_parameters_come_before_each_pass_and_go_back_changed(self, zero, shards):
        found = self.copies(mesh={"dp": 4}, zero=zero, offload="parameters")
        layers = SINGLE * (PARAMETERS - DENSE.vocabulary * DENSE.hidden) - SINGLE * 2 * DENSE.hidden
        new = layers + SINGLE * 2 * DENSE.hidden
        assert found == approx({"in": 2 * layers / shards, "out": new / shards})

    def test_what_the_host_updates_need_not_go_back(self):
        """But shards that are gathered on accelerators do."""
        layers = WEIGHTS - ENDS
        norm = SINGLE * 2 * DENSE.hidden
        whole = self.copies(mesh={"dp": 4}, zero="0", offload="optimizer,parameters")
        assert whole == approx({"in": 2 * layers + ENDS - norm, "out": WEIGHTS})
        shards = self.copies(mesh={"dp": 4}, zero="1", offload="optimizer,parameters")
        assert shards == approx({"in": 2 * layers + WEIGHTS / 4, "out": WEIGHTS / 4 + layers + norm})

    def test_experts_come_and_the_rest_stays(self):
        found = {"in": 0.0, "out": 0.0}
        for each in lowered(EXPERTS, self.machine, mesh={"ep": 4}, offload="experts").operations:
            if isinstance(each.work, HostCopy):
                found[each.work.direction] += each.work.nbytes
        experts = SINGLE * EXPERTS.parameters.expert / 4
        assert found == approx({"in": 2 * experts, "out": experts})

    def test_activations_go_out_and_come_back(self):
        inputs = DENSE.layers * 64 * DENSE.hidden * SINGLE
        assert self.copies(mesh={"dp": 4}, offload="activations") == approx({"in": inputs, "out": inputs})
        assert self.copies(mesh={"tp": 4}, sequence_parallel=True, offload="activations")["in"] == approx(inputs / 4)

    def test_prefetch_hides_what_comes(self):
        options = {"machine": self.machine, "mesh": {"dp": 1}, "offload": "parameters"}
        apart, beside = (simulated(**options, overlap=way) for way in ("none", "gradients"))
        assert beside["breakdown"]["offload"] < apart["breakdown"]["offload"]
        assert beside["step_seconds"] < apart["step_seconds"]


class TestFusedRing:
    OPTIONS = {"mesh": {"cp": 4}, "attention": "fused"}

    @pytest.mark.parametrize("injection", [1e6, 2e7, 1e8, 1e12])
    def test_what_goes_around_is_waited_for_as_far_as_it_outlasts_the_kernel_beside_it(self, injection):
        machine = flat(injection=injection)
        costs, waited, moving = Costs(machine, 1), 0.0, None
        for each in lowered(machine=machine, **self.OPTIONS).operations:
            if isinstance(each.work, Exchange) and each.category == "tensor_parallel":
                moving = each.work.nbytes / injection
            elif moving is not None:
                assert ".context" in each.name
                waited += max(0.0, moving - float(costs.of(each.work).seconds.max()))
                moving = None
        found = simulated(machine=machine, **self.OPTIONS)["breakdown"]["tensor_parallel"]
        assert found == approx(waited, abs=1e-12)
        assert (found > 0) == (injection < 1e12)

    def test_every_rank_by_itself_takes_as_long(self):
        machine = flat(injection=2e7)
        fluid = simulated(machine=machine, **self.OPTIONS)
        options = plan(**self.OPTIONS, depth="message")
        apart = athanor.simulate(machine, DENSE, **options).summary()
        assert apart["step_seconds"] == approx(fluid["step_seconds"], rel=1e-9)
        assert apart["breakdown"]["tensor_parallel"] == approx(fluid["breakdown"]["tensor_parallel"], rel=1e-9)


HOST = {"offload": "optimizer,activations,parameters"}
PLANS = {
    "data parallel": (DENSE, {"mesh": {"dp": 4}, "overlap": "gradients"}),
    "zero 3": (DENSE, {"mesh": {"dp": 2, "fsdp": 2}, "zero": "3", "overlap": "gradients"}),
    "zero ++": (DENSE, {"mesh": {"dp": 2, "fsdp": 4}, "zero": "++"}),
    "sequence": (DENSE, {"mesh": {"dp": 2, "tp": 4}, "sequence_parallel": True, "recompute": "selective"}),
    "two dimensions": (DENSE, {"mesh": {"dp": 2, "tp": 4}, "tensor": "2d", "overlap": "gradients"}),
    "ring attention": (DENSE, {"mesh": {"cp": 4, "dp": 2}, "zero": "2"}),
    "fused ring attention": (DENSE, {"mesh": {"cp": 4, "dp": 2}, "zero": "1", "attention": "fused"}),
    "experts": (EXPERTS, {"mesh": {"ep": 4, "dp": 2}, "zero": "hierarchical"}),
    "uneven experts": (EXPERTS, {"mesh": {"ep": 4, "dp": 2}, "router": "zipf:1.0", "balancer": "none"}),
    "whole experts": (SHARED, {"mesh": {"ep": 4, "tp": 2}, "expert_tensor": "whole", "recompute": "full"}),
    "host": (DENSE, {"mesh": {"dp": 4}, "zero": "2", "overlap": "gradients", **HOST}),
    "host, waited for": (DENSE, {"mesh": {"dp": 4}, "zero": "1", **HOST}),
}


@pytest.mark.parametrize("case", PLANS)
def test_more_bandwidth_is_never_slower(case):
    model, options = PLANS[case]
    machine = hosted(two_levels(injection=1e7, ring=3e7), link=LINK, bandwidth=MEMORY)
    seconds = [simulated(model, sped_up(machine, factor), **options)["step_seconds"] for factor in (1, 1.7, 10, 1e6)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < seconds[0]


def both_ways(case, monkeypatch):
    """Three micro-batches, written out and as blocks."""
    model, options = PLANS[case]
    machine = hosted(two_levels(injection=1e7, ring=3e7), link=LINK, bandwidth=MEMORY)
    many = plan(**{"tokens_per_rank": 3 * 64, "micro_batch": 2, "depth": "fluid", **options})
    for most in (1 << 20, 0):
        monkeypatch.setattr(setting, "MOST_FLAT", most)
        yield athanor.simulate(machine, model, **many).summary()


@pytest.mark.parametrize("case", [case for case in PLANS if case != "host"])
def test_blocks_stand_for_micro_batches_written_out(case, monkeypatch):
    """A step whose micro-batches are written once takes as long, sends as much, and spends it on the same."""
    flat, blocks = both_ways(case, monkeypatch)
    # groups of experts drift apart from one micro-batch to the next, which a block that stands for all of them does not know
    near = 0.015 if case in ("experts", "uneven experts") else 1e-9
    assert blocks["step_seconds"] == approx(flat["step_seconds"], rel=near)
    assert blocks["flops_per_step"] == approx(flat["flops_per_step"])
    for key, seconds in flat["breakdown"].items():
        assert blocks["breakdown"][key] == approx(seconds, abs=near * flat["step_seconds"]), key
    for one, other in zip(flat["links"], blocks["links"], strict=True):
        assert other["bytes_per_step"] == approx(one["bytes_per_step"])


def test_blocks_end_with_what_leaves_beside_them(monkeypatch):
    """Inputs of layers on their way to the host hold up the backward pass, which written out begins before they are gone."""
    flat, blocks = both_ways("host", monkeypatch)
    assert flat["step_seconds"] < blocks["step_seconds"] < 1.1 * flat["step_seconds"]
    for one, other in zip(flat["links"], blocks["links"], strict=True):
        assert other["bytes_per_step"] == approx(one["bytes_per_step"])
