"""What editors, type checkers and ``help()`` say of a plan's options, made from the fields of :class:`Plan`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from .option import Option, grouped
from .plan import Plan

F = TypeVar("F", bound=Callable[..., Any])

WIDTH = 120


def documented(chosen: Callable[[Option], bool] = lambda option: True) -> Callable[[F], F]:
    """Add the options that are ``chosen`` to the docstring of a function that takes them, group by group."""

    def decorate(function: F) -> F:
        if function.__doc__:  # python -OO has none
            told = [
                _told(option.name) for _, members in grouped(Plan.options()) for option in members if chosen(option)
            ]
            head = "Options of the plan; what is left out comes from the model's own plan, else from the default:"
            function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__), "", head, "", *told])
        return function

    return decorate


@cache
def _told(name: str) -> str:
    """The paragraph of an option in a docstring."""
    line = f"{name}: {described(Plan.options()[name])}"
    return textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="      ")


def described(option: Option) -> str:
    """An option's meaning, bounds and default, as far as they are known without loading a registry."""
    notes = [option.unit, option.bounds(), f"default: {option.default_text()}"]
    return f"{option.help}  [{'; '.join(note for note in notes if note)}]"


def type_text(option: Option) -> str:
    """The type of an option's values as a caller writes them."""
    if option.name == "mesh":
        return "str | Mapping[str, int]"
    if option.name == "placement":
        return "str | Mapping[str, str]"
    if get_origin(option.type) is Literal:
        names = get_args(option.type)
        values = [f'"{name}"' for name in names] + [name for name in names if name.isdecimal()]
        return f"Literal[{', '.join(values)}]"
    return str(option.type.__name__)


def plan_options_source() -> str:
    """The source of ``plan_options.py``: a TypedDict with every option of a plan."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield '"""The options of a plan as types: made by `make docs` from the fields of Plan, not by hand."""'
    yield ""
    yield "from __future__ import annotations"
    yield ""
    yield "from collections.abc import Mapping"
    yield "from typing import Literal, TypedDict"
    yield ""
    yield ""
    yield "class PlanOptions(TypedDict, total=False):"
    yield '    """Options of a plan, as ``athanor.simulate()`` and the like take them; None is the same as leaving one out."""'
    for group, members in grouped(Plan.options()):
        yield ""
        yield f"    # {group}"
        for option in members:
            yield f"    {option.name}: {type_text(option)} | None"
            about = textwrap.wrap(described(option), WIDTH - 10)
            quotes = '"""'
            yield f"    {quotes}{about[0]}" + (quotes if len(about) == 1 else "")
            yield from (f"    {line}" for line in about[1:-1])
            if len(about) > 1:
                yield f"    {about[-1]}{quotes}"
