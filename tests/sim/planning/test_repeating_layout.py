"""What repeats itself on a tree is looked at once: collectives take what they take on all ranks."""

import random
from dataclasses import replace

import numpy as np
import pytest
from athanor.sim.planning import collective_times
from athanor.sim.planning.collective_times import CollectiveTimes
from athanor.sim.planning.repeating_layout import LEAST, repeating
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.work import Exchange
from support.machines import tree

MANY = {
    "alone": tree(nodes=96, supernode=8, latencies=(1e-6, 2e-6, 5e-6), overhead=1e-6),
    "several a node": tree(nodes=48, supernode=4, core_groups=2, latencies=(1e-6, 2e-6, 5e-6), overhead=1e-6),
    "static routes": tree(nodes=96, supernode=8, taper=0.25, routing="static", latencies=(1e-6, 2e-6, 5e-6)),
}
MESHES = [
    {"dp": 4, "ep": 4, "tp": 6},
    {"dp": 16, "tp": 6},
    {"dp": 12, "ep": 8},
    {"dp": 2, "ep": 3, "tp": 16},
    {"pp": 3, "dp": 32},
]
WAYS = [
    (operation, algorithm)
    for operation, algorithms in (
        ("all-reduce", ("ring", "recursive-doubling")),
        ("all-gather", ("ring",)),
        ("all-to-all", ("linear", "pairwise-shift", "bruck")),
    )
    for algorithm in algorithms
]


@pytest.mark.parametrize("name", MANY)
def test_a_part_tells_what_all_ranks_take(name, monkeypatch):
    machine, draw, smaller = MANY[name], random.Random(name), 0
    per_node = machine.node.core_groups
    for mesh in MESHES:
        axes = list(mesh)
        draw.shuffle(axes)
        layout = place(Mesh.of(mesh), machine, f"block:{','.join(axes)}", per_node)
        for wanted in ((axes[0],), (axes[-1],), tuple(axes[:2]), tuple(axes)):
            wires = [CollectiveTimes(machine).on(layout, f"block:{','.join(axes)}") for _ in range(2)]
            smaller += repeating(machine, layout, wires[0]._parts(wanted)) is not None
            for operation, algorithm in WAYS:
                if algorithm == "recursive-doubling" and layout.mesh.size(*wanted) & (layout.mesh.size(*wanted) - 1):
                    continue
                exchange = Exchange(operation, algorithm, wanted, 3e7, "fp32")
                in_part = wires[0].seconds(exchange)
                with monkeypatch.context() as patched:
                    patched.setattr(collective_times, "repeating", lambda *all_of_it: None)
                    assert in_part == pytest.approx(wires[1].seconds(exchange), rel=1e-12), (mesh, axes, wanted)
    assert smaller >= 3


def test_layouts_that_do_not_repeat_themselves_are_looked_at_as_they_are():
    """Groups over most of a machine, and ranks that begin in the middle of what repeats itself."""
    machine = MANY["alone"]
    layout = place(Mesh.of({"dp": 96}), machine, "block:dp", 1)
    part, axes = repeating(machine, layout, [(1, 4)])
    assert part.mesh.ranks == 8 and part.mesh.size(*axes) == 4
    assert repeating(machine, layout, [(1, 96)]) is None
    assert repeating(machine, layout, [(1, 96 // LEAST + 8)]) is None
    assert repeating(machine, layout, []) is None
    shifted = replace(layout, node=np.append(layout.node[1:], 95 + 8))
    assert repeating(machine, shifted, [(1, 4)]) is None
    assert repeating(machine, replace(layout, slow_cards=((3, 0.5),)), [(1, 4)]) is None
