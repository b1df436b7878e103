"""Optimizers: one file each, and one line here."""

from __future__ import annotations

from ...hardware.registry import Registry
from .adafactor import Adafactor
from .adam import Adam
from .adam8bit import Adam8Bit
from .adamw import AdamW
from .lamb import Lamb
from .muon import Muon
from .optimizer import Optimizer, TensorShare, UpdateRule, single
from .sgd import Sgd

OPTIMIZERS: Registry[Optimizer] = Registry(
    "optimizer",
    {
        "adam": Adam,
        "adamw": AdamW,
        "sgd": Sgd,
        "adafactor": Adafactor,
        "lamb": Lamb,
        "muon": Muon,
        "adam8bit": Adam8Bit,
    },
    interface=Optimizer,
)
"""Optimizers; ``find`` takes a user's own too, and hyper-parameters behind a colon: ``sgd:momentum=0.95``."""


__all__ = ["OPTIMIZERS", "Adam", "Optimizer", "TensorShare", "UpdateRule", "single"]
