"""A fat tree of any height, each level with its own width and taper."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from operator import mul
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from ..records import Record
from ..units import Ratio, SecondsOrZero
from .fabric import INTERFACES, Array, Index, Level, require_room
from .tree import Tree


class Tier(Record):
    """One level of switches: ``down`` children of each, and how much of their bandwidth leads further up.

    ``latency`` is that of a message that turns around at this level. The top level has no ``taper``.
    """

    down: int = Field(ge=2)
    taper: Ratio | None = None
    latency: SecondsOrZero

    @property
    def uplinks(self) -> int:
        """Cables of node rate from one switch to the level above, at least one."""
        return max(1, round(self.down * (self.taper or 0.0)))


class FatTree(Tree):
    """An extended generalised fat tree: ``tiers`` of switches from the leaves up.

    A switch with ``down`` children has ``down * taper`` uplinks of node rate, each to a parent of its own. So a
    subtree ends in as many switches as the switches below them have uplinks, and its trunk carries its nodes'
    injection times all tapers on the way (Öhring et al., IPPS 1995). Links out of subtrees that end in switches of a
    tier have the tier's name in the machine file: ``tiers.0`` are those of the leaf switches.

    ``adaptive`` routing makes all uplinks of a subtree one resource, as if messages were spread perfectly over the
    switches that it ends in. ``static`` routing is D-mod-K: node d is reached over cable d mod K of a subtree with K
    uplinks, which is port (d // K') mod (K / K') of switch d mod K', where K' counts the uplinks one level below
    (Zahavi, CCIT report 776, 2010). Where ``down * taper`` is no whole number it is rounded, and the cables get the
    trunk's bandwidth in equal parts.
    """

    kind: Literal["fat-tree"] = "fat-tree"
    routing: Literal["adaptive", "static"] = "adaptive"
    tiers: tuple[Tier, ...] = Field(min_length=1)

    @field_validator("tiers")
    @classmethod
    def _tapers_where_there_is_a_level_above(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        for number, tier in enumerate(tiers[:-1]):
            if tier.taper is None:
                raise ValueError(f"tier {number} has no taper; only the top one goes without")
        if tiers[-1].taper is not None:
            raise ValueError(f"tier {len(tiers) - 1} is the top: nothing is above it, so it has no taper")
        return tiers

    @property
    def supernode(self) -> int:
        """Nodes of a leaf switch."""
        return self.tiers[0].down

    @property
    def sizes(self) -> tuple[int, ...]:
        """A node, a leaf switch, and so on; the whole tree is left out, as no link leads out of it."""
        return (1, *accumulate((tier.down for tier in self.tiers[:-1]), mul))

    @property
    def uplinks(self) -> tuple[int, ...]:
        """Cables of node rate that lead out of a subtree of each level but the top."""
        return tuple(accumulate((tier.uplinks for tier in self.tiers[:-1]), mul))

    @property
    def uplinks_by_level(self) -> dict[str, int]:
        """Those of a subtree below each tier; a subtree of the first tier is a leaf switch."""
        return {f"tiers.{number}": count for number, count in enumerate(self.uplinks)}

    @property
    def cables(self) -> int:
        """The most uplinks of a subtree where routes are static; else its trunk is one."""
        return max(self.uplinks, default=1) if self.routing == "static" else 1

    def resized(self, supernode: int, nodes: int) -> dict[str, int]:
        """Other leaf switches, as many as before at most, so that the tree above them still has room."""
        return {"fabric.tiers.0.down": supernode, "nodes": min(nodes, self.supernodes(nodes) * supernode)}

    def check(self, nodes: int) -> None:
        """Raise ``ValueError`` for more nodes than the leaves have ports."""
        shape = "x".join(str(tier.down) for tier in self.tiers)
        require_room(nodes, prod(tier.down for tier in self.tiers), f"a fat tree of {shape}")

    def levels(self, nodes: int, injection: float) -> list[Level]:
        """The interfaces, then the trunk of each level of subtrees, from the leaf switches up."""
        node = np.arange(nodes)
        found = [Level(INTERFACES, node, injection, 1, np.zeros_like(node))]
        trunk = injection
        for number, (tier, size, uplinks) in enumerate(zip(self.tiers, self.sizes[1:], self.uplinks, strict=False), 1):
            trunk *= tier.down * (tier.taper or 0.0)
            cables = uplinks if self.routing == "static" else 1
            found.append(Level(f"tiers.{number - 1}", node // size, trunk / cables, cables, node % cables))
        return found

    def latency(self, crossed: Index | int) -> Array:
        """One-way latency of a message by how many levels of links it crosses: 0 stays in the node, 1 turns at its leaf."""
        return np.array([self.latency_node, *(tier.latency for tier in self.tiers)])[crossed]
