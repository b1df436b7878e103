"""Which groups of ranks drift apart in a step, and which of them are played together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange, PipelineWork
from ..network.coupling import Coupling, Kind
from ..network.links import Array, Index
from ..network.phases.flow_symmetry import alike
from ..network.phases.transfers import Traffic

AT_ONCE = 1e-11
"""Begins that differ by less than this part of the time since the step began are one."""

NEAR = 1e-2
"""Part of an exchange's own time within which groups count as beginning together, where a pipeline has many blocks."""

MOST_BEGINS = 10_000
"""Begins of batches on the network in a step above which groups are put together: some seconds."""

MOST_RANKS = 6_000_000
"""The same of begins times ranks, since each looks at all links."""

MOST_RESUMES = 150_000
"""The same of operations times cells."""


def apart_in(begins: Array, near: Array | float = 0.0) -> NDArray[np.bool_]:
    """Of several blocks, along a first axis, whether groups that begin an exchange at these times do not begin together.

    ``near``: seconds of each block within which they do, all the same.
    """
    flat = begins.reshape(len(begins), -1)
    last = flat.max(axis=1)
    found: NDArray[np.bool_] = last - flat.min(axis=1) > np.maximum(AT_ONCE * last, near)
    return found


@dataclass
class Begins:
    """Over all exchanges of a kind: which groups always began, and ended, together, how late each was in all, and any."""

    together: Index
    ended: Index
    late: Array
    most: float = 0.0

    @property
    def apart(self) -> bool:
        """Whether any began at another time than others."""
        return self.most > 0.0

    @classmethod
    def of(cls, groups: int) -> Begins:
        """Nothing seen yet."""
        return cls(np.zeros(groups, dtype=np.int64), np.zeros(groups, dtype=np.int64), np.zeros(groups))

    def add(self, begins: Array) -> None:
        """The groups of an exchange began at these times."""
        first = float(begins.min())
        late = begins - first
        quantum = AT_ONCE * float(begins.max())
        if late.max() <= quantum:
            return
        self.late, self.most = self.late + late, max(self.most, float(late.max()))
        self.together = alike(self.together, np.round(late / quantum).astype(np.int64))

    def add_ends(self, rows: Index, ends: Array) -> None:
        """Some groups of an exchange ended at these times."""
        quantum = AT_ONCE * float(ends.max())
        if float(ends.max() - ends.min()) > quantum:
            every = np.zeros(len(self.ended), dtype=np.int64)
            every[rows] = np.round((ends - ends.min()) / quantum).astype(np.int64)
            self.ended = alike(self.ended, every)


