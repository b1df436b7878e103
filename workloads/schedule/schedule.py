"""The Schedule: what has to be done, as plain data that both the simulator and the MPI runtime read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...hardware.errors import InputError
from ...hardware.precisions import Precision
from ...hardware.records import parsed_json
from ..mesh.mesh import Mesh
from ..mesh.placement import Layout
from .block_flops import flops_of_blocks
from .codec import FORMAT, items, operation_from_plain, operation_to_plain, text
from .filled import FilledOnDemand
from .operation import Operation
from .work import Exchange, PipelineWork


@dataclass(frozen=True)
class Schedule:
    """The operations of one training step, in an order in which each stream executes its own, and where ranks live.

    Made by ``lower()``; read by the simulator and, to come, by the MPI runtime. Names of operations are unique.
    ``notes`` say what had to be done otherwise than asked for. ``print(schedule)`` is legible, and
    ``Schedule.from_json(schedule.to_json())`` equals it.
    """

    layout: Layout
    operations: Sequence[Operation]
    notes: tuple[str, ...] = ()

    @property
    def mesh(self) -> Mesh:
        """The mesh of ranks."""
        return self.layout.mesh

    @property
    def outline(self) -> Sequence[Operation]:
        """The operations for whoever asks what they do and wait for: amounts that differ from rank to rank may be missing."""
        return self.operations.template if isinstance(self.operations, FilledOnDemand) else self.operations

    @property
    def averaged(self) -> Sequence[Operation]:
        """The operations for whoever asks for means of what follows from amounts in proportion, as FLOPs do."""
        return self.operations.averaged if isinstance(self.operations, FilledOnDemand) else self.operations

    @property
    def streams(self) -> list[str]:
        """Names of the streams, in order of first use."""
        return list(self.by_stream)

    @cached_property
    def by_stream(self) -> Mapping[str, Sequence[int]]:
        """Numbers of the operations of each stream, in order of first use."""
        found: dict[str, list[int]] = {}
        for number, operation in enumerate(self.outline):
            found.setdefault(operation.stream, []).append(number)
        return found

    @cached_property
    def senders(self) -> frozenset[str]:
        """The streams that have exchanges."""
        return frozenset(each.stream for each in self.outline if isinstance(each.work, Exchange))

    @cached_property
    def readers(self) -> Mapping[int, int]:
        """How many operations wait for each that any waits for."""
        return Counter(number for operation in self.outline for number in operation.after)

    @cached_property
    def reached(self) -> Sequence[Mapping[str, int]]:
        """For each operation, by stream, the last operation that it rests on, itself included: directly or through others."""
        reached: list[dict[str, int]] = []
        latest: dict[str, int] = {}
        for number, operation in enumerate(self.outline):
            before = [*operation.after, *([latest[operation.stream]] if operation.stream in latest else [])]
            merged = {operation.stream: number}
            for other in before:
                for stream, last in reached[other].items():
                    merged[stream] = max(last, merged.get(stream, last))
            latest[operation.stream] = number
            reached.append(merged)
        return reached

    def sent(self, number: int) -> Hashable:
        """What an exchange sends: equal for exchanges that are known to send the same, None for what is no exchange."""
        work = self.outline[number].work
        if not isinstance(work, Exchange):
            return None
        if isinstance(self.operations, FilledOnDemand) and number in self.operations.origins:
            return work.operation, work.algorithm, work.axes, self.operations.origins[number]
        return work.sends

    def total_flops(self) -> float:
        """FLOPs of all ranks together."""
        return self._flops * self.mesh.ranks

    def product_flops(self) -> dict[Precision, float]:
        """FLOPs of all ranks together in matrix products and attention, by the format in which they run."""
        return dict(self._product_flops)

    @cached_property
    def _flops(self) -> float:
        """FLOPs of a rank in the mean; schedules that several simulations share are asked several times."""
        return sum(float(np.mean(operation.work.flops)) for operation in self.averaged)

    @cached_property
    def _product_flops(self) -> dict[Precision, float]:
        found = dict[Precision, float]()
        for operation in self.averaged:
            work = operation.work
            if isinstance(work, PipelineWork):
                several = [(runs / work.stages, each) for runs, each in zip(work.runs, work.block_flops, strict=True)]
            else:
                several = [(1.0, each) for each in flops_of_blocks([(operation,)])]
            for times, each in several:
                for precision, flops in each.items():
                    if precision is not None:
                        found[precision] = found.get(precision, 0.0) + times * self.mesh.ranks * flops
        return found

    def to_json(self) -> str:
        """The schedule as JSON text; arrays are written with their shape."""
        return json.dumps(
            {
                "format": FORMAT,
                "layout": self.layout.to_plain(),
                "operations": [operation_to_plain(each) for each in self.operations],
                "notes": self.notes,
            }
        )

    @classmethod
    def from_json(cls, source: str) -> Schedule:
        """The schedule that :meth:`to_json` wrote; raises :class:`InputError` for anything else, and says what is wrong."""
        try:
            plain = parsed_json(source)
        except ValueError as reason:
            raise InputError(f"schedule: cannot be read: {reason}") from None
        found = plain.get("format") if isinstance(plain, dict) else None
        if found != FORMAT:
            raise InputError(f'schedule: format is "{found}", must be "{FORMAT}"; lower it again')
        if missing := [key for key in ("layout", "operations", "notes") if key not in plain]:
            raise InputError(f"schedule: lacks {missing[0]!r}")
        if unknown := [key for key in plain if key not in ("format", "layout", "operations", "notes")]:
            raise InputError(f"schedule: has no key {unknown[0]!r}")
        try:
            layout = Layout.from_plain(plain["layout"])
        except (KeyError, TypeError, ValueError) as reason:
            raise InputError(f"schedule: layout cannot be read: {reason!r}") from None
        operations = items(operation_from_plain)(plain["operations"], "operations")
        for number, operation in enumerate(operations):
            if not all(0 <= other < number for other in operation.after):
                raise InputError(f"schedule: operations[{number}].after must name operations before it")
        return cls(layout, operations, items(text)(plain["notes"], "notes"))

    def __eq__(self, other: object) -> bool:
        """Equal meshes, operations and amounts."""
        return isinstance(other, Schedule) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        """By content, as equality is."""
        return hash(self.to_json())

    def __str__(self) -> str:
        """A line for each operation."""
        head = f"    #  {'phase':8s} {'stream':13s} {'category':13s} {'operation':24s} work"
        return "\n".join([f"mesh {self.mesh}: {len(self.operations)} operations", head, *self._lines()])

    def _lines(self) -> Iterator[str]:
        for number, operation in enumerate(self.operations):
            after = f"  after {','.join(map(str, operation.after))}" if operation.after else ""
            yield (
                f"{number:5d}  {operation.phase:8s} {operation.stream:13s} {operation.category:13s} "
                f"{operation.name:24s} {operation.work}{after}"
            )
