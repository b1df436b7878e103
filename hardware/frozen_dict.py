"""Dictionaries that nobody can change: what records hold, and what all parts of a run share."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dictionary that cannot be changed; a copy of it, ``dict(frozen)``, can. It is written and pickled like any other."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("it cannot be changed: copy it with dict(...)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return type(self), (dict(self),)

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: Any) -> FrozenDict[K, V]:
        return self


def frozen(value: Any) -> Any:
    """The value with dictionaries in it, and in these, that cannot be changed; lists become tuples."""
    if isinstance(value, FrozenDict):
        return value
    if isinstance(value, dict):
        return FrozenDict({key: frozen(held) for key, held in value.items()})
    if isinstance(value, list):
        return tuple(frozen(held) for held in value)
    return value
