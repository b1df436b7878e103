"""Mamba-2: a state space by heads, worked out in chunks by products (Dao and Gu 2024, "Transformers are SSMs")."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .recurrent import ChunkProducts, Projection, Recurrent, Step, TokenPass

CONVOLUTION_FLOPS = 2


class Mamba2(Recurrent):
    """Mamba-2's block: heads of ``head_size`` channels with ``state_size`` elements for each, inputs of states by ``groups``.

    In chunks of ``chunk`` tokens (section 6, and the authors' five kernels): scores of a group's outputs and inputs of states,
    the heads' products with them within a chunk, the state at each chunk's end, and what it gives the next one. States are
    worked out again in the backward pass.
    """

    kind: Literal["mamba-2"] = "mamba-2"
    state_size: int = Field(default=128, gt=0)
    expand: int = Field(default=2, gt=0)
    convolution: int = Field(default=4, gt=0)
    head_size: int = Field(default=64, gt=0)
    groups: int = Field(default=1, gt=0)
    chunk: int = Field(default=256, gt=0)

    def weights(self, hidden: int) -> list[tuple[int, int]]:
        """In (gate, channels, inputs and outputs of states, steps), convolution with its bias, three numbers a head, out."""
        wide, heads, mixed = self._wide(hidden), self._heads(hidden), self._mixed(hidden)
        return [
            (hidden, wide + mixed + heads),
            (mixed, self.convolution),
            (1, mixed),
            (1, heads),
            (1, heads),
            (1, heads),
            (wide, hidden),
        ]

    def norms(self, hidden: int) -> list[int]:
        """Of the gated output."""
        return [self._wide(hidden)]

    def steps(self, hidden: int) -> tuple[Step, ...]:
        """Products of chunks by head and by group."""
        wide, heads, mixed = self._wide(hidden), self._heads(hidden), self._mixed(hidden)
        chunk, size, each, taps = self.chunk, self.state_size, self.head_size, CONVOLUTION_FLOPS * self.convolution
        return (
            Projection("in", hidden, wide + mixed + heads, "column", keeps=hidden),
            TokenPass("convolution", mixed, 1, 1, taps, keeps=wide + mixed + heads, mathematical=True),
            ChunkProducts("scan", chunk, chunk, chunk, size, self.groups, keeps=mixed, again=True),
            ChunkProducts("chunks", chunk, chunk, each, chunk, heads),
            ChunkProducts("states", chunk, size, each, chunk, heads, again=True),
            ChunkProducts("inner", chunk, chunk, each, size, heads),
            TokenPass("gate", wide, 2, 1, 8, keeps=wide),
            Projection("out", wide, hidden, "row", keeps=wide),
        )

    def state(self, hidden: int) -> float:
        """States, and the last inputs of the convolution."""
        return float(self._wide(hidden) * self.state_size + self._mixed(hidden) * (self.convolution - 1))

    def divided(self, hidden: int) -> list[tuple[str, int]]:
        """Heads."""
        return [("heads of a state space", self._heads(hidden))]

    def _wide(self, hidden: int) -> int:
        return self.expand * hidden

    def _heads(self, hidden: int) -> int:
        return self._wide(hidden) // self.head_size

    def _mixed(self, hidden: int) -> int:
        """Channels of the convolution: those of heads, and inputs and outputs of states."""
        return self._wide(hidden) + 2 * self.groups * self.state_size
