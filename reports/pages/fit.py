"""Fits of constants as tables, and as the lines that a machine file takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..studies.accuracy.fitting import FittedConstants, judged
from ..studies.accuracy.refit import DENSE, Refit
from ..tables.runs import table

if TYPE_CHECKING:
    from rich.console import Console

ERRORS = ("runs", "count", "bias", "MAPE", "median", "worst")
MOVED = ("fit", "key", "in use", "found", "moved", "told")
INTERVALS = ("accelerator", "plan", "low", "high")


def show_fit(console: Console, found: FittedConstants) -> None:
    """Values and how well they are told, errors of the runs fitted to and of those not seen, and the file's lines."""
    where = "" if found.target.library else f" ({', '.join(machine.name for machine in found.target.machines)})"
    console.print(table(f"Fitted to {found.target.name}{where}", MOVED[1:], _values(found)))
    console.print(_starts(found) + "\n")
    console.print(table("Errors of predicted steps", ERRORS, [_row(name, errors) for name, errors in _groups(found)]))
    if found.left_out:
        rows = [(*_row(each.name, each.errors), _settings(each.values)) for each in found.left_out]
        console.print(table(f"Each {found.by} left out", (*ERRORS, "values without it"), rows))
    console.print(toml_of(found), markup=False)


def show_refit(console: Console, found: Refit) -> None:
    """What moved, errors of all runs without their publication, and the intervals that these make."""
    rows = [
        (name, key, f"{used:.4g}", f"{value:.4g}", f"{value / used - 1:+.1%}", how)
        for name, key, used, value, how in found.moved
    ]
    console.print(table("All fits made anew", MOVED, rows))
    for each in found.fits:
        console.print(f"{each.target.kind} {each.target.name}: {_starts(each)}")
    console.print()
    groups = [_told(name, errors) for name, errors in found.judged().items()]
    console.print(table("Every run under constants fitted without its publication", ERRORS, groups))
    publications = [_told(name, errors) for name, errors in found.by_publication().items()]
    console.print(table("By publication", ERRORS, publications))
    intervals = [(*kind, f"{low:.3f}", f"{high:.3f}") for kind, (low, high) in found.intervals.items()]
    console.print(table("Where nine of ten measurements lie, as multiples of the prediction", INTERVALS, intervals))
    if found.coverage is not None:
        console.print(f"Intervals made without a run's publication cover {found.coverage:.0%} of runs.")


def _starts(found: FittedConstants) -> str:
    """Whether all starts led to one place."""
    each = found.estimate
    count, free = len(each.solutions), len(each.free)
    parameters = f"{free} parameter{'' if free == 1 else 's'} estimated from {len(found.fitted)} runs"
    if each.same:
        return f"{parameters}; {count} start{'s' if count > 1 else ''} led to the same values"
    ended = sum(solution.converged for solution in each.solutions)
    return f"{parameters}; starts led to values up to {each.spread:.1%} apart, {ended} of {count} ended: the least loss is taken"


def _values(found: FittedConstants) -> list[tuple[str, ...]]:
    return [
        (
            " = ".join(p.keys),
            f"{found.used[p]:.4g}",
            f"{value:.4g}",
            f"{value / found.used[p] - 1:+.1%}",
            found.told(p),
        )
        for p, value in found.estimate.values.items()
    ]


def _settings(values: Mapping[Any, float]) -> str:
    return ", ".join(f"{each.keys[0].rpartition('.')[2]} {value:.4g}" for each, value in values.items())


def _groups(found: FittedConstants) -> list[tuple[str, Mapping[str, float]]]:
    left = [(f"each {found.by} left out", found.left_out_errors)] if found.left_out else []
    held = [("held out", found.held_out)] if found.held_out else []
    return [("fitted to", found.fitted), *held, *left, ("null model", found.null)]


def _row(name: str, errors: Mapping[str, float]) -> tuple[str, ...]:
    return _told(name, judged(errors))


def _told(name: str, errors: Mapping[str, Any]) -> tuple[str, ...]:
    if not errors["rows"]:
        return (name, "0", "", "", "", "")
    sizes = (f"{errors['mape']:.1%}", f"{errors['median']:.1%}", f"{errors['worst']:+.1%}")
    return (name, str(errors["rows"]), f"{errors['bias']:+.1%}", *sizes)


def toml_of(found: FittedConstants) -> str:
    """The lines of a machine file: values, and their sources."""
    lines = [f"# {key} = {value:.4g}" for key, value in found.values.items()]
    lines += ["", "[sources]", *(f'"{key}" = "{text}"' for key, text in found.sources.items())]
    return "\n".join(lines) + "\n"


def refit_toml(found: Refit) -> str:
    """Lines of machine files of all fits, and intervals by accelerator."""
    parts = [f"# --- {each.target.kind} {each.target.name}\n{toml_of(each)}" for each in found.fits]
    for (kind, plan), (low, high) in found.intervals.items():
        name = "interval" if plan == DENSE else f"interval.{plan}"
        parts.append(f"# --- {kind}\n[{name}]\nlow = {low:.3f}\nhigh = {high:.3f}\n")
    return "\n".join(parts)
