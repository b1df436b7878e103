"""What a balancing policy is: tokens wanted in, tokens carried out, and the operations that the policy itself costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....hardware.registry import Policy
from ...schedule.operation import Role
from ...schedule.work import Work

Tokens = NDArray[np.int64]


class BalancingStep(NamedTuple):
    """An operation that a policy costs: its name in traces, its work, what it does and for which of a token's choices.

    A policy of one's own may give (name, work) alone.
    """

    name: str
    work: Work
    role: Role = Role.BALANCING
    choice: int | None = None


@dataclass(frozen=True)
class Carried:
    """Tokens that each rank's experts receive, ``[groups, ranks]``, and how many of each group were moved or dropped."""

    tokens: Tokens
    moved: Tokens  # [groups]
    dropped: Tokens  # [groups]


class Balancer(Policy, ABC):
    """A policy that decides which expert carries which token; ``parse`` reads what stands behind ``--balancer NAME:``.

    ``level`` says that every rank ends with the same number of tokens, whatever was wanted: then groups are alike, and
    one of them stands for all.
    """

    level: ClassVar[bool] = False

    @abstractmethod
    def carry(self, wanted: Tokens, tokens: int) -> Carried:
        """Tokens carried, from those wanted.

        ``wanted[choice, group, rank]`` counts the tokens of an expert-parallel group whose first, second, … choice is
        an expert of each rank; every rank of the group has ``tokens`` tokens of its own. Tokens are conserved: carried
        + dropped = wanted, summed over a group.
        """

    def pairs(self, wanted: Tokens, tokens: int) -> Tokens:
        """Tokens ``[senders, receivers]`` of one group that travel, from ``wanted[choice, sender, receiver]``.

        Their sums over senders are what :meth:`carry` gives. Networks on which every message counts ask for it, and the MPI
        runtime. By default receivers admit senders in their order as far as they carry tokens; what they refuse fills, senders in
        their order too, the receivers that carry more than want them, the first of them first; the rest is dropped.
        """
        every = wanted.sum(axis=0)
        room = self.carry(wanted.sum(axis=1)[:, None], tokens).tokens[0]
        admitted = np.clip(room - (np.cumsum(every, axis=0) - every), 0, every)
        refused, seats = np.cumsum((every - admitted).sum(axis=1)), np.cumsum(room - admitted.sum(axis=0))
        reached = np.minimum(refused[:, None], seats)  # of the first senders' surplus, what the first receivers take
        dealt = np.diff(np.diff(reached, prepend=0, axis=0), prepend=0, axis=1)
        sent: Tokens = admitted + dealt
        return sent

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep | tuple[str, Work]]:
        """What the policy itself does in each layer before tokens are sent; by default nothing."""
        yield from ()
