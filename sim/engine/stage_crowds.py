"""Stages of a pipeline whose own exchanges meet on links: each by itself, and by how much they slow each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.mesh.placement import Layout
from ...workloads.schedule.operation import Block
from ...workloads.schedule.work import Exchange, PipelineWork
from ..network.links import Array, LinkLoads
from ..network.phases.transfers import Traffic

if TYPE_CHECKING:
    from .step_engine import BlockRun

MOST_OPERATIONS = 20_000
"""Operations of blocks that are run once more, stage by stage: about a second. Above, all stages run a block at once."""

MOST_MATES = 8
"""Other stages at once whose bursts are told one by one; of more the mean counts."""

ROUNDS = 20
"""Rounds in which stretched bursts settle."""

Slot = tuple[int, int]
"""A stage, and the number of the block that it runs."""


class Burst(NamedTuple):
    """Of a block on a stage by itself: the part of its seconds in which it sends, and of shared links the part it takes then."""

    part: float
    levels: Array  # [links on which stages meet]


def met(work: PipelineWork, traffic: Traffic, axis: int) -> dict[str, NDArray[np.bool_]]:
    """Which links, by kind, carry what more than one stage sends within its blocks; kinds that have none are left out.

    Stages send with odd weights. Where one alone loads a link, weighted bytes over bytes are that stage's weight.
    """
    count, weights = Traffic(traffic.machine, traffic.layout, "links"), np.sqrt(np.arange(work.stages) + 2.0)
    shape = [work.stages if number == axis else 1 for number in range(len(traffic.layout.mesh.shape))]
    exchanges = (each.work for block in work.blocks for each in block if isinstance(each.work, Exchange))
    kinds = {(each.operation, each.algorithm, each.axes) for each in exchanges}
    owner: dict[str, Array] = {}
    found: dict[str, NDArray[np.bool_]] = {}
    for operation, algorithm, axes in sorted(kinds):
        unit = Exchange(operation, algorithm, axes, 1.0, "fp32")
        bytes_on, weighted = (count.weighted(unit, each) for each in (np.ones(shape), weights.reshape(shape)))
        for name, here in bytes_on.loads.items():
            loaded = here > 0
            ratio = weighted.loads[name] / np.where(loaded, here, 1.0)
            before = owner.setdefault(name, np.zeros(len(here)))
            place = np.minimum(np.searchsorted(weights, ratio * (1 - 1e-9)), work.stages - 1)
            several = loaded & (np.abs(weights[place] - ratio) > 1e-9 * ratio)
            several |= loaded & (before > 0) & (np.abs(before - ratio) > 1e-9 * ratio)
            owner[name] = np.where(loaded, ratio, before)
            found[name] = found.get(name, np.zeros(len(here), dtype=np.bool_)) | several
    return {name: links for name, links in found.items() if links.any()}


@dataclass
class StageCrowds:
    """Stages whose exchanges meet: what each takes alone, and by how much those that run at once stretch each other.

    ``run(stage, number, operations, traffic)`` runs a block on the ranks of one stage; ``links`` are those on which stages meet.
    Where stages run at once, each is taken to send at times that have nothing to do with those of the others; what meets on a
    link shares it max-min fairly, stage by stage.
    """

    work: PipelineWork
    traffic: Traffic
    axis: int
    run: Callable[[int, int, Block, Traffic], BlockRun]
    links: dict[str, NDArray[np.bool_]]
    _runs: dict[Slot, BlockRun] = field(default_factory=dict)
    _traffics: dict[int, Traffic] = field(default_factory=dict)
    _bursts: dict[Slot, Burst] = field(default_factory=dict)
    _stretches: dict[tuple[Slot | None, ...], list[float]] = field(default_factory=dict)
    _loads: dict[object, Array] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        work: PipelineWork,
        traffic: Traffic,
        axis: int | None,
        run: Callable[[int, int, Block, Traffic], BlockRun],
        note: Callable[[str], None],
    ) -> StageCrowds | None:
        """None where no stages meet, or where there is too much to run, which is then noted."""
        if axis is None or work.stages < 2:
            return None
        used = {
            (virtual % work.stages, number)
            for virtual, passes in enumerate(work.uses)
            for each in passes
            for number in each
        }
        operations = sum(len(work.blocks[number]) for _, number in used)
        links = met(work, traffic, axis)
        if links and operations > MOST_OPERATIONS:
            note(
                f"{work.stages:,} stages share {', '.join(links)} with what they send within blocks of {operations:,} operations"
                f" in all, of which {MOST_OPERATIONS:,} can be played stage by stage; all stages were taken to run a block at"
                " once, so the step may come out too long (up to 31 % in random plans)"
            )
            return None
        return cls(work, traffic, axis, run, links) if links else None

    def alone(self, stage: int, number: int) -> BlockRun:
        """A block on one stage while the others are silent."""
        key = stage, number
        if key not in self._runs:
            block = tuple(replace(each, work=self._cut(each.work, stage)) for each in self.work.blocks[number])
            self._runs[key] = self.run(stage, number, block, self._traffic(stage))
        return self._runs[key]

    def stretch(self, running: Sequence[Slot | None]) -> list[float]:
        """By how much longer than alone each stage takes while these blocks run; 1 where it meets none."""
        key = tuple(running)
        if key not in self._stretches:
            self._stretches[key] = self._settled([self._burst(slot) if slot else None for slot in key])
        return self._stretches[key]

    def _settled(self, bursts: list[Burst | None]) -> list[float]:
        silent = np.zeros(sum(int(links.sum()) for links in self.links.values()))
        levels = np.array([burst.levels if burst else silent for burst in bursts])
        # Only where all together want more than a link has do any wait; links that are loaded alike count once.
        levels = np.unique(levels[:, levels.sum(axis=0) > 1.0], axis=1)
        slower = [1.0] * len(bursts)
        for _ in range(ROUNDS):
            sending = [
                burst.part * slow / (1.0 - burst.part + burst.part * slow) if burst else 0.0
                for burst, slow in zip(bursts, slower, strict=True)
            ]
            before, slower = slower, [_slower(levels, sending, stage) for stage in range(len(bursts))]
            if np.allclose(before, slower, rtol=1e-6):
                break
        return [
            1.0 - burst.part + burst.part * slow if burst else 1.0 for burst, slow in zip(bursts, slower, strict=True)
        ]

    def _burst(self, slot: Slot) -> Burst:
        if slot not in self._bursts:
            stage, number = slot
            seconds = float(self.alone(stage, number).seconds.max())
            met = sum(int(links.sum()) for links in self.links.values())
            traffic, busy, load = self._traffic(stage), 0.0, np.zeros(met)
            exchanges = [each.work for each in self.work.blocks[number] if isinstance(each.work, Exchange)]
            same = Counter(id(work) for work in exchanges)
            for work in {id(each): each for each in exchanges}.values():
                transfers = traffic.transfers(self._cut(work, stage))
                once = sum(float(each.demand.alone[0].max(initial=0.0)) for each in transfers)
                busy += same[id(work)] * once
                load = load + same[id(work)] * self._shared(work, stage)
            part = min(1.0, busy / seconds) if seconds else 0.0
            self._bursts[slot] = Burst(part, np.minimum(1.0, load / busy) if busy else np.zeros(met))
        return self._bursts[slot]

    def _shared(self, work: Exchange, stage: int) -> Array:
        """Seconds in which an exchange on one stage keeps each link busy on which stages meet."""
        key = (work.operation, work.algorithm, work.axes, work.nbytes if work.even else id(work), stage)
        if key not in self._loads:
            shape = [
                self.work.stages if number == self.axis else 1 for number in range(len(self.traffic.layout.mesh.shape))
            ]
            mine = (np.arange(self.work.stages) == stage).astype(np.float64).reshape(shape)
            self._loads[key] = _seconds(self._counter.weighted(work, mine), self.links)
        return self._loads[key]

    @property
    def _counter(self) -> Traffic:
        """Traffic that only adds up bytes."""
        if -1 not in self._traffics:
            self._traffics[-1] = Traffic(self.traffic.machine, self.traffic.layout, "links")
        return self._traffics[-1]

    def _traffic(self, stage: int) -> Traffic:
        """The network of one stage's ranks."""
        if stage not in self._traffics:
            whole = self.traffic.layout
            mesh = replace(
                whole.mesh, shape=tuple(1 if at == self.axis else n for at, n in enumerate(whole.mesh.shape))
            )
            node = whole.node.reshape(whole.mesh.shape).take([stage], axis=self.axis).reshape(-1)
            layout = Layout(mesh, node, whole.ranks_per_node, whole.nodes_per_supernode, whole.supernode_size)
            self._traffics[stage] = Traffic(self.traffic.machine, layout, self.traffic.depth)
        return self._traffics[stage]

    def _cut(self, work: Any, stage: int) -> Any:
        """What one stage's ranks have of a work whose amounts are arrays over the mesh."""
        dimensions = len(self.traffic.layout.mesh.shape)
        cut = {
            name: value.take([stage], axis=self.axis)
            for name, value in vars(work).items()
            if isinstance(value, np.ndarray) and value.ndim == dimensions and value.shape[self.axis] > 1
        }
        return replace(work, **cut) if cut else work


