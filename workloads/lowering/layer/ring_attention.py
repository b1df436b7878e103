"""The core of attention on one rank, or as a ring over parts of a sequence.

Ring self-attention: each rank keeps its part of a sequence; keys, then values go around the ring, n - 1 steps each, and scores of
all keys are there before the softmax. Backward both go around again, and the gradients of keys and values, of which each rank
has a share for every part, are summed (Li et al. 2021, "Sequence Parallelism", section 3.2).

Ring attention with a fused kernel needs no scores of other parts: it corrects its sums as each block of keys and values comes,
beside the kernel of the block before (Liu et al. 2023, "Ring Attention with Blockwise Transformers"). Backward, keys and values
go around with their gradients, which each rank adds to (Transformer Engine's context parallelism).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ....hardware.precisions import BYTES
from ...schedule.operation import Role, Task
from ...schedule.work import Exchange, Gemm
from ...schedule.work import FusedAttention as Fused
from ..builder import RING, Program

if TYPE_CHECKING:
    from .attention import AttentionLayer


@dataclass(frozen=True)
class Ring:
    """The core over ``parts`` parts of each sequence; with one part nothing is sent."""

    parts: int

    def scores(self, program: Program, at: Task, core: AttentionLayer) -> None:
        """Queries times keys."""
        size, _ = core.sizes
        self._around(
            program,
            core,
            at.doing(Role.RING_SHIFT, "keys"),
            0,
            [(at.doing(Role.SCORES), lambda keys: core.heads(core.queries, keys, size))],
        )

    def context(self, program: Program, at: Task, core: AttentionLayer) -> None:
        """Weights times values."""
        _, value = core.sizes
        made: list[tuple[Task, Callable[[float], Gemm]]] = [
            (at.doing(Role.CONTEXT), lambda keys: core.heads(core.queries, value, keys))
        ]
        self._around(program, core, at.doing(Role.RING_SHIFT, "values"), 1, made)

    def context_backward(self, program: Program, at: Task, core: AttentionLayer) -> None:
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

    def scores_backward(self, program: Program, at: Task, core: AttentionLayer) -> None:
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
        core: AttentionLayer,
        moving: Task,
        which: int,
        products: list[tuple[Task, Callable[[float], Gemm]]],
    ) -> None:
        """Products with each part of the sequence, which comes from the rank before."""
        if self.parts == 1:
            for task, work in products:
                program.add(task, work(core.keys))
            return
        for step in range(self.parts):
            if step:
                shift = self._exchange(core, "shift", "next", which, 1)
                program.add(replace(moving, step=step), shift, "tensor_parallel")
            for task, work in products:
                program.add(replace(task, step=step), work(core.keys / self.parts))

    def _sum(self, program: Program, core: AttentionLayer, task: Task, which: int) -> None:
        """Every rank's share of the gradients of all parts."""
        if self.parts > 1:
            program.add(task, self._exchange(core, "reduce-scatter", "ring", which, self.parts), "tensor_parallel")

    def _exchange(self, core: AttentionLayer, operation: str, algorithm: str, which: int, parts: int) -> Exchange:
        element = core.local.formats["attention"].compute
        return Exchange(operation, algorithm, ("cp",), parts * core.key_value_bytes[which] * BYTES[element], element)


@dataclass(frozen=True)
class FusedRing:
    """A fused kernel over ``parts`` parts of each sequence, one after another; with one part nothing is sent.

    Under a causal mask each rank has two parts of a sequence, from either end (zigzag), so that all have as much to do in every
    step: an n-th of the kernel.
    """

    parts: int

    def forward(self, program: Program, at: Task, core: AttentionLayer) -> None:
        """One block at a time; the next one, keys with values, comes meanwhile."""
        bytes_of = [self._block(core) * (step < self.parts - 1) for step in range(self.parts)]
        self._around(
            program, at.doing(Role.CONTEXT), at.doing(Role.RING_SHIFT), "next", core.kernel(2, self.parts), bytes_of
        )

    def backward(self, program: Program, at: Task, core: AttentionLayer) -> None:
        """The same the other way round: what a rank has added to a block's gradients goes on while it works on the next one.

        Where forward passes end, a rank still has the last block that came: so n - 1 steps bring blocks back to their owners, and
        as many their gradients, each a step behind its block.
        """
        bytes_of = [self._block(core) * ((step < self.parts - 1) + (step > 0)) for step in range(self.parts)]
        kernel = core.kernel(5, self.parts)
        moving = at.doing(Role.RING_SHIFT, gradient="input")
        self._around(program, at.doing(Role.CONTEXT, gradient="input"), moving, "previous", kernel, bytes_of)

    def _around(
        self, program: Program, task: Task, moving: Task, way: str, kernel: Fused, bytes_of: list[float]
    ) -> None:
        """A kernel for each block, beside which so many bytes go one rank on; the next kernel waits for what comes so."""
        if self.parts == 1:
            program.add(task, kernel)
            return
        if not program.wanted(task):
            return
        here: int | None = None
        for step, nbytes in enumerate(bytes_of):
            coming: int | None = None
            if nbytes:
                shift = Exchange("shift", way, ("cp",), nbytes, kernel.precision)
                coming = program.aside(replace(moving, step=step), shift, "tensor_parallel", RING)
            if here is not None:
                program.need(here)
            program.add(replace(task, step=step), kernel)
            here = coming
        if here is not None:
            program.need(here)

    def _block(self, core: AttentionLayer) -> float:
        """Bytes of a part's keys and values."""
        return sum(core.key_value_bytes) * BYTES[core.local.formats["attention"].compute]
