"""Fused attention: one kernel that never writes its scores (Dao et al. 2022), under cp a ring of them.

Ring attention with a fused kernel needs no scores of other parts: it corrects its sums as each block of keys and values comes,
beside the kernel of the block before (Liu et al. 2023, "Ring Attention with Blockwise Transformers"). Backward, keys and values
go around with their gradients, which each rank adds to (Transformer Engine's context parallelism).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ...hardware.precisions import BYTES
from ..schedule.operation import RING, Role, Task
from ..schedule.work import Exchange, FusedAttention
from .kernel import AttentionCore, AttentionKernel, Kept

if TYPE_CHECKING:
    from ..lowering.builder import Program

STATISTICS = 4
"""Bytes that a fused kernel keeps of each row of scores: the logarithm of its sum (Dao et al. 2022)."""


class Fused(AttentionKernel):
    """A fused kernel over parts of each sequence, one after another; with one part nothing is sent.

    ``name`` is that of a kernel whose rates machines say; without one, the fastest of theirs is meant.
    Under a causal mask each rank has two parts of a sequence, from either end (zigzag), so that all have as much to do in every
    step: an n-th of the kernel.
    """

    about: ClassVar[str] = (
        "the fastest fused kernel that the machine has; it keeps its scores to itself, under cp in a ring"
    )

    def forward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """One block at a time; the next one, keys with values, comes meanwhile."""
        bytes_of = [self._block(core) * (step < core.parts - 1) for step in range(core.parts)]
        kernel = core.fused(2, core.parts, self.name)
        self._around(program, at.doing(Role.CONTEXT), at.doing(Role.RING_SHIFT), "next", kernel, core.around, bytes_of)

    def backward(self, program: Program, at: Task, core: AttentionCore) -> None:
        """The same the other way round: what a rank has added to a block's gradients goes on while it works on the next one.

        Where forward passes end, a rank still has the last block that came: so n - 1 steps bring blocks back to their owners, and
        as many their gradients, each a step behind its block.
        """
        bytes_of = [self._block(core) * ((step < core.parts - 1) + (step > 0)) for step in range(core.parts)]
        kernel = core.fused(5, core.parts, self.name)
        moving = at.doing(Role.RING_SHIFT, gradient="input")
        self._around(
            program, at.doing(Role.CONTEXT, gradient="input"), moving, "previous", kernel, core.around, bytes_of
        )

    def _around(
        self,
        program: Program,
        task: Task,
        moving: Task,
        way: str,
        kernel: FusedAttention,
        around: tuple[str, ...],
        bytes_of: list[float],
    ) -> None:
        """A kernel for each block, beside which so many bytes go one rank on; the next kernel waits for what comes so."""
        if len(bytes_of) == 1:
            program.add(task, kernel)
            return
        if not program.wanted(task):
            return
        here: int | None = None
        for step, nbytes in enumerate(bytes_of):
            coming: int | None = None
            if nbytes:
                shift = Exchange("shift", way, around, nbytes, kernel.precision)
                coming = program.aside(replace(moving, step=step), shift, "tensor_parallel", RING)
            if here is not None:
                program.need(here)
            program.add(replace(task, step=step), kernel)
            here = coming
        if here is not None:
            program.need(here)

    def kept(self, rows: float, keys: float, nbytes: int, dropout: bool) -> Iterator[Kept]:
        """A number for each row of scores, from which they are worked out again."""
        yield Kept("context", "sums of its scores", rows * STATISTICS, product=1)

    def ring_buffer(self, keys: float, values: float, parts: int) -> tuple[str, float]:
        """A block at hand and one that comes, each with its gradients."""
        return "keys and values at hand and coming, with their gradients", 4 * (keys + values)

    def _block(self, core: AttentionCore) -> float:
        """Bytes of a part's keys and values."""
        return sum(core.key_value_elements) * BYTES[core.precision]
