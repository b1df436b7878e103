"""Seconds of collectives in closed form: what they put on the most loaded link, known for each shape of group."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...hardware.machine import Machine
from ...workloads.collectives import find
from ...workloads.mesh.mesh import Mesh
from ...workloads.mesh.placement import Layout, named
from ...workloads.schedule.work import Exchange
from ..engine.stage_transfers import Handover
from ..network.phases.transfers import Traffic
from .repeating_layout import repeating

UNIT = 1e9
"""Bytes with which a collective is looked at; its seconds are linear in them."""

RINGS = ("reduce-scatter", "all-gather", "all-reduce")
"""Operations whose rings are the same."""

Array = NDArray[np.float64]

Shape = tuple[object, ...]
"""How a group lies on the nodes: groups of one shape take the same time, whatever their axes are called."""


@dataclass(frozen=True)
class CollectiveSteps:
    """Equal steps of a collective: the longest of some lines, ``fixed`` seconds and so many for ``each`` byte."""

    lines: tuple[tuple[float, float], ...]

    def seconds(self, nbytes: float) -> float:
        """With vectors of ``nbytes``."""
        if len(self.lines) == 1:
            ((fixed, each),) = self.lines
            return fixed + each * nbytes
        return max([fixed + each * nbytes for fixed, each in self.lines])


@dataclass
class CollectiveTimes:
    """Collectives of a machine as lines in their bytes, known once for each shape of group.

    All groups along the axes run at once, and a collective takes as long as its most loaded link: the ``links`` depth of the
    simulator. Collectives that run at the same time as others are not slowed down.
    """

    machine: Machine
    _known: dict[Shape, tuple[CollectiveSteps, ...]] = field(default_factory=dict)
    _hops: dict[tuple[Shape, bool], tuple[float, float]] = field(default_factory=dict)

    def on(self, layout: Layout, placement: str) -> Wires:
        """The collectives of one layout."""
        return Wires(self, layout, placement)


@dataclass
class Wires:
    """Collectives between the ranks of one layout."""

    network: CollectiveTimes
    layout: Layout
    placement: str
    _traffic: Traffic | None = None
    _shapes: dict[tuple[str, ...], Shape] = field(default_factory=dict)
    _repeating: dict[tuple[str, ...], tuple[Traffic, tuple[str, ...]]] = field(default_factory=dict)
    _strides: dict[str, int] | None = None

    def __post_init__(self) -> None:
        self._strides = strides(self.layout.mesh, self.placement)

    def seconds(self, exchange: Exchange) -> float:
        """Seconds of an exchange; of ranks with more bytes than others, where they differ."""
        if self.layout.mesh.size(*exchange.axes) == 1:
            return 0.0
        shape, known = self.shape(exchange.axes), self.network._known
        key = (exchange.operation, exchange.algorithm, shape)
        if key not in known:
            # What goes round a ring loads the same links in all of them, and other layouts will ask for others.
            alike = RINGS if exchange.algorithm == "ring" else ()
            for operation in dict.fromkeys((exchange.operation, *alike)):
                of_this = replace(exchange, operation=operation)
                known.setdefault((operation, exchange.algorithm, shape), self._lines(of_this))
        nbytes = exchange.nbytes if isinstance(exchange.nbytes, float) else float(np.max(exchange.nbytes))
        return sum([each.seconds(nbytes) for each in known[key]])

    def hand_over(self, exchange: Exchange, wraps: bool) -> tuple[float, float]:
        """Seconds of a message to the next stage, and those of them in which bytes pass.

        Hops differ where nodes do, such as a last one that is not full: each is its stage's slowest, and the mean of all hops is
        what a micro-batch meets on its way.
        """
        key = (self.shape(exchange.axes), wraps)
        known = self.network._hops
        if key not in known:
            even = Exchange(exchange.operation, exchange.algorithm, exchange.axes, UNIT, exchange.element)
            found = Handover.of(self.traffic, even, "F", wraps)
            (axis,) = self.layout.mesh.positions(exchange.axes)
            others = tuple(at for at in range(found.seconds.ndim) if at != axis)
            total, moving = found.seconds.max(axis=others), found.wire.max(axis=others)
            hops = len(total) if wraps else len(total) - 1
            each = float(moving.sum()) / hops
            known[key] = float(total.sum()) / hops - each, each / UNIT
        fixed, each = known[key]
        wire = each * float(np.max(exchange.nbytes))
        return fixed + wire, wire

    def shape(self, axes: tuple[str, ...]) -> Shape:
        """The shape of the groups along these axes."""
        found = self._shapes.get(axes)
        if found is None:
            found = self._shapes[axes] = self._shape(axes)
        return found

    def _shape(self, axes: tuple[str, ...]) -> Shape:
        mesh = self.layout.mesh
        every = (mesh.ranks, self.layout.nodes_per_supernode)
        if (parts := self._parts(axes)) is None:
            wanted = tuple(mesh.axes[at] for at in mesh.positions(axes))
            return (*every, self.placement, mesh.axes, mesh.shape, wanted)
        return (*every, *parts)

    def _parts(self, axes: tuple[str, ...]) -> list[tuple[int, int]] | None:
        """(places between neighbours, members) of what groups are made of, inner ones first; None where places have no order."""
        if self._strides is None:
            return None
        mesh, parts = self.layout.mesh, list[tuple[int, int]]()
        for stride, size in sorted((self._strides[mesh.axes[at]], mesh.shape[at]) for at in mesh.positions(axes)):
            if size == 1:
                continue
            if parts and parts[-1][0] * parts[-1][1] == stride:
                parts[-1] = (parts[-1][0], parts[-1][1] * size)
            else:
                parts.append((stride, size))
        return parts

    @property
    def traffic(self) -> Traffic:
        """What the collectives put on links."""
        if self._traffic is None:
            self._traffic = Traffic(self.network.machine, self.layout, "links")
        return self._traffic

    def _in_part(self, axes: tuple[str, ...]) -> tuple[Traffic, tuple[str, ...]]:
        """Traffic, and the axes of groups in it: of a part of the layout where that repeats itself, else of all of it."""
        if axes not in self._repeating:
            parts = self._parts(axes)
            part = repeating(self.network.machine, self.layout, parts) if parts else None
            found = (self.traffic, axes) if part is None else (Traffic(self.network.machine, part[0], "links"), part[1])
            self._repeating[axes] = found
        return self._repeating[axes]

    def _lines(self, exchange: Exchange) -> tuple[CollectiveSteps, ...]:
        """The steps of a collective, from the loads that it puts on links: of a part of the layout where that repeats itself."""
        flat = not find(exchange.operation, exchange.algorithm).grid
        traffic, axes = self._in_part(exchange.axes) if flat else (self.traffic, exchange.axes)
        even = Exchange(exchange.operation, exchange.algorithm, axes, UNIT, exchange.element)
        return tuple(
            CollectiveSteps(_highest(*each.lines(UNIT), float(np.max(each.fixed)) + each.floor))
            for each in traffic.transfers(even)
        )


def _highest(fixed: Array, each: Array, least: float) -> tuple[tuple[float, float], ...]:
    """Lines that are the highest somewhere, ``least`` seconds whatever the bytes among them.

    Of those that begin no higher, only steeper ones can be.
    """
    fixed, each = np.append(fixed, least), np.append(each, 0.0)
    order = np.lexsort((each, fixed))[::-1]
    steepest = np.maximum.accumulate(each[order])
    kept = order[np.append(True, steepest[1:] > steepest[:-1])]
    return tuple(zip(fixed[kept].tolist(), each[kept].tolist(), strict=True))


def strides(mesh: Mesh, placement: str) -> dict[str, int] | None:
    """How many places apart neighbours along each axis stand, where ranks fill nodes one after another; else None."""
    spec = named(mesh.whole, placement)
    if not isinstance(spec, str) or not spec.startswith("block:"):
        return None
    found, stride = dict[str, int](), 1
    for axis in spec.removeprefix("block:").split(","):
        for part in reversed(mesh.parts_of([axis])):
            found[part] = stride
            stride *= mesh.size(part)
    return found
