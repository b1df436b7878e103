"""What editors, type checkers and ``help()`` say of a plan's options, made from the fields of :class:`Plan`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
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
    about = "Options of a plan, as ``athanor.simulate()`` and the like take them; None is the same as leaving one out."
    return options_source("PlanOptions", "Plan", Plan.options(), about)


def options_source(
    name: str, made_from: str, options: Mapping[str, Option], about: str, base: str = "TypedDict", imported: str = ""
) -> str:
    """The source of a module with a TypedDict of options, which the class ``made_from`` has as its fields.

    ``base`` is the TypedDict that it adds to, and ``imported`` the line that imports it.
    """
    return "\n".join(_lines(name, made_from, options, about, base, imported)) + "\n"


def _lines(
    name: str, made_from: str, options: Mapping[str, Option], about: str, base: str, imported: str
) -> Iterator[str]:
    kinds = [type_text(option) for option in options.values()]
    what = "a plan" if base == "TypedDict" else "a campaign"
    yield f'"""The options of {what} as types: made by `make pages` from the fields of {made_from}, not by hand."""'
    yield ""
    yield "from __future__ import annotations"
    yield ""
    if any("Mapping" in kind for kind in kinds):
        yield "from collections.abc import Mapping"
    typing = [word for word in ("Literal", "TypedDict") if word == base or any(word in kind for kind in kinds)]
    if typing:
        yield f"from typing import {', '.join(typing)}"
    if imported:
        yield ""
        yield imported
    yield ""
    yield ""
    yield f"class {name}({base}, total=False):"
    yield f'    """{about}"""'
    for group, members in grouped(options):
        yield ""
        yield f"    # {group}"
        for option in members:
            yield f"    {option.name}: {type_text(option)} | None"
            text = textwrap.wrap(described(option), WIDTH - 10)
            quotes = '"""'
            yield f"    {quotes}{text[0]}" + (quotes if len(text) == 1 else "")
            yield from (f"    {line}" for line in text[1:-1])
            if len(text) > 1:
                yield f"    {text[-1]}{quotes}"
