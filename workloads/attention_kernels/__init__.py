"""Kernels of attention: one file each, and one line here."""

from __future__ import annotations

from ...hardware.registry import Registry
from .fused import Fused
from .kernel import AttentionCore, AttentionKernel, Kept
from .named import CuDnn, Flash1, Flash2, Flash3, Triton
from .unfused import Unfused

ATTENTION_KERNELS: Registry[AttentionKernel] = Registry(
    "attention kernel",
    {
        "unfused": Unfused(),
        "fused": Fused(),
        **{each.name: each() for each in (Flash1, Triton, Flash2, Flash3, CuDnn)},
    },
    flag="--attention",
    interface=AttentionKernel,
)
"""Kernels by the names that ``--attention`` takes."""

__all__ = [
    "ATTENTION_KERNELS",
    "AttentionCore",
    "AttentionKernel",
    "CuDnn",
    "Flash1",
    "Flash2",
    "Flash3",
    "Fused",
    "Kept",
    "Triton",
    "Unfused",
]
