"""Walks a Schedule on one rank: every operation in its stream, after what it waits for, timed by the local clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..workloads.schedule import Exchange, Schedule
from .devices import Computing, Device
from .streams import After, Stream, Streams
from .training import Training

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """When this rank began and ended each operation, ``[operations]`` on its local clock, and the payload of each exchange."""

    begin: Array
    end: Array
    nbytes: Array


class Executor:
    """Executes schedules of one plan on the rank at ``coordinate`` of the mesh."""

    def __init__(self, training: Training, device: Device, coordinate: tuple[int, ...]) -> None:
        self.training, self.device, self.coordinate = training, device, coordinate
        self.moving = training.transport.carried

    def run(self, schedule: Schedule) -> Times:
        """Execute a step; data have been made ready by :meth:`Training.start_step`."""
        count = len(schedule.operations)
        times = Times(np.zeros(count), np.full(count, np.nan), np.zeros(count))
        ended: list[float | None] = [None] * count
        streams = {name: self._stream(schedule, name, times, ended) for name in schedule.streams}
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle of a step would be taken for the operation's own time
        try:
            Streams(ended.__getitem__).run(streams)
        finally:
            if collecting:
                gc.enable()
        return times

    def _stream(self, schedule: Schedule, name: str, times: Times, ended: list[float | None]) -> Stream:
        """The life of a stream."""
        for number in _numbers(schedule, name):
            operation = schedule.operations[number]
            for other in operation.after:
                yield After(other)
            if isinstance(operation.work, Exchange):
                before, times.begin[number] = self.moving[name], time.perf_counter()
                yield from self.training.exchange(operation, self.coordinate)
                end = time.perf_counter()
                times.nbytes[number] = self.moving[name] - before
            else:
                times.begin[number] = self.device.begin()
                done = self.training.compute(operation)
                if done and isinstance(self.device, Computing):
                    end = time.perf_counter()
                else:
                    end = self.device.compute(operation.work, self.coordinate)
            times.end[number] = ended[number] = end
        yield from self.device.finish()


def _numbers(schedule: Schedule, stream: str) -> Iterator[int]:
    """The operations of a stream, in order."""
    return (number for number, each in enumerate(schedule.operations) if each.stream == stream)
