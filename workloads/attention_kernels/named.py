"""Fused kernels by the names under which machines say what they reach; they differ in nothing else."""

from __future__ import annotations

from typing import ClassVar

from .fused import Fused


class Flash1(Fused):
    """FlashAttention (Dao et al. 2022)."""

    about: ClassVar[str] = "FlashAttention (Dao et al. 2022): scores never leave a multiprocessor"
    name: ClassVar[str] = "flash-1"


class Triton(Fused):
    """FlashAttention as a kernel in Triton, which MosaicML's llm-foundry trained MPT with."""

    about: ClassVar[str] = "FlashAttention as a kernel in Triton (llm-foundry's attn_impl of 2023)"
    name: ClassVar[str] = "triton"


class Flash2(Fused):
    """FlashAttention-2 (Dao 2023)."""

    about: ClassVar[str] = (
        "FlashAttention-2 (Dao 2023): parallel along a sequence as well, with less beside its products"
    )
    name: ClassVar[str] = "flash-2"


class Flash3(Fused):
    """FlashAttention-3 (Shah et al. 2024)."""

    about: ClassVar[str] = "FlashAttention-3 (Shah et al. 2024), for Hopper: copies and products run beside the softmax"
    name: ClassVar[str] = "flash-3"


class CuDnn(Fused):
    """The kernel of cuDNN, from version 8.9 on."""

    about: ClassVar[str] = "that of cuDNN 8.9 and later, which Transformer Engine prefers on Hopper and Blackwell"
    name: ClassVar[str] = "cudnn"
