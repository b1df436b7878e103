"""Memory of a rank of every stage: parameters, gradients, optimizer state, activations, buffers; against what there is."""

from __future__ import annotations

from .account import FIXED_FP32, Account, account, memory, sample_loads, update_state_share
from .need import PARTS, Memory, MemoryLine
from .remedies import Remedy, remedies, require_fit, shortage

__all__ = [
    "FIXED_FP32",
    "PARTS",
    "Account",
    "Memory",
    "MemoryLine",
    "Remedy",
    "account",
    "memory",
    "remedies",
    "require_fit",
    "sample_loads",
    "shortage",
    "update_state_share",
]
