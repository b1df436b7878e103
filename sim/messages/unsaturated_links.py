"""Links that can never be full, whatever runs at once: they hold nothing back and need not be looked at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..network.distinct import distinct
from ..network.links import Index
from .message_tables import MessageSteps

ROOM = 1.0 + 1e-12
"""What may be asked of a link that is exactly full when all goes at once."""


def unsaturated_links(steps: MessageSteps) -> NDArray[np.bool_]:
    """Which orbits of links can never be full, ``[links]``.

    A rank sends one message at a time and receives one. So a link is asked for no more than the limits of the messages of all
    ranks that ever send over it, nor than those of all that ever receive over it. Where every rank sends to every other at
    once, and where the steps are too many to look at, no link counts.
    """
    never = np.zeros(steps.nowhere, dtype=bool)
    if steps.crowds or not steps.keep():
        return never
    most = np.zeros(steps.nowhere + 1)
    sends, comes = list[Index](), list[Index]()
    for table in steps.tables:
        there = table.messages.receiver >= 0
        each = table.messages if there.all() else table.messages[there]
        for hop in range(each.links.shape[-1]):
            links = each.links[..., hop]
            np.maximum.at(most, links, each.usage[..., hop] * each.limit)
            sends.append(distinct(links * steps.ranks + each.sender))
            comes.append(distinct(links * steps.ranks + each.receiver))
    few = np.minimum(_ranks(sends, steps), _ranks(comes, steps))
    asked = most * few * (1.0 + steps.model.reverse)  # a message may use a link there and back
    return np.asarray(asked[:-1] <= steps.capacity * ROOM)


def _ranks(found: list[Index], steps: MessageSteps) -> Index:
    """How many ranks are on each link, from pairs of a link and a rank as one number."""
    pairs = distinct(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    return np.bincount(pairs // steps.ranks, minlength=steps.nowhere + 1)
