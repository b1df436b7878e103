"""Number formats: their names and the bytes of one element."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp64", "fp32", "fp16", "bf16", "fp8"]

BYTES: dict[str, int] = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1}
