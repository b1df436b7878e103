"""Walks a rank's operations: every one in its stream, after what it waits for, timed by the local clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ...workloads.schedule.operation import Operation
from ...workloads.schedule.work import Exchange
from ..devices import Computing, Device
from ..messages.streams import After, Stream, Streams
from ..training.stand_ins import Data
from .observation import Times


class Executor:
    """Executes steps of one plan on the rank at ``coordinate`` of the mesh; each stream that computes has a device of its own."""

    def __init__(self, data: Data, device: Callable[[], Device], coordinate: tuple[int, ...]) -> None:
        self.data, self.coordinate = data, coordinate
        self.moving = data.transport.carried
        self._make, self._devices = device, dict[str, Device]()
        self._frozen = False

    def clear(self) -> None:
        """Free what earlier steps have left, before the next one begins.

        Arrays in reference cycles would wait for a collection, and each step would compute in new memory, whose pages the system
        has to fill first. What was there before the first step is not looked through again.
        """
        if not self._frozen:
            gc.collect()
            gc.freeze()
            self._frozen = True
        gc.collect()

    def run(self, operations: Sequence[Operation]) -> Times:
        """Execute a step; returns its times on the local clock. Data have been made ready by :meth:`Data.start_step`."""
        count = len(operations)
        times = Times(np.zeros(count), np.full(count, np.nan), np.zeros(count))
        ended: list[float | None] = [None] * count
        names = dict.fromkeys(operation.stream for operation in operations)
        streams = {name: self._stream(operations, name, times, ended) for name in names}
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle of a step would be taken for the operation's own time
        try:
            Streams(ended.__getitem__).run(streams)
        finally:
            if collecting:
                gc.enable()
        return times

    def _stream(self, operations: Sequence[Operation], name: str, times: Times, ended: list[float | None]) -> Stream:
        """The life of a stream."""
        device = self._devices.setdefault(name, self._make())
        for number in _numbers(operations, name):
            operation = operations[number]
            for other in operation.after:
                yield After(other)
            if isinstance(operation.work, Exchange):
                before, times.begin[number] = self.moving[name], time.perf_counter()
                yield from self.data.exchange(operation)
                end = time.perf_counter()
                times.nbytes[number] = self.moving[name] - before
            else:
                times.begin[number] = device.begin()
                done = self.data.compute(operation)
                if done and isinstance(device, Computing):
                    end = time.perf_counter()
                else:
                    end = device.compute(operation.work, self.coordinate)
            times.end[number] = ended[number] = end
        yield from device.finish()


def _numbers(operations: Sequence[Operation], stream: str) -> Iterator[int]:
    """The operations of a stream, in order."""
    return (number for number, each in enumerate(operations) if each.stream == stream)
