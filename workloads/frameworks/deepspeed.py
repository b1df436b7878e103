"""DeepSpeed: ZeRO with buckets, and pipelines that keep what they send."""

from __future__ import annotations

from typing import ClassVar

from ..model.precision import Formats
from .framework import NORM, SCALED, ElementBytes, TrainingFramework, widened, written_back


class DeepSpeed(TrainingFramework):
    """Gradients are gathered up in a bucket of 5e8 before they are reduced (``reduce_bucket_size``).

    At stage 3 no more than 1e9 parameters are whole at once (``stage3_max_live_parameters``), tensor by tensor.
    """

    about: ClassVar[str] = "DeepSpeed: buckets of 5e8 gradients with ZeRO 1 and 2, outputs of stages kept"
    bucket: ClassVar[float] = 5e8
    at_once: ClassVar[float] = 1e9
    keeps_outputs: ClassVar[bool] = True
    loss: ClassVar[ElementBytes] = ElementBytes(2 + 4 + 4 + 4 + 4 + 4 - 2, 4 + 4 + 4 + 4 - 2)
    """That of Megatron-LM, which models for it have."""

    loss_backward: ClassVar[ElementBytes] = ElementBytes(4 + 4, 4 + 2)

    def around_update(self, formats: Formats) -> ElementBytes:
        """``FP16_Optimizer`` and ZeRO's: a look for overflows with the norm, copies, ``unscale_and_clip_grads`` (memory-sure)."""
        return widened(formats) + NORM + SCALED + written_back(formats)
