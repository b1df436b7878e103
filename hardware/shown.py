"""What shows an object in a notebook: rooms below do not know who draws what they hold, the package tells them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

MAKERS: dict[str, str] = {}
"""``module:function`` by what it makes: ``html`` of an object, ``plots`` of a run. The package fills it; see its ``__init__``."""


def made(what: str, shown: Any) -> Any:
    """What the function of that kind makes of an object."""
    module, _, name = MAKERS[what].partition(":")
    return getattr(import_module(module), name)(shown)


class Shown:
    """The base of what a notebook shows as HTML."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """HTML without scripts: notebooks ask for it."""
        return str(made("html", self))
