"""Lightning attention: linear attention with a fixed decay by head (Qin et al. 2024; MiniMax-01, 2025, section 2.2)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .recurrent import ChunkProducts, Projection, Recurrent, Step, TokenPass


class Lightning(Recurrent):
    """Linear attention of so many heads: within blocks of ``chunk`` tokens by scores, between them through a state.

    The output is normed and gated. A mask over a block's scores is worked out in full, as in the authors' kernel. States are
    worked out again in the backward pass.
    """

    kind: Literal["lightning"] = "lightning"
    heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    chunk: int = Field(default=256, gt=0)

    def weights(self, hidden: int) -> list[tuple[int, int]]:
        """Queries, keys and values; gate; out."""
        return [(hidden, 3 * self._wide), (hidden, self._wide), (self._wide, hidden)]

    def norms(self, hidden: int) -> list[int]:
        """Of the output of all heads."""
        return [self._wide]

    def steps(self, hidden: int) -> tuple[Step, ...]:
        """Scores within a block and their products with values; the state, and its product with queries."""
        wide, size, chunk = self._wide, self.head_size, self.chunk
        return (
            Projection("in", hidden, 3 * wide, "column", keeps=hidden),
            Projection("gates", hidden, wide, "column"),
            ChunkProducts("scan", chunk, chunk, chunk, size, self.heads, keeps=3 * wide, again=True),
            ChunkProducts("chunks", chunk, chunk, size, chunk, self.heads),
            ChunkProducts("states", chunk, size, size, chunk, self.heads, again=True),
            ChunkProducts("inner", chunk, chunk, size, size, self.heads),
            TokenPass("gate", wide, 2, 1, 8, keeps=2 * wide),
            Projection("out", wide, hidden, "row", keeps=wide),
        )

    def state(self, hidden: int) -> float:
        """A matrix for each head."""
        return float(self._wide * self.head_size)

    def divided(self, hidden: int) -> list[tuple[str, int]]:
        """Heads."""
        return [("heads of linear attention", self.heads)]

    @property
    def _wide(self) -> int:
        return self.heads * self.head_size
