"""Blocks that do the same with other amounts, as arrays over all of them: passes of a stage with many micro-batches' loads.

Where each operation of a block waits for the one before it, nothing meets on the network and no event decides anything: clocks
follow operation by operation. What :class:`~.step_engine.Engine` finds for each of the blocks is found for all in one go.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.lowering.pipeline_blocks import hands_on
from ...workloads.results.trace import Rows
from ...workloads.schedule.operation import LAUNCH, Block, Operation
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange, PipelineWork, Work
from ..network.links import LinkLoads
from .drift import Drift

if TYPE_CHECKING:
    from .step_engine import BlockRun, Engine

Array = NDArray[np.float64]

AT_ONCE = 1 << 16
"""Ranks of all blocks of a batch together: enough for arrays to pay, few enough that they stay small."""


def form(block: Block) -> Hashable | None:
    """What blocks of a batch have in common; None where operations do not all follow each other."""
    found: list[Hashable] = []
    last, started = (
        -1,
        set[int](),
    )  # the last operation of the chain, and what a host has to have started before the next one
    for number, operation in enumerate(block):
        if not hands_on(operation):
            return None
        if operation.stream == LAUNCH:
            if len(operation.after) > 1:
                return None
            started.add(number)
            found.append(operation.after)
            continue
        before = {last} if last >= 0 and block[last].stream != operation.stream else set[int]()
        if set(operation.after) != before | started:
            return None
        last, started = number, set()
        work = operation.work
        if isinstance(work, PipelineWork):
            return None
        kinds = (each for each in vars(work).values() if not isinstance(each, float | np.ndarray))
        same = (work.axes,) if isinstance(work, Exchange) else tuple(kinds)
        found.append((type(work), operation.phase, operation.category, operation.stream, same))
    return tuple(found) or None


class Moved(NamedTuple):
    """A transfer of all blocks: whether groups share no link, and its seconds."""

    apart: bool
    seconds: Array | float


@dataclass(frozen=True)
class BlockBatch:
    """Runs blocks of one :func:`form`, by their numbers in the pipeline, for an engine."""

    engine: Engine
    numbers: Sequence[int]
    blocks: Sequence[Block]

    def run(self) -> list[BlockRun]:
        """The runs of all blocks; rows of the trace are made when they are asked for, by the engine itself."""
        from .step_engine import BlockRun

        engine, count, first = self.engine, len(self.blocks), self.blocks[0]
        clock: Array = np.zeros((count, *[1] * len(engine.mesh.shape)))
        parts: dict[tuple[str, str], Array] = {}
        loads = [LinkLoads(engine.traffic.phases.kinds) for _ in self.blocks]
        drifts = [Drift.of(Schedule(engine.traffic.layout, block)) for block in self.blocks]

        def spend(category: str, phase: str, seconds: Array) -> None:
            before = parts.get((phase, category))
            parts[phase, category] = seconds if before is None else before + seconds

        begins = {each.after[0] for each in first if each.stream == LAUNCH and each.after}
        ends: dict[int, Array] = {}
        launch: Operation | None = None
        host = started = clock  # when the host is done, and when what the chain has to wait for of it was

        def wait(operation: Operation) -> Array:
            spend("launch", operation.phase, np.maximum(started - clock, 0.0))
            return np.maximum(clock, started)

        for place, operation in enumerate(first):
            works = [block[place].work for block in self.blocks]
            if operation.stream == LAUNCH:
                begin = np.maximum(host, ends[operation.after[0]]) if operation.after else host
                host = started = begin + engine.costs.of(operation.work).seconds * engine.slowness * self._jitter(place)
                launch = operation
                continue
            if launch is not None:
                clock, launch = wait(launch), None
            if isinstance(operation.work, Exchange):
                axes = tuple(at + 1 for at in engine.mesh.positions(operation.work.axes) if clock.shape[at + 1] > 1)
                begin = end = clock.max(axis=axes, keepdims=True)
                for taken in self._exchanged([work for work in works if isinstance(work, Exchange)], loads):
                    for number, each in enumerate(drifts):
                        if not taken.apart:
                            each.add(operation.stream, operation.work.axes, end[number])
                    end = end + taken.seconds
                spend(operation.category, operation.phase, end - begin)
                spend("imbalance", operation.phase, begin - clock)
            else:
                seconds = engine.costs.of(_together(works, len(engine.mesh.shape))).seconds
                end = clock + seconds * engine.slowness * self._jitter(place)
                spend(operation.category, operation.phase, end - clock)
            clock = end
            if place in begins:
                ends[place] = clock
        if launch is not None:
            clock = wait(launch)
        events = 2 * len({each.stream for each in first}) + sum(
            3 if isinstance(each.work, Exchange) else 2 for each in first
        )  # what SimPy would take: the streams' begin and end, and of each operation a wait or two and its end
        return [
            engine.block(self.numbers[number], self.blocks[number])  # cell by cell
            if drifts[number].apart
            else BlockRun(
                clock[number],
                clock[number],
                {key: each[number if len(each) > 1 else 0] for key, each in parts.items()},
                self._rows(number),
                loads[number],
                events,
            )
            for number in range(count)
        ]

    def _rows(self, number: int) -> Rows:
        engine, at, block = self.engine, self.numbers[number], self.blocks[number]
        return Rows(lambda: engine.block(at, block).rows)

    def _jitter(self, place: int) -> Array | float:
        noise = self.engine.noise
        if not noise.jitter:
            return 1.0
        return np.stack([np.asarray(noise.within(number).of_operation(place)) for number in self.numbers])

    def _exchanged(self, works: Sequence[Exchange], loads: Sequence[LinkLoads]) -> list[Moved]:
        """The transfers of an exchange of each block, whose bytes are counted."""
        same = all(work is works[0] for work in works)
        found = [self.engine.by_itself(work) for work in (works[:1] if same else works)]
        for number, each in enumerate(loads):
            found[0 if same else number].count(each)
        if same:
            return [Moved(*each) for each in zip(found[0].apart, found[0].seconds, strict=True)]
        return [
            Moved(
                found[0].apart[at], _stacked([_full(each.seconds[at], len(self.engine.mesh.shape)) for each in found])
            )
            for at in range(len(found[0].seconds))
        ]


def _together(works: Sequence[Work], dimensions: int) -> Work:
    """One work with the amounts of all, along a first axis."""
    first = works[0]
    if all(work is first for work in works):
        return first
    values: dict[str, Any] = {}
    for each in fields(first):
        of_all = [getattr(work, each.name) for work in works]
        alike = all(_same(value, of_all[0]) for value in of_all)
        values[each.name] = of_all[0] if alike else _stacked([_full(value, dimensions) for value in of_all])
    return type(first)(**values)


def _same(value: object, other: object) -> bool:
    """Whether two amounts are one; arrays are where they are the same object."""
    return value is other or (isinstance(value, float) and isinstance(other, float) and value == other)


def _full(value: Array | float, dimensions: int) -> Array:
    """An amount with all axes of the mesh."""
    array = np.asarray(value, dtype=np.float64)
    return array if array.ndim == dimensions else array.reshape([1] * dimensions)


def _stacked(arrays: Sequence[Array]) -> Array:
    """Arrays one upon another, of the shape that they have together."""
    shape = np.broadcast_shapes(*{each.shape for each in arrays})
    return np.stack([np.broadcast_to(each, shape) for each in arrays])
