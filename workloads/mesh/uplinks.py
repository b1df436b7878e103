"""Links between supernodes: each at its full rate, or at the share of it that a failed cable leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...hardware.fabrics.fabric import LinkKind
from ...hardware.machine import Machine
from .node_cards import shares
from .placement import Layout


def uplink_shares(layout: Layout) -> NDArray[np.float64]:
    """The share of their rate that each supernode's links to the others have, up to the last one that holds a rank."""
    return shares(layout.supernodes, layout.slow_uplinks)


def fabric_links(machine: Machine, layout: Layout) -> list[LinkKind]:
    """The fabric's own links between the first node and the last one that holds a rank.

    On a tree those out of supernodes and into them come first; where some are slow each has its own rate.
    """
    kinds = machine.fabric_links(int(layout.node.max()) + 1)
    share = uplink_shares(layout)
    if not layout.slow_uplinks or (share == 1.0).all():
        return kinds
    found = []
    for kind in kinds[:2]:
        rates = kind.capacity * np.repeat(share, kind.count // len(share))
        found.append(replace(kind, capacity=float(rates.max()), rates=rates))
    return [*found, *kinds[2:]]
