"""Policies that copy experts: their weights go to other ranks, so that tokens need not all go to one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import InputError
from .balancer import Balancer, Carried, Copies, CopyWay, Tokens
from .eplb import near_home, placement
from .past import BEGINNING, MOST_STEPS_AGO, Past

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
            by_sender = every[None]
            if self.stay:  # where every sender has as many of each expert
                by_sender = np.diff(every * np.arange(ranks + 1)[:, None] // ranks, axis=0)
                kept[group] = by_sender[:, np.unique(has[:, local:])].sum(axis=1)
            carried[group] = spread(by_sender, has, self.stay).sum(axis=(0, 2))
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


@dataclass(frozen=True)
class ExpertReplicas(Copying):
    """Experts have replicas where EPLB places them, by the load of earlier steps.

    There are ``replicas`` more slots than experts (0: one a rank), and every ``every`` steps another placement, from the load of
    as many steps before. ``groups`` of experts stay on one of ``nodes`` each. In the first step there are none.

    Source: :func:`~.eplb.placement`. There weights are those of inference, and move when the placement does; in training they are
    others after every step.
    """

    replicas: int = 0
    groups: int = 1
    nodes: int = 1
    every: int = 1
    about: ClassVar[str] = "eplb:R, R replicas of popular experts (DeepSeek's EPLB); R = one a rank"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """``eplb``, ``eplb:16`` or ``eplb:16,groups=4,nodes=2,every=8``."""
        values = dict[str, int]()
        for text in filter(None, argument.split(",")):
            key, _, value = text.rpartition("=")
            key = key or "replicas"
            if key not in cls.__dataclass_fields__ or not value.isdigit() or (key != "replicas" and int(value) < 1):
                raise ValueError(
                    "takes a number of replicas, and groups, nodes and every: eplb:16,groups=4,nodes=2,every=8"
                )
            values[key] = int(value)
        if values.get("every", 1) > MOST_STEPS_AGO // 2:
            raise ValueError(f"takes every=N up to {MOST_STEPS_AGO // 2}: so much of the past is kept")
        return cls(**values)

    def slots(self, experts: int, ranks: int) -> int:
        """Experts and replicas of a rank."""
        return (experts + (self.replicas or ranks)) // ranks

    def require(self, experts: int, ranks: int, tokens: int, top_k: int) -> None:
        """Slots have to divide over ranks, groups and nodes over what they cut."""
        if ranks == 1:
            return
        extra = self.replicas or ranks
        whole = not (experts + extra) % ranks and extra <= experts * (ranks - 1)
        if self.groups % self.nodes == 0:
            whole = whole and not experts % self.groups and not ranks % self.nodes
        if not whole:
            raise InputError(
                f"--balancer eplb: {experts:,} experts and {extra:,} replicas on {ranks:,} ranks in {self.groups} groups and"
                f" {self.nodes} nodes do not divide; try eplb:{ranks}"
            )

    def held(self, loads: Index, ranks: int, past: Past) -> Index:
        """As EPLB places them, ranks in the order that copies least."""
        since = past.step % self.every
        known = [past.by_expert(ago) for ago in range(since + 1, min(since + self.every, past.step) + 1)]
        sums = [each.sum(axis=(0, 1)) for each in known if each is not None]
        slots = self.slots(len(loads), ranks)
        if not sums:
            own = np.arange(len(loads)).reshape(ranks, -1)
            return np.pad(own, ((0, 0), (0, slots - own.shape[1])), constant_values=-1)
        before = np.sum(sums, axis=0).astype(np.float64)
        placed = placement(before, slots * ranks, self.groups, self.nodes, ranks).reshape(ranks, slots)
        nodes = self.nodes if self.groups % self.nodes == 0 else 1
        return near_home(placed, len(loads) // ranks, nodes)


@dataclass(frozen=True)
class Shadowed(Copying):
    """Popular experts are sent to all ranks, and tokens that want them stay where they are.

    The fullest rank's most popular expert is shadowed as long as the fullest rank then has less by ``worth`` tokens, which is
    what sending an expert's weights and gradients takes. Where nothing is given, that follows from model and machine: an
    expert's bytes over the rank's bandwidth, beside what a token takes, three times the FLOPs forward and four messages.

    Source: He et al. 2022 (FasterMoE), section 4.2, and fmoe/fastermoe/shadow_policy.py; there a rank has one expert.
    """

    worth: float = 0.0
    about: ClassVar[str] = "shadow:N, popular experts sent to all ranks where this saves N tokens (FasterMoE)"
    copies: ClassVar[CopyWay | None] = "broadcast"
    stay: ClassVar[bool] = True

    @classmethod
    def parse(cls, argument: str) -> Self:
        """``shadow``, or ``shadow:64``."""
        try:
            worth = float(argument or 0)
        except ValueError:
            worth = -1.0
        if not 0 <= worth < float("inf"):
            raise ValueError("takes the tokens that sending an expert is worth, such as shadow:64")
        return cls(worth)

    def priced(self, copy_seconds: float, token_seconds: float) -> Self:
        """With a worth from the machine where none was given."""
        return self if self.worth else replace(self, worth=copy_seconds / token_seconds)

    def held(self, loads: Index, ranks: int, past: Past) -> Index:
        """A rank's own experts, and all that are shadowed."""
        local = len(loads) // ranks
        left, shared = loads.astype(np.float64), 0.0
        shadowed: list[int] = []
        while len(shadowed) < len(loads):
            on_rank = left.reshape(ranks, local).sum(axis=1)
            fullest = int(np.argmax(on_rank))
            expert = fullest * local + int(np.argmax(left.reshape(ranks, local)[fullest]))
            after = left.copy()
            after[expert] = 0
            fewer = shared + loads[expert] / ranks
            if on_rank[fullest] + shared - (after.reshape(ranks, local).sum(axis=1).max() + fewer) <= self.worth:
                break
            left, shared = after, fewer
            shadowed.append(expert)
        own = np.arange(len(loads)).reshape(ranks, local)
        copies = np.tile(np.array(shadowed, dtype=np.int64), (ranks, 1))
        return np.concatenate([own, copies], axis=1)
