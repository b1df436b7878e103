"""The answer for the setting at hand, which several parts of an estimate ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...workloads.plan.setting import Setting

T = TypeVar("T")


@dataclass
class Latest(Generic[T]):
    """What was found for the latest setting: plans are judged one after another."""

    _found: tuple[Setting, T] | None = None

    def of(self, setting: Setting, make: Callable[[], T]) -> T:
        """The same again, or what ``make`` finds for another setting."""
        if self._found is None or self._found[0] is not setting:
            self._found = setting, make()
        return self._found[1]
