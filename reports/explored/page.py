"""Stories as one HTML file that needs no network: text and tables as HTML, plots as data beside the library that draws them."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...hardware.errors import InputError
from ...hardware.units import parse
from ...hardware.version import version
from ..content.sections import Section
from .stories.compared import compared
from .story import Chart, Story, StoryPart

ASSETS = Path(__file__).parent / "assets"


@lru_cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@lru_cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(orders=orders, numbers=lambda keys: [any(column) for column in zip(*keys, strict=True)])
    return environment.get_template("page.html.j2")


def page(
    stories: Sequence[Story], title: str = "", links: Sequence[tuple[str, str]] = (), commands: Sequence[str] = ()
) -> str:
    """The page of some results; ``links`` are texts and addresses that stand above them, ``commands`` made it.

    Scripts are named by their hashes in the page's own policy, so that a browser runs no other, whatever a name contains, and
    fetches nothing.
    """
    names = [f"r{number + 1}" for number in range(len(stories))]
    beside = compared(stories, [f"#{name}" for name in names]) if len(stories) > 1 else None
    drawn, scripts = list(_charts(stories, beside)), _scripts(stories)
    return str(
        _template().render(
            title=title or (stories[0].title if len(stories) == 1 else f"{len(stories)} results"),
            stories=[*zip(names, stories, strict=True)],
            beside=beside,
            links=links,
            commands=commands,
            data=_embedded({name: {"kind": each.kind, **each.content} for name, each in drawn}),
            style=_asset("page.css"),
            scripts=scripts,
            policy=_policy(scripts),
            version=version(),
        )
    )


def policy_of(*stories: Story) -> str:
    """The policy of the page of some results, which stands in the page as well."""
    return _policy(_scripts(stories))


def _scripts(stories: Sequence[Story]) -> list[str]:
    """The scripts of a page: the library where something is drawn."""
    charts = any(part.charts for story in stories for part in story.parts)
    return [_asset("vega.js"), _asset("page.js")] if charts else [_asset("page.js")]


def _charts(stories: Sequence[Story], beside: StoryPart | None) -> Iterator[tuple[str, Chart]]:
    """Every plot under the name that the template gives its place."""
    if beside:
        yield from ((f"all-{each + 1}", chart) for each, chart in enumerate(beside.charts))
    for number, story in enumerate(stories):
        for place, part in enumerate(story.parts):
            for each, chart in enumerate(part.charts):
                yield f"r{number + 1}-{place + 1}-{each + 1}", chart


def _embedded(plain: Any) -> str:
    """JSON that stands inside a script element: nothing in it ends the element."""
    try:
        text = json.dumps(plain, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except ValueError:
        raise InputError("a result holds an infinite number: no page can be made of it") from None
    return (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def _policy(scripts: Sequence[str]) -> str:
    """What a browser may do with the page: run its own scripts (Vega makes functions of its expressions), and nothing else."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    return (
        f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)} 'unsafe-eval'; style-src 'unsafe-inline';"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )


_NUMBER = re.compile(r"([-+−]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?)\s*([^\s,;(]*)")
_KINDS = ("second", "byte", "byte / second", "FLOPS", "flop", "W", "1", "1 / second")
_BESIDE = {"USD": 1.0, "t": 1e3, "kWh": 3.6e6, "MWh": 3.6e9, "GWh": 3.6e12}
_COUNTS = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def orders(section: Section) -> list[list[str]]:
    """For each row of a section's table the numbers by which its columns are sorted: ``"1.2 ms"`` is 0.0012; empty for texts."""
    columns = [_orders([row[place] for row in section.rows]) for place in range(len(section.columns))]
    return [list(row) for row in zip(*columns, strict=True)]


def _orders(cells: Sequence[str]) -> list[str]:
    """The numbers of a column, if all that is written in it are numbers; ``B`` is a billion beside ``M`` or ``T``, else bytes."""
    found = [_NUMBER.fullmatch(cell.strip()) for cell in cells]
    units = {match[2] for match in found if match}
    counted = bool(units & {"k", "M", "T"}) and units <= {"", *_COUNTS}
    amounts = [None if match is None else _amount(match[1], match[2], counted) for match in found]
    if any(cell.strip() and amount is None for cell, amount in zip(cells, amounts, strict=True)):
        return [""] * len(cells)
    return ["" if amount is None else f"{amount:.12g}" for amount in amounts]


def _amount(number: str, unit: str, counted: bool) -> float | None:
    """A number with its unit in SI; None for what is no unit."""
    amount = float(number.replace(",", "").replace("−", "-"))
    if not unit or counted:
        return amount * _COUNTS.get(unit, 1.0)
    plain = unit.replace("FLOP/s", "FLOPS").replace("tokens", "")
    if plain[:1] in "kMGTPE" and plain[1:] in ("", "/s"):  # a prefix alone: of tokens, or of things a second
        return amount * parse(f"1 {plain[0]}B", "byte")
    for kind in _KINDS:
        try:
            return amount * parse(f"1 {plain}", kind)
        except ValueError:
            continue
    return _BESIDE.get(unit, 0.0) * amount if unit in _BESIDE else None
