"""Balancing policies: one file each, and one line here."""

from __future__ import annotations

from ....hardware.registry import Registry
from .balancer import Balancer, Carried, Tokens
from .capacity import Capacity, Padded
from .copying import Copying, ExpertReplicas, Shadowed
from .even import Even
from .expert_choice import ExpertChoice
from .none import Unbalanced
from .past import Past
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
        "shadow": Shadowed,
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
    "Padded",
    "Past",
    "Shadowed",
    "Swipe",
    "Tokens",
    "Unbalanced",
]
