"""Adam with moments in eight bits, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from ...hardware.precisions import BYTES
from ..model.precision import Formats, Part
from ..model.tensors import Tensor
from . import hyperparameters as usual
from .adam import Adam
from .optimizer import Array, StateSlot, TensorShare, Update, UpdateRule

SCALE = BYTES["fp32"] / usual.BLOCK
"""Bytes an element of its block's largest value."""


@dataclass(frozen=True)
class Adam8Bit(Adam):
    """Adam, whose moments are kept as codes of eight bits and a scale for every block of 2,048; computed in single precision.

    Codes stand for values of a dynamic format, with a sign for the first moment and without for the second. Embeddings, norms
    and biases keep moments in full. Blocks are those of the rank's own share, so that shards need nothing of each other.

    Source: Dettmers et al. 2022, sections 2.1 (blocks), 2.2 (dynamic format) and 2.3 (embeddings).
    """

    name: ClassVar[str] = "adam8bit"
    about: ClassVar[str] = "Adam with moments in 8 bits and a scale a block"
    source: ClassVar[str] = "Dettmers et al. 2022, sections 2.1 to 2.3"
    flops: ClassVar[float] = 20
    """Adam's, and four a moment to find the scale, to divide by it, to find the code and to multiply again."""

    def rule(self, part: Part, tensor: Tensor) -> UpdateRule:
        """Moments of embeddings, norms and biases in full."""
        if part in ("embedding", "norm") or not tensor.matrix:
            return Adam(self.learning_rate, self.beta1, self.beta2)
        return self

    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """Both moments: a byte each, and their scales."""
        return StateSlot("first", "fp8", 1 + SCALE), StateSlot("second", "fp8", 1 + SCALE)

    def state(self, count: int, tensor: Tensor, formats: Formats) -> dict[str, Array]:
        """Codes of zero, and scales."""
        found: dict[str, Array] = {}
        for name, codes in CODES.items():
            zero = int(np.searchsorted(codes(), 0.0))
            found |= {
                name: np.full(count, zero, np.uint8),
                f"{name}.scale": np.zeros(-(-count // usual.BLOCK), np.float32),
            }
        return found

    def update(self, share: TensorShare) -> Update:
        """Moments out of their codes, Adam, and back."""
        first, second = (self._read(share, name) for name in CODES)
        first = self.beta1 * first + (1 - self.beta1) * share.gradient
        second = self.beta2 * second + (1 - self.beta2) * share.gradient * share.gradient
        self.apply(share, first, second)
        for name, values in (("first", first), ("second", second)):
            codes, scales = quantise(values, CODES[name]())
            share.state[name][...], share.state[f"{name}.scale"][...] = codes, scales
        yield from ()

    def _read(self, share: TensorShare, name: str) -> Array:
        return dequantise(share.state[name], share.state[f"{name}.scale"], CODES[name]())


def quantise(values: Array, codes: Array) -> tuple[Array, Array]:
    """The nearest code of every value over its block's largest, and these largest values."""
    blocks = -(-len(values) // usual.BLOCK)
    padded = np.zeros(blocks * usual.BLOCK, values.dtype)
    padded[: len(values)] = values
    of_blocks = padded.reshape(blocks, usual.BLOCK)
    scales = np.abs(of_blocks).max(axis=1, initial=0.0).astype(np.float32)
    scaled = of_blocks / np.where(scales > 0, scales, 1)[:, None]
    found = np.searchsorted((codes[1:] + codes[:-1]) / 2, scaled.reshape(-1)[: len(values)])
    return found.astype(np.uint8), scales


def dequantise(found: Array, scales: Array, codes: Array) -> Array:
    """The values that codes and scales stand for."""
    result: Array = codes[found] * np.repeat(scales, usual.BLOCK)[: len(found)]
    return result


@cache
def signed() -> Array:
    """The 256 values of the dynamic format with a sign, rising from -0.993 to 1.

    For each number of leading zero bits there is a power of ten, and as many values from 0.1 to 1 as the other bits tell apart.
    """
    return _codes(sign=True)


@cache
def unsigned() -> Array:
    """The same without a sign, which leaves a bit more."""
    return _codes(sign=False)


CODES = {"first": signed, "second": unsigned}
"""The format of each moment."""


def _codes(sign: bool) -> Array:
    found = [0.0, 1.0]
    for exponent in range(7):
        ends = np.linspace(0.1, 1.0, 2 ** (exponent + (not sign)) + 1)
        values = (ends[1:] + ends[:-1]) / 2 * 10.0 ** (exponent - 6)
        found += [*values, *(-values if sign else ())]
    return np.array(sorted(found))
