"""Sharded updates through the machine's hierarchy (BaGuaLu's ParO)."""

from __future__ import annotations

from typing import ClassVar

from .zero import ShardedState


class Hierarchical(ShardedState):
    """ZeRO-1 through supernodes: experts by a ring inside their dp group, dense parameters over all ranks in two levels."""

    about: ClassVar[str] = "optimizer state is sharded; exchanges go inside supernodes first, then across (BaGuaLu)"
    reduces_in_two_levels: ClassVar[bool] = True
    searched: ClassVar[bool] = False
