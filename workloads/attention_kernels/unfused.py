"""Attention of separate operations, on one rank or as a ring over parts of a sequence.

Ring self-attention: each rank keeps its part of a sequence; keys, then values go around the ring, n - 1 steps each, and scores of
all keys are there before the softmax. Backward both go around again, and the gradients of keys and values, of which each rank
has a share for every part, are summed (Li et al. 2021, "Sequence Parallelism", section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ...hardware.precisions import BYTES
from ..schedule.operation import Role, Task
from ..schedule.work import Exchange, Gemm
from .kernel import AttentionCore, AttentionKernel, Kept

if TYPE_CHECKING:
    from ..lowering.builder import Program

MASK = 1
"""Bytes of an element of a dropout's mask."""


class Unfused(AttentionKernel):
    """Scores, softmax and context as operations of their own; over parts of each sequence, with one part nothing is sent."""

    about: ClassVar[str] = "scores, softmax and context as operations of their own, with scores in memory"
    keeps_scores: ClassVar[bool] = True

    def forward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """Queries meet keys, and values are weighted with what comes of it."""
        self._scores(program, at, core)
        program.add(at.doing(Role.SOFTMAX), core.softmax(backward=False))
        self._context(program, at, core)

    def backward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """The same in reverse: two products for each of the forward pass."""
        self._context_backward(program, at, core)
        program.add(at.doing(Role.SOFTMAX, gradient="input"), core.softmax(backward=True))
        self._scores_backward(program, at, core)

    def kept(self, rows: float, keys: float, nbytes: int, dropout: bool) -> Iterator[Kept]:
        """Scores after the softmax and, with dropout, its mask and them once more."""
        scores = rows * keys
        yield Kept("softmax", "its output", scores * nbytes, core=True)
        if dropout:
            yield Kept("dropout", "its mask", scores * MASK, core=True)
            yield Kept("context", "weights after the dropout", scores * nbytes, core=True)

    def ring_buffer(self, keys: float, values: float, parts: int) -> tuple[str, float]:
        """Keys come by themselves; backward there is a share of the gradient of every part."""
        return "keys that come, and gradients of all parts' keys", (1 + parts) * keys

    def _scores(self, program: Program, at: Task, core: AttentionCore) -> None:
        """Queries times keys."""
        size, _ = core.sizes
        self._around(
            program,
            core,
            at.doing(Role.RING_SHIFT, "keys"),
            0,
            [(at.doing(Role.SCORES), lambda keys: core.heads(core.queries, keys, size))],
        )

    def _context(self, program: Program, at: Task, core: AttentionCore) -> None:
        """Weights times values."""
        _, value = core.sizes
        made: list[tuple[Task, Callable[[float], Gemm]]] = [
            (at.doing(Role.CONTEXT), lambda keys: core.heads(core.queries, value, keys))
        ]
        self._around(program, core, at.doing(Role.RING_SHIFT, "values"), 1, made)

    def _context_backward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """Gradients of values and of weights."""
        _, value = core.sizes
        self._around(
            program,
            core,
            at.doing(Role.RING_SHIFT, "values", "input"),
            1,
            [
                (at.doing(Role.CONTEXT, "values", "input"), lambda keys: core.heads(keys, value, core.queries)),
                (at.doing(Role.CONTEXT, "scores", "input"), lambda keys: core.heads(core.queries, keys, value)),
            ],
        )
        self._sum(program, core, at.doing(Role.RING_SUM, "values", "input"), 1)

    def _scores_backward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """Gradients of queries and of keys."""
        size, _ = core.sizes
        self._around(
            program,
            core,
            at.doing(Role.RING_SHIFT, "keys", "input"),
            0,
            [
                (at.doing(Role.SCORES, "queries", "input"), lambda keys: core.heads(core.queries, size, keys)),
                (at.doing(Role.SCORES, "keys", "input"), lambda keys: core.heads(keys, size, core.queries)),
            ],
        )
        self._sum(program, core, at.doing(Role.RING_SUM, "keys", "input"), 0)

    def _around(
        self,
        program: Program,
        core: AttentionCore,
        moving: Task,
        which: int,
        products: list[tuple[Task, Callable[[float], Gemm]]],
    ) -> None:
        """Products with each part of the sequence, which comes from the rank before."""
        if core.parts == 1:
            for task, work in products:
                program.add(task, work(core.keys))
            return
        for step in range(core.parts):
            if step:
                shift = self._exchange(core, "shift", "next", which, 1)
                program.add(replace(moving, step=step), shift, "tensor_parallel")
            for task, work in products:
                program.add(replace(task, step=step), work(core.keys / core.parts))

    def _sum(self, program: Program, core: AttentionCore, task: Task, which: int) -> None:
        """Every rank's share of the gradients of all parts."""
        if core.parts > 1:
            program.add(task, self._exchange(core, "reduce-scatter", "ring", which, core.parts), "tensor_parallel")

    def _exchange(self, core: AttentionCore, operation: str, algorithm: str, which: int, parts: int) -> Exchange:
        element = core.precision
        return Exchange(
            operation, algorithm, core.around, parts * core.key_value_elements[which] * BYTES[element], element
        )
