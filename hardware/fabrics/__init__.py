"""Fabrics: what joins the nodes of a machine, one file each, chosen by ``kind`` in the machine's file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .crossbar import Crossbar
from .dragonfly import Dragonfly
from .fat_tree import FatTree
from .pruned_fat_tree import PrunedFatTree
from .rails import Rails
from .torus import Torus


def _pruned_unless_named(table: Any) -> Any:
    """A ``[fabric]`` table without ``kind`` is a pruned fat tree."""
    return {"kind": "pruned-fat-tree", **table} if isinstance(table, dict) else table


AnyFabric = Annotated[
    PrunedFatTree | Crossbar | FatTree | Dragonfly | Torus | Rails,
    Field(discriminator="kind"),
    BeforeValidator(_pruned_unless_named),
]
"""Any of the fabrics, told apart by ``kind``; a new one joins this line."""
