"""The batch of a step: tokens of a data-parallel rank, the micro-batches they are cut into, the length of a sequence."""

from __future__ import annotations

from dataclasses import dataclass

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ..mesh.mesh import Mesh
from ..model.model import Model
from .plan import Plan


@dataclass(frozen=True)
class Batch:
    """Tokens of a data-parallel rank: in a step, and in each of its ``micro_batches``; and the length of a sequence.

    Ranks that share these tokens (along cp, tp and pp) count as one.
    """

    tokens: int
    micro_batches: int
    seq_len: int

    @property
    def micro_tokens(self) -> int:
        """Tokens of a rank in one micro-batch."""
        return self.tokens // self.micro_batches

    @classmethod
    def of(cls, plan: Plan, model: Model, machine: Machine, mesh: Mesh, ranks_per_node: int) -> Batch:
        """The batch of a plan; raises :class:`InputError` where sizes contradict or do not divide, with the numbers."""
        seq_len = plan.seq_len or model.seq_len
        usual = max(1, machine.calibration.tokens_per_node // ranks_per_node)
        tokens = plan.tokens_per_rank or max(1, usual // seq_len) * seq_len  # nobody asked to cut a sequence
        if plan.tokens_per_rank and plan.global_batch:
            raise InputError("--tokens-per-rank and --global-batch: give one of the two")
        if plan.global_batch:
            tokens, rest = divmod(plan.global_batch * seq_len, mesh.replicas)
            if rest:
                raise InputError(
                    f"--global-batch {plan.global_batch:,}: its {plan.global_batch * seq_len:,} tokens"
                    f" (--seq-len {seq_len:,}) do not divide over {mesh.replicas:,} data-parallel ranks",
                    "--global-batch does not divide over the data-parallel ranks",
                )
        micro_batch = plan.micro_batch or (1 if mesh.size("pp") > 1 and tokens % seq_len == 0 else None)
        return cls(tokens, _micro_batches(tokens, usual, seq_len, micro_batch), seq_len)


def _micro_batches(tokens: int, usual: int, seq_len: int, micro_batch: int | None) -> int:
    """Into how many micro-batches a rank's tokens are cut; raises :class:`InputError` where they cannot be."""
    if micro_batch:
        count, rest = divmod(tokens, micro_batch * seq_len)
        if rest:
            raise InputError(
                f"--micro-batch {micro_batch}: {micro_batch * seq_len:,} tokens do not divide the {tokens:,} of a rank in a step"
                " (--tokens-per-rank, --global-batch)",
                "--micro-batch does not divide a rank's sequences",
            )
        return count
    if tokens % seq_len == 0:
        usual = max(usual, seq_len)  # a micro-batch is at least one sequence
    if tokens <= usual:
        return 1
    if tokens % usual == 0:
        return tokens // usual
    sequences, rest = divmod(tokens, seq_len)
    if rest:
        nearest = " or ".join(f"{size:,}" for size in (sequences * seq_len, (sequences + 1) * seq_len) if size)
        raise InputError(
            f"--tokens-per-rank {tokens:,}: more than the {usual:,} of one micro-batch and no whole number of sequences"
            f" (--seq-len {seq_len:,}); nearest {nearest}",
            "more tokens than a micro-batch holds, and no whole number of sequences",
        )
    most = max(1, usual // seq_len)
    return sequences // next(size for size in range(most, 0, -1) if sequences % size == 0)
