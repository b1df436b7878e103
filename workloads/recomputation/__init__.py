"""Recomputation: one file each, and one line here."""

from __future__ import annotations

from ...hardware.registry import Registry
from .full import Full
from .modules import Modules
from .nothing import Nothing
from .products import EverySecondProduct
from .recomputation import Recomputation, RepeatedLayer, SavedRow
from .selective import Selective

RECOMPUTATIONS: Registry[Recomputation] = Registry(
    "recomputation",
    {
        "none": Nothing(),
        "selective": Selective(),
        "products": EverySecondProduct(),
        "modules": Modules,
        "full": Full(),
    },
    flag="--recompute",
    interface=Recomputation,
)
"""Kinds of recomputation by the names that ``--recompute`` takes, from the one that keeps most to the one that keeps least."""

__all__ = ["RECOMPUTATIONS", "Recomputation", "RepeatedLayer", "SavedRow"]
