"""What a step of a collective costs beside its bytes: latencies of a machine, from collectives in which all ranks take part.

Two ranks that alone send each other a message know whom to wait for. In a step of a collective every rank sends and receives,
all of them wait for their turns on cores, cards and in the kernel, and the slowest one counts. So steps cost more than
ping-pong does: twice as much on one computer, three times on emulated nodes that share its cores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.message_costs import LEVELS
from ...workloads.collectives import Round, rounds
from .points import MAIN
from .samples import SampleSeries
from .topology import Topology

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Loads = tuple[float, float, float]
"""Bytes on the fullest host's memory, interfaces and supernode's trunk, for each byte of a rank's payload."""


LEAST = 1e-6
"""Share of what was measured below which nothing is made."""

ROUNDS = 12
"""Goes of a fit whose weights follow from the one before."""

SOFT = 0.1
"""Relative error above which a collective pulls less on the fit than by least squares."""


@dataclass(frozen=True)
class LinkRates:
    """Bytes per second of a host's memory, of a host's interfaces in each direction, and of a supernode's trunk likewise."""

    ring: float = inf
    nic: float = inf
    trunk: float = inf


@dataclass(frozen=True)
class StepCounts:
    """The steps of a collective by the level of their farthest message, and the messages that a rank posts in all of them.

    ``loads`` has how often a step comes in a row, and its :data:`Loads`.
    """

    steps: tuple[int, ...]
    messages: int
    loads: tuple[tuple[int, Loads], ...]

    @classmethod
    def of(cls, topology: Topology, operation: str, algorithm: str, outer: int, inner: int) -> StepCounts:
        """Those of an algorithm on the first ``outer * inner`` positions of a job."""
        steps, messages, loads = [0, 0, 0], 0, []
        for each in rounds(operation, algorithm, outer, inner):
            groups = _groups(each, outer, inner)
            for level, times, load in _steps(topology, each, groups):
                steps[level] += times
                messages += times * each.messages(groups.shape[1])
                loads.append((times, load))
        return cls(tuple(steps), messages, tuple(loads))

    def bytes_seconds(self, payload: float, rates: LinkRates) -> float:
        """Seconds that the bytes of all steps take, where ranks have so many bytes: those of the fullest link in each."""
        return payload * sum(
            times * max(ring / rates.ring, nic / rates.nic, trunk / rates.trunk)
            for times, (ring, nic, trunk) in self.loads
        )


class StepCosts:
    """Latencies by level, such that collectives take what they took; overheads of messages and their bytes come beside."""

    def __init__(self, series: Sequence[SampleSeries], topology: Topology, overhead: float, rates: LinkRates) -> None:
        self.series = [each for each in series if told(each)]
        known: dict[tuple[Any, ...], StepCounts] = {}
        for each in self.series:
            shape = shape_of(each)
            known[shape] = known.get(shape) or StepCounts.of(topology, *shape)
        counts = [known[shape_of(each)] for each in self.series]
        self.beside = np.array(
            [
                overhead * each.messages + each.bytes_seconds(payload_of(one), rates)
                for each, one in zip(counts, self.series, strict=True)
            ]
        )
        self.steps = np.array([each.steps for each in counts], dtype=np.float64).reshape(-1, len(LEVELS))

    @property
    def levels(self) -> list[str]:
        """The levels that steps of the collectives have."""
        return [level for level, count in zip(LEVELS, self.steps.sum(axis=0), strict=True) if count]

    def latency(self, level: str, medians: Sequence[float]) -> float:
        """Seconds of a level, where the collectives took ``medians``: nearest by ratio, and no less than of lower levels.

        Raises ``ValueError`` for a level that no step has.
        """
        from scipy.optimize import nnls

        known = [LEVELS.index(each) for each in self.levels]
        above = np.stack([self.steps[:, at:].sum(axis=1) for at in known], axis=1)  # a level adds to those below
        measured = np.asarray(medians, dtype=np.float64)
        made = measured
        for _ in range(ROUNDS):  # least squares of (made - measured) / sqrt(made * measured), far points pulling less
            scale = np.sqrt(made * measured)
            scale *= (1 + ((made - measured) / scale / SOFT) ** 2) ** 0.25
            more = nnls(above / scale[:, None], (measured - self.beside) / scale)[0]
            made = np.maximum(self.beside + above @ more, LEAST * measured)
        return float(np.cumsum(more)[self.levels.index(level)])