def _seconds(loads: LinkLoads, links: Mapping[str, NDArray[np.bool_]]) -> Array:
    """Seconds in which bytes keep each of these links busy, link after link of every kind."""
    capacity = {kind.name: kind.capacity for kind in loads.kinds}
    return np.concatenate(
        [
            (loads.loads[name] / capacity[name])[here] if name in loads.loads else np.zeros(int(here.sum()))
            for name, here in links.items()
        ]
    )


def _slower(levels: Array, sending: list[float], stage: int) -> float:
    """By how much a stage's bursts are stretched in the mean, on the link where they are most; ``levels[stage, link]``."""
    most = 1.0
    for wanted in levels[:, levels[stage] > 0].T:
        mates = [
            (float(each), sends)
            for other, (each, sends) in enumerate(zip(wanted, sending, strict=True))
            if other != stage and each > 0 and sends > 0
        ]
        if wanted[stage] + sum(each for each, _ in mates) > 1.0:
            most = max(most, _expected(float(wanted[stage]), mates))
    return most


def _expected(level: float, mates: list[tuple[float, float]]) -> float:
    """The mean over the others' bursts of how much longer one takes; ``mates`` are (level, part of the time)."""
    if len(mates) > MOST_MATES:
        return max(1.0, level + sum(each * sends for each, sends in mates))
    found = 0.0
    for states in product((False, True), repeat=len(mates)):
        chance = float(np.prod([sends if on else 1.0 - sends for on, (_, sends) in zip(states, mates, strict=True)]))
        others = [each for on, (each, _) in zip(states, mates, strict=True) if on]
        found += chance * level / _fair_part(level, others)
    return found


def _fair_part(level: float, others: list[float]) -> float:
    """What one of several demands gets of a link, max-min fairly."""
    left, waiting = 1.0, sorted([level, *others])
    while waiting:
        share = left / len(waiting)
        if waiting[0] > share:
            return min(level, share)
        left -= waiting.pop(0)
    return level
