"""A campaign event by event, with SimPy: the reference that ``renewals.py`` is held to, and the way to see one seed's days.

A process for the job, one for the faults, and one for each repair. The job restarts, works, saves; a fault interrupts it wherever
it is. Its speed changes when nodes leave and come back, or slow down.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf
from typing import Any, NamedTuple

import numpy as np
import simpy

from ..job import Job
from ..ledger import ENTRIES, Outcome
from .fault_history import FaultHistory, FaultTimes
from .renewals import MOST_TIMES, TINY

Steps = Generator[simpy.Event, Any, None]


def play_events(job: Job, history: FaultHistory, stop: float = inf) -> Outcome:
    """The campaign of a job under the faults of one seed, with all its spans.

    It ends at ``stop`` seconds at the latest, and where it would take too long; it is not ``finished`` then.
    """
    until, most = 1.25 * job.work + job.restart, min(stop, MOST_TIMES * job.work)
    while True:
        until = min(until, most)
        found = _Campaign(job, history.until(until), len(history.process.components), until).run()
        if found.finished or until >= most:
            return found
        until *= 2.0


class _Fault(NamedTuple):
    """What interrupts a job: the component, seconds until it is noticed, whether it was announced, seconds of the restart."""

    kind: int
    detection: float
    planned: bool
    restart: float


class _Campaign:
    """One seed.

    ``kept`` is the work that no fault takes back any more. Of the span of work that is under way, ``stepped`` and ``saved`` are
    the seconds of steps and of checkpoints, as long as they take at full speed, and ``snapshots`` when in it each checkpoint was
    taken, and the work that it holds.
    """

    def __init__(self, job: Job, faults: FaultTimes, components: int, until: float) -> None:
        self.job, self.faults, self.until = job, faults, until
        self.env = simpy.Environment()
        self.kept, self.finished = 0.0, False
        self.books, self.spans = dict.fromkeys(ENTRIES, 0.0), list[tuple[float, float, str]]()
        self.struck = [0] * components
        self.missing, self.slow = 0, dict.fromkeys(job.slowed, 0)
        self.changed = self.env.event()
        self.stepped, self.saved = 0.0, 0.0
        self.snapshots: list[tuple[float, float]] = []
        self.worked = 0.0
        self.whole = 0.0  # work that was saved when a stop was announced
        self.numbers = [0]  # checkpoints of the span, and the one before it

    def run(self) -> Outcome:
        """Play it to its end, or until the faults end."""
        self.main = self.env.process(self._job())
        self.env.process(self._faults())
        self.env.run(until=self.env.any_of([self.main, self.env.timeout(self.until)]))
        struck = tuple(self.struck)
        return Outcome(self.env.now, self.books, sum(struck), struck, self.finished, tuple(self.spans))

    @property
    def speed(self) -> float:
        """How fast the job works with the nodes that there are."""
        job = self.job
        short = int(max(0.0, self.missing - job.spares))
        found = job.speeds[short] if short < len(job.speeds) else 0.0
        for kind, count in self.slow.items():
            found *= job.slowed[kind] if count else 1.0
        return found

    def _faults(self) -> Steps:
        """Let every fault strike in turn."""
        for number, time in enumerate(self.faults.time.tolist()):
            yield self.env.timeout(time - self.env.now)
            if int(self.faults.kind[number]) in self.slow:
                self.env.process(self._degraded(number))
            else:
                self._strike(number, int(self.faults.kind[number]) in self.job.planned)

    def _degraded(self, number: int) -> Steps:
        """A node or link is slow until that is noticed; then the job is told to exchange it."""
        kind = int(self.faults.kind[number])
        self.slow[kind] += 1
        self._tell()
        yield self.env.timeout(float(self.faults.detection[number]))
        self.slow[kind] -= 1
        self._tell()
        self._strike(number, True)

    def _strike(self, number: int, planned: bool) -> None:
        """Interrupt the job, and take its nodes away until they are mended."""
        detection = 0.0 if planned else float(self.faults.detection[number])
        if lost := int(self.faults.lost[number]):
            self.missing += lost
            self.env.process(self._repair(lost, detection + float(self.faults.repair[number])))
            self._tell()
        if self.main.is_alive:
            self.struck[int(self.faults.kind[number])] += 1
            restart = self.job.restart * float(self.faults.restart[number])
            self.main.interrupt(_Fault(int(self.faults.kind[number]), detection, planned, restart))

    def _repair(self, lost: int, seconds: float) -> Steps:
        yield self.env.timeout(seconds)
        self.missing -= lost
        self._tell()

    def _tell(self) -> None:
        """Wake who waits for another speed."""
        changed, self.changed = self.changed, self.env.event()
        changed.succeed()

    def _job(self) -> Steps:
        """Work until a fault, recover, work on, until all is done."""
        fault: _Fault | None = None
        while True:
            try:
                if fault:
                    yield from self._recover(fault)
                yield from self._work()
                self._book(self.job.work - self.kept)
                self.finished = True
                return
            except simpy.Interrupt as interrupt:
                fault = interrupt.cause

    def _recover(self, fault: _Fault) -> Steps:
        """Save what is announced, notice, wait for nodes, restart, load."""
        kept = self._left_by(fault)
        try:
            if fault.planned:
                yield from self._spend("checkpoint", self.job.save + self.job.commit)
                kept = self.stepped
                self.whole = self.kept + kept
        finally:
            self._book(kept)
        yield from self._spend("detection", fault.detection)
        began = self.env.now
        try:
            while self.speed <= 0:
                yield self.changed
        finally:
            self._spent("repair_wait", began)
        yield from self._spend("restart", fault.restart)
        yield from self._spend("io", float(self.job.load_after(np.array([fault.kind]))[0]))

    def _left_by(self, fault: _Fault) -> float:
        """The work of the span before a fault that it leaves; below zero where it takes back more than that."""
        job, now, kept = self.job, self.stepped + self.saved, 0.0
        if job.levels:
            every = job.levels[job.survives[fault.kind]].every
            grid = max((number // every * every * job.interval for number in self.numbers), default=0.0)
            return max(self.whole, grid) - self.kept
        for taken, holds in self.snapshots:
            kept = holds if now - taken >= job.commit else kept
        return kept

    def _book(self, kept: float) -> None:
        """Close the books of a span of work, of which so much is kept."""
        books, whole = self.books, self.stepped + self.saved
        books["productive"] += kept * (1.0 - self.job.stall)
        books["io"] += kept * self.job.stall
        books["recomputed"] += self.stepped - kept
        books["checkpoint"] += self.saved
        books["degraded"] += self.worked - whole
        self.kept += kept
        self.stepped = self.saved = self.worked = 0.0
        self.snapshots, self.numbers = [], [int(self.kept / self.job.interval + TINY)]

    def _spend(self, entry: str, seconds: float) -> Steps:
        """So many seconds of a recovery, as far as no fault comes between."""
        began = self.env.now
        try:
            yield self.env.timeout(seconds)
        finally:
            self._spent(entry, began)

    def _spent(self, entry: str, began: float) -> None:
        self.books[entry] += self.env.now - began
        if self.env.now > began:
            self.spans.append((began, self.env.now, entry))

    def _work(self) -> Steps:
        """Cycles of steps and checkpoints, from the last that was kept on."""
        job, done = self.job, self.kept
        number = int(done / job.interval + TINY)
        self.numbers = [number]
        while job.work - done > TINY * job.interval:
            number += 1
            some = min((number * job.interval - done) if job.levels else job.interval, job.work - done)
            yield from self._at_speed("productive", some)
            done += some
            last = job.work - done <= TINY * job.interval
            save = job.save if not job.levels else (job.levels[-1] if last else job.level_of(number)).save
            yield from self._at_speed("checkpoint", save)
            self.snapshots.append((self.stepped + self.saved, done - self.kept))
            self.numbers.append(number)
        yield from self._at_speed("checkpoint", job.commit)

    def _at_speed(self, entry: str, seconds: float) -> Steps:
        """Steps or a checkpoint that take so long at full speed."""
        left = seconds
        while left > TINY * max(1.0, seconds):
            speed, began = self.speed, self.env.now
            try:
                yield self.env.timeout(left / speed) | self.changed if speed > 0 else self.changed
            finally:
                done = min(left, (self.env.now - began) * speed)
                left -= done
                self.worked += self.env.now - began
                if entry == "productive":
                    self.stepped += done
                else:
                    self.saved += done
                if self.env.now > began:
                    self.spans.append((began, self.env.now, entry))
