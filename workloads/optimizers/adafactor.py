"""Adafactor: of the second moment of a matrix only the sums of its rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...hardware.precisions import BYTES
from ..model.precision import Formats, Part
from ..model.tensors import Tensor
from . import hyperparameters as usual
from .optimizer import (
    Array,
    Optimizer,
    StateSlot,
    Step,
    Sum,
    Sums,
    TensorShare,
    Update,
    UpdatePass,
    UpdateRule,
    single,
    weight_bytes,
    written_bytes,
)


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """u = g / sqrt(r c / sum(r)), with r and c decaying sums of squared gradients over columns and rows; no momentum.

    Updates are clipped by their root mean square, and steps are relative to that of the weights, both of a whole tensor.
    Source: Shazeer and Stern 2018, Algorithms 4 (matrices) and 5 (vectors), with section 8's settings.
    """

    step_size: float = usual.ADAFACTOR_STEP
    clip: float = usual.ADAFACTOR_CLIP
    decay: float = usual.ADAFACTOR_DECAY

    name: ClassVar[str] = "adafactor"
    about: ClassVar[str] = "second moments of rows and columns alone, no first ones"
    source: ClassVar[str] = "Shazeer and Stern 2018, Algorithms 4 and 5"
    flops: ClassVar[float] = 20
    hosted: ClassVar[bool] = False

    def rule(self, part: Part, tensor: Tensor) -> UpdateRule:
        """Vectors have nothing to factor."""
        return self if tensor.matrix else AdafactorOfVectors(self)

    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """Nothing by element."""
        return ()

    def kept(self, tensor: Tensor) -> dict[str, int]:
        """A number a row and one a column."""
        return {"rows": tensor.rows, "columns": tensor.columns}

    def steps(self, tensor: Tensor, formats: Formats) -> tuple[Step, ...]:
        """Sums of squares by rows and columns; sizes of update and weights; weights. Updates are worked out twice, not kept."""
        return (
            UpdatePass("", BYTES[formats.gradient], 0.0, 4),
            Sums("factors", tensor.rows + tensor.columns),
            *self.ends(formats, 0.0),
        )

    def ends(self, formats: Formats, second: float) -> tuple[Step, ...]:
        """The two sweeps that follow second moments, of which ``second`` bytes a parameter are read."""
        gradient, weight = BYTES[formats.gradient] + second, weight_bytes(formats)
        return (
            UpdatePass("sizes", gradient + weight, 0.0, 8),
            Sums("norms", 2),
            UpdatePass("apply", gradient + weight, written_bytes(formats), 8),
        )

    def update(self, share: TensorShare) -> Update:
        """Factors, then the update with them."""
        rows, columns = share.index // share.tensor.columns, share.index % share.tensor.columns
        squares = share.gradient * share.gradient + usual.ADAFACTOR_EPSILON
        parts = (np.bincount(rows, squares, share.tensor.rows), np.bincount(columns, squares, share.tensor.columns))
        sums = yield Sum(np.concatenate(parts))
        new = 1 - self.kept_share(share.step)
        for name, values in (("rows", sums[: share.tensor.rows]), ("columns", sums[share.tensor.rows :])):
            share.state[name][...] = (1 - new) * share.state[name] + new * values
        second = share.state["rows"][rows] / share.state["rows"].sum() * share.state["columns"][columns]
        yield from self.move(share, second)

    def kept_share(self, step: int) -> float:
        """What a step leaves of second moments."""
        return float(1 - step**-self.decay)

    def move(self, share: TensorShare, second: Array) -> Update:
        """The update with these second moments, clipped and relative."""
        update = share.gradient / np.sqrt(second)
        weights = share.exact.astype(update.dtype)
        sums = yield Sum(np.array([np.vdot(update, update), np.vdot(weights, weights)]))
        size, own = np.sqrt(sums / share.tensor.size)
        rate = max(usual.ADAFACTOR_SCALE, own) * min(self.step_size, share.step**-0.5)
        share.exact[...] = share.exact - rate / max(1.0, size / self.clip) * update


@dataclass(frozen=True)
class AdafactorOfVectors(UpdateRule):
    """The same with a second moment for each element."""

    of: Adafactor

    name: ClassVar[str] = "vectors"
    flops: ClassVar[float] = 20

    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """The second moment."""
        return (single("second", formats),)

    def steps(self, tensor: Tensor, formats: Formats) -> tuple[Step, ...]:
        """Second moments; then as for matrices."""
        moment = BYTES[formats.moments]
        return UpdatePass("", BYTES[formats.gradient] + moment, moment, 4), *self.of.ends(formats, moment)

    def update(self, share: TensorShare) -> Update:
        """Second moments, then the update with them."""
        keep, second = self.of.kept_share(share.step), share.state["second"]
        second[...] = keep * second + (1 - keep) * (share.gradient * share.gradient + usual.ADAFACTOR_EPSILON)
        yield from self.of.move(share, second.astype(share.gradient.dtype))
