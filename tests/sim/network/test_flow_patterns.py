"""Flow classes are kept by which ranks are equal: amounts and bandwidths are those of each exchange."""

import numpy as np
from athanor.sim.network.phases.flow_classes import FEW, by_latency
from athanor.sim.network.phases.phases import with_faster
from athanor.sim.network.phases.transfers import Traffic
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.work import Exchange
from support.machines import tree

MESH = Mesh(("ep", "dp"), (8, 4))


def test_ends_of_messages_by_latency_are_the_last_of_each_group():
    """Few latencies are found one by one, many by sorting."""
    random = np.random.default_rng(1)
    for kinds in (1, 2, FEW, FEW + 1, 40) * 2:
        latency, group, ends = random.choice(random.random(kinds), 500), random.integers(0, 7, 500), random.random(500)
        group = np.sort(group) if random.random() < 0.5 else group  # next to each other, or not
        found, latencies = by_latency(latency, ends, group, 7)
        for row, value in zip(found, np.unique(latency), strict=True):
            for at in range(7):
                here = ends[(latency == value) & (group == at)]
                assert row[at] == max(here, default=0.0)
        assert (latencies == np.where(found > 0, np.unique(latency)[:, None], 0.0)).all()


def seconds(traffic, sent, received):
    exchange = Exchange("all-to-all", "linear", ("ep",), sent.copy(), "fp32", received.copy())
    return [np.max(each.group_seconds(each.demand.alone[0])[0]) for each in traffic.transfers(exchange)]


def test_the_same_pattern_with_other_amounts_and_links_is_found_anew():
    machine = tree(nodes=32, supernode=8, taper=0.5)
    layout = place(MESH, machine, "block:ep,dp", 1)

    def fresh():
        return Traffic(machine, layout, "fluid")

    kept, random = fresh(), np.random.default_rng(1)
    pairs = [
        (random.uniform(1e6, 2e6, (1, 4)), random.permutation(random.integers(1, 4, 8)).reshape(8, 1) * 1e6)
        for _ in range(6)
    ]
    for sent, received in [*pairs, *((2 * sent, received[::-1]) for sent, received in pairs)]:
        np.testing.assert_allclose(seconds(kept, sent, received), seconds(fresh(), sent, received), rtol=1e-12)
    before = seconds(kept, *pairs[0])
    kept.phases = with_faster(kept.phases, {kind.level: 2.0 for kind in kept.phases.kinds})
    again = fresh()
    again.phases = with_faster(again.phases, {kind.level: 2.0 for kind in again.phases.kinds})
    after = seconds(kept, *pairs[0])
    np.testing.assert_allclose(after, seconds(again, *pairs[0]), rtol=1e-12)
    assert after[0] < before[0]
