"""What computes each kernel of attention for real, on a rank's numbers: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .....workloads.attention_kernels import ATTENTION_KERNELS, AttentionKernel, Fused, Unfused
from .fused import FusedLocalAttention
from .unfused import LocalAttention

COMPUTED: Mapping[type[AttentionKernel], type[LocalAttention]] = MappingProxyType(
    {
        Unfused: LocalAttention,
        **{type(each): FusedLocalAttention for each in ATTENTION_KERNELS.values() if isinstance(each, Fused)},
    }
)
"""Kernels that have one; plans with others are executed without real numbers."""
