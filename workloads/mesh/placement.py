"""Where ranks live: axes of the mesh on levels of the machine, as a node for every rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError, suggestion
from ...hardware.frozen import FrozenArrays
from ...hardware.machine import Machine
from .axes import OUTWARD
from .mesh import Mesh

LEVELS = ("core_group", "node", "supernode")
"""Levels of the machine that an axis can index, from the inside: core groups of a node, nodes of a supernode, supernodes."""

NAMED = {
    "auto": "moda where the mesh has dp and ep only, grid with --tensor 2d, else megatron",
    "megatron": "ranks fill nodes one after another, tp fastest, then cp, fsdp, ep, dp, and pp (Narayanan et al. 2021)",
    "grid": "megatron, but a node holds a square tile of the grid of --tensor 2d (Xu et al. 2021)",
    "moda": "dp inside the supernode, ep across supernodes (BaGuaLu's choice)",
    "opposite": "the swap on the same nodes: ep inside as far as it fits, dp across",
    "block:AXIS,...": "ranks fill supernodes one after another, the first axis running fastest",
    "AXIS=LEVEL,...": "each axis on a level: core_group, node, supernode, or several joined by +",
}


@dataclass(frozen=True)
class Layout(FrozenArrays):
    """A mesh on a machine: ``node[rank]`` is the node that holds each rank.

    Built once for a plan; the network asks it which ranks form a group and which of those share a supernode. ``slow_cards`` are
    nodes, each with the share of its cards' rate that it has, ``slow_uplinks`` supernodes with that of their links to others.
    """

    mesh: Mesh
    node: NDArray[np.int64]
    ranks_per_node: int
    nodes_per_supernode: int
    supernode_size: int
    slow_cards: tuple[tuple[int, float], ...] = ()
    slow_uplinks: tuple[tuple[int, float], ...] = ()
    _cache: dict[tuple[str, ...], NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)
    _span: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False, compare=False)
    _split: dict[tuple[str, ...], NDArray[np.int64] | None] = field(default_factory=dict, repr=False, compare=False)

    def to_plain(self) -> dict[str, Any]:
        """The layout as plain data."""
        return {
            "mesh": {"axes": self.mesh.axes, "shape": self.mesh.shape}
            | ({"divided": self.mesh.divided} if self.mesh.divided else {}),
            "node": self.node.tolist(),
            "ranks_per_node": self.ranks_per_node,
            "nodes_per_supernode": self.nodes_per_supernode,
            "supernode_size": self.supernode_size,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Layout:
        """The layout that :meth:`to_plain` gave."""
        divided = tuple((axis, tuple(parts)) for axis, parts in plain["mesh"].get("divided", ()))
        mesh = Mesh(tuple(plain["mesh"]["axes"]), tuple(plain["mesh"]["shape"]), divided)
        node = np.array(plain["node"], dtype=np.int64)
        if node.shape != (mesh.ranks,):
            raise ValueError(f"{len(node)} nodes of {mesh.ranks} ranks")
        return cls(mesh, node, plain["ranks_per_node"], plain["nodes_per_supernode"], plain["supernode_size"])

    @cached_property
    def nodes(self) -> int:
        """Nodes that hold at least one rank."""
        return int(np.count_nonzero(np.bincount(self.node)))

    @cached_property
    def reach(self) -> int:
        """Nodes from the machine's first to the last one that holds a rank."""
        return int(self.node.max()) + 1

    @cached_property
    def home(self) -> NDArray[np.int64]:
        """Of each rank the number of its node among those that hold ranks."""
        number = np.cumsum(np.bincount(self.node) > 0) - 1
        found: NDArray[np.int64] = number[self.node]
        return found

    @cached_property
    def sorted(self) -> bool:
        """Whether each rank has a node to itself, and nodes stand in the order of ranks."""
        return bool((np.diff(self.node) > 0).all())

    @property
    def present(self) -> int:
        """Ranks on a full node: where the mesh fills none, all of them."""
        return min(self.mesh.ranks, self.ranks_per_node)

    @property
    def supernodes(self) -> int:
        """Supernodes that the nodes lie in."""
        return int(self.node.max()) // self.supernode_size + 1

    def groups(self, axes: tuple[str, ...]) -> NDArray[np.int64]:
        """Groups along axes, ``[groups, size]``, in the order of nodes: members of a node, and of a supernode, are neighbours."""
        if axes not in self._cache:
            groups = self.mesh.groups(axes)
            home = self.node[groups]
            if (np.diff(home, axis=1) < 0).any():
                groups = np.take_along_axis(groups, np.argsort(home, axis=1, kind="stable"), axis=1)
            self._cache[axes] = groups
        return self._cache[axes]

    def scattered(self, axis: str) -> bool:
        """Whether no two ranks of a group along an axis share a supernode, though the axis has several."""
        homes = np.sort(self.node[self.groups((axis,))[0]] // self.supernode_size)
        return self.mesh.size(axis) > 1 and bool((np.diff(homes) > 0).all())

    def span(self, axes: tuple[str, ...]) -> str:
        """The smallest domain that holds each group along axes: a ``node``, a ``supernode``, or the ``machine``."""
        if axes not in self._span:
            home = self.node[self.groups(axes)]
            inside = [(home // size == home[:, :1] // size).all() for size in (1, self.supernode_size)]
            self._span[axes] = "node" if inside[0] else "supernode" if inside[1] else "machine"
        return self._span[axes]

    def two_level(self, axes: tuple[str, ...]) -> NDArray[np.int64] | None:
        """Groups as ``[groups, supernodes, ranks in each]``, or None where a group has unequal parts in its supernodes."""
        if axes not in self._split:
            groups = self.groups(axes)
            home = self.node[groups] // self.supernode_size
            inner = int((home[0] == home[0, 0]).sum())
            parts = home.reshape(len(home), -1, inner) if home.shape[1] % inner == 0 else None
            equal = parts is not None and bool(
                (parts == parts[:, :, :1]).all() and (np.diff(parts[:, :, 0], axis=1) > 0).all()
            )
            self._split[axes] = groups.reshape(len(home), -1, inner) if equal else None
        return self._split[axes]

    def scope(self, axes: tuple[str, ...], scope: str) -> NDArray[np.int64]:
        """The groups in which a round runs, ``[groups, size]``: whole ones, or their parts in a supernode or across."""
        grid = self.two_level(axes)
        if scope == "group" or grid is None:
            return self.groups(axes)
        outer, inner = grid.shape[1:]
        return grid.reshape(-1, inner) if scope == "inner" else grid.transpose(0, 2, 1).reshape(-1, outer)


def parse_placement(spec: str | Mapping[str, str]) -> str | dict[str, tuple[str, ...]]:
    """A placement from its text or mapping: a name, ``block:…``, or a tuple of levels for each axis."""
    if isinstance(spec, str):
        if spec in ("auto", "megatron", "grid", "moda", "opposite") or spec.startswith("block:"):
            return spec
        if "=" not in spec:
            raise InputError(f"--placement {spec}: no such placement{suggestion(spec, NAMED)}")
        parts = [part.partition("=") for part in spec.split(",")]
        if not all(equals for _, equals, _ in parts) or len({axis for axis, _, _ in parts}) < len(parts):
            raise InputError(f"--placement {spec}: write AXIS=LEVEL,..., each axis once, such as ep=supernode,dp=node")
        spec = {axis: level for axis, _, level in parts}
    levels = {axis: tuple(text.replace("core-group", "core_group").split("+")) for axis, text in spec.items()}
    for axis, names in levels.items():
        for name in names:
            if name not in LEVELS:
                raise InputError(f"--placement {axis}={name}: no such level{suggestion(name, LEVELS)}")
    return levels


def named(mesh: Mesh, placement: str | Mapping[str, str]) -> str | Mapping[str, str]:
    """The placement that ``auto`` and ``megatron`` stand for, or the placement itself."""
    if placement == "auto":
        placement = "moda" if set(mesh.axes) <= {"dp", "ep"} else "grid" if "row" in mesh.axes else "megatron"
    if placement == "megatron":
        return "block:" + ",".join(sorted(mesh.axes, key=OUTWARD.index))
    return placement


def resolve_ranks_per_node(
    machine: Machine, placement: str | Mapping[str, str], ranks_per_node: int | None, ranks: int = 0
) -> int:
    """Ranks on a node: as asked for; else one a core group where the placement names core groups; else as few as hold ``ranks``.

    Core groups that a switch or links join are accelerators of their own, and each has a rank. Raises :class:`InputError` where
    those asked for do not divide the node's core groups.
    """
    spec, groups = parse_placement(placement), machine.node.core_groups
    if ranks_per_node is not None and (ranks_per_node < 1 or groups % ranks_per_node):
        raise InputError(
            f"--ranks-per-node {ranks_per_node}: must divide the {groups} core groups of {machine.name}'s nodes"
        )
    if ranks_per_node is not None:
        return ranks_per_node
    named = not isinstance(spec, str) and any("core_group" in names for names in spec.values())
    if named or machine.node.ports:
        return groups
    enough = (each for each in range(1, groups + 1) if groups % each == 0 and each * machine.nodes >= ranks)
    return next(enough, groups)


def place(
    mesh: Mesh,
    machine: Machine,
    placement: str | Mapping[str, str],
    ranks_per_node: int = 1,
    nodes_per_supernode: int | None = None,
) -> Layout:
    """The layout of ``mesh`` on ``machine``.

    ``nodes_per_supernode`` leaves the other nodes of each supernode idle. Raises :class:`InputError` where the mesh exceeds a
    level of the machine, with the numbers.
    """
    if mesh.divided:
        return replace(place(mesh.whole, machine, placement, ranks_per_node, nodes_per_supernode), mesh=mesh)
    spec = parse_placement(named(mesh, placement))
    size = machine.supernode
    if nodes_per_supernode is not None and not 0 < nodes_per_supernode <= size:
        raise InputError(f"--nodes-per-supernode {nodes_per_supernode}: {machine.name} has {size} nodes in a supernode")
    used = nodes_per_supernode or size
    if spec == "opposite":
        used = place(mesh, machine, "moda", ranks_per_node, nodes_per_supernode).nodes_per_supernode
        spec = "block:" + ",".join(sorted(mesh.axes, key=lambda axis: axis == "dp"))
    if isinstance(spec, str) and spec.startswith("block:"):
        layout = _block(mesh, machine, spec.removeprefix("block:").split(","), ranks_per_node, used)
    elif spec == "grid":
        layout = _grid(mesh, machine, ranks_per_node, used)
    else:
        if isinstance(spec, str):  # moda: dp first, from the inside out, then all else
            levels = LEVELS if ranks_per_node > 1 else LEVELS[1:]
            spec = dict.fromkeys(sorted(mesh.axes, key=lambda axis: axis != "dp"), levels)
        layout = _on_levels(mesh, machine, spec, ranks_per_node, used)
    if (last := int(layout.node.max())) >= machine.nodes:
        there = max(0, machine.nodes - last // size * size)
        raise InputError(
            f"--placement {_text(placement)}: puts a rank on node {last % size + 1:,} of supernode {last // size + 1:,},"
            f" of which {machine.name} has {there:,} ({machine.nodes:,} in all);"
            f" --placement block:{','.join(sorted(mesh.axes))} leaves no gaps"
        )
    return layout


def _text(placement: str | Mapping[str, str]) -> str:
    return placement if isinstance(placement, str) else ",".join(f"{axis}={level}" for axis, level in placement.items())


def _block(mesh: Mesh, machine: Machine, order: list[str], per_node: int, used: int) -> Layout:
    """Ranks in the given order of axes (fastest first), node after node, ``used`` nodes of each supernode."""
    if sorted(order) != sorted(mesh.axes):
        raise InputError(
            f"--placement block:{','.join(order)}: must name the axes of the mesh, {','.join(mesh.axes)}, once each"
        )
    node = _filled(mesh, order, machine, per_node, used, f"--placement block:{','.join(order)}")
    return Layout(mesh, node, per_node, used, machine.supernode)


def _grid(mesh: Mesh, machine: Machine, per_node: int, used: int) -> Layout:
    """Blocks in megatron's order, but of row and col the innermost parts first, so that a node holds tiles of the grid.

    A tile is the largest square that divides both the grid and a node's ranks; with tiles of one rank this is megatron.
    """
    if "row" not in mesh.axes:
        raise InputError(
            f"--placement grid: --mesh {mesh} has no rows and columns; --tensor 2d makes a grid of tp, and"
            " --placement megatron places all others"
        )
    side = mesh.size("row")
    tile = next(each for each in range(side, 0, -1) if side % each == 0 and per_node % each**2 == 0)
    cut = {axis: [(axis, size)] for axis, size in zip(mesh.axes, mesh.shape, strict=True)}
    inside = {axis: f"{axis} of a tile" for axis in ("row", "col")}
    cut.update({axis: [(axis, side // tile), (part, tile)] for axis, part in inside.items()})
    axes, sizes = zip(*(part for axis in mesh.axes for part in cut[axis]), strict=True)
    order = [*inside.values(), *sorted(mesh.axes, key=OUTWARD.index)]
    node = _filled(Mesh(axes, sizes), order, machine, per_node, used, "--placement grid")
    return Layout(mesh, node, per_node, used, machine.supernode)


def _filled(mesh: Mesh, order: list[str], machine: Machine, per_node: int, used: int, flag: str) -> NDArray[np.int64]:
    """The node of every rank where ranks fill nodes one after another, the first axis of the order fastest."""
    slowest_first = [mesh.axes.index(axis) for axis in reversed(order)]
    sizes = [mesh.shape[place] for place in slowest_first]
    index = np.moveaxis(np.arange(mesh.ranks).reshape(sizes), range(len(sizes)), slowest_first).reshape(-1)
    supernode, slot = np.divmod(index // per_node, used)
    if (needed := int(supernode.max()) + 1) > machine.supernodes:
        raise InputError(f"{flag}: {needed:,} supernodes exceed the {machine.supernodes:,} of {machine.name}")
    node: NDArray[np.int64] = supernode * machine.supernode + slot
    return node


def _on_levels(mesh: Mesh, machine: Machine, spec: Mapping[str, tuple[str, ...]], per_node: int, used: int) -> Layout:
    """Each axis split over its levels; within a level, axes named first run fastest."""
    if missing := [axis for axis in mesh.axes if axis not in spec and mesh.size(axis) > 1]:
        raise InputError(f"--placement: axis {missing[0]} of --mesh {mesh} has no level (core_group, node, supernode)")
    if unknown := [axis for axis in spec if axis not in mesh.axes]:
        raise InputError(f"--placement {unknown[0]}: the mesh has no such axis{suggestion(unknown[0], mesh.axes)}")
    capacity = {"core_group": per_node, "node": used, "supernode": machine.supernodes}
    what = {
        "core_group": f"the {per_node} ranks of a node",
        "node": f"the {used} nodes of a supernode",
        "supernode": f"the {machine.supernodes} supernodes of {machine.name}",
    }
    stride = dict.fromkeys(LEVELS, 1)
    position = {level: np.zeros(mesh.shape, dtype=np.int64) for level in LEVELS}
    for axis, names in spec.items():
        length, along = mesh.size(axis), mesh.positions([axis])[0]
        index = np.arange(length).reshape([-1 if place == along else 1 for place in range(len(mesh.shape))])
        left = length
        for level in [level for level in LEVELS if level in names]:
            outermost = level == [name for name in LEVELS if name in names][-1]
            part = left if outermost else _largest_divisor(left, capacity[level] // stride[level])
            position[level] = position[level] + (index % part) * stride[level]
            index, left = index // part, left // part
            stride[level] *= part
            if stride[level] > capacity[level]:
                raise InputError(_too_many(mesh, axis, names, level, part, stride[level], what[level]))
    size = machine.supernode
    inside = position["node"] + size * position["supernode"]
    node = np.broadcast_to(inside, mesh.shape).reshape(-1)
    return Layout(mesh, node, per_node, stride["node"], size)


def _too_many(mesh: Mesh, axis: str, names: tuple[str, ...], level: str, part: int, needed: int, room: str) -> str:
    shared = f" (with other axes {needed:,} in all)" if needed > part else ""
    hint = (
        "; +supernode spreads it over several"
        if level == "node" and "supernode" not in names
        else "; --placement block:dp,ep fills supernodes regardless of their bounds"
    )
    return (
        f"--placement {axis}={'+'.join(names)}: {part:,} of --mesh {mesh} on level {level}{shared} exceed {room}{hint}"
    )


def _largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit`` (and at least 1)."""
    return next(part for part in range(min(number, max(limit, 1)), 0, -1) if number % part == 0)
