"""Gated delta net: linear attention that overwrites what it knows of a key (Yang et al. 2024, "Gated Delta Networks")."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .recurrent import ChunkProducts, Projection, Recurrent, Step, TokenPass

CONVOLUTION_FLOPS = 2


class GatedDelta(Recurrent):
    """Linear attention by the delta rule with a gate and a decay for each head (Qwen3-Next).

    ``key_heads`` of ``key_size`` are shared by ``value_heads`` of ``value_size``; queries, keys and values pass a convolution of
    so many taps, outputs a norm that a gate weights. In chunks of ``chunk`` tokens, as the kernels of flash-linear-attention:
    keys by keys, the inverse of that triangle (a third of a cube), its products with keys and values, the state from chunk to
    chunk, queries by keys and their products. Triangles are kept; what is made with them, and states, is worked out again in
    the backward pass.
    """

    kind: Literal["gated-delta"] = "gated-delta"
    key_heads: int = Field(gt=0)
    key_size: int = Field(gt=0)
    value_heads: int = Field(gt=0)
    value_size: int = Field(gt=0)
    convolution: int = Field(default=4, gt=0)
    chunk: int = Field(default=64, gt=0)

    def weights(self, hidden: int) -> list[tuple[int, int]]:
        """Queries, keys, values and gate; rates and decays; convolution; biases and decays by head; out."""
        keys, values, heads = self._keys, self._values, self.value_heads
        return [
            (hidden, 2 * keys + 2 * values),
            (hidden, 2 * heads),
            (2 * keys + values, self.convolution),
            (1, heads),
            (1, heads),
            (values, hidden),
        ]

    def norms(self, hidden: int) -> list[int]:
        """Of a head's output, one for all heads."""
        return [self.value_size]

    def steps(self, hidden: int) -> tuple[Step, ...]:
        """Products of chunks, for each head of values."""
        keys, values, heads, chunk = self._keys, self._values, self.value_heads, self.chunk
        mixed, taps = 2 * keys + values, CONVOLUTION_FLOPS * self.convolution
        return (
            Projection("in", hidden, mixed + values, "column", keeps=hidden),
            Projection("gates", hidden, 2 * heads, "column"),
            TokenPass("convolution", mixed, 1, 1, taps, keeps=mixed + values + 2 * heads, mathematical=True),
            # keys by keys, and the inverse of the triangle: chunk³/3 FLOPs are a product whose inner size is a sixth of it
            ChunkProducts("scan", chunk, chunk, chunk, self.key_size + chunk / 6, heads, keeps=mixed),
            # the triangle with values and with keys; then queries by keys, with values
            ChunkProducts("chunks", chunk, chunk, self.value_size + self.key_size, chunk, heads, chunk * heads, True),
            # what a chunk knows already of its keys, and the state at its end
            ChunkProducts("states", chunk, chunk, 2 * self.value_size, self.key_size, heads, again=True),
            ChunkProducts("inner", chunk, chunk, chunk, self.key_size + self.value_size, heads),
            ChunkProducts("steps", chunk, chunk, self.value_size, self.key_size, heads),
            TokenPass("gate", values, 2, 1, 8, keeps=values),
            Projection("out", values, hidden, "row", keeps=values),
        )

    def state(self, hidden: int) -> float:
        """A matrix for each head, and the last inputs of the convolution."""
        return float(self._values * self.key_size + (2 * self._keys + self._values) * (self.convolution - 1))

    def divided(self, hidden: int) -> list[tuple[str, int]]:
        """Heads of keys, which have fewer."""
        return [("key heads of linear attention", self.key_heads), ("heads of linear attention", self.value_heads)]

    @property
    def _keys(self) -> int:
        return self.key_heads * self.key_size

    @property
    def _values(self) -> int:
        return self.value_heads * self.value_size
