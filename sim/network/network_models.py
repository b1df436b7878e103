"""How flows share links: plain max-min fairness, and SimGrid's models as settings of the same solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...hardware.registry import Registry
from .links import Array


@dataclass(frozen=True)
class Sharing:
    """A model of the network as factors of one solver.

    Each flow's share of a link is in proportion to its weight: equal, or 1 over ``latency + by_bandwidth * sum(1 / link
    bandwidth)`` of its route, as TCP flows share. Latencies and bandwidths are multiplied by their factors. A flow also takes
    ``reverse`` of its rate on the way back, for acknowledgements.
    """

    name: str
    about: str
    latency_factor: float = 1.0
    bandwidth_factor: float = 1.0
    reverse: float = 0.0
    by_latency: bool = False
    by_bandwidth: float = 0.0

    def weights(self, latency: Array, inverse_bandwidth: Array) -> Array:
        """Weights of flows from their routes' latency (seconds) and summed seconds a byte of their links, ``[flows]``."""
        if not self.by_latency:
            return np.ones(len(latency))
        penalty = latency + self.by_bandwidth * inverse_bandwidth
        return np.where(penalty > 0, 1.0 / np.where(penalty > 0, penalty, 1.0), 1.0)


_KNOWN = (
    Sharing("maxmin", "equal shares of a link for all flows"),
    Sharing("cm02", "shares in proportion to 1 over the latency of the route (SimGrid's CM02)", by_latency=True),
    # Factors of SimGrid's default model, fitted there to TCP (Velho and Legrand 2009; Casanova and Marchal 2002).
    Sharing(
        "lv08",
        "the same, with factors fitted to TCP and its acknowledgements (SimGrid's default, LV08)",
        13.01,
        0.97,
        0.05,
        by_latency=True,
        by_bandwidth=20537.0,
    ),
)

SHARING: Registry[Sharing] = Registry(
    "network model", {each.name: each for each in _KNOWN}, flag="--network-model", interface=Sharing
)


def sharing(name: str) -> Sharing:
    """The model of a name, in capitals or not; raises :class:`InputError` for an unknown one."""
    return SHARING.find(name.lower() if name.lower() in SHARING else name)
