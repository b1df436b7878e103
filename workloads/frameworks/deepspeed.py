"""DeepSpeed: ZeRO with buckets, and pipelines that keep what they send."""

from __future__ import annotations

from typing import ClassVar

from .framework import TrainingFramework


class DeepSpeed(TrainingFramework):
    """Gradients are gathered up in a bucket of 5e8 before they are reduced (``reduce_bucket_size``).

    At stage 3 no more than 1e9 parameters are whole at once (``stage3_max_live_parameters``), tensor by tensor.
    """

    about: ClassVar[str] = "DeepSpeed: buckets of 5e8 gradients with ZeRO 1 and 2, outputs of stages kept"
    bucket: ClassVar[float] = 5e8
    at_once: ClassVar[float] = 1e9
    keeps_outputs: ClassVar[bool] = True
