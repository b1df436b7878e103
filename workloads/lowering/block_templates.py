"""Blocks that differ in what their layers' experts carry: lowered once, and filled in for each micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from ...hardware.errors import InternalError
from ..schedule.operation import Block, FilledBlock, Operation
from ..schedule.work import Exchange, Gemm, Sweep, Work
from .layer.moe import Flow


@dataclass(frozen=True)
class Gap:
    """What an operation lacks of a layer's flow: its exchange, or fields of its work that are amounts of the flow."""

    layer: int
    exchange: str | None
    amounts: tuple[tuple[str, str], ...] = ()

    def filled(self, work: Work, flow: Flow) -> Work:
        """The work with what the flow says."""
        if self.exchange:
            assert isinstance(work, Exchange)
            of: Exchange = getattr(flow, self.exchange)
            return Exchange(
                work.operation, work.algorithm, work.axes, of.nbytes, work.element, of.received, of.pairs, work.root
            )
        values = dict(vars(work))  # what dataclasses.replace does takes twice as long
        for field, amount in self.amounts:
            values[field] = getattr(flow, amount)
        return type(work)(**values)


@dataclass(frozen=True, eq=False)
class Template:
    """A block with gaps, by the number of the operation; all other operations are those of every block that is made of it."""

    operations: Block
    gaps: Mapping[int, Gap]

    @classmethod
    def of(cls, operations: Block, lacking: Mapping[int, Flow]) -> Template:
        """The template of a block that was lowered with flows that lack their amounts (:meth:`Flow.lacking`), by layer.

        Raises :class:`InternalError` where an amount was made into another one on the way.
        """
        exchanges = {id(flow.dispatch.nbytes): (layer, "dispatch") for layer, flow in lacking.items()}
        exchanges |= {id(flow.combine.nbytes): (layer, "combine") for layer, flow in lacking.items()}
        amounts = {
            id(getattr(flow, name)): (layer, name)
            for layer, flow in lacking.items()
            for name in ("rows", "inner", "carried")
        }
        gaps: dict[int, Gap] = {}
        for number, operation in enumerate(operations):
            work = operation.work
            open_fields = [each.name for each in fields(work) if _missing(getattr(work, each.name))]
            if not open_fields:
                continue
            if isinstance(work, Exchange) and id(work.nbytes) in exchanges:
                gaps[number] = Gap(*exchanges[id(work.nbytes)])
            elif isinstance(work, Gemm | Sweep) and all(id(getattr(work, name)) in amounts for name in open_fields):
                found = [amounts[id(getattr(work, name))] for name in open_fields]
                gaps[number] = Gap(found[0][0], None, tuple(zip(open_fields, (name for _, name in found), strict=True)))
            else:
                raise InternalError(
                    f"{operation.label}: {', '.join(open_fields)} follow from a load in a way of their own"
                )
        return cls(operations, gaps)

    def filled(self, flow: Callable[[int], Flow]) -> Block:
        """The block where a layer (counted from the first of the stage) carries what its flow says."""
        found = {}
        for number, gap in self.gaps.items():
            it = self.operations[number]
            work = gap.filled(it.work, flow(gap.layer))
            found[number] = Operation(it.label, it.phase, it.category, it.stream, work, it.after, it.task)
        return FilledBlock.of(self.operations, found)


def _missing(value: object) -> bool:
    """Whether a field is an amount that is not known yet, or was made of one."""
    return isinstance(value, float | np.ndarray) and bool(np.isnan(value).any())