def told(series: SampleSeries) -> bool:
    """Whether steps are fitted to a series: collectives of the algorithms that training uses most, but for held-out sizes."""
    point = series.point
    known = MAIN.get(point.detail.get("operation", ""), ())
    return point.kind == "collective" and not point.held_out and point.detail["algorithm"] in known


def payload_of(series: SampleSeries) -> float:
    """Bytes of a rank's whole vector; points of an all-to-all count those of a block."""
    detail = series.point.detail
    return float(series.point.size * (detail["ranks"] if detail["operation"] == "all-to-all" else 1))


def shape_of(series: SampleSeries) -> tuple[str, str, int, int]:
    """Operation, algorithm, and the grid of ranks of a collective."""
    detail = series.point.detail
    return detail["operation"], detail["algorithm"], detail["outer"], detail["inner"]


def _groups(each: Round, outer: int, inner: int) -> Index:
    """The groups of a round, as positions ``[groups, members]``."""
    grid = np.arange(outer * inner).reshape(outer, inner)
    return {"group": grid.reshape(1, -1), "inner": grid, "outer": grid.T}[each.scope]


def _steps(topology: Topology, each: Round, groups: Index) -> Iterator[tuple[int, int, Loads]]:
    """(level of the farthest message, how often in a row, loads of links) of those steps of a round that have messages.

    ``groups[group, member]`` are positions.
    """
    size = groups.shape[1]
    if each.everyone:
        if size > 1:
            level = int(_level(topology, groups[:, 0], groups[:, -1]).max())  # positions stand in the order of hosts
            yield level, each.steps, _loads_of_all(topology, groups, each.share / size)
        return
    for step, times in each.distinct():
        target = each.pattern.targets(np.arange(size), size, step)
        sends = target >= 0
        if sends.any():
            source, to = groups[:, sends].reshape(-1), groups[:, target[sends]].reshape(-1)
            yield int(_level(topology, source, to).max()), times, _loads(topology, source, to, each.share)


def _level(topology: Topology, source: Index, target: Index) -> Index:
    """The level between positions."""
    one, other = source // topology.ranks_per_host, target // topology.ranks_per_host
    found: Index = (one != other) * 1 + (one // topology.domain != other // topology.domain) * 1
    return found


def _loads(topology: Topology, source: Index, target: Index, share: float) -> Loads:
    """Bytes on the fullest host's memory, interfaces (in or out) and supernode's trunk (up or down), of messages of ``share``."""
    level, width = _level(topology, source, target), topology.ranks_per_host
    far, top = level > 0, level > 1
    ring = _most(source[~far] // width)
    nic = max(_most(source[far] // width), _most(target[far] // width))
    trunk = max(_most(each[top] // (width * topology.domain)) for each in (source, target))
    return ring * share, nic * share, trunk * share


def _loads_of_all(topology: Topology, groups: Index, share: float) -> Loads:
    """The same where each member of a group sends to each other one."""
    host = groups // topology.ranks_per_host
    ring, nic, trunk = Counter[int](), Counter[int](), Counter[int]()
    for members in host:
        size = len(members)
        for one, count in Counter(members.tolist()).items():
            ring[one] += count * (count - 1)
            nic[one] += count * (size - count)
        for one, count in Counter((members // topology.domain).tolist()).items():
            trunk[one] += count * (size - count)
    most = [share * max(each.values()) for each in (ring, nic, trunk)]
    return most[0], most[1], most[2]


def _most(places: Index) -> int:
    """How often the place comes that comes most often."""
    return int(np.bincount(places, minlength=1).max())
