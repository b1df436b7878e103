"""The core of attention on one rank, or as a ring over parts of a sequence.

Ring self-attention: each rank keeps its part of a sequence; keys, then values go around the ring, n - 1 steps each, and scores of
all keys are there before the softmax. Backward both go around again, and the gradients of keys and values, of which each rank
has a share for every part, are summed (Li et al. 2021, "Sequence Parallelism", section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...hardware.precisions import BYTES
from ..schedule import Exchange, Gemm
from .program import Program

if TYPE_CHECKING:
    from .attention import Attention


@dataclass(frozen=True)
class Ring:
    """The core over ``parts`` parts of each sequence; with one part nothing is sent."""

    parts: int

    def scores(self, program: Program, at: str, core: Attention) -> None:
        """Queries times keys."""
        size, _ = core.sizes
        self._around(
            program, core, f"{at}.keys", 0, [(f"{at}.scores", lambda keys: core.heads(core.queries, keys, size))]
        )

    def context(self, program: Program, at: str, core: Attention) -> None:
        """Weights times values."""
        _, value = core.sizes
        made: list[tuple[str, Callable[[float], Gemm]]] = [
            (f"{at}.context", lambda keys: core.heads(core.queries, value, keys))
        ]
        self._around(program, core, f"{at}.values", 1, made)

    def context_backward(self, program: Program, at: str, core: Attention) -> None:
        """Gradients of values and of weights."""
        _, value = core.sizes
        self._around(
            program,
            core,
            f"{at}.values.again",
            1,
            [
                (f"{at}.context.dvalues", lambda keys: core.heads(keys, value, core.queries)),
                (f"{at}.context.dscores", lambda keys: core.heads(core.queries, keys, value)),
            ],
        )
        self._sum(program, core, f"{at}.values.reduce", 1)

    def scores_backward(self, program: Program, at: str, core: Attention) -> None:
        """Gradients of queries and of keys."""
        size, _ = core.sizes
        self._around(
            program,
            core,
            f"{at}.keys.again",
            0,
            [
                (f"{at}.scores.dqueries", lambda keys: core.heads(core.queries, size, keys)),
                (f"{at}.scores.dkeys", lambda keys: core.heads(keys, size, core.queries)),
            ],
        )
        self._sum(program, core, f"{at}.keys.reduce", 0)

    def _around(
        self,
        program: Program,
        core: Attention,
        moving: str,
        which: int,
        products: list[tuple[str, Callable[[float], Gemm]]],
    ) -> None:
        """Products with each part of the sequence, which comes from the rank before."""
        if self.parts == 1:
            for name, work in products:
                program.add(name, work(core.keys))
            return
        for step in range(self.parts):
            if step:
                program.add(f"{moving}.{step}", self._exchange(core, "shift", "next", which, 1), "tensor_parallel")
            for name, work in products:
                program.add(f"{name}.{step}", work(core.keys / self.parts))

    def _sum(self, program: Program, core: Attention, name: str, which: int) -> None:
        """Every rank's share of the gradients of all parts."""
        if self.parts > 1:
            program.add(name, self._exchange(core, "reduce-scatter", "ring", which, self.parts), "tensor_parallel")

    def _exchange(self, core: Attention, operation: str, algorithm: str, which: int, parts: int) -> Exchange:
        element = core.local.formats["attention"].compute
        return Exchange(operation, algorithm, ("cp",), parts * core.key_value_bytes[which] * BYTES[element], element)
