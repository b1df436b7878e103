"""Plain data parallelism: every replica has everything."""

from __future__ import annotations

from typing import ClassVar

from .sharding import Sharding


class Replicated(Sharding):
    """Gradients are all-reduced, and every rank updates all that it holds."""

    about: ClassVar[str] = "nothing is sharded: gradients are all-reduced, and each rank updates all that it holds"
