"""What ranks send in each round of a collective, where they need not send alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....workloads.collectives import Round
from ....workloads.mesh.placement import Layout
from ....workloads.schedule.work import Amount, Exchange
from ..links import Array


@dataclass(frozen=True)
class Payload:
    """What ranks send in a round, ``[ranks]``: the bytes of each, of which a message takes the round's share.

    In an uneven all-to-all every message takes the ``share`` of its receiver instead, or, where it is known, what
    ``pairs[sender, receiver]`` says.
    """

    sent: Array
    share: Array | None = None
    pairs: Array | None = None


def payloads(layout: Layout, exchange: Exchange, rounds: Sequence[Round]) -> list[Payload]:
    """The payload of each round: what a round brings is what the next one sends on."""
    held = full(layout, exchange.nbytes)
    if exchange.pairs is not None:
        return _between(layout, exchange, rounds)
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


def _between(layout: Layout, exchange: Exchange, rounds: Sequence[Round]) -> list[Payload]:
    """Payloads where it is known what goes from each rank to each other; a two-level exchange carries some of it twice."""
    assert exchange.pairs is not None
    members, ranks = layout.mesh.groups(exchange.axes), layout.mesh.ranks
    whole = np.zeros((ranks, ranks))
    whole[members[:, :, None], members[:, None, :]] = exchange.pairs
    grid = layout.two_level(exchange.axes)
    found = []
    for each in rounds:
        moved = whole
        if each.scope != "group":
            assert grid is not None
            moved = np.zeros_like(whole)
            for group in grid:
                flat = group.reshape(-1)
                block = whole[np.ix_(flat, flat)].reshape(group.shape * 2)  # from (outer, inner) to (outer, inner)
                if each.scope == "inner":  # to the rank of the destination's inner number, for all supernodes together
                    moved[group[:, :, None], group[:, None, :]] = block.sum(axis=2)
                else:  # from there across: what the whole supernode has for each destination
                    moved[group[:, None, :], group[None, :, :]] = block.sum(axis=1)
        found.append(Payload(moved.sum(axis=1), pairs=moved))
    return found


def shares(weight: Array) -> Array:
    """Each member's share of its group's weight, ``[…, groups, size]``; even shares where nothing has weight."""
    total = weight.sum(axis=-1, keepdims=True)
    share = np.full(weight.shape, 1.0 / weight.shape[-1])
    np.divide(weight, total, out=share, where=total > 0)
    return share


def weights(layout: Layout, axes: tuple[str, ...], scope: str, wanted: Array) -> Array:
    """How much each rank is to receive in a round: within a supernode, all that is meant for its inner number anywhere.

    ``wanted[…, rank]``, and so what is found.
    """
    grid = layout.two_level(axes)
    if scope != "inner" or grid is None:
        return wanted
    found = np.empty_like(wanted)
    found[..., grid] = wanted[..., grid].sum(axis=-2, keepdims=True)
    return found


def full(layout: Layout, amount: Amount) -> Array:
    """An amount of every rank, ``[ranks]``."""
    return np.array(layout.mesh.full(np.asarray(amount, dtype=np.float64)), dtype=np.float64)


@dataclass(frozen=True)
class Amounts:
    """Several amounts of ranks, ``[amount, *mesh]``: of size 1 along each axis on which ranks are alike in all of them."""

    layout: Layout
    values: Array

    @classmethod
    def of(cls, layout: Layout, amounts: Sequence[Amount]) -> Amounts:
        """These, whatever shape each has."""
        dimensions = len(layout.mesh.shape)
        arrays = [np.asarray(each, dtype=np.float64) for each in amounts]
        arrays = [each if each.ndim == dimensions else each.reshape([1] * dimensions) for each in arrays]
        shapes = {each.shape for each in arrays}
        if len(shapes) > 1:
            shape = np.broadcast_shapes(*shapes)
            arrays = [np.broadcast_to(each, shape) for each in arrays]
        return cls(layout, np.stack(arrays))

    def multiplied(self, times: Sequence[Array]) -> Amounts:
        """Each so many times."""
        return Amounts(self.layout, self.values * Amounts.of(self.layout, times).values)

    def by_rank(self) -> Array:
        """Of every rank, ``[amount, ranks]``."""
        return np.broadcast_to(self.values, (len(self.values), *self.layout.mesh.shape)).reshape(len(self.values), -1)

    def at(self, groups: NDArray[np.int64]) -> Array:
        """Of the members of groups, ``[amount, group, member]``."""
        shape = self.values.shape[1:]
        numbers = np.arange(self.values[0].size).reshape(shape)
        place = np.broadcast_to(numbers, self.layout.mesh.shape).reshape(-1)[groups]
        found: Array = self.values.reshape(len(self.values), -1)[:, place]
        return found
