"""What a training framework takes of an accelerator's memory beside the tensors of a model."""

from __future__ import annotations

from .records import Record
from .units import Bytes, Ratio


class Framework(Record):
    """A framework that runs operator by operator and hands out memory from a pool, as PyTorch does.

    Its communication library keeps buffers of ``group_memory`` for each group that a rank is in. Blocks of the pool that are
    split, rounded or too small to be used again lie idle: ``fragments`` of them for each byte in use. With ``half_gradients``
    gradients come in the format of products and stay until a micro-batch's end beside their sums in single precision. Where a
    machine names a framework, the account of memory also has what operators hold for a while
    (``workloads/memory/working.py``); elsewhere it has what the formulas of papers count.
    """

    group_memory: Bytes
    fragments: Ratio
    half_gradients: bool | None = None
