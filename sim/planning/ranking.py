"""Ranking the plans of one mesh in closed form: the fastest, those that trade time for memory, and why others are no plans."""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from heapq import nsmallest
from math import inf
from typing import Any

from ...hardware.errors import AthanorError, InputError
from .estimate import Estimator
from .space import Space

ROOMIER = 2.0
"""Plans that need up to so many times the memory are ranked as well: they tell what more memory would give."""

MEMORY = "memory"
"""The reason under which plans that do not fit are counted."""


@dataclass(frozen=True)
class Ranked:
    """A plan with its step time in closed form and the bytes that its fullest rank needs, by part."""

    mesh: dict[str, int]
    options: dict[str, Any]
    seconds: float
    memory: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes on the device."""
        return self.memory["total"]

    @property
    def order(self) -> tuple[float, float, str]:
        """Fastest first; of equally fast plans the one that needs less memory, then whichever, but always the same."""
        return self.seconds, self.total, str(sorted(self.options.items(), key=str)) + str(self.mesh)


@dataclass
class RankedPlans:
    """What a search knows so far: plans enumerated, pruned by reason, the fastest, the front of time against memory.

    ``by_mesh`` are the fastest of each mesh, ``roomier`` the fastest that would fit :data:`ROOMIER` times the memory,
    ``seconds`` the processor's on ``judged`` plans: those that are plans at all, whether they fit or not.
    """

    enumerated: int = 0
    judged: int = 0
    seconds: float = 0.0
    pruned: Counter[str] = field(default_factory=Counter)
    best: list[Ranked] = field(default_factory=list)
    front: list[Ranked] = field(default_factory=list)
    by_mesh: list[Ranked] = field(default_factory=list)
    roomier: list[Ranked] = field(default_factory=list)

    def add(self, other: RankedPlans, keep: int) -> None:
        """Take another part of the search into account."""
        self.enumerated += other.enumerated
        self.judged += other.judged
        self.seconds += other.seconds
        self.pruned.update(other.pruned)
        self.best = fastest([*self.best, *other.best], keep)
        self.roomier = fastest([*self.roomier, *other.roomier], 1)
        self.front = pareto([*self.front, *other.front])
        self.by_mesh = sorted([*self.by_mesh, *other.by_mesh], key=lambda each: each.order)

    @property
    def ranked(self) -> int:
        """Plans that fit."""
        return self.enumerated - self.pruned.total()

    def plain(self) -> dict[str, Any]:
        """As plain data, for a file of finished points."""
        lists = {name: [vars(each) for each in getattr(self, name)] for name in LISTS}
        return {
            "enumerated": self.enumerated,
            "judged": self.judged,
            "seconds": self.seconds,
            "pruned": dict(self.pruned),
        } | lists

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> RankedPlans:
        """What :meth:`plain` gave."""
        lists = {name: [Ranked(**each) for each in plain[name]] for name in LISTS}
        return cls(plain["enumerated"], plain["judged"], plain["seconds"], Counter(plain["pruned"]), **lists)


LISTS = ("best", "front", "by_mesh", "roomier")


class KeptPlans:
    """The plans that anybody will ask for: the fastest ``keep``, and those that no other beats in time and memory.

    Plans of a mesh that is one of many have to be so ``among`` those of all meshes that were looked at; the fastest of each is
    kept besides. ``front`` are (seconds, bytes), faster ones first.
    """

    def __init__(self, keep: int, among: KeptPlans | None = None) -> None:
        self.keep, self.among = keep, among
        self.plans = list[Ranked]()
        self.front = list[tuple[float, float]]()
        self._fastest = list[float]()

    def wants(self, seconds: float, nbytes: float) -> bool:
        """Whether a plan that takes no less and needs so many bytes could still be one of them."""
        if self.among:
            return not self._fastest or seconds <= self._fastest[0] or self.among.wants(seconds, nbytes)
        if len(self._fastest) < self.keep or seconds <= self._fastest[-1]:
            return True
        place = bisect_right(self.front, (seconds, inf))
        return not place or nbytes < self.front[place - 1][1]

    def has_equal(self, seconds: float, nbytes: float) -> bool:
        """Whether a plan on the front takes as long and needs as much: which of them stays is for :attr:`Ranked.order` to say."""
        if self.among:
            return self.among.has_equal(seconds, nbytes)
        place = bisect_right(self.front, (seconds, inf))
        return bool(place) and self.front[place - 1] == (seconds, nbytes)

    def add(self, plan: Ranked) -> None:
        """Take a plan, and forget which others it beats."""
        if self.among:
            self.among.add(plan)
        self.plans.append(plan)
        insort(self._fastest, plan.seconds)
        del self._fastest[self.keep :]
        place = bisect_right(self.front, (plan.seconds, inf))
        if place and self.front[place - 1][1] <= plan.total:
            return
        self.front.insert(place, (plan.seconds, plan.total))
        while place + 1 < len(self.front) and self.front[place + 1][1] >= plan.total:
            del self.front[place + 1]


@dataclass
class KeptOfAll:
    """What is kept of the plans of all meshes of a search that were looked at: those that fit, and those that nearly do."""

    fits: KeptPlans
    roomier: KeptPlans

    @classmethod
    def of(cls, keep: int) -> KeptOfAll:
        """None yet, of which ``keep`` are wanted."""
        return cls(KeptPlans(keep), KeptPlans(1))


def rank(
    estimator: Estimator, space: Space, mesh: dict[str, int], keep: int, among: KeptOfAll | None = None
) -> RankedPlans:
    """All plans of a mesh: how many, why not, and the best ``keep`` of them; of those ``among`` others that are kept of these.

    Where a bound says that a plan is none of those, its step time is not worked out.
    """
    found, started = RankedPlans(), time.process_time()
    fits = KeptPlans(keep, among.fits if among else None)
    roomier = KeptPlans(1, among.roomier if among else None)
    for options in space.plans(mesh):
        found.enumerated += 1
        try:
            setting = estimator.setting(mesh, options)
            found.judged += 1
            need = estimator.memory(setting)
            kept = fits
            if not need.fits:
                found.pruned[MEMORY] += 1
                if need.total > ROOMIER * need.capacity or need.host > need.host_capacity:
                    continue
                kept = roomier
            seconds = estimator.seconds(setting, partial(kept.wants, nbytes=need.total))
            if seconds is not None and (kept.wants(seconds, need.total) or kept.has_equal(seconds, need.total)):
                kept.add(Ranked(mesh, options, seconds, {**need.table(), "host": need.host}))
        except AthanorError as wrong:
            found.pruned[reason(wrong)] += 1
    found.best, found.roomier = fastest(fits.plans, keep), fastest([*roomier.plans, *fits.plans], 1)
    found.front, found.by_mesh = pareto(fits.plans), found.best[:1]
    found.seconds = time.process_time() - started
    return found


def fastest(plans: Iterable[Ranked], keep: int) -> list[Ranked]:
    """The fastest plans, in their order."""
    return nsmallest(keep, plans, key=lambda each: each.order)


def pareto(plans: Iterable[Ranked]) -> list[Ranked]:
    """Plans than which no other is as fast with less memory, fastest first."""
    front: list[Ranked] = []
    for each in sorted(plans, key=lambda plan: plan.order):
        if not front or each.total < front[-1].total:
            front.append(each)
    return front


def reason(wrong: AthanorError) -> str:
    """Why something is no plan: the rule that it breaks, under which all that break it are counted; else the whole message."""
    return wrong.rule if isinstance(wrong, InputError) and wrong.rule else str(wrong)


Task = tuple[Space, dict[str, int], int]
"""A space, one of its meshes, and how many plans to keep."""

_estimators: dict[tuple[object, ...], tuple[Estimator, KeptOfAll]] = {}


def rank_mesh(task: Task) -> RankedPlans:
    """The plans of a mesh; what was worked out for one mesh of a question is known for the next."""
    space, mesh, keep = task
    name = space.question.digest, space.offloads, keep
    if name not in _estimators:
        _estimators.clear()
        _estimators[name] = Estimator(space.question), KeptOfAll.of(keep)
    estimator, among = _estimators[name]
    return rank(estimator, space, mesh, keep, among)
