"""A table of another tool's file, whose keys are asked for one by one: what nobody has asked for is refused aloud, by its key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ....hardware.errors import InputError

LARGEST = 10**12
"""No count that a file names is larger: a size beyond it is a mistake, not a machine."""

NEEDED: Any = object()
"""Default of a key that a file has to have."""


class Keys:
    """Reads keys, and knows which it has read. A key that is null counts as left out.

    ``source`` is the file, ``prefix`` the way to this table in it, with a dot behind. ``aside`` are keys that the user has said
    to leave out. Every reading raises :class:`InputError` that names the file, the key, what was found and what is allowed.
    """

    def __init__(
        self, table: Mapping[str, Any], source: str, prefix: str = "", aside: Collection[str] = frozenset()
    ) -> None:
        self._table = {key: value for key, value in table.items() if value is not None}
        self.source, self._prefix, self._aside = source, prefix, aside
        self._read: set[str] = set()
        self._inner: list[Keys] = []

    def leave_out(self, names: Collection[str]) -> None:
        """Take away what the user has said to leave out, before anybody reads it."""
        for name in names:
            self._table.pop(name.removeprefix(self._prefix), None)

    def __contains__(self, name: str) -> bool:
        """Whether the file has the key."""
        return name in self._table

    def wrong(self, name: str, why: str) -> InputError:
        """The error of a key: its place, what was found, and why that is wrong."""
        found = f" is {_shown(self._table[name])}" if name in self._table else ""
        return InputError(f"{self.source}: {self._prefix}{name}{found}: {why}")

    def raw(self, *names: str, default: Any = NEEDED) -> Any:
        """The value of the first of several spellings that the file has, whatever it is."""
        self._read.update(names)
        for name in names:
            if name in self._table:
                return self._table[name]
        if default is NEEDED:
            raise InputError(f"{self.source}: {self._prefix}{names[0]} is missing")
        return default

    def whole(self, *names: str, default: Any = NEEDED, least: int = 1, most: int = LARGEST) -> Any:
        """A whole number; one that stands as text or with a zero behind the point is one too."""
        value = self.raw(*names, default=default)
        return value if value is default else self._whole(self._name(names), value, least, most)

    def number(self, *names: str, default: Any = NEEDED, least: float = 0.0) -> Any:
        """A number."""
        value = self.raw(*names, default=default)
        if value is default:
            return value
        name = self._name(names)
        try:
            found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except (ValueError, OverflowError):
            found = None
        if found is None or not least <= found <= LARGEST * LARGEST:
            raise self.wrong(name, f"must be a number from {least:g} on")
        return found

    def truth(self, *names: str, default: Any = NEEDED) -> Any:
        """True or false."""
        value = self.raw(*names, default=default)
        if value is default or isinstance(value, bool):
            return value
        words = {"true": True, "false": False, "1": True, "0": False}
        if str(value).lower() in words and not isinstance(value, float):
            return words[str(value).lower()]
        raise self.wrong(self._name(names), "must be true or false")

    def text(self, *names: str, default: Any = NEEDED) -> Any:
        """A text."""
        value = self.raw(*names, default=default)
        if value is not default and not isinstance(value, str):
            raise self.wrong(self._name(names), "must be a text")
        return value

    def one_of(self, name: str, *allowed: Any, default: Any = NEEDED, why: str = "") -> Any:
        """One of the values that can be carried; any other is refused, and ``why`` says what it would change."""
        value = self.raw(name, default=default)
        if value is default:
            return value
        if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in allowed):
            can = ", ".join(_shown(each) for each in allowed)
            raise self.wrong(name, f"{why or 'cannot be carried'}; can be {can}")
        return value

    def items(self, *names: str, default: Any = NEEDED) -> Any:
        """A list."""
        value = self.raw(*names, default=default)
        if value is not default and not isinstance(value, list | tuple):
            raise self.wrong(self._name(names), "must be a list")
        return value

    def wholes(self, *names: str, default: Any = NEEDED, least: int = 0) -> Any:
        """A list of whole numbers."""
        value = self.items(*names, default=default)
        if value is default:
            return value
        return [self._whole(self._name(names), each, least) for each in value]

    def table(self, name: str, default: Any = NEEDED) -> Keys:
        """A table inside; an empty one where it is left out and may be."""
        value = self.raw(name, default=default)
        if not isinstance(value, Mapping):
            raise self.wrong(name, "must be a table")
        inner = Keys(
            {str(key): each for key, each in value.items()}, self.source, f"{self._prefix}{name}.", self._aside
        )
        self._inner.append(inner)
        return inner

    def free(self, *names: str) -> None:
        """Keys that change neither time nor memory of a step."""
        self._read.update(names)

    def left(self) -> Iterable[str]:
        """Keys that nobody has asked for, here and in tables inside, but for those that the user left out."""
        for key in self._table:
            whole = f"{self._prefix}{key}"
            if key not in self._read and whole not in self._aside:
                yield whole
        for inner in self._inner:
            yield from inner.left()

    def finish(self, what: str) -> None:
        """Refuse the first key that nobody has asked for; ``what`` cannot carry it."""
        left = list(self.left())
        if left:
            more = f" (and {len(left) - 1} more: {', '.join(left[1:6])})" if left[1:] else ""
            raise InputError(
                f"{self.source}: {left[0]}{more}: {what} cannot carry it; --ignore {left[0]} leaves it out"
            )

    def _name(self, names: tuple[str, ...]) -> str:
        return next(name for name in names if name in self._table)

    def _whole(self, name: str, value: Any, least: int, most: int = LARGEST) -> int:
        found: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            found = value
        elif (isinstance(value, float) and value.is_integer()) or (
            isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) < 20
        ):
            found = int(value)
        if found is None or not least <= found <= most:
            raise self.wrong(name, f"must be a whole number from {least} to {most:,}")
        return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