@dataclass
class Drift:
    """What was seen of a step whose groups all loaded the network together.

    ``coarse``: streams beside each other set links apart that are alike for one of them.
    """

    schedule: Schedule
    kinds: Mapping[Kind, Begins] = field(default_factory=dict)
    coarse: bool = False

    @classmethod
    def of(cls, schedule: Schedule) -> Drift:
        """Nothing seen yet."""
        found: dict[Kind, Begins] = {}
        for each in schedule.outline:
            if isinstance(each.work, Exchange) and schedule.mesh.size(*each.work.axes) > 1:
                kind = Kind(each.stream, each.work.axes)
                if kind not in found:
                    found[kind] = Begins.of(schedule.mesh.ranks // schedule.mesh.size(*each.work.axes))
        return cls(schedule, found)

    @property
    def apart(self) -> bool:
        """Whether groups of any exchange did not begin together, or not all that begins together is alike."""
        return self.coarse or any(begins.apart for begins in self.kinds.values())

    def add(self, stream: str, axes: tuple[str, ...], begin: Array) -> None:
        """An exchange began; ``begin`` broadcasts over the mesh, of size 1 along ``axes``."""
        if begin.size > 1:
            mesh = self.schedule.mesh
            along = mesh.positions(axes)
            shape = tuple(1 if place in along else length for place, length in enumerate(mesh.shape))
            self.kinds[Kind(stream, axes)].add(np.broadcast_to(begin, shape).reshape(-1))

    @property
    def _often(self) -> Mapping[Kind, int]:
        """How many exchanges of each kind there are."""
        works = ((each.stream, each.work) for each in self.schedule.outline)
        return Counter(Kind(stream, work.axes) for stream, work in works if isinstance(work, Exchange))

    def too_many(self, traffic: Traffic) -> Iterator[str]:
        """What is said where groups drift apart that share links, and are too many to be told apart."""
        for kind, begins in self.kinds.items():
            if begins.apart and traffic.crowded(kind.axes):
                yield (
                    f"{len(begins.late):,} groups along {'+'.join(kind.axes)} share links and do not begin together (up to"
                    f" {begins.most * 1e3:.3g} ms apart); they are too many to be played apart and were taken to send at once,"
                    " so the step may come out too long"
                )

    def batches(self, traffic: Traffic) -> Batches | None:
        """How groups are put together; None where those that drifted apart share no link, so that it made no difference."""
        room, often = _room(self.schedule.mesh.ranks), self._often
        apart = [kind for kind, begins in self.kinds.items() if begins.apart or self.coarse]
        if room < MOST_BEGINS:  # ranks are many: what cannot be told apart anyway is not looked at closely
            apart = [kind for kind in apart if traffic.crowded(kind.axes)]
        if all(room < 2 * often[kind] for kind in apart):
            return None
        coupling = Coupling.of(traffic, self.kinds)
        if not coupling.known:
            return None
        coupled = coupling.coupled()
        if not self.coarse and not any(self.kinds[kind].apart for kind in coupled):
            return None
        return Batches.of(self, coupling, coupled, often)


@dataclass(frozen=True)
class Batches:
    """Of each kind whose groups share links, the batch that each group is in; ``wanted`` are the batches that would be exact."""

    coupling: Coupling
    of_group: Mapping[Kind, Index]
    wanted: Mapping[Kind, int]

    @classmethod
    def of(cls, drift: Drift, coupling: Coupling, coupled: set[Kind], often: Mapping[Kind, int]) -> Batches | None:
        """As many batches as can be played: those that begin apart, where there are too many the neighbours in time of them."""
        exact = {kind: drift.kinds[kind].together for kind in coupling.kinds if kind in coupled}
        wanted = {kind: int(batch.max()) + 1 for kind, batch in exact.items()}
        room = _room(drift.schedule.mesh.ranks) / max(1, sum(each > 1 for each in wanted.values()))
        most = {kind: max(1, min(wanted[kind], int(room / often[kind]))) for kind in exact}
        computing = sum(not isinstance(each.work, PipelineWork) for each in drift.schedule.outline)
        while True:
            found = {kind: _merged(batch, drift.kinds[kind].late, most[kind]) for kind, batch in exact.items()}
            cells = int(alike(*_by_rank(coupling, found)).max()) + 1
            if max(most.values()) == 1 and not drift.coarse:
                return None
            if cells * computing <= MOST_RESUMES or cells == 1:
                return cls(coupling, found, wanted)
            rarest = min((kind for kind in most if most[kind] > 1), key=lambda kind: often[kind])
            most[rarest] = max(1, most[rarest] // 2)

    def cells(self) -> Index:
        """For each rank the number of its cell: ranks that are in the same batches of every kind."""
        found: Index = alike(*_by_rank(self.coupling, self.of_group))
        return found

    def finer(self, drift: Mapping[Kind, Begins], late: bool) -> Batches | None:
        """Batches split by when their groups began after all; None where these began together or no more batches can be."""
        split = {kind: alike(batch, drift[kind].together) for kind, batch in self.of_group.items()}
        if late:  # what some groups do next came after others of their batch had ended, too
            split = {kind: alike(batch, drift[kind].ended) for kind, batch in split.items()}
        wanted = {kind: int(batch.max()) + 1 for kind, batch in split.items()}
        whole = all(int(batch.max()) + 1 == self.wanted[kind] for kind, batch in self.of_group.items())
        more = any(wanted[kind] > self.wanted[kind] for kind in wanted)
        return Batches(self.coupling, split, wanted) if whole and more else None


def _room(ranks: int) -> float:
    """Begins of batches that can be played."""
    return min(MOST_BEGINS, MOST_RANKS / ranks)


def _by_rank(coupling: Coupling, batches: Mapping[Kind, Index]) -> Index:
    """The batch of each rank in each kind, ``[kinds, ranks]``."""
    return np.stack([batch[coupling.of_rank(kind)] for kind, batch in batches.items()])


def _merged(batch: Index, late: Array, most: int) -> Index:
    """At most so many batches: neighbours in lateness become one."""
    count = int(batch.max()) + 1
    if count <= most:
        return batch
    mean = np.bincount(batch, late) / np.bincount(batch)
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(mean, kind="stable")] = np.arange(count)
    merged: Index = (rank * most // count)[batch]
    return merged
