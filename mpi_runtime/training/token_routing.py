"""Where the tokens of a rank go in one layer: what the gate wants, what the balancing policy makes of it by messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from ...workloads.routing.balancers.balancer import Balancer, pairs_of, steps_of
from ...workloads.routing.balancers.copying import places_of, spread
from ...workloads.routing.balancers.past import Past
from ...workloads.schedule.operation import Role

Index = NDArray[np.int64]

DROPPED = -1
"""The expert of a token that no expert takes: it passes the layer by."""


class Tells(Enum):
    """How the ranks of a group come to know what a policy needs."""

    NOTHING = auto()  # tokens go where they are wanted
    BY_ITSELF = auto()  # the policy's own messages, as SWIPE's
    WITH_COUNTS = auto()  # what each rank wants of each other, before the counts of tokens
    BY_EXPERT = auto()  # what each rank wants of each expert, in place of these counts

    @classmethod
    def of(cls, balancer: Balancer, ranks: int, tokens: int, top_k: int) -> Tells:
        """That of a policy."""
        if balancer.picks:
            return cls.NOTHING
        if balancer.copies is not None:
            return cls.BY_EXPERT if ranks > 1 else cls.NOTHING
        if any(step.role is Role.TOKENS_DEALT for step in steps_of(balancer, ranks, tokens, top_k)):
            return cls.BY_ITSELF
        return cls.WITH_COUNTS if balancer.decides else cls.NOTHING


@dataclass
class Routing:
    """Routes the (token, choice) pairs of a rank.

    ``wanted[token, choice]`` are the experts that the gate wants, ``expert`` those that the pairs go to. ``me`` is this rank
    among the ``ranks`` of its expert-parallel group, each of which holds ``local`` experts. The methods are what a rank
    does between the messages of SWIPE, in their order. Where experts are copied, ``slots`` of each rank take tokens, ``place``
    is the slot of each pair, counted over all ranks, and ``arriving`` says what then comes ``[senders, slots]``.
    """

    wanted: Index
    ranks: int
    local: int
    me: int
    expert: Index = field(init=False)
    slots: int = field(init=False)
    place: Index | None = field(init=False)
    arriving: Index | None = field(init=False)
    moved: int = 0
    dropped: int = 0

    def __post_init__(self) -> None:
        self.expert = self.wanted.copy()
        self.slots, self.place, self.arriving = self.local, None, None
        self.room = self.wanted.size  # of this rank's experts, in tokens: the mean
        self._refused = np.zeros(0, dtype=np.int64)

    def wants(self, choice: int) -> Index:
        """Tokens of this rank whose choice is an expert of each rank, ``[ranks]``."""
        return np.bincount(self.wanted[:, choice] // self.local, minlength=self.ranks)

    def by_choice(self) -> Index:
        """The same of all choices, ``[choices, ranks]``."""
        return np.array([self.wants(choice) for choice in range(self.wanted.shape[1])])

    # --- SWIPE, choice by choice ------------------------------------------------------------------------------------------

    def admit(self, asked: Index) -> Index:
        """How many of the tokens that each rank wants to send here are taken: senders in rank order, up to the room."""
        before = np.cumsum(asked) - asked
        taken: Index = np.clip(self.room - before, 0, asked)
        self.room -= int(taken.sum())
        return taken

    def refuse(self, choice: int, accepted: Index) -> int:
        """Note which tokens the other ranks did not take, the last ones for each; returns how many those are."""
        home = self.wanted[:, choice] // self.local
        order = np.argsort(home, kind="stable")
        wants = self.wants(choice)
        rank_in_queue = np.arange(len(home)) - np.repeat(np.cumsum(wants) - wants, wants)
        self._refused = np.sort(order[rank_in_queue >= accepted[home[order]]])
        return len(self._refused)

    def deal(self, choice: int, surplus: Index, room: Index) -> None:
        """Deal out what was refused anywhere: ranks in order fill the free room from rank 0 upwards."""
        start = int(surplus[: self.me].sum())
        seats = np.cumsum(room)
        home = np.searchsorted(seats, start + np.arange(len(self._refused)), side="right")
        self.expert[self._refused, choice] = home * self.local + self._refused % self.local
        self.moved += len(self._refused)
        before = int(seats[self.me] - room[self.me])
        self.room -= int(np.clip(int(surplus.sum()) - before, 0, room[self.me]))

    # --- any other policy, which every rank works out for itself ------------------------------------------------------------

    def assign(self, sent: Index) -> None:
        """Send ``sent[ranks]`` (token, choice) pairs to each rank: those that want it first, choice by choice in their order.

        What is above goes, in the same order, to the ranks that take more than want them, from rank 0 upwards; what nobody takes
        is dropped.
        """
        home = (self.wanted // self.local).T.reshape(-1)  # choices, then tokens
        order = np.argsort(home, kind="stable")
        wants = np.bincount(home, minlength=self.ranks)
        queue = np.empty_like(home)
        queue[order] = np.arange(len(home)) - np.repeat(np.cumsum(wants) - wants, wants)
        left = np.flatnonzero(queue >= sent[home])
        seats = np.repeat(np.arange(self.ranks), np.maximum(sent - wants, 0))[: len(left)]
        expert = self.wanted.T.reshape(-1).copy()
        moved, dropped = left[: len(seats)], left[len(seats) :]
        expert[moved] = seats * self.local + moved % self.local
        expert[dropped] = DROPPED
        self.expert = np.ascontiguousarray(expert.reshape(self.wanted.shape[::-1]).T)
        self.moved, self.dropped = len(moved), len(dropped)

    def settle(self, balancer: Balancer, everyone: Index, past: Past) -> Index:
        """Send what the policy says, which knows what all ranks of the group want, ``everyone[choice, sender, receiver]``.

        Returns what each rank carries.
        """
        pairs = pairs_of(balancer, everyone, len(self.wanted), past)
        self.assign(pairs[self.me])
        carried: Index = pairs.sum(axis=0)
        return carried

    def pick(self, expert: Index) -> None:
        """Send tokens to the experts ``[tokens, most]`` that have picked them, below 0 where there are fewer."""
        self.expert = expert
        asked = (expert[:, :, None] == self.wanted[:, None]).any(axis=2)
        self.moved = int(np.count_nonzero((expert >= 0) & ~asked))

    def by_expert(self) -> Index:
        """Tokens of this rank, of all choices, that want each expert."""
        return np.bincount(self.wanted.reshape(-1), minlength=self.ranks * self.local)

    def spread(self, everyone: Index, held: Index, stay: bool) -> None:
        """Send pairs to ranks that have their experts, of which the group wants ``everyone[sender, expert]``.

        ``held[ranks, slots]`` are the experts that ranks take tokens of. Pairs of an expert go, in their order, to its slots.
        """
        sent = spread(everyone, held, stay)
        self.slots, self.arriving = held.shape[1], sent[:, self.me]
        slot, _ = places_of(held)
        place = np.empty(self.wanted.size, dtype=np.int64)
        place[np.argsort(self.wanted.reshape(-1), kind="stable")] = np.repeat(slot, sent[self.me].reshape(-1)[slot])
        self.place = place.reshape(self.wanted.shape)

    # --- what follows for messages ----------------------------------------------------------------------------------------

    def order(self) -> Index:
        """The (token, choice) pairs that travel, as flat numbers, by expert: so by rank, and by expert on each."""
        flat = self._places()
        order = np.argsort(flat, kind="stable")
        return order[np.count_nonzero(flat == DROPPED) :]

    def counts(self) -> Index:
        """Pairs that travel to each expert of each rank, ``[ranks, slots]``."""
        flat = self._places()
        return np.bincount(flat[flat != DROPPED], minlength=self.ranks * self.slots).reshape(self.ranks, self.slots)

    def _places(self) -> Index:
        """Where each pair goes: to its expert, or to a slot that has it."""
        return (self.expert if self.place is None else self.place).reshape(-1)


def settle_together(routings: Sequence[Routing], balancer: Balancer, tells: Tells, past: Past) -> None:
    """What all ranks of a group do together to route their tokens, in one process."""
    if tells is Tells.WITH_COUNTS:
        everyone = np.stack([each.by_choice() for each in routings], axis=1)
        for each in routings:
            each.settle(balancer, everyone, past)
    if tells is not Tells.BY_ITSELF or len(routings) == 1:
        return
    for choice in range(routings[0].wanted.shape[1]):
        asked = np.array([each.wants(choice) for each in routings])  # [senders, receivers]
        accepted = np.array([each.admit(asked[:, each.me]) for each in routings])  # [receivers, senders]
        surplus = np.array([each.refuse(choice, accepted[:, each.me]) for each in routings])
        room = np.array([each.room for each in routings])
        for each in routings:
            each.deal(choice, surplus, room)
