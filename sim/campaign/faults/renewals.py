"""A campaign between its faults, all at once: the fast way to play one, for jobs with one level of checkpoints.

After a fault a job restarts from its last checkpoint, whatever was before. So what it gets done until the next fault follows
from that span alone, and all spans of a seed are worked out as arrays. ``events.py`` plays the same law event by event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..job import Array, Job, Progress
from ..ledger import ENTRIES, Outcome
from .fault_history import FaultHistory, FaultTimes

MOST_TIMES = 100.0
"""A campaign that is not done after so many times its work is given up."""

SEEN = 4000
"""Faults after which it is plain how fast a job gets on: one that would take so many times its work is given up then."""

TINY = 1e-9
"""Share of an interval below which what is left is rounding."""


def play(job: Job, history: FaultHistory) -> Outcome:
    """The campaign of a job under the faults of one seed; not ``finished`` where that would take too long."""
    if job.levels:
        from .levels import play_levels

        return play_levels(job, history)
    most = MOST_TIMES * job.work
    until = min(1.25 * job.work + job.restart, max(2.0 * SEEN * history.process.mtbf, most / 1000))
    while True:
        until = min(until, most)
        spans = Spans.of(job, history.until(until), until)
        found = spans.outcome(len(history.process.components))
        slow = len(spans.ready) > SEEN and MOST_TIMES * float(spans.kept.sum()) < until
        if found.finished or until >= most or slow:
            return found
        kept = float(spans.kept.sum())
        until *= min(4.0, max(1.25, 1.05 * job.work / kept)) if kept else 4.0


@dataclass(frozen=True)
class Interruptions:
    """What stops a job, an array ``[interruptions]`` each: when, the component, whether it was announced.

    Then the steps of recovery, in order: seconds to save first (announced ones), until it is noticed, without nodes to go on, to
    restart, to load.
    """

    time: Array
    kind: NDArray[np.int64]
    planned: NDArray[np.bool_]
    steps: Array  # [interruptions, 5]

    @property
    def ready(self) -> Array:
        """When the job would work again."""
        found: Array = self.time + self.steps.sum(axis=1)
        return found


RECOVERY = ("checkpoint", "detection", "repair_wait", "restart", "io")
"""What the steps of a recovery are booked under."""


def interruptions(job: Job, faults: FaultTimes, until: float) -> tuple[Interruptions, Progress]:
    """What stops a job, and how fast it works at other times."""
    slow = np.isin(faults.kind, list(job.slowed))
    # A slow node or link stops nothing until it is noticed; then its node is exchanged at a restart that was planned.
    time = np.where(slow, faults.time + faults.detection, faults.time)
    detection = np.where(slow, 0.0, faults.detection)
    planned = slow | np.isin(faults.kind, list(job.planned))
    detection = np.where(planned, 0.0, detection)
    order = np.argsort(time, kind="stable")
    order = order[: np.searchsorted(time[order], until)]
    moments, speeds = [], []
    for slows, speed in job.slowed.items():
        mine = faults.kind == slows
        edges = np.concatenate([faults.time[mine], faults.time[mine] + faults.detection[mine]])
        moments.append(np.sort(edges))
        depth = np.cumsum(np.where(np.argsort(edges, kind="stable") < mine.sum(), 1, -1))
        speeds.append(np.where(depth > 0, speed, 1.0))
    time, detection, planned = time[order], detection[order], planned[order]
    lost, repair, kind = faults.lost[order], faults.repair[order], faults.kind[order]
    at, missing = _missing(time, time + detection + repair, lost, job.spares)
    save = np.where(planned, job.save + job.commit, 0.0)
    noticed = time + save + detection
    enough, wait = job.speed(missing), np.zeros(len(time))
    if len(at) and not np.all(enough > 0):
        wait = _until_enough(noticed, at, enough > 0) - noticed
    if len(job.speeds) > 1:
        moments.append(at)
        speeds.append(enough)
    restart, load = job.restart * faults.restart[order], job.load_after(kind)
    steps = np.stack([save, detection, wait, restart, load], axis=1)
    return Interruptions(time, kind, planned, steps), Progress.of(moments, speeds, until)


def _missing(lost_at: Array, back_at: Array, lost: NDArray[np.int64], spares: float) -> tuple[Array, Array]:
    """Times, and nodes that are missing from each on beyond what spares replace."""
    some = lost > 0
    if not some.any() or spares == np.inf:
        return np.zeros(0), np.zeros(0)
    times = np.concatenate([lost_at[some], back_at[some]])
    change = np.concatenate([lost[some], -lost[some]])
    order = np.argsort(times, kind="stable")
    return times[order], np.maximum(0.0, np.cumsum(change[order]) - spares)


def _until_enough(time: Array, at: Array, enough: NDArray[np.bool_]) -> Array:
    """For each time the first from it on at which there are nodes enough."""
    place = np.searchsorted(at, time, side="right") - 1
    following = np.where(enough, np.arange(len(at)), len(at))
    first = np.minimum.accumulate(following[::-1])[::-1]  # the first change from here on after which there are
    good = (place < 0) | enough[np.maximum(place, 0)]
    then = first[np.maximum(place, 0)]
    later = np.where(then < len(at), at[np.minimum(then, len(at) - 1)], np.inf)
    found: Array = np.where(good, time, later)
    return found


@dataclass(frozen=True)
class Spans:
    """The spans of work of a seed: the first from its start, each further one from a recovery, up to the next interruption.

    Arrays ``[spans]``: when it is ``ready`` to work, when it ``ends``, the ``work`` for which there is time between, and what of
    it is ``kept`` if the job is not done by then. ``remaining`` is the work that is left when it begins.
    """

    job: Job
    stops: Interruptions
    progress: Progress
    ready: Array
    ends: Array
    work: Array
    kept: Array
    remaining: Array

    @classmethod
    def of(cls, job: Job, faults: FaultTimes, until: float) -> Spans:
        """The spans between the faults before ``until``, of which the last is cut off there."""
        stops, progress = interruptions(job, faults, until)
        ready = np.concatenate([np.zeros(1), stops.ready])
        ends = np.concatenate([stops.time, np.full(1, until)])
        ready = np.minimum(ready, ends)
        work = progress.at(ends) - progress.at(ready)
        saved = np.floor(work / job.cycle)
        kept = np.floor(np.maximum(0.0, work - job.commit) / job.cycle) * job.interval
        if stops.planned.any():
            # what was announced loses nothing, if there is time to save before the next fault
            time = np.diff(np.concatenate([stops.time, np.full(1, until)])) >= stops.steps[:, 0]
            whole = saved * job.interval + np.minimum(work - saved * job.cycle, job.interval)
            kept[:-1] = np.where(stops.planned & time, whole[:-1], kept[:-1])
        remaining = np.maximum(0.0, job.work - np.concatenate([np.zeros(1), np.cumsum(kept)[:-1]]))
        return cls(job, stops, progress, ready, ends, work, np.minimum(kept, remaining), remaining)

    def outcome(self, components: int) -> Outcome:
        """What it came to, under the faults of so many components."""
        job = self.job
        left = self.remaining
        needed = left + job.save * np.ceil(left / job.interval - TINY) + job.commit
        enough = np.flatnonzero(self.work >= needed)
        finished = len(enough) > 0
        last = int(enough[0]) if finished else len(self.ready) - 1
        seconds = float(self.ends[last])
        if finished:
            seconds = self.progress.when(float(self.progress.at(self.ready[last : last + 1])[0]) + float(needed[last]))
        return Outcome(
            seconds,
            self._ledger(last, seconds, needed if finished else None),
            last,
            tuple(np.bincount(self.stops.kind[:last], minlength=components).tolist()),
            finished,
        )

    def _ledger(self, last: int, seconds: float, needed: Array | None) -> dict[str, float]:
        """Seconds by what they went to, up to the end of the campaign in span ``last``."""
        job, books = self.job, dict.fromkeys(ENTRIES, 0.0)
        ends = np.append(self.ends[:last], seconds)
        span, work, kept = ends - self.ready[: last + 1], self.work[: last + 1].copy(), self.kept[: last + 1].copy()
        if needed is not None:
            work[-1], kept[-1] = needed[last], self.remaining[last]
        cycles = np.floor(work / job.cycle)
        stepped = cycles * job.interval + np.minimum(work - cycles * job.cycle, job.interval)
        stepped = np.minimum(stepped, self.remaining[: last + 1])  # when all is done, what is left is saved
        productive = float(kept.sum())
        books["productive"] = productive * (1.0 - job.stall)
        books["io"] = productive * job.stall
        books["checkpoint"] = float((work - stepped).sum())
        books["recomputed"] = float((stepped - kept).sum())
        if len(self.progress.time) > 2:  # else what differs is rounding
            books["degraded"] = float((span - work).sum())
        for name, spent in self.recoveries(last, ends).items():
            books[name] += spent
        return books

    def recoveries(self, last: int, ends: Array) -> dict[str, float]:
        """Seconds of the steps of recoveries before span ``last``, as far as the next interruption lets them come."""
        stops, begun = self.stops, self.stops.time[:last]
        edges = begun[:, None] + np.concatenate([np.zeros((last, 1)), np.cumsum(stops.steps[:last], axis=1)], axis=1)
        edges = np.minimum(edges, ends[1:, None])
        return dict(zip(RECOVERY, np.diff(edges, axis=1).sum(axis=0).tolist(), strict=True))
