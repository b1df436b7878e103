"""Recurrent parts of layers: linear attention and state spaces, one file each, chosen by ``kind`` in the model's file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .gated_delta import GatedDelta
from .lightning import Lightning
from .mamba1 import Mamba1
from .mamba2 import Mamba2
from .recurrent import ChunkProducts, Operand, Projection, Recurrent, Step, TokenPass

AnyRecurrent = Annotated[Mamba1 | Mamba2 | GatedDelta | Lightning, Field(discriminator="kind")]
"""Any of them, told apart by ``kind``; a new one joins this line."""

__all__ = ["AnyRecurrent", "ChunkProducts", "Operand", "Projection", "Recurrent", "Step", "TokenPass"]
