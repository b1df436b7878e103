"""Which algorithm of a collective is best: all of them at one size, or over sizes and ranks as a decision table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from ...hardware.errors import DoesNotFit, InputError
from ...hardware.machine import Machine, load_machine
from ...hardware.version import key
from ...workloads.collectives import ALGORITHMS
from ..workers import Workers
from .collective import Collective, Result
from .points import crew_of

SMALLEST = 1024.0
"""Bytes at which a sweep begins."""

FEW = 64
"""Ranks up to which a sweep doubles them; beyond it takes powers of four."""

EQUAL = 1e-9
"""Relative difference of times below which the algorithm that is listed first is preferred."""


@dataclass(frozen=True)
class AlgorithmComparison:
    """All algorithms of an operation that can run, fastest first, and why each of the others cannot."""

    results: list[Result]
    left_out: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"algorithms": [each.plain() for each in self.results], "left_out": _reasons(self.left_out)}


def compare(machine: str | Machine, operation: str, ranks: int, nbytes: float, **options: Any) -> AlgorithmComparison:
    """Simulate every algorithm of ``operation``; arguments and options are those of :func:`~.collective.collective`.

    Raises what is wrong with them, and :class:`DoesNotFit` where no algorithm fits.
    """
    asked = Collective(machine, operation, ranks, **options)
    results, left_out = [], dict[str, str]()
    too_large: DoesNotFit | None = None
    for algorithm in ALGORITHMS[operation]:
        try:
            results.append(asked.run(algorithm, nbytes))
        except InputError as reason:
            left_out[algorithm] = str(reason)
        except DoesNotFit as reason:
            left_out[algorithm], too_large = str(reason), reason
    if not results and too_large:
        raise too_large
    if not results:
        raise InputError(f"--op {operation}: no algorithm runs: {'; '.join(left_out.values())}")
    return AlgorithmComparison(sorted(results, key=lambda each: each.seconds), left_out)


@dataclass(frozen=True)
class DecisionRule:
    """A line of a decision table: on ``ranks`` ranks, from ``least`` to ``most`` bytes as swept, ``algorithm`` is the fastest.

    ``gain`` is the time of the next best over its own, at the size where this matters most.
    """

    ranks: int
    least: float
    most: float
    algorithm: str
    gain: float


@dataclass(frozen=True)
class CollectiveSweep:
    """Times of all algorithms of an operation over ranks and sizes; points as :meth:`Result.plain` without links.

    ``left_out`` tells (ranks, algorithm, why) of what cannot run.
    """

    machine: Machine
    operation: str
    sizes: list[float]
    counts: list[int]
    options: dict[str, Any]
    points: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def newest(self) -> dict[str, Any]:
        """The point that was done last, while the sweep goes on; in the end points stand in their order."""
        return self.points[-1]

    def at(self, ranks: int, nbytes: float) -> list[dict[str, Any]]:
        """The points of one place, the fastest first; those that are equal in the order in which algorithms are listed."""
        here = [point for point in self.points if (point["ranks"], point["bytes"]) == (ranks, nbytes)]
        best = min((point["seconds"] for point in here), default=0.0)
        return sorted(here, key=lambda point: (point["seconds"] > best * (1 + EQUAL)) * point["seconds"])

    @property
    def rules(self) -> list[DecisionRule]:
        """The decision table: sizes next to each other with the same best algorithm are one rule."""
        found = []
        for ranks in self.counts:
            places = [(nbytes, here) for nbytes in self.sizes if (here := self.at(ranks, nbytes))]
            for algorithm, run in groupby(places, lambda place: str(place[1][0]["algorithm"])):
                same = list(run)
                gains = [here[1]["seconds"] / here[0]["seconds"] for _, here in same if len(here) > 1]
                found.append(DecisionRule(ranks, same[0][0], same[-1][0], algorithm, max(gains, default=1.0)))
        return found

    def in_order(self) -> CollectiveSweep:
        """The same with points in the order of ranks, algorithms and sizes, whichever was done first."""
        listed = list(ALGORITHMS[self.operation])

        def place(point: dict[str, Any]) -> tuple[int, int, float]:
            return point["ranks"], listed.index(point["algorithm"]), point["bytes"]

        left = sorted(self.left_out, key=lambda each: (each[0], listed.index(each[1])))
        return replace(self, points=sorted(self.points, key=place), left_out=left)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "machine": self.machine.name,
            "operation": self.operation,
            "nodes_per_supernode": self.machine.supernode,
            "options": self.options,
            "sizes": self.sizes,
            "ranks": self.counts,
            "best": [vars(rule) for rule in self.rules],
            "left_out": [
                {"ranks": ranks, "algorithm": algorithm, "reason": reason} for ranks, algorithm, reason in self.left_out
            ],
            "points": self.points,
        }


def sweep(
    machine: str | Machine,
    operation: str,
    ranks: int,
    nbytes: float,
    *,
    known: Mapping[str, dict[str, Any]] | None = None,
    on_point: Callable[[str, CollectiveSweep], None] | None = None,
    jobs: int = 1,
    workers: Workers | None = None,
    **options: Any,
) -> CollectiveSweep:
    """Simulate every algorithm of ``operation`` on up to ``ranks`` ranks, with 1 KiB to ``nbytes`` bytes.

    ``options`` are those of :func:`~.collective.collective`. ``on_point`` hears of each point as it is done, with its
    key; points whose key is in ``known`` are taken from there. ``jobs`` processes work on them, or ``workers`` that are there
    already; results do not depend on how many. Raises :class:`InputError` for a barrier: it has no sizes.
    """
    hardware = load_machine(machine)
    chosen = {name: value for name, value in options.items() if value}
    Collective(hardware, operation, ranks, **options)
    if operation == "barrier":
        raise InputError("--sweep: a barrier carries no bytes; leave --sweep out to compare its algorithms")
    if ranks < 2:
        raise InputError(f"--ranks {ranks}: a sweep needs at least two")
    study = CollectiveSweep(hardware, operation, swept_sizes(nbytes), swept_counts(ranks), chosen)
    earlier, tasks = known or {}, list[_Task]()
    names: dict[tuple[Any, ...], str] = {}
    for count in study.counts:
        for algorithm in ALGORITHMS[operation]:
            left = []
            for size in study.sizes:
                name = key(hardware.model_dump(), operation, algorithm, count, size, chosen)
                names[count, algorithm, size] = name
                if name not in earlier:
                    left.append(size)
                    continue
                study.points.append(earlier[name])
                if on_point:
                    on_point(name, study)
            if left:
                tasks.append((hardware, operation, count, algorithm, left, options))
    with crew_of(workers, jobs) as crew:
        for number, (size, found) in crew.results(_timed, tasks):
            _, _, count, algorithm, _, _ = tasks[number]
            if isinstance(found, str):
                study.left_out.append((count, algorithm, found))
                continue
            study.points.append(found)
            if on_point:
                on_point(names[count, algorithm, size], study)
    return study.in_order()


def swept_sizes(most: float) -> list[float]:
    """Powers of four from 1 KiB to ``most`` bytes, and ``most`` itself."""
    sizes: list[float] = []
    while SMALLEST * 4 ** len(sizes) < most:
        sizes.append(SMALLEST * 4 ** len(sizes))
    return [*sizes, float(most)]


def swept_counts(most: int) -> list[int]:
    """Powers of two up to ``most`` ranks, of four where these are many, and ``most`` itself."""
    factor = 2 if most <= FEW else 4
    counts = [factor]
    while counts[-1] * factor < most:
        counts.append(counts[-1] * factor)
    return sorted({*counts, most})


_Task = tuple[Machine, str, int, str, list[float], dict[str, Any]]
"""Machine, operation, ranks, algorithm, sizes, and options of a collective."""

_last: dict[str, Collective] = {}


def _timed(task: _Task) -> Iterator[tuple[float, dict[str, Any] | str]]:
    """(size, point) of one algorithm on so many ranks, and after them why it cannot go on, where it cannot."""
    machine, operation, ranks, algorithm, sizes, options = task
    name = key(machine.model_dump(), operation, ranks, options)
    size = sizes[0]
    try:
        if name not in _last:  # fewer ranks, dealt out, can need a node that is not there
            _last.clear()
            _last[name] = Collective(machine, operation, ranks, **options)
        for size in sizes:
            yield size, _point(_last[name].run(algorithm, size))
    except (InputError, DoesNotFit) as reason:
        yield size, str(reason)


def _point(result: Result) -> dict[str, Any]:
    """What a sweep keeps of a result."""
    return {name: value for name, value in result.plain().items() if name != "links"}


def _reasons(left_out: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"algorithm": algorithm, "reason": reason} for algorithm, reason in left_out.items()]
