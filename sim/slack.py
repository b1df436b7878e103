"""Links that can never be full, whatever runs at once: they hold nothing back and need not be looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .steps import Steps

MOST = 1 << 24
"""Pairs of a rank and a link above which none is looked at."""

ROOM = 1.0 + 1e-12
"""What may be asked of a link that is exactly full when all goes at once."""


def slack(steps: Steps) -> NDArray[np.bool_]:
    """Which orbits of links can never be full, ``[links]``.

    A rank sends one message at a time and receives one. So a link is asked for no more than the limits of the messages of all
    ranks that ever send over it, nor than those of all that ever receive over it. Where every rank sends to every other at
    once, and where the steps are too many to look at, no link counts.
    """
    never = np.zeros(steps.nowhere, dtype=bool)
    if steps.crowds or steps.ranks * steps.nowhere > MOST or not steps.keep():
        return never
    most = np.zeros(steps.nowhere + 1)
    sends, comes = (np.zeros((steps.ranks, steps.nowhere + 1), dtype=bool) for _ in range(2))
    for table in steps.tables:
        there = table.messages.receiver >= 0
        each = table.messages if there.all() else table.messages[there]
        for hop in range(each.links.shape[-1]):
            links = each.links[..., hop]
            np.maximum.at(most, links, each.usage[..., hop] * each.limit)
            sends[each.sender, links] = True
            comes[each.receiver, links] = True
    asked = (
        most * np.minimum(sends.sum(axis=0), comes.sum(axis=0)) * (1.0 + steps.model.reverse)
    )  # a message may use a link there and back
    return np.asarray(asked[:-1] <= steps.capacity * ROOM)
