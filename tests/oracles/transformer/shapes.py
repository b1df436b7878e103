"""Formats, and what one rank of a group holds of a model: the reference's own tables."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """Of one part: activations, operands of products with weights, kept weights and gradients, master copy, moments."""

    compute: str
    product: str
    weight: str
    gradient: str
    master: str | None
    moments: str


SINGLE = Format("fp32", "fp32", "fp32", "fp32", None, "fp32")
HALF_BUT_UPDATE = Format("fp16", "fp16", "fp16", "fp16", "fp32", "fp32")

PARTS = ("expert", "ffn", "attention", "gate", "embedding", "norm")
FORMATS = {
    "O0": dict.fromkeys(PARTS, SINGLE),
    "O1": dict.fromkeys(PARTS, Format("fp16", "fp16", "fp32", "fp32", None, "fp32")),
    "O2": dict.fromkeys(PARTS, HALF_BUT_UPDATE),
    "O3": dict.fromkeys(PARTS, Format("fp16", "fp16", "fp16", "fp16", None, "fp16")),
    "fp64": dict.fromkeys(PARTS, Format("fp64", "fp64", "fp64", "fp64", None, "fp64")),
    "bf16": dict.fromkeys(PARTS, Format("bf16", "bf16", "bf16", "fp32", "fp32", "fp32")),
    "fp8": dict.fromkeys(PARTS, Format("bf16", "fp8", "bf16", "fp32", "fp32", "fp32")),
    "layerwise": {part: HALF_BUT_UPDATE if part in ("expert", "ffn", "attention") else SINGLE for part in PARTS},
}
"""APEX's O0 to O3, Megatron's bf16, Transformer Engine's fp8, and BaGuaLu's choice by layer."""


@dataclass(frozen=True)
class Group:
    """How a layer is cut: ``tp`` ways by Megatron, or on a grid of ``side`` x ``side``; sequences in ``cp`` parts; experts over ``ep``.

    ``sequence``: norms and residuals are cut by tokens. ``whole``: experts stay whole and are spread over tp too.
    """

    tp: int = 1
    side: int = 1
    cp: int = 1
    ep: int = 1
    sequence: bool = False
    whole: bool = False

    @property
    def width(self):
        """Ranks that share heads and inner elements."""
        return self.tp * self.side


@dataclass(frozen=True)
class Choices:
    """What else a plan says of the operators."""

    precision: str = "O0"
    fused: bool = False
    recompute: str = "none"
    accumulates: bool = False
    prototypes: bool = False
