"""A Run as a trace of Perfetto (ui.perfetto.dev): tracks, slices with what they are, arrows and counters, in protocol buffers.

Numbers of fields are those of perfetto/trace: ``trace_packet.proto``, ``track_event.proto``, ``track_descriptor.proto``,
``interned_data.proto`` and ``debug_annotation.proto``.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import ClassVar

from ....workloads.results.run import Run
from ..kinds import Contents, Exporter, Wanted
from ..reading.protobuf import chunk, double, fixed64, number
from .tracks import Slice, Tracks, told

BEGIN, END, COUNTED = 1, 2, 4
"""Types of track events."""

MACHINE = 1_000_000_000
"""The process that counters of the whole machine belong to; ranks are others."""

CLEARED, NEEDS = 1, 2
"""Flags of a sequence: interned names begin anew; they are used."""


class Interned:
    """Names that stand once in the trace and are told by a number from then on."""

    def __init__(self, field: int) -> None:
        self._field, self._numbers, self.new = field, dict[str, int](), b""

    def __getitem__(self, name: str) -> int:
        """The number of a name; what it stands for is added to ``new`` the first time."""
        if name not in self._numbers:
            self._numbers[name] = len(self._numbers) + 1
            self.new += chunk(self._field, number(1, self._numbers[name]) + chunk(2, name))
        return self._numbers[name]


def perfetto_trace(run: Run) -> bytes:
    """The bytes of the trace; the same run gives the same bytes."""
    return _Trace(Tracks(run)).packets()


class PerfettoTrace(Exporter):
    """trace for ui.perfetto.dev, in protocol buffers."""

    takes: ClassVar[str] = "a run (-o of simulate or execute)"

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """One file."""
        return {wanted.out: perfetto_trace(Run.load(source))}


class _Trace:
    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks
        self._categories, self._names, self._keys = Interned(1), Interned(2), Interned(3)
        self._flows: dict[int, list[int]] = defaultdict(list)
        for arrow, (start, end) in enumerate(tracks.arrows, 1):
            self._flows[start.number].append(arrow)
            self._flows[end.number].append(arrow)

    def packets(self) -> bytes:
        """Descriptors of processes and tracks, then all events in order of time, those of one track as they follow each other."""
        found = [_packet(number(13, CLEARED))]
        totals = self._tracks.run.totals
        processes = {rank: f"rank {rank}: {name}" for name, rank in self._tracks.ranks.items()}
        processes[MACHINE] = f"{totals.machine}: {totals.model}, {totals.ranks:,} ranks"
        for rank, name in processes.items():
            found.append(_descriptor(number(1, _process(rank)) + chunk(3, number(1, rank + 1) + chunk(6, name))))
        events: list[tuple[int, int, Slice | float | None]] = []
        for identity, track in enumerate(self._tracks.tracks, 1):
            found.append(_descriptor(number(1, identity) + chunk(2, track.name) + number(5, _process(track.rank))))
            for each in track.slices:
                events += [(each.begin, identity, each), (each.end, identity, None)]
        for identity, counter in enumerate(self._tracks.counters, len(self._tracks.tracks) + 1):
            process = MACHINE if counter.rank is None else counter.rank
            about = number(1, identity) + chunk(2, counter.name) + number(5, _process(process))
            found.append(_descriptor(about + chunk(8, chunk(6, counter.unit))))
            events += [(when, identity, value) for when, value in counter.values]
        events.sort(key=lambda event: event[0])
        found += [self._event(when, track, what) for when, track, what in events]
        return b"".join(found)

    def _begin(self, track: int, each: Slice) -> bytes:
        row = each.row
        event = number(9, BEGIN) + number(11, track) + number(3, self._categories[row.category])
        event += number(10, self._names[row.label or row.operation])
        for key, value in told(row).items():
            held = (
                chunk(6, value)
                if isinstance(value, str)
                else number(4, value)
                if isinstance(value, int)
                else double(5, value)
            )
            event += chunk(4, number(1, self._keys[key]) + held)
        for flow in self._flows.get(each.number, ()):
            event += fixed64(47, flow)
        return event

    def _event(self, when: int, track: int, what: Slice | float | None) -> bytes:
        """The begin of a slice, the end of the one that is under way, or the value of a counter."""
        if isinstance(what, Slice):
            event = self._begin(track, what)
        elif what is None:
            event = number(9, END) + number(11, track)
        else:
            event = number(9, COUNTED) + number(11, track) + double(44, what)
        new = self._categories.new + self._names.new + self._keys.new
        self._categories.new = self._names.new = self._keys.new = b""
        return _packet(number(8, when) + chunk(11, event) + (chunk(12, new) if new else b"") + number(13, NEEDS))


def _process(rank: int) -> int:
    """The identity of a rank's process, beyond those of tracks."""
    return (1 << 40) + rank


def _descriptor(about: bytes) -> bytes:
    return _packet(chunk(60, about))


def _packet(inside: bytes) -> bytes:
    return chunk(1, inside + number(10, 1))
