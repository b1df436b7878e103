"""Max-min fair rates of flow classes on link classes."""

from __future__ import annotations

import numpy as np

from .fluid import fill
from .links import Array, Index


def fair_rates(usage: Array, capacity: Array, weight: Array) -> Array:
    """Weighted max-min fair rates ``[classes]``, in bytes per second of one flow of each class.

    ``usage[f, l]`` is how many flows of class f cross each link of class l (or, for a flow that stands for a whole
    phase, the bytes that one unit of it puts on the link), ``capacity[l]`` bytes per second, ``weight[f]`` the share
    that a flow of the class claims. Flows on no link are endlessly fast.
    """
    table, claims = hops(usage, weight)
    return weight * fill(table, claims, np.full(len(usage), np.inf), np.append(capacity, np.inf))


def hops(usage: Array, weight: Array) -> tuple[Index, Array]:
    """The link classes that each flow class crosses, and what it claims of them, ``[hop, class]``; one past the last is none."""
    flows, links = np.nonzero(usage)
    counts = np.bincount(flows, minlength=len(usage))
    hop = np.arange(len(flows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = int(counts.max(initial=0)), len(usage)
    table, claims = np.full(shape, usage.shape[1]), np.zeros(shape)
    table[hop, flows], claims[hop, flows] = links, usage[flows, links] * weight[flows]
    return table, claims
