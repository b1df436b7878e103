"""Balancing policies: one file each, and one line here."""

from __future__ import annotations

from ....hardware.registry import Registry
from .balancer import Balancer, Carried, Tokens
from .capacity import Capacity, Padded
from .copying import Copying
from .even import Even
from .expert_choice import ExpertChoice
from .none import Unbalanced
from .past import Past
from .replicas import ExpertReplicas
from .shadows import ExpertShadows
from .swipe import Swipe

BALANCERS: Registry[Balancer] = Registry(
    "balancer",
    {
        "none": Unbalanced,
        "capacity": Capacity,
        "padded": Padded,
        "swipe": Swipe,
        "even": Even,
        "expert-choice": ExpertChoice,
        "eplb": ExpertReplicas,
        "shadow": ExpertShadows,
    },
    interface=Balancer,
)
"""Balancing policies; :meth:`~athanor.hardware.registry.Registry.find` also takes a user's own."""


__all__ = [
    "BALANCERS",
    "Balancer",
    "Capacity",
    "Carried",
    "Copying",
    "Even",
    "ExpertChoice",
    "ExpertReplicas",
    "ExpertShadows",
    "Padded",
    "Past",
    "Swipe",
    "Tokens",
    "Unbalanced",
]
