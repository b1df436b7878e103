"""Steps and blocks that differ in what their layers' experts carry: lowered once, and filled in for each load."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from ...hardware.errors import InternalError
from ..schedule.block_flops import Flops, flops_of
from ..schedule.filled import FilledOnDemand
from ..schedule.operation import Block, FilledBlock, Operation
from ..schedule.work import Exchange, Gemm, Sweep, Work
from .layer.moe import Flow

MOST_KEPT = 24 << 20
"""Bytes of flows that are kept while a step is read: those of a few layers where ranks are very many, else all."""

AMOUNTS = 32
"""Bytes of a rank's amounts in a flow: tokens, and what follows from them."""


@dataclass(frozen=True)
class Gap:
    """What an operation lacks of a layer's flow: its exchange, or fields of its work that are amounts of the flow."""

    layer: Hashable
    exchange: str | None
    amounts: tuple[tuple[str, str], ...] = ()

    def filled(self, work: Work, flow: Flow) -> Work:
        """The work with what the flow says."""
        if self.exchange:
            of: Exchange = getattr(flow, self.exchange)
            return _with(work, nbytes=of.nbytes, received=of.received, pairs=of.pairs)
        return _with(work, **{name: getattr(flow, amount) for name, amount in self.amounts})


def _with(work: Work, **amounts: Any) -> Work:
    """The work with these amounts, whose arrays are read-only already. A step has very many, so they are made without ado."""
    found: Work = object.__new__(type(work))
    vars(found).update(vars(work), **amounts)
    return found


@dataclass(frozen=True, eq=False)
class Template:
    """A block with gaps, by the number of the operation; all other operations are those of every block that is made of it."""

    operations: Block
    gaps: Mapping[int, Gap]
    one_token: Mapping[Any, Flow]  # by layer

    @classmethod
    def of(cls, operations: Block, lacking: Mapping[Any, Flow]) -> Template:
        """The template of operations that were lowered with flows that lack their amounts (:meth:`Flow.lacking`), by layer.

        Raises :class:`InternalError` where an amount was made into another one on the way.
        """
        exchanges = {id(flow.dispatch.nbytes): (layer, "dispatch") for layer, flow in lacking.items()}
        exchanges |= {id(flow.combine.nbytes): (layer, "combine") for layer, flow in lacking.items()}
        for name in ("copies", "returned"):
            of_copies = {layer: getattr(flow, name) for layer, flow in lacking.items()}
            exchanges |= {id(each.nbytes): (layer, name) for layer, each in of_copies.items() if each is not None}
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
        return cls(operations, gaps, {layer: replace(flow, tokens=1.0) for layer, flow in lacking.items()})

    def filled(self, flow: Callable[[Any], Flow]) -> Block:
        """The block where a layer (counted from the first of the stage) carries what its flow says."""
        filled = {number: self._filled(number, flow(gap.layer)) for number, gap in self.gaps.items()}
        return FilledBlock.of(self.operations, filled, self._flops(flow))

    def _flops(self, flow: Callable[[Any], Flow]) -> Flops:
        """FLOPs of a block in the mean over ranks: those that lack an amount have theirs in proportion to a layer's tokens."""
        whole, of_token = self._proportions
        found = dict(whole)
        for layer, each in of_token.items():
            tokens = flow(layer).mean
            for precision, flops in each.items():
                found[precision] = found.get(precision, 0.0) + flops * tokens
        return found

    @cached_property
    def _proportions(self) -> tuple[Flops, dict[Hashable, Flops]]:
        """FLOPs of what lacks nothing, and by layer those of a token in all else."""
        whole = flops_of(each for number, each in enumerate(self.operations) if number not in self.gaps)
        of_layer: dict[Hashable, list[Operation]] = {}
        for number, gap in self.gaps.items():
            of_layer.setdefault(gap.layer, []).append(self._filled(number, self.one_token[gap.layer]))
        return whole, {layer: flops_of(operations) for layer, operations in of_layer.items()}

    def on_demand(self, flow: Callable[[Any], Flow], mean: Callable[[Any], Flow]) -> FilledOnDemand:
        """The operations, each made anew with what its layer's flow says when it is asked for; the latest flows are kept.

        ``mean`` are flows of ranks that all carry the mean.
        """
        latest = _Latest(flow)

        def fill(number: int) -> Operation:
            kept = latest.of(self.gaps[number].layer)
            if number not in kept.made:
                kept.made[number] = self._filled(number, kept.flow)
            return kept.made[number]

        origins = {number: (gap.layer, gap.exchange or gap.amounts) for number, gap in self.gaps.items()}
        return FilledOnDemand(self.operations, origins, fill, self.filled(cache(mean)))

    def _filled(self, number: int, flow: Flow) -> Operation:
        it = self.operations[number]
        work = self.gaps[number].filled(it.work, flow)
        return Operation(it.label, it.phase, it.category, it.stream, work, it.after, it.task)


@dataclass(frozen=True)
class _Kept:
    """A layer's flow, and the operations that were made with it."""

    flow: Flow
    made: dict[int, Operation] = field(default_factory=dict)


@dataclass(frozen=True)
class _Latest:
    """Flows of the layers that were asked for last, those that take :data:`MOST_KEPT` together."""

    flow: Callable[[Any], Flow]
    kept: dict[Hashable, _Kept] = field(default_factory=dict)

    def of(self, layer: Hashable) -> _Kept:
        """That of a layer, which is made anew where it was let go."""
        found = self.kept.get(layer)
        if found is None:
            found = self.kept[layer] = _Kept(self.flow(layer))
            while len(self.kept) > max(1, MOST_KEPT // (AMOUNTS * max(1, np.size(found.flow.tokens)))):
                del self.kept[next(iter(self.kept))]
        return found


def _missing(value: object) -> bool:
    """Whether a field is an amount that is not known yet, or was made of one."""
    return isinstance(value, float | np.ndarray) and bool(np.isnan(value).any())
