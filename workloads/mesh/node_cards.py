"""What the ranks of a node send to others: together over all cards, or each over those that are its share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ...hardware.fabrics.fabric import INTERFACES, LinkKind
from ...hardware.machine import Machine
from .placement import Layout


def node_injection(machine: Machine, layout: Layout) -> NDArray[np.float64]:
    """Bytes per second and direction that the ranks of each node send, ``[nodes]`` up to the last one that holds a rank.

    Where accelerators have cards of their own, those of ranks that are not there stay idle: of ``n`` ranks that a node has room
    for, ``k`` reach ``ceil(k * interfaces / n)`` of its interfaces, since ranks fill a node from its first card on. Nodes with
    slow cards have their share of that.
    """
    present, share = np.bincount(layout.node), card_shares(layout)
    if not machine.node.own_cards:
        return machine.injection * share
    cards = machine.node.interfaces
    reached = np.minimum(cards, np.ceil(present * cards / layout.ranks_per_node - 1e-9))
    return np.where(present > 0, reached / cards, 1.0) * machine.injection * share


def card_shares(layout: Layout) -> NDArray[np.float64]:
    """The share of their rate that each node's cards have, ``[nodes]`` up to the last one that holds a rank."""
    return shares(layout.reach, layout.slow_cards)


def shares(count: int, slow: Iterable[tuple[int, float]]) -> NDArray[np.float64]:
    """What is left of the rate of each of ``count`` things, of which some are named with their share."""
    found = np.ones(count)
    for number, left in slow:
        if number < count:
            found[number] = left
    return found


def interfaces(machine: Machine, layout: Layout) -> list[LinkKind]:
    """The links out of nodes and into them, ``nic.out`` and ``nic.in``."""
    sends = node_injection(machine, layout)
    most = float(sends.max())
    rates = None if (sends == most).all() else sends
    return [LinkKind(f"{INTERFACES}.{way}", most, len(sends), INTERFACES, rates) for way in ("out", "in")]
