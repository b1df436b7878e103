"""Muon: momentum, made orthogonal matrix by matrix; AdamW for all that is no hidden matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...hardware.precisions import BYTES
from ..model.precision import Formats, Part
from ..model.tensors import Tensor
from . import hyperparameters as usual
from .adamw import AdamW
from .optimizer import (
    Array,
    Gather,
    Optimizer,
    StateSlot,
    Step,
    TensorShare,
    Update,
    UpdatePass,
    UpdateProducts,
    UpdateRule,
    WholeTensor,
    single,
    weight_bytes,
    written_bytes,
)

HIDDEN = frozenset[Part](("expert", "ffn", "attention"))
"""Parts whose matrices are orthogonalised; embedding, output, gates, norms and biases are left to AdamW."""


@dataclass(frozen=True)
class Muon(Optimizer):
    """m = momentum m + g, w -= rate (0.2 sqrt(max(rows, columns)) O + decay w), O the orthogonal part of g + momentum m.

    Source: Jordan et al. 2024 (the update, Nesterov's momentum, five Newton-Schulz iterations); Liu et al. 2025 (Moonlight),
    section 2.2 (scale and decay, AdamW for the rest) and Algorithm 1 (sharded: matrices come together, each rank takes its part
    of O).
    """

    learning_rate: float = usual.LEARNING_RATE
    momentum: float = usual.MUON_MOMENTUM
    weight_decay: float = usual.MUON_DECAY
    beta1: float = usual.BETA_1
    beta2: float = usual.BETA_2

    name: ClassVar[str] = "muon"
    about: ClassVar[str] = "orthogonal momentum for hidden matrices, AdamW for the rest"
    source: ClassVar[str] = "Jordan et al. 2024; Liu et al. 2025 (Moonlight), section 2.2 and Algorithm 1"
    flops: ClassVar[float] = 8
    """Of the sweeps; products of whole matrices come to it."""

    hosted: ClassVar[bool] = False

    def rule(self, part: Part, tensor: Tensor) -> UpdateRule:
        """AdamW for what is no hidden matrix."""
        if part in HIDDEN and tensor.matrix:
            return self
        return AdamW(self.learning_rate, self.beta1, self.beta2, self.weight_decay)

    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """The momentum."""
        return (single("momentum", formats),)

    def workspace(self, tensor: Tensor, formats: Formats) -> float:
        """The matrix as it comes, X and the next X, and both squares of its shorter side."""
        short = min(tensor.rows, tensor.columns)
        return BYTES[formats.weight] * tensor.size + BYTES[formats.compute] * 2.0 * (tensor.size + short**2)

    def steps(self, tensor: Tensor, formats: Formats) -> tuple[Step, ...]:
        """Momentum; whole matrices; five iterations of three products; weights."""
        moment, size = BYTES[formats.moments], BYTES[formats.weight]
        short, long = sorted((tensor.rows, tensor.columns))
        times = usual.NEWTON_SCHULZ_STEPS
        shapes = ((short, short, long, times), (short, short, short, times), (short, long, short, times))
        return (
            UpdatePass("", BYTES[formats.gradient] + moment, moment + size, 4),
            WholeTensor("whole", formats.weight),
            UpdateProducts("orthogonal", shapes, formats.compute),
            UpdatePass("apply", size + weight_bytes(formats), written_bytes(formats), 4),
        )

    def update(self, share: TensorShare) -> Update:
        """Momentum by elements, its orthogonal part by matrix."""
        momentum = share.state["momentum"]
        momentum[...] = self.momentum * momentum + share.gradient
        whole = yield Gather(share.gradient + self.momentum * momentum)
        orthogonal = newton_schulz(whole.reshape(share.tensor.rows, share.tensor.columns)).reshape(-1)[share.index]
        scale = usual.MUON_SCALE * max(share.tensor.rows, share.tensor.columns) ** 0.5
        step = scale * orthogonal + self.weight_decay * share.exact
        share.exact[...] = share.exact - self.learning_rate * step


def newton_schulz(matrix: Array) -> Array:
    """A matrix with about the singular vectors of ``matrix`` and singular values between 0.7 and 1.2 (Jordan et al. 2024)."""
    a, b, c = usual.NEWTON_SCHULZ
    found: Array = matrix / (np.linalg.norm(matrix) + 1e-7)
    if turned := matrix.shape[0] > matrix.shape[1]:
        found = found.T
    for _ in range(usual.NEWTON_SCHULZ_STEPS):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found.T if turned else found
