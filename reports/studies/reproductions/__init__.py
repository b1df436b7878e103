"""Reproductions: what a system's authors published, beside what Athanor computes. One module each, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .record import Reproduction

NAMES = (
    "bagualu",
    "convergence",
    "cpm2",
    "energy",
    "m6",
    "megatron",
    "pangu",
    "precision",
    "resilience",
    "tensor2d",
    "zero",
)
"""What can be reproduced: the module of this name has ``build(desk)``, and ``reports/published/`` its published results."""


def reproduce(
    name: str,
    progress: Callable[[str], None] = lambda text: None,
    *,
    known: Mapping[str, Any] | None = None,
    keep: Callable[[str, Any], None] = lambda key, result: None,
    jobs: int = 1,
) -> Reproduction:
    """All claims of one of :data:`NAMES`, computed by ``jobs`` processes; ``progress`` is told what is being worked on, or done.

    ``keep`` hears of each result as it is done, with its key; those whose key is in ``known`` are taken from there.
    """
    from ....sim.workers import on_cores
    from .desk import Desk

    module = import_module(f".{name}", __name__)
    with on_cores(jobs) as crew:
        found: Reproduction = module.build(Desk(progress, crew, known or {}, keep))
    return found
