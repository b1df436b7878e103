"""Balancing policies: one file each, and one line here."""

from __future__ import annotations

from ....hardware.errors import InputError, suggestion
from .balancer import Balancer, Carried, Pairwise, Tokens
from .capacity import Capacity
from .even import Even
from .none import Unbalanced
from .swipe import Swipe

BALANCERS: dict[str, tuple[type[Balancer], str]] = {
    "none": (Unbalanced, "tokens go where the router wants them"),
    "capacity": (Capacity, "capacity:F, at most F times the mean, the rest dropped (F = 1.25)"),
    "swipe": (Swipe, "exactly the mean on every rank, surplus moved to others (BaGuaLu)"),
    "even": (Even, "exactly the mean on every rank, as if routers were balanced by themselves; nothing is charged"),
}


def parse_balancer(spec: str) -> Balancer:
    """The policy that ``spec`` names, such as ``capacity:1.25``; raises :class:`InputError` for an unknown one."""
    name, _, argument = spec.partition(":")
    if name not in BALANCERS:
        raise InputError(f"--balancer {spec}: no such balancer{suggestion(name, BALANCERS)}")
    try:
        return BALANCERS[name][0].parse(argument)
    except ValueError as reason:
        raise InputError(f"--balancer {spec}: {name} {reason}") from None


__all__ = [
    "BALANCERS",
    "Balancer",
    "Capacity",
    "Carried",
    "Even",
    "Pairwise",
    "Swipe",
    "Tokens",
    "Unbalanced",
    "parse_balancer",
]
