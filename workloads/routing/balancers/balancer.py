"""What a balancing policy is: tokens wanted in, tokens carried out, and the operations that the policy itself costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import InputError
from ....hardware.registry import Policy
from ...schedule.operation import Role
from ...schedule.work import Work
from .past import BEGINNING, Past

T = TypeVar("T")
Tokens = NDArray[np.int64]


class BalancingStep(NamedTuple):
    """An operation that a policy costs: its name in traces, its work, what it does and for which of a token's choices.

    A policy of one's own may give (name, work) alone.
    """

    name: str
    work: Work
    role: Role = Role.BALANCING
    choice: int | None = None


CopyWay = Literal["all-to-all", "broadcast"]
"""How weights of experts come to ranks that take tokens of them."""


class Copies(NamedTuple):
    """Of experts, ``[groups, ranks]`` each: those that a rank sends and receives, and own tokens that it keeps for them."""

    sent: Tokens
    held: Tokens
    kept: Tokens


@dataclass(frozen=True)
class Carried:
    """Tokens that each rank's experts receive, ``[groups, ranks]``, and how many of each group were moved or dropped.

    ``copies``: of experts, where a policy makes any.
    """

    tokens: Tokens
    moved: Tokens  # [groups]
    dropped: Tokens  # [groups]
    copies: Copies | None = None


class Balancer(Policy, ABC):
    """A policy that decides which expert carries which token; ``parse`` reads what stands behind ``--balancer NAME:``.

    ``level`` says that every rank ends with the same number of tokens, whatever was wanted: then groups are alike, and
    one of them stands for all. One that is not ``by_choice`` looks at what each rank is asked for in all: ``wanted`` may then
    have these sums in place of the choices. One that never ``decides`` lets tokens go where they are wanted. Under one
    that ``picks``, experts choose among the tokens of each rank by their chances, and an answer counts its chance. One that
    ``remembers`` finds in ``past.state`` what it has put there in the step before.
    """

    decides: ClassVar[bool] = True
    level: ClassVar[bool] = False
    by_choice: ClassVar[bool] = True
    picks: ClassVar[bool] = False
    copies: ClassVar[CopyWay | None] = None
    remembers: ClassVar[bool] = False

    def priced(self, copy_seconds: float, token_seconds: float) -> Self:
        """The policy where an expert's copy and a token that a rank carries take so long: the same, unless it weighs them."""
        return self

    def require(self, experts: int, ranks: int, tokens: int, top_k: int) -> None:
        """Raise :class:`InputError` where a layer of so many experts, ranks and tokens of a rank is none for the policy."""
        return

    @abstractmethod
    def carry(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Carried:
        """Tokens carried, from those wanted.

        ``wanted[choice, group, rank]`` counts the tokens of an expert-parallel group whose first, second, … choice is
        an expert of each rank; every rank of the group has ``tokens`` tokens of its own. Tokens are conserved: carried
        + dropped = wanted, summed over a group. ``past`` says which step, layer and micro-batch this is, and what was wanted
        and carried in earlier steps; a policy of one's own that needs none of it may leave it out.
        """

    def pairs(self, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Tokens:
        """Tokens ``[senders, receivers]`` of one group that travel, from ``wanted[choice, sender, receiver]``.

        Their sums over senders are what :meth:`carry` gives. Networks on which every message counts ask for it, and the MPI
        runtime. By default receivers admit senders in their order as far as they carry tokens; what they refuse fills, senders in
        their order too, the receivers that carry more than want them, the first of them first; the rest is dropped.
        """
        every = wanted.sum(axis=0)
        room = _asked(self.carry, wanted.sum(axis=1)[:, None], tokens, past).tokens[0]
        admitted = np.clip(room - (np.cumsum(every, axis=0) - every), 0, every)
        refused, seats = np.cumsum((every - admitted).sum(axis=1)), np.cumsum(room - admitted.sum(axis=0))
        reached = np.minimum(refused[:, None], seats)  # of the first senders' surplus, what the first receivers take
        dealt = np.diff(np.diff(reached, prepend=0, axis=0), prepend=0, axis=1)
        sent: Tokens = admitted + dealt
        return sent

    def operations(self, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep | tuple[str, Work]]:
        """What the policy itself does in each layer before tokens are sent; by default nothing."""
        yield from ()


def _asked(method: Callable[..., T], wanted: Tokens, tokens: int, past: Past) -> T:
    """What a policy's method says; one that looks at no past takes two arguments."""
    policy = getattr(method, "__self__", None)
    key = (type(policy), method.__name__)
    if policy is None or key not in _LOOKS_BACK:
        try:
            signature(method).bind(wanted, tokens, past)
            _LOOKS_BACK[key] = True
        except TypeError:
            _LOOKS_BACK[key] = False
    return method(wanted, tokens, past) if _LOOKS_BACK[key] else method(wanted, tokens)


_LOOKS_BACK: dict[tuple[type, str], bool] = {}
"""Which policies' methods take a past: asked once for each class."""


def carried_by(balancer: Balancer, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Carried:
    """What a policy carries of ``wanted[choice, group, rank]``; raises :class:`InputError` where it breaks its own law.

    Tokens are counts, none is made or lost in a group, and where the policy says that it levels loads they are level.
    """
    found = _asked(balancer.carry, wanted, tokens, past)
    of = f"--balancer: {type(balancer).__name__}.carry"
    groups, ranks = wanted.shape[1:]
    if not isinstance(found, Carried):
        raise InputError(f"{of} gives {type(found).__name__}, must give Carried(tokens, moved, dropped)")
    each = wanted.shape[1:]
    asked_of: dict[str, tuple[Any, tuple[int, ...]]] = {
        "tokens": (found.tokens, each),
        "moved": (found.moved, (groups,)),
        "dropped": (found.dropped, (groups,)),
    }
    if found.copies is not None:
        asked_of |= {f"copies {name}": (value, each) for name, value in found.copies._asdict().items()}
    for name, (value, shape) in asked_of.items():
        if np.shape(value) != shape:
            raise InputError(f"{of} gives {name} of shape {np.shape(value)}, must be {shape}")
        if not np.min(value) >= 0:  # not a number is not either
            raise InputError(f"{of} gives {np.min(value)} {name}, must be counts from 0 on")
    kept = found.tokens.sum(axis=-1) + found.dropped
    asked = wanted.sum(axis=(0, 2))
    if not np.array_equal(kept, asked):
        group = int(np.argmax(kept != asked))
        raise InputError(
            f"{of} carries {found.tokens[group].sum():,} and drops {found.dropped[group]:,} of {asked[group]:,} tokens"
            f" that a group of {ranks} ranks wants carried: the two must sum to these"
        )
    if balancer.level and not (found.tokens == found.tokens[0, 0]).all():
        raise InputError(f"{of} gives ranks different loads, though the class says level = True")
    return found


def pairs_of(balancer: Balancer, wanted: Tokens, tokens: int, past: Past = BEGINNING) -> Tokens:
    """Tokens ``[senders, receivers]`` that travel in a group; raises :class:`InputError` where these are not what is carried."""
    aside = replace(past, state=deepcopy(past.state))  # carry alone says what is remembered
    found = np.asarray(_asked(balancer.pairs, wanted, tokens, aside))
    of = f"--balancer: {type(balancer).__name__}.pairs"
    if found.shape != wanted.shape[1:] or found.min(initial=0) < 0:
        raise InputError(
            f"{of} gives shape {found.shape}, from {found.min(initial=0)}: must be counts {wanted.shape[1:]}"
        )
    carried = carried_by(balancer, wanted.sum(axis=1)[:, None], tokens, past).tokens[0]
    if not np.array_equal(found.sum(axis=0), carried):
        raise InputError(f"{of} brings other counts to ranks than carry does: the sums over senders must be the same")
    return found


def steps_of(balancer: Balancer, ranks: int, tokens: int, top_k: int) -> Iterator[BalancingStep]:
    """The operations that a policy costs; raises :class:`InputError` for what is none."""
    for each in balancer.operations(ranks, tokens, top_k) or ():
        if not isinstance(each, tuple) or len(each) < 2 or not isinstance(each[1], get_args(Work)):
            raise InputError(f"--balancer: {type(balancer).__name__}.operations gives {each!r}, must give (name, work)")
        yield BalancingStep(*each)
