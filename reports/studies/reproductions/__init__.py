"""Reproductions: what a system's authors published, beside what Athanor computes. One module each, by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .record import Reproduction

NAMES = ("bagualu", "cpm2", "energy", "m6", "megatron", "pangu", "resilience", "tensor2d", "zero")
"""What can be reproduced: the module of this name has ``build(progress)``, and ``reports/published/`` its published results."""


def reproduce(name: str, progress: Callable[[str], None] = lambda text: None) -> Reproduction:
    """All claims of one of :data:`NAMES`, computed; ``progress`` is told what is being worked on."""
    found: Reproduction = import_module(f".{name}", __name__).build(progress)
    return found
