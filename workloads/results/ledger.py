"""The books of a step: clocks of streams, where their time went, and the rows of the trace."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ..schedule.operation import COMPUTE, Operation
from ..schedule.schedule import Schedule
from ..schedule.work import Amount, Exchange, at
from .time_breakdown import Done, Exposure
from .trace import Rows, TraceRow

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Passed:
    """What a pipeline gave: when each rank ended its part, and where its seconds until then went, by phase and category.

    ``late`` is how long before the last stage each rank ended, ``rows`` are those of the trace.
    """

    end: Array
    parts: Mapping[tuple[str, str], Array]
    late: Array
    rows: Sequence[TraceRow]


class Ledger:
    """Takes in when operations begin and end on each rank, in the order of each stream, and accounts for every second.

    Clocks are arrays that broadcast over the mesh.
    """

    def __init__(
        self, schedule: Schedule, observed: Mapping[str, tuple[int, ...]], exposure: Exposure | None = None
    ) -> None:
        self.schedule, self.observed = schedule, observed
        self.exposure = exposure or Exposure()
        self._rows: list[Sequence[TraceRow]] = []
        self._ends: dict[int, Array] = {}
        self._readers = Counter(schedule.readers)
        self._history: dict[str, deque[tuple[int, Done]]] = {stream: deque() for stream in schedule.streams}
        self._reached = schedule.reached
        self._clock = dict.fromkeys([COMPUTE, *schedule.streams], np.zeros([1] * len(schedule.mesh.shape)))

    @property
    def rows(self) -> Rows:
        """Those of a Run's trace, one for each operation and observed class of ranks."""
        parts = self._rows
        return Rows(lambda: chain.from_iterable(parts))

    def ready(self, number: int) -> Array:
        """When each rank can begin an operation, all that it waits for being done; waiting is accounted for."""
        operation = self.schedule.outline[number]
        ready = self._clock[operation.stream]
        if operation.stream == COMPUTE:
            ready = self.exposure.wait(ready, self._unattributed(operation.after))
        for other in operation.after:
            ready = np.maximum(ready, self._end_of(other))
        return ready

    def done(self, number: int, ready: Array, begin: Array, end: Array, limit: str, took: Array | None = None) -> None:
        """An operation that could begin at ``ready`` began and ended, held back by ``limit``.

        ``took`` are the seconds from ``ready`` on, where that is known; they broadcast over the mesh.
        """
        operation = self.schedule.outline[number]
        self._clock[operation.stream] = end
        if operation.stream == COMPUTE:
            self.exposure.spend(operation.category, operation.phase, end - ready if took is None else took)
        else:
            self._history[operation.stream].append((number, Done(operation.category, operation.phase, begin, end)))
        if self._readers[number]:
            self._ends[number] = end
        if self.observed:
            self._record(self.schedule.operations[number], begin, end, limit)

    def bubble(self, number: int, begin: Array, end: Array) -> None:
        """Until ``end``, what an operation of another stream brings had not been made by its stage of the pipeline."""
        operation = self.schedule.outline[number]
        self._history[operation.stream].append((number, Done("pipeline_bubble", operation.phase, begin, end)))

    def passed(self, number: int, pipeline: Passed) -> None:
        """A pipeline, which keeps books of its own, has ended."""
        operation = self.schedule.outline[number]
        self._clock[operation.stream] = pipeline.end
        for (phase, category), seconds in pipeline.parts.items():
            self.exposure.spend(category, phase, seconds)
        self.exposure.late = pipeline.late
        if self._readers[number]:
            self._ends[number] = pipeline.end
        self._rows.append(pipeline.rows)

    def settle(self) -> Array:
        """Let every rank wait for its own last operations; returns when they are through."""
        left = [done for history in self._history.values() for _, done in history]
        for history in self._history.values():
            history.clear()
        return self.exposure.wait(self._clock[COMPUTE], left)

    def close(self) -> float:
        """Let every rank wait for its own last operations and for the slowest rank; returns the step's seconds."""
        clock = self.settle()
        seconds = float(clock.max())
        self.exposure.idle("update", seconds - clock)
        return seconds

    def _end_of(self, number: int) -> Array:
        """When each rank ended an operation; the array is let go with its last reader."""
        end = self._ends[number]
        self._readers[number] -= 1
        if not self._readers[number]:
            del self._ends[number]
        return end

    def _unattributed(self, awaited: Iterable[int]) -> list[Done]:
        """What other streams did that the awaited operations rest on and the compute stream has not waited for before."""
        found: list[Done] = []
        for number in awaited:
            for stream, last in self._reached[number].items():
                history = self._history[stream]
                while stream != COMPUTE and history and history[0][0] <= last:
                    found.append(history.popleft()[1])
        return found

    def _record(self, operation: Operation, begin: Array, end: Array, limit: str) -> None:
        """Rows of the trace, one for each observed class of ranks."""
        work, flops = operation.work, operation.work.flops
        nbytes: Amount = 0.0
        where = ("", "", "", "")
        if isinstance(work, Exchange):
            where = (work.operation, "+".join(work.axes), self.schedule.layout.span(work.axes), work.algorithm)
            nbytes = work.nbytes
        rows = []
        for name, rank in self.observed.items():
            times, amounts = (at(begin, rank), at(end, rank)), (at(nbytes, rank), at(flops, rank))
            rows.append(TraceRow.of(operation, where, name, times, amounts, limit))
        self._rows.append(rows)


def last_to_come(begin: Array, axes: tuple[int, ...]) -> Array:
    """When the last member of each rank's group has come: until then its group waits, from then on the network works."""
    return np.broadcast_to(begin.max(axis=axes, keepdims=True), begin.shape)
