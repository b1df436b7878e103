"""Policies that copy experts: their weights go to other ranks, so that tokens need not all go to one."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import InputError
from .balancer import Balancer, Carried, Copies, CopyWay, Tokens
from .past import BEGINNING, Past

Index = NDArray[np.int64]


class Copying(Balancer):
    """Copies experts: a subclass says where (:meth:`held`).

    Every step the copies get the weights, and their gradients go back to the rank where the expert lives, which updates it.
    ``copies`` is how weights travel. Where tokens ``stay``, copies are on all ranks and take these ranks' own tokens; else the
    tokens of an expert go to all that have it in equal parts, in the order of senders. Before, ranks tell each other how many of
    their tokens want each expert.
    """

    copies: ClassVar[CopyWay | None] = "all-to-all"
    stay: ClassVar[bool] = False

    @abstractmethod
    def held(self, loads: Index, ranks: int, past: Past) -> Index:
        """The experts whose tokens each rank takes ``[ranks, slots]``, below 0 in slots that are empty.

        ``loads`` are the tokens that want each expert now; of what was before, ``past`` tells.
        """

    def carry(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Carried:
        """What ranks carry, and the copies that this takes."""
        groups, ranks = wanted.shape[1:]
        loads = past.by_expert(0)
        if loads is None:
            raise InputError(f"--balancer: {type(self).__name__} is asked without the tokens of each expert")
        carried, sent, held, kept = np.zeros((4, groups, ranks), dtype=np.int64)
        for group, every in enumerate(loads.sum(axis=0)):
            local = len(every) // ranks
            has = self.held(every, ranks, past if past.group is not None else past.of_group(group))
            if self.stay:  # of each expert every sender has as many
                shadowed = has[0, local:]
                kept[group] = np.diff(every[shadowed] * np.arange(ranks + 1)[:, None] // ranks, axis=0).sum(axis=1)
                away = every.copy()
                away[shadowed] = 0
                carried[group] = away.reshape(ranks, local).sum(axis=1) + kept[group]
            else:
                carried[group] = _in_equal_parts(every, has)
            sent[group], held[group] = copied(has, local)
        nothing = np.zeros(groups, dtype=np.int64)
        return Carried(carried, nothing, nothing, Copies(sent, held, kept))

    def pairs(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Tokens:
        """Follow from the tokens of each expert, not of each rank: :func:`spread` says them."""
        raise InputError(f"--balancer: {type(self).__name__} spreads the tokens of experts, not those of ranks")


def places_of(held: Index) -> tuple[Index, Index]:
    """Flat slots in the order of their experts, and of each the expert; empty slots are left out."""
    flat = held.reshape(-1)
    order = np.argsort(flat, kind="stable")
    order = order[np.count_nonzero(flat < 0) :]
    return order, flat[order]


def _in_equal_parts(loads: Tokens, held: Index) -> Tokens:
    """Tokens of each rank where those of an expert go to its slots as :func:`spread` has it, whoever sends them."""
    order, expert = places_of(held)
    first, count = np.searchsorted(expert, expert), np.bincount(expert, minlength=len(loads))[expert]
    number, total = np.arange(len(expert)) - first, loads[expert]
    parts = (number + 1) * total // count - number * total // count
    return np.bincount(order // held.shape[1], parts, len(held)).astype(np.int64)


def spread(everyone: Tokens, held: Index, stay: bool) -> Tokens:
    """Tokens ``[senders, ranks, slots]`` of each sender that go to each slot, from ``everyone[sender, expert]``."""
    senders, experts = everyone.shape
    ranks, slots = held.shape
    sent = np.zeros((senders, ranks * slots), dtype=np.int64)
    order, expert = places_of(held)
    first, count = np.searchsorted(expert, np.arange(experts)), np.bincount(expert, minlength=experts)
    one = np.flatnonzero(count == 1)
    sent[:, order[first[one]]] = everyone[:, one]
    for each in np.flatnonzero(count > 1):
        places = order[first[each] : first[each] + count[each]]
        if stay:
            of_rank = places[np.unique(places // slots, return_index=True)[1]]
            sent[np.arange(senders), of_rank] = everyone[:, each]
            continue
        ends = np.cumsum(everyone[:, each])
        bounds = ends[-1] * np.arange(count[each] + 1) // count[each]
        reached = np.minimum(ends[:, None], bounds)
        sent[:, places] = np.diff(np.diff(reached, axis=1), prepend=0, axis=0)
    return sent.reshape(senders, ranks, slots)


def copied(held: Index, local: int) -> tuple[Tokens, Tokens]:
    """Copies of experts that each rank sends and receives: one for each slot whose expert lives elsewhere."""
    ranks = len(held)
    foreign = (held >= 0) & (held // local != np.arange(ranks)[:, None])
    return np.bincount(held[foreign] // local, minlength=ranks), foreign.sum(axis=1)
