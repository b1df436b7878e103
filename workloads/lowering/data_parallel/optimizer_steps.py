"""From the rules of an optimizer to the operations that update what a rank holds of a part of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ....hardware.precisions import BYTES
from ...model.precision import Formats
from ...optimizers.optimizer import Step, Sums, UpdatePass, UpdateProducts, UpdateRule, WholeTensor, kept_precision
from ...plan.setting import Setting
from ...schedule.work import Amount, Exchange, Gemm, Sweep, Work
from ...sharding import ShardTransfer
from .held_tensors import HeldTensors, RuledTensors, matrices_touched, together
from .sharding import Holding, shards

Exchanging = Callable[[ShardTransfer], Exchange]
"""Makes an exchange of what is to be sent, by the algorithm that fits its groups."""


@dataclass(frozen=True)
class OptimizerStep:
    """One operation of an update: its label and work, the rule that asks for it, and whether the rule ``begins`` with it."""

    label: str
    work: Work
    rule: UpdateRule
    begins: bool


def optimizer_steps(
    tensors: HeldTensors, holding: Holding, formats: Formats, exchanging: Exchanging, share: float = 1.0
) -> Iterator[OptimizerStep]:
    """The operations of updating a ``share`` of what the rank has of a holding.

    Labels are ``update.OPTIMIZER.PART``, then the step's own; where the optimizer leaves tensors to another rule, that rule's
    before it; of several operations of a step they have a number. Exchanges are there where other ranks have parts of the
    same tensors.
    """
    setting, optimizer = tensors.setting, tensors.setting.plan.optimizing
    for each in tensors.ruled(holding):
        name, begins = f"update.{optimizer.name}.{holding.part}", True
        if each.rule != optimizer:
            name += f".{each.rule.name}"
        columns = [each.rule.steps(tensor, formats) for tensor in each.tensors]
        for steps in zip(*columns, strict=True):
            counted = list(zip(steps, each.tensors.values(), strict=True))
            label = f"{name}.{steps[0].name}" if steps[0].name else name
            works = list(_works(setting, holding, each, formats, counted, exchanging))
            for number, work in enumerate(works):
                mine = replace(work, size=share * work.size) if isinstance(work, Sweep) else work
                yield OptimizerStep(f"{label}{number if len(works) > 1 else ''}", mine, each.rule, begins)
                begins = False


def _works(
    setting: Setting,
    holding: Holding,
    ruled_tensors: RuledTensors,
    formats: Formats,
    steps: list[tuple[Step, Amount]],
    exchanging: Exchanging,
) -> Iterator[Work]:
    """The work of one step of a rule on all its tensors, of each of which there are so many."""
    first, axes = steps[0][0], together(setting, holding)
    alone = setting.mesh.size(*axes) == 1
    match first:
        case UpdatePass():
            count = ruled_tensors.parameters / shards(setting, holding)
            yield Sweep(count, first.read, first.written, first.flops, "fp32", streams=True)
        case Sums():
            if not alone:
                numbers = _total((step.numbers * count for step, count in steps if isinstance(step, Sums)))
                element = kept_precision(formats)
                yield exchanging(ShardTransfer("sums", "all-reduce", axes, BYTES[element] * numbers, element))
        case WholeTensor():
            if not alone:
                elements = _total((tensor.size * count for tensor, count in ruled_tensors.tensors.items()))
                yield exchanging(
                    ShardTransfer("whole", "all-gather", axes, BYTES[first.element] * elements, first.element)
                )
        case UpdateProducts():
            for step, count in steps:
                if isinstance(step, UpdateProducts):
                    yield from _products(step, matrices_touched(setting, holding, count))


def _products(step: UpdateProducts, matrices: Amount) -> Iterator[Gemm]:
    """Products of so many matrices; where stages have unequal numbers, rows are in proportion to them."""
    mean = float(np.mean(matrices))
    if not mean:
        return
    part = np.asarray(matrices) / mean
    for m, n, k, times in step.shapes:
        rows: Amount = float(m) if np.all(part == 1) else m * part
        yield Gemm(rows, float(n), float(k), times * mean, step.precision)


def _total(amounts: Iterator[Amount]) -> Amount:
    return sum(amounts, start=0.0)
