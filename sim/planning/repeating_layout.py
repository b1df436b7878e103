"""The part of a layout after which everything repeats itself: what its links carry is what those of all ranks do."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

import numpy as np

from ...hardware.fabrics.tree import Tree
from ...hardware.machine import Machine
from ...workloads.mesh.mesh import Mesh
from ...workloads.mesh.placement import Layout

LEAST = 4
"""How many times as many ranks there have to be as in the part for it to be looked at instead."""

ALONG, BESIDE = "along", "beside"
"""How axes of the part begin that are those of groups, and those between and around them."""


def repeating(
    machine: Machine, layout: Layout, groups: Sequence[tuple[int, int]]
) -> tuple[Layout, tuple[str, ...]] | None:
    """(part of a layout, axes of groups in it); ``groups`` are made of (places between neighbours, members), inner ones first.

    Groups take places that come again after a whole number of them, as do the domains of a tree that is filled one node after
    another: after the least common multiple of both, messages pass links as they did before. Groups that are cut off with the
    last domain would meet no more on theirs than whole ones do. None where it is not so, or the part is not much smaller.
    """
    fabric = machine.fabric
    if not isinstance(fabric, Tree) or layout.slow_cards or layout.slow_uplinks or not groups:
        return None
    size, present = fabric.sizes[-1], np.bincount(layout.node)
    places = int(present[:size].sum())
    ranks = lcm(groups[-1][0] * groups[-1][1], places)
    if LEAST * ranks > layout.mesh.ranks:
        return None
    node = np.repeat(np.arange(len(present)), present)
    if (node[places:] != node[:-places] + size).any():
        return None
    if any(size % level.cables for level in fabric.levels(size, 1.0)):
        return None
    shape, axes, place = list[int](), list[str](), 1
    for number, (stride, members) in enumerate((*groups, (ranks, 1))):
        shape += [stride // place, members]
        axes += [f"{BESIDE}{number}", f"{ALONG}{number}"]
        place = stride * members
    mesh = Mesh(tuple(reversed(axes)), tuple(reversed(shape)))
    part = Layout(mesh, node[:ranks], layout.ranks_per_node, layout.nodes_per_supernode, layout.supernode_size)
    return part, tuple(axis for axis in mesh.axes if axis.startswith(ALONG) and mesh.size(axis) > 1)
