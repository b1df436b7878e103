"""A Run as tracks: a group for each observed class of ranks, a track for each stream, arrows for messages, counters for links."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from ....workloads.results.run import Run
from ....workloads.results.trace import TraceRow
from ....workloads.schedule.operation import COMPUTE, Role

NANO = 1e9


@dataclass(frozen=True)
class Slice:
    """A row of the trace with its begin and end in whole nanoseconds from the start of the run, and the arrows at it."""

    row: TraceRow
    begin: int
    end: int
    number: int
    """Its place among all slices."""


@dataclass(frozen=True)
class Track:
    """Slices of one stream of one class of ranks, none of which begins before the one before it has ended."""

    ranks: str
    rank: int
    name: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Counter:
    """A number over time: (nanoseconds, value) in order; ``ranks`` is the class that it is of, empty for the whole machine."""

    name: str
    unit: str
    rank: int | None
    values: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Tracks:
    """A run as others show it."""

    run: Run

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The number of one rank of each class: its place in the mesh, the last axis fastest."""
        found: dict[str, int] = {}
        for name, about in self.run.classes.items():
            rank = 0
            for axis, size in self.run.totals.mesh.items():
                rank = rank * size + int(about.get("coordinate", {}).get(axis, 0))
            while rank in found.values():
                rank += 1
            found[name] = rank
        return found

    @cached_property
    def tracks(self) -> tuple[Track, ...]:
        """All tracks, class by class; what overlaps on a stream goes to a second track of it."""
        starts = [0.0, *accumulate(self.run.totals.each_step_seconds)]
        streams: dict[tuple[str, str], list[Slice]] = defaultdict(list)
        for number, row in enumerate(self.run.trace):
            offset = starts[min(row.step, len(starts) - 1)]
            begin, end = round((offset + row.start) * NANO), round((offset + row.end) * NANO)
            streams[row.ranks, row.stream].append(Slice(row, begin, max(begin, end), number))
        found = []
        for ranks in dict.fromkeys([*self.ranks, *(ranks for ranks, _ in streams)]):
            for (_, stream), slices in ((key, each) for key, each in streams.items() if key[0] == ranks):
                for lane, part in enumerate(_lanes(slices)):
                    name = stream if not lane else f"{stream} {lane + 1}"
                    found.append(Track(ranks, self.ranks.get(ranks, 0), name, tuple(part)))
        return tuple(found)

    @cached_property
    def arrows(self) -> tuple[tuple[Slice, Slice], ...]:
        """(from, to) of messages between classes: a stage's work to its receipt by the next, and members of a collective."""
        return (*self._receipts(), *self._collectives())

    @cached_property
    def counters(self) -> tuple[Counter, ...]:
        """What is under way over each level from each class, as bytes a second; and how busy each kind of link is, by step."""
        found = []
        moves: dict[tuple[int, str], list[tuple[int, float]]] = defaultdict(list)
        for track in self.tracks:
            for each in track.slices:
                if each.row.level and each.end > each.begin and each.row.nbytes > 0:
                    rate = each.row.nbytes / (each.end - each.begin) * NANO
                    moves[track.rank, each.row.level] += [(each.begin, rate), (each.end, -rate)]
        for (rank, level), steps in moves.items():
            values: dict[int, float] = {}
            total = 0.0
            for at, change in sorted(steps):
                total += change
                values[at] = max(0.0, total) if abs(total) > 1e-6 * abs(change) else 0.0
            found.append(Counter(f"payload over {level}", "B/s", rank, tuple(values.items())))
        ends = [round(each * NANO) for each in accumulate(self.run.totals.each_step_seconds, initial=0.0)]
        for link in self.run.totals.links:
            busy = [(at, 100 * link.mean_utilisation) for at in ends[:-1]]
            found.append(Counter(f"{link.kind} busy", "%", None, (*busy, (ends[-1], 0.0))))
        return tuple(found)

    def _receipts(self) -> Iterator[tuple[Slice, Slice]]:
        """From the last work of another class on the same micro-batch and pass to what a stage receives."""
        works: dict[tuple[str, int, int | None, str], list[Slice]] = defaultdict(list)
        receipts = []
        for track in self.tracks:
            for each in track.slices:
                row = each.row
                if row.stream == COMPUTE:
                    works[track.ranks, row.step, row.micro_batch, row.phase].append(each)
                elif row.role == Role.STAGE_RECEIVE:
                    receipts.append((track.ranks, each))
        for ranks, receipt in receipts:
            row = receipt.row
            before = []
            for other in self.ranks:
                done = works.get((other, row.step, row.micro_batch, row.phase), [])
                at = bisect_right(done, receipt.begin, key=lambda each: each.end)
                if other != ranks and at:
                    before.append(done[at - 1])
            if before:
                yield max(before, key=lambda each: each.end), receipt

    def _collectives(self) -> Iterator[tuple[Slice, Slice]]:
        """From the member of an exchange that begins first to each other class that takes part in it."""
        members: dict[tuple[int, str], list[Slice]] = defaultdict(list)
        if len(self.run.classes) > 1:
            for track in self.tracks:
                for each in track.slices:
                    if each.row.collective and each.row.role != Role.STAGE_RECEIVE:
                        members[each.row.step, each.row.operation].append(each)
        for several in members.values():
            first, *others = sorted(several, key=lambda each: (each.begin, each.number))
            yield from ((first, other) for other in others)


def _lanes(slices: list[Slice]) -> list[list[Slice]]:
    """Slices parted so that in no part one begins before another has ended."""
    lanes: list[list[Slice]] = []
    for each in sorted(slices, key=lambda each: (each.begin, each.end, each.number)):
        free = next((lane for lane in lanes if lane[-1].end <= each.begin), None)
        if free is None:
            lanes.append([each])
        else:
            free.append(each)
    return lanes


def told(row: TraceRow) -> dict[str, str | int | float]:
    """What a viewer shows of a slice beside its name."""
    found: dict[str, str | int | float | None] = {
        "category": row.category,
        "phase": row.phase,
        "pass": row.runs_in,
        "kind": row.kind,
        "role": row.role,
        "part": row.part,
        "limit": row.limit,
        "layer": row.layer,
        "micro_batch": row.micro_batch,
        "collective": row.collective,
        "algorithm": row.algorithm,
        "axes": row.axes,
        "level": row.level,
        "bytes": row.nbytes,
        "flops": row.flops,
    }
    return {
        key: value for key, value in found.items() if value not in (None, "", 0, 0.0) or (key in WHERE and value == 0)
    }


WHERE = ("layer", "micro_batch")
"""Numbers of which 0 says something."""
