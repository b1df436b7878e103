"""PipeDream and PipeDream-2BW (Narayanan et al. 2019 and 2021b): 1F1B that never flushes."""

from __future__ import annotations

from ...hardware.errors import InputError
from .one_f_one_b import OneForwardOneBackward


class PipeDream(OneForwardOneBackward):
    """1F1B without a flush, so without a bubble: each micro-batch meets the same weights forth and back.

    Stage s therefore keeps p - s versions of its weights, one for each micro-batch under way (weight stashing), and weights
    are updated after every micro-batch.
    """

    name = "pipedream"
    about = "asynchronous 1F1B with weight stashing: no bubble, p - s versions of stage s's weights"
    asynchronous = True
    updates_each_micro_batch = True

    def weight_versions(self, stage: int, stages: int) -> int:
        """One for each micro-batch under way."""
        return stages - stage


class TwoBufferedWeights(OneForwardOneBackward):
    """PipeDream that updates once in m micro-batches, m >= p, so that two versions of the weights will do.

    All micro-batches under way then began with the newest version or the one before: a delay of one step.
    """

    name = "2bw"
    about = "asynchronous 1F1B that updates once in m >= p micro-batches: no bubble, two versions of the weights"
    asynchronous = True

    def weight_versions(self, stage: int, stages: int) -> int:
        """The newest, and the one before it."""
        return 2

    def check(self, stages: int, micro_batches: int, chunks: int) -> None:
        """Also for fewer micro-batches than stages."""
        super().check(stages, micro_batches, chunks)
        if micro_batches < stages:
            raise InputError(
                f"--pipeline 2bw: {micro_batches} micro-batches a step, must be at least the pp={stages} stages,"
                " or two versions of the weights are too few",
                "--pipeline 2bw: fewer micro-batches than stages",
            )
