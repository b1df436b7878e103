"""A training on one rank, operation by operation as a schedule says, without MPI: for experiments with formats of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ...workloads.lowering import lower_step
from ...workloads.lowering.unroll import unrolled
from ...workloads.plan.setting import Setting
from ..messages.transport import Transport
from ..training.transformer.training import ModelTraining
from ..training.transformer.weights.shards import EMBEDDING
from .corpus import Made
from .loss_scale import LossScale, has_halves
from .serial import Size


@dataclass(frozen=True)
class PrecisionTrial:
    """What is tried: a policy of formats, how the loss is scaled, and from which seed.

    ``outliers``: in these steps gradients are so many times what they should be. ``loud``: rows of the embedding begin
    so many times larger.
    """

    precision: str
    loss_scale: str = ""
    outliers: tuple[tuple[int, float], ...] = ()
    loud: float = 1.0
    learning_rate: float | None = None
    seed: int = 0


class _NoTransport:
    """Of one rank, which exchanges with nobody."""

    def along(self, axes: tuple[str, ...]) -> None:
        """No group."""
        return


def precision_trial(size: Size, of: PrecisionTrial) -> dict[str, Any]:
    """Train on a made corpus, every batch of which is new.

    Returns ``loss``, the mean of the last tenth of the steps; ``curve``, that of every step, which ends where the loss is no
    number; ``still``, the share of weights that an update leaves as they are, and ``lost``, that of gradients that are nothing,
    both means of the last tenth; ``scales``, that of each step, and ``skipped``, steps that updated nothing.
    """
    rate = of.learning_rate or size.learning_rate
    options = {
        "mesh": {"dp": 1},
        "precision": of.precision,
        "tokens_per_rank": size.tokens_per_rank,
        "optimizer": f"adam:learning_rate={rate}",
        "seed": of.seed,
        "zero": "0",
    }
    setting = Setting.of("laptop", size.model, options)
    corpus, length = Made(size.model.vocabulary, of.seed), size.model.seq_len
    count = size.tokens_per_rank // length

    def source(step: int) -> tuple[Any, Any]:
        words = corpus.batch(step, count, length + 1)
        return words[:, :-1], words[:, 1:]

    training = ModelTraining(setting, cast(Transport, _NoTransport()), (0,), source, learned=True, rounds=True)
    if of.loud != 1.0:
        _raise_voices(training, of.loud)
    operations = unrolled(lower_step(setting, 0)[0], (0,))
    scale, halves = LossScale.parse(of.loss_scale, setting), has_halves(training.formats)
    curve, scales, still, lost, skipped = [], [], [], [], 0
    for step in range(size.steps):
        overflowed = False

        def usable(finite: Any) -> bool:
            nonlocal overflowed
            overflowed = scale is not None and halves and not finite()
            return not overflowed

        training.usable = usable
        factor = scale.value if scale is not None else 1.0
        training.scale = factor * dict(of.outliers).get(step, 1.0)
        before = [flat.share.copy() for flat in training.holdings.flats]
        with np.errstate(all="ignore"):
            training.start_step(step)
            for operation in operations:
                training.compute(operation)
        curve.append(training.loss)
        scales.append(factor)
        skipped += overflowed
        if scale is not None:
            scale.after(step + 1, overflowed)
        if not math.isfinite(training.loss):
            break
        flats = training.holdings.flats
        still.append(_share([flat.share == old for flat, old in zip(flats, before, strict=True)]))
        lost.append(_share([flat.reduced == 0 for flat in flats]))
    last = max(1, size.steps // 10)
    return {
        "loss": float(np.mean(curve[-last:])) if len(curve) == size.steps else math.nan,
        "curve": curve,
        "still": float(np.mean(still[-last:])) if still else 1.0,
        "lost": float(np.mean(lost[-last:])) if lost else 0.0,
        "scales": scales,
        "skipped": skipped,
    }


def _share(found: list[Any]) -> float:
    return float(np.count_nonzero(np.concatenate(found)) / sum(len(each) for each in found))


def _raise_voices(training: ModelTraining, factor: float) -> None:
    """Make the rows of the embedding larger."""
    for flat in training.holdings.flats:
        for piece in flat.pieces:
            if piece.weight == EMBEDDING:
                here = slice(piece.start, piece.stop)
                exact = flat.share if flat.master is None else flat.master
                with np.errstate(over="ignore"):
                    exact[here] = exact[here] * factor
                    flat.share[here] = exact[here]
