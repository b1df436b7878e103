"""Campaigns with checkpoints on several levels: a fault takes back the work since the last one that it leaves.

Copies in the nodes' own memory outlive faults that take nothing along, those in a neighbour's memory outlive the loss of single
nodes, and the file system outlives all. A fault may so take back more than the span before it, and spans follow from each other:
they are worked out one after another, with the same recoveries and speeds as in ``renewals.py``.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import count

import numpy as np

from ..job import Array, Job
from ..ledger import ENTRIES, Outcome
from .fault_history import FaultHistory
from .renewals import MOST_TIMES, SEEN, TINY, Spans


def play_levels(job: Job, history: FaultHistory) -> Outcome:
    """The campaign of a job with levels under the faults of one seed; not ``finished`` where that would take too long."""
    most = MOST_TIMES * job.work
    until = min(1.25 * job.work + job.restart, max(2.0 * SEEN * history.process.mtbf, most / 1000))
    clock = level_clock(job)
    while True:
        until = min(until, most)
        spans = Spans.of(job, history.until(until), until)
        walk = _Walk(job, spans, clock)
        found = walk.outcome(len(history.process.components))
        slow = len(spans.ready) > SEEN and MOST_TIMES * walk.position < until
        if found.finished or until >= most or slow:
            return found
        until *= 2.0


def level_clock(job: Job) -> Array:
    """Seconds that work takes until checkpoint 0, 1, … of the whole job is written, without faults; the last one ends it."""
    intervals = int(np.ceil(job.work / job.interval - TINY))
    number = np.arange(intervals + 1)
    clock: Array = np.asarray(number * job.interval, dtype=np.float64)
    clock[-1] = job.work
    before = 0.0
    for level in job.levels:
        clock = clock + (level.save - before) * (number // level.every)
        before = level.save
    if job.levels and intervals % job.levels[-1].every:
        # the end is saved on the last level, whatever number it has
        written = max(level.save for level in job.levels if intervals % level.every == 0)
        clock[-1] += job.levels[-1].save - written
    return clock


class _Walk:
    """One span after another: the ``position`` is the work that is kept, ``stepped`` all that was worked on."""

    def __init__(self, job: Job, spans: Spans, clock: Array) -> None:
        self.job, self.spans = job, spans
        self.position, self.stepped, self.waited = 0.0, 0.0, 0.0
        self.last, self.seconds = len(spans.ready) - 1, float(spans.ends[-1])
        self.finished = self._walk(clock)

    def _walk(self, clock: Array) -> bool:
        """Whether the work is done before the faults that are known end."""
        job, spans, times = self.job, self.spans, clock.tolist()
        interval, at_end = job.interval, job.work
        kinds, planned = spans.stops.kind.tolist(), spans.stops.planned.tolist()
        gaps = np.diff(np.append(spans.stops.time, spans.ends[-1])).tolist()
        saving = spans.stops.steps[:, 0].tolist()
        saved = 0.0
        for number, work in zip(count(), spans.work.tolist(), strict=False):
            begun = int(self.position / interval + TINY)
            now = times[begun] + self.position - begun * interval
            if now + work >= times[-1]:
                self.last, self.waited = number, self.waited + times[-1] - now - (at_end - self.position)
                self.stepped += at_end - self.position
                reached = float(spans.progress.at(spans.ready[number : number + 1])[0]) + times[-1] - now
                self.seconds, self.position = spans.progress.when(reached), at_end
                return True
            done = max(begun, bisect_right(times, now + work) - 1)
            here = min(at_end, done * interval + min(now + work - times[done], interval))
            here = max(here, self.position)
            self.stepped += here - self.position
            self.waited += work - (here - self.position)
            if number == len(kinds):
                break
            if planned[number] and gaps[number] >= saving[number]:
                saved = self.position = here
                continue
            every = job.levels[job.survives[kinds[number]]].every
            self.position = max(saved, (done // every) * every * interval)
        return False

    def outcome(self, components: int) -> Outcome:
        """What it came to, under the faults of so many components."""
        job, spans, last = self.job, self.spans, self.last
        ends = np.append(spans.ends[:last], self.seconds)
        books = {**dict.fromkeys(ENTRIES, 0.0), **spans.recoveries(last, ends)}
        books["productive"] = self.position * (1.0 - job.stall)
        books["io"] += self.position * job.stall
        books["recomputed"] = self.stepped - self.position
        books["checkpoint"] += self.waited
        if len(spans.progress.time) > 2:
            books["degraded"] = float((ends - spans.ready[: last + 1]).sum()) - self.stepped - self.waited
        struck = np.bincount(spans.stops.kind[:last], minlength=components)
        return Outcome(self.seconds, books, last, tuple(struck.tolist()), self.finished)
