"""A Run as PyTorch's profiler writes traces (Kineto, in Chrome's format): one object for each observed rank, or all in one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from ....hardware.precisions import BYTES
from ....workloads.results.run import Run
from ....workloads.results.trace import COLUMNS
from ....workloads.schedule.operation import COMPUTE
from ..kinds import Contents, Exporter, Wanted
from .tracks import Slice, Track, Tracks, told

MICRO = 1e-3
"""Microseconds of a nanosecond."""

COLLECTIVES = {
    "all-reduce": "allreduce",
    "all-gather": "allgather",
    "reduce-scatter": "reduce_scatter",
    "all-to-all": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "shift": "send",
}
"""Names that NCCL has in PyTorch's traces."""

SCHEMA = 1


def kineto_traces(run: Run) -> dict[int, str]:
    """The JSON text of each observed rank."""
    tracks = Tracks(run)
    return {rank: _text(tracks, [rank]) for rank in tracks.ranks.values()}


def kineto_trace(run: Run) -> str:
    """All observed ranks in one JSON text, as processes of one trace."""
    tracks = Tracks(run)
    return _text(tracks, [*tracks.ranks.values()])


class KinetoTrace(Exporter):
    """trace as PyTorch's profiler writes it: one JSON, or with a folder as OUT one of each observed rank."""

    takes: ClassVar[str] = "a run (-o of simulate or execute)"

    def files(self, source: Path, wanted: Wanted) -> Contents:
        """One file, or one for each observed rank."""
        run = Run.load(source)
        if wanted.out.is_dir() or not wanted.out.suffix:
            return {wanted.out / f"rank-{rank}.json": text for rank, text in kineto_traces(run).items()}
        return {wanted.out: kineto_trace(run)}


def _text(tracks: Tracks, ranks: list[int]) -> str:
    totals = tracks.run.totals
    events: list[dict[str, Any]] = []
    names = {rank: name for name, rank in tracks.ranks.items()}
    for rank in ranks:
        events += _process(rank, f"rank {rank}: {names[rank]}")
    own = [track for track in tracks.tracks if track.rank in ranks]
    for track in own:
        stream = _stream(track, own)
        events.append(_about("thread_name", track.rank, stream, name=f"stream {stream}: {track.name}"))
        events += [_kernel(each, track, stream, tracks) for each in track.slices]
    places = {each.number: (track.rank, _stream(track, own), each) for track in own for each in track.slices}
    for number, (start, end) in enumerate(tracks.arrows, 1):
        if start.number in places and end.number in places:
            events += _arrow(number, places[start.number], places[end.number])
    for counter in tracks.counters:
        if counter.rank in ranks:
            events += [
                {"ph": "C", "name": counter.name, "pid": counter.rank, "ts": at * MICRO, "args": {counter.unit: value}}
                for at, value in counter.values
            ]
    about = {
        "schemaVersion": SCHEMA,
        "distributedInfo": {"backend": "nccl", "rank": ranks[0] if ranks else 0, "world_size": totals.ranks},
        "deviceProperties": [{"id": 0, "name": totals.machine}],
        "displayTimeUnit": "ms",
        "traceName": f"{totals.model} on {totals.machine}",
        "athanor": {"classes": tracks.run.classes, "plan": tracks.run.plan, "columns": list(COLUMNS)},
        "traceEvents": events,
    }
    return json.dumps(about, separators=(",", ":"))


def _process(rank: int, name: str) -> Iterable[dict[str, Any]]:
    yield _about("process_name", rank, 0, name=name)
    yield _about("process_labels", rank, 0, labels="GPU 0")
    yield _about("process_sort_index", rank, 0, sort_index=rank)


def _about(what: str, pid: int, tid: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "ts": 0, "args": args}


def _stream(track: Track, tracks: list[Track]) -> int:
    """A number for each track of a rank, 7 for what computes, as PyTorch's default stream has."""
    if track.name == COMPUTE:
        return 7
    others = [each.name for each in tracks if each.rank == track.rank and each.name != COMPUTE]
    return 20 + others.index(track.name)


def _kernel(each: Slice, track: Track, stream: int, tracks: Tracks) -> dict[str, Any]:
    """A slice as a kernel of a GPU. A collective has the name and the arguments by which analysers know it."""
    row = each.row
    args: dict[str, Any] = {
        "device": 0,
        "context": 1,
        "stream": stream,
        "correlation": each.number + 1,
        "External id": each.number + 1,
        "operation": row.operation,
        "step": row.step,
        **told(row),
    }
    name = row.operation
    if row.collective:
        spelled = COLLECTIVES.get(row.collective, row.collective.replace("-", "_"))
        size = BYTES["bf16"]
        name = f"ncclDevKernel_{spelled.title().replace('_', '')}_{row.algorithm or 'ring'}({row.operation})"
        args |= {
            "Collective name": spelled,
            "In msg nelems": round(row.nbytes / size),
            "Out msg nelems": round(row.nbytes / size),
            "Group size": _members(row.axes, tracks),
            "dtype": "BFloat16",
        }
    return {
        "ph": "X",
        "cat": "kernel",
        "name": name,
        "pid": track.rank,
        "tid": stream,
        "ts": round(each.begin * MICRO, 3),
        "dur": round((each.end - each.begin) * MICRO, 3),
        "args": args,
    }


def _members(axes: str, tracks: Tracks) -> int:
    """Ranks of a group along axes of the mesh."""
    size = 1
    for axis in axes.split("+"):
        size *= tracks.run.totals.mesh.get(axis, 1)
    return size


def _arrow(number: int, start: tuple[int, int, Slice], end: tuple[int, int, Slice]) -> Iterable[dict[str, Any]]:
    for phase, (rank, stream, each) in (("s", start), ("f", end)):
        at = each.begin if phase == "f" else max(each.begin, each.end - 1)
        event = {"ph": phase, "id": number, "cat": "message", "name": "message", "pid": rank, "tid": stream}
        yield {**event, "ts": round(at * MICRO, 3), **({"bp": "e"} if phase == "f" else {})}
