"""What ranks send in each round of a collective, where they need not send alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..workloads.collectives import Round
from ..workloads.placement import Layout
from ..workloads.schedule import Amount, Exchange
from .links import Array


@dataclass(frozen=True)
class Payload:
    """What ranks send in a round, ``[ranks]``: the bytes of each, of which a message takes the round's share.

    In an uneven all-to-all every message takes the ``share`` of its receiver instead.
    """

    sent: Array
    share: Array | None = None


def payloads(layout: Layout, exchange: Exchange, rounds: Sequence[Round]) -> list[Payload]:
    """The payload of each round: what a round brings is what the next one sends on."""
    held = full(layout, exchange.nbytes)
    if exchange.received is None and isinstance(exchange.nbytes, float):
        return [Payload(held)] * len(rounds)
    wanted = full(layout, 1.0 if exchange.received is None else exchange.received)
    found = []
    for each in rounds:
        if each.action != "exchange":
            found.append(Payload(held))
            continue
        groups = layout.scope(exchange.axes, each.scope)
        share = np.empty_like(held)
        share[groups] = shares(weights(layout, exchange.axes, each.scope, wanted)[groups])
        found.append(Payload(held * each.share if each.everyone else held, share))
        if each.everyone:
            held = held.copy()
            held[groups] = share[groups] * held[groups].sum(axis=1, keepdims=True)
    return found


def shares(weight: Array) -> Array:
    """Each member's share of its group's weight, ``[groups, size]``; even shares where nothing has weight."""
    total = weight.sum(axis=1, keepdims=True)
    share = np.full(weight.shape, 1.0 / weight.shape[1])
    np.divide(weight, total, out=share, where=total > 0)
    return share


def weights(layout: Layout, axes: tuple[str, ...], scope: str, wanted: Array) -> Array:
    """How much each rank is to receive in a round: within a supernode, all that is meant for its inner number anywhere."""
    grid = layout.two_level(axes)
    if scope != "inner" or grid is None:
        return wanted
    found = np.empty_like(wanted)
    found[grid] = wanted[grid].sum(axis=1, keepdims=True)
    return found


def full(layout: Layout, amount: Amount) -> Array:
    """An amount of every rank, ``[ranks]``."""
    return np.array(layout.mesh.full(np.asarray(amount, dtype=np.float64)), dtype=np.float64)
