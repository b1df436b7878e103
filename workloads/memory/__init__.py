"""Memory of a rank: parameters, gradients, optimizer state, activations and buffers of every pipeline stage, against what it has."""

from __future__ import annotations

from .account import FIXED_FP32, Account, account, memory, sample_loads, update_state_share
from .need import PARTS, Memory
from .remedies import Remedy, remedies, require_fit

__all__ = [
    "FIXED_FP32",
    "PARTS",
    "Account",
    "Memory",
    "Remedy",
    "account",
    "memory",
    "remedies",
    "require_fit",
    "sample_loads",
    "update_state_share",
]
