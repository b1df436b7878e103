"""Mamba: a selective state space, scanned token by token (Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling")."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .recurrent import Projection, Recurrent, Step, TokenPass

SCAN_FLOPS = 9
"""FLOPs of a scan for each channel, element of its state and token (state-spaces/mamba, issue 110; VMamba's count)."""

CONVOLUTION_FLOPS = 2


class Mamba1(Recurrent):
    """Mamba's block: ``expand`` x hidden channels of ``state_size`` elements each, behind a convolution of so many taps.

    Steps come from ``rank`` numbers a token (none: hidden / 16); ``inner_norms`` are of these, and of the inputs and outputs of
    states (Jamba, Lieber et al. 2024). As ``mamba_inner_fn`` of the authors' code: one scan that never writes states, which the
    backward pass works out again, with the convolution and steps; what stays are both inputs, numbers of steps and the output.
    """

    kind: Literal["mamba-1"] = "mamba-1"
    state_size: int = Field(default=16, gt=0)
    expand: int = Field(default=2, gt=0)
    convolution: int = Field(default=4, gt=0)
    rank: int | None = Field(default=None, gt=0)
    inner_norms: bool = False

    def weights(self, hidden: int) -> list[tuple[int, int]]:
        """In, convolution with its bias, numbers of steps and states, steps with their bias, decays, skip, out."""
        wide, rank, size = self._wide(hidden), self._rank(hidden), self.state_size
        return [
            (hidden, 2 * wide),
            (wide, self.convolution),
            (1, wide),
            (wide, rank + 2 * size),
            (rank, wide),
            (1, wide),
            (wide, size),
            (1, wide),
            (wide, hidden),
        ]

    def norms(self, hidden: int) -> list[int]:
        """Of steps' numbers, inputs and outputs of states."""
        return [self._rank(hidden), self.state_size, self.state_size] if self.inner_norms else []

    def steps(self, hidden: int) -> tuple[Step, ...]:
        """The scan reads channels, steps and gate, and writes the gated output."""
        wide, rank, size = self._wide(hidden), self._rank(hidden), self.state_size
        taps = CONVOLUTION_FLOPS * self.convolution
        return (
            Projection("in", hidden, 2 * wide, "column", keeps=hidden),
            TokenPass("convolution", wide, 1, 1, taps, keeps=2 * wide, again=True, mathematical=True),
            Projection("inner", wide, rank + 2 * size, "row", summed=True),
            Projection("steps", rank, wide, "column", keeps=rank + 2 * size, again=True),
            TokenPass("scan", wide, 3 + 2 * size / wide, 1, SCAN_FLOPS * size, again=True, mathematical=True),
            Projection("out", wide, hidden, "row", keeps=wide),
        )

    def state(self, hidden: int) -> float:
        """States, and the last inputs of the convolution."""
        return float(self._wide(hidden) * (self.state_size + self.convolution - 1))

    def divided(self, hidden: int) -> list[tuple[str, int]]:
        """Channels."""
        return [("channels of a state space", self._wide(hidden))]

    def _wide(self, hidden: int) -> int:
        return self.expand * hidden

    def _rank(self, hidden: int) -> int:
        return self.rank or -(-hidden // 16)
