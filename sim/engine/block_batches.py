"""Blocks that do the same with other amounts, as arrays over all of them: passes of a stage with many micro-batches' loads.

Where each operation of a block waits for the one before it, nothing meets on the network and no event decides anything: clocks
follow operation by operation. What :class:`~.step_engine.Engine` finds for each of the blocks is found for all in one go.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...workloads.lowering.pipeline_blocks import hands_on
from ...workloads.results.trace import Rows
from ...workloads.schedule.operation import LAUNCH, Block, FilledBlock, Operation
from ...workloads.schedule.work import Exchange, PipelineWork, Work
from ..network.links import LinkLoads
from .drift import NEAR, apart_in

if TYPE_CHECKING:
    from .step_engine import BlockRun, Engine

Array = NDArray[np.float64]

AT_ONCE = 1 << 16
"""Ranks of all blocks of a batch together: enough for arrays to pay, few enough that they stay small."""

_UNSEEN: Hashable = object()


@dataclass
class Forms:
    """Finds what blocks of a batch have in common; those that fill one template are looked at once."""

    _numbers: dict[Hashable, int] = field(default_factory=dict)
    _templates: list[tuple[Block, Hashable | None]] = field(default_factory=list)

    def of(self, block: Block) -> Hashable | None:
        """The form of a block; None where operations do not all follow each other."""
        if not isinstance(block, FilledBlock):
            return self._form(block)
        found = next((form for template, form in self._templates if template is block.template), _UNSEEN)
        if found is _UNSEEN:
            found = self._form(block.template)
            self._templates.append((block.template, found))
        return found

    def _form(self, block: Block) -> Hashable | None:
        found: list[Hashable] = []
        last, started = (
            -1,
            set[int](),
        )  # the chain's last operation, and what a host has to have started before the next
        for number, operation in enumerate(block):
            number_of = self._number(operation)
            if number_of < 0:
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
            found.append(number_of)
            last, started = number, set()
        return tuple(found) or None

    def _number(self, operation: Operation) -> int:
        """A number for all that an operation may have in common with others; -1 where it belongs to no batch."""
        work = operation.work
        if isinstance(work, PipelineWork) or not hands_on(operation):
            return -1
        kinds = (each for each in vars(work).values() if not isinstance(each, float | np.ndarray))
        same = (work.axes,) if isinstance(work, Exchange) else tuple(kinds)
        key = (type(work), operation.phase, operation.category, operation.stream, same)
        return self._numbers.setdefault(key, len(self._numbers))


MANY = 1024
"""Blocks of a pipeline from which on those are not played cell by cell whose groups begin nearly together."""

TOGETHER = (
    f"in this pipeline of more than {MANY:,} blocks, groups that begin within {NEAR:.0%} of an exchange's time of each other are"
    f" taken to begin together: exchanges may be off by {NEAR:.0%}"
)


class Moved(NamedTuple):
    """A transfer of all blocks: of which of them groups share no link, and its seconds."""

    apart: NDArray[np.bool_]
    seconds: Array | float


@dataclass(frozen=True)
class BlockBatch:
    """Runs blocks of one form (:class:`Forms`), by their numbers in the pipeline, for an engine."""

    engine: Engine
    numbers: Sequence[int]
    blocks: Sequence[Block]
    many: bool = False

    def run(self) -> list[BlockRun]:
        """The runs of all blocks; rows of the trace are made when they are asked for, by the engine itself."""
        from .step_engine import BlockRun

        engine, count, first = self.engine, len(self.blocks), self.blocks[0]
        clock: Array = np.zeros((count, *[1] * len(engine.mesh.shape)))
        parts: dict[tuple[str, str], Array] = {}
        loads, drifted = LinkLoads(engine.traffic.phases.kinds), np.zeros(count, dtype=np.bool_)

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
                    groups = np.broadcast_to(end, (count, *end.shape[1:]))
                    apart = ~taken.apart & apart_in(groups)
                    if self.many and apart.any():
                        shortest = (
                            np.broadcast_to(taken.seconds, (count, *end.shape[1:])).reshape(count, -1).min(axis=1)
                        )
                        apart &= apart_in(groups, NEAR * shortest)
                        engine.of_blocks.append(TOGETHER)
                    drifted |= apart
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
            if drifted[number]
            else BlockRun(
                clock[number],
                clock[number],
                {key: each[number if len(each) > 1 else 0] for key, each in parts.items()},
                self._rows(number),
                LinkLoads(loads.kinds, {kind: each[number] for kind, each in loads.loads.items()}),
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

    def _exchanged(self, works: Sequence[Exchange], loads: LinkLoads) -> list[Moved]:
        """The transfers of an exchange of each block, whose bytes are counted, ``[block, link]``."""
        count = len(works)
        if self.engine.meet and len(set(map(id, works))) > 1:
            at_once = self.engine.traffic.at_once(works)
            if at_once is not None:
                for each in at_once:
                    loads.plus(each.loads, 1.0)
                return [Moved(each.apart, self._on_mesh(each.seconds, works[0].axes)) for each in at_once]
        found = [self.engine.by_itself(work) for work in works[: count if len(set(map(id, works))) > 1 else 1]]
        for kind in loads.kinds:
            rows = [each.on(kind.name, kind.count) for each in found]
            if any(row.any() for row in rows):
                loads.put(kind.name, np.array(rows if len(rows) == count else rows * count))
        dimensions = len(self.engine.mesh.shape)
        if len(found) == 1:
            (one,) = found
            return [Moved(np.full(count, apart), each) for apart, each in zip(one.apart, one.seconds, strict=True)]
        return [
            Moved(
                np.array([each.apart[at] for each in found]),
                _stacked([_full(each.seconds[at], dimensions) for each in found]),
            )
            for at in range(len(found[0].seconds))
        ]

    def _on_mesh(self, seconds: Array, axes: tuple[str, ...]) -> Array:
        """Seconds ``[block, part of a group]`` over the mesh: a group takes as long as its slowest part."""
        mesh, along = self.engine.mesh, self.engine.mesh.positions(axes)
        shape = [1 if place in along else length for place, length in enumerate(mesh.shape)]
        if seconds.shape[1] == 1:
            return seconds.reshape(-1, *[1] * len(shape))
        found: Array = seconds.reshape(len(seconds), mesh.ranks // mesh.size(*axes), -1).max(axis=2)
        found = found.reshape(-1, *shape)
        for place, length in enumerate(shape, 1):
            if length > 1 and (found == found.take([0], axis=place)).all():
                found = found.take([0], axis=place)
        return found


def _together(works: Sequence[Work], dimensions: int) -> Work:
    """One work with the amounts of all, along a first axis."""
    first = works[0]
    if len(set(map(id, works))) == 1:
        return first
    values: dict[str, Any] = {}
    for each in fields(first):
        of_all = list(map(attrgetter(each.name), works))
        values[each.name] = of_all[0] if _same(of_all) else _stacked([_full(value, dimensions) for value in of_all])
    return type(first)(**values)


def _same(values: list[Any]) -> bool:
    """Whether all amounts are one; arrays are where they are the same object."""
    if len(set(map(id, values))) == 1:
        return True
    return not any(isinstance(each, np.ndarray) for each in values) and values.count(values[0]) == len(values)


def _full(value: Array | float, dimensions: int) -> Array:
    """An amount with all axes of the mesh."""
    array = np.asarray(value, dtype=np.float64)
    return array if array.ndim == dimensions else array.reshape([1] * dimensions)


def _stacked(arrays: Sequence[Array]) -> Array:
    """Arrays one upon another, of the shape that they have together."""
    shapes = {each.shape for each in arrays}
    if len(shapes) == 1:
        return np.stack(arrays)
    shape = np.broadcast_shapes(*shapes)
    return np.stack([np.broadcast_to(each, shape) for each in arrays])
