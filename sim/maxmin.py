"""Max-min fair rates of flow classes on link classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TIE = 1.0 + 1e-9
"""Links whose fair shares differ by less than this factor count as equally tight."""


def fair_rates(usage: Array, capacity: Array, weight: Array) -> Array:
    """Weighted max-min fair rates ``[classes]``, in bytes per second of one flow of each class.

    ``usage[f, l]`` is how many flows of class f cross each link of class l (or, for a flow that stands for a whole
    phase, the bytes that one unit of it puts on the link), ``capacity[l]`` bytes per second, ``weight[f]`` the share
    that a flow of the class claims.

    Progressive filling: every link that is the tightest one for all flows on it is frozen in the same round, not only
    the globally tightest; the rates are the same (max-min rates are unique) and the rounds far fewer.
    """
    rates = np.zeros(len(usage))
    active = usage.any(axis=1)
    rates[~active] = np.inf
    crosses = usage.astype(np.bool_)
    left = capacity.astype(np.float64, copy=True)
    while active.any():
        claimed = (weight * active) @ usage
        share = np.divide(left, claimed, out=np.full(len(left), np.inf), where=claimed > 0)
        tightest = np.where(crosses, share, np.inf).min(axis=1)
        # A link freezes when no active flow on it is held back more tightly elsewhere.
        elsewhere = np.where(crosses, np.where(active, tightest, np.inf)[:, None], np.inf).min(axis=0)
        frozen_links = (claimed > 0) & (elsewhere * TIE >= share)
        frozen = active & (crosses & frozen_links).any(axis=1)
        rates[frozen] = (weight * tightest)[frozen]
        left = np.maximum(left - rates[frozen] @ usage[frozen], 0.0)
        active &= ~frozen
    return rates
