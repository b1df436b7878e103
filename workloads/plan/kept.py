"""What settings of many points have in common, kept for the next of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

MOST: Mapping[str, float] = {"layout": 16, "loads": 48 << 20, "schedule": 24, "traffic": 8}
"""How much of each kind is kept: so many, and bytes of loads."""


class KeptWork:
    """The latest layouts, draws of loads, schedules and traffic, each by all that decides it.

    A study gives one to its settings (:attr:`~athanor.workloads.plan.setting.Setting.kept`); a single simulation does without.
    What is kept is what would be made anew, to the last bit.
    """

    def __init__(self, most: Mapping[str, float] = MOST) -> None:
        self._most = most
        self._found: dict[str, OrderedDict[Hashable, tuple[Any, float]]] = {}
        self._weight = dict.fromkeys(most, 0.0)

    def of(self, kind: str, key: Hashable, make: Callable[[], T], weigh: Callable[[T], float] = lambda _: 1.0) -> T:
        """What there is of this kind under a key, else what ``make`` makes; ``weigh`` says how much of it that is."""
        shelf = self._found.setdefault(kind, OrderedDict())
        if key in shelf:
            shelf.move_to_end(key)
            known: T = shelf[key][0]
            return known
        made = make()
        weight = weigh(made)
        if weight > self._most[kind]:
            return made
        shelf[key] = made, weight
        self._weight[kind] += weight
        while self._weight[kind] > self._most[kind]:
            self._weight[kind] -= shelf.popitem(last=False)[1][1]
        return made

    def clear(self) -> None:
        """Forget all of it."""
        self._found.clear()
        self._weight = dict.fromkeys(self._most, 0.0)
