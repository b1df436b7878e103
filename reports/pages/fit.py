"""A fit of constants as tables, and as the lines that a machine file takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..studies.accuracy.fitting import FittedConstants, judged
from ..tables.runs import table

if TYPE_CHECKING:
    from rich.console import Console

ERRORS = ("rows", "count", "bias", "MAPE", "median", "worst")


def show_fit(console: Console, found: FittedConstants) -> None:
    """Values with their standard errors, errors of the rows fitted to and of those held out, and the file's lines."""
    values = [(key, f"{value:.4g}", f"{found.standard_errors[key]:.1%}") for key, value in found.values.items()]
    where = "" if found.target.library else f" ({', '.join(machine.name for machine in found.target.machines)})"
    console.print(table(f"Fitted to {found.target.name}{where}", ("key", "value", "standard error"), values))
    console.print(table("Errors of predicted steps", ERRORS, [_row(name, errors) for name, errors in _groups(found)]))
    low, high = found.interval
    covered = "" if found.coverage is None else f", which covers {found.coverage:.0%} of the rows held out"
    console.print(f"90 % interval: {low:.3f} to {high:.3f} of the prediction{covered}\n")
    console.print(toml_of(found), markup=False)


def _groups(found: FittedConstants) -> list[tuple[str, Mapping[str, float]]]:
    left = [(f"each {what} left out", errors) for what, errors in found.left_out.items() if errors]
    held = [("held out", found.held_out)] if found.held_out else []
    return [("fitted to", found.fitted), *held, *left]


def _row(name: str, errors: Mapping[str, float]) -> tuple[str, ...]:
    told: dict[str, Any] = judged(errors)
    if not told["rows"]:
        return (name, "0", "", "", "", "")
    return (
        name,
        str(told["rows"]),
        f"{told['bias']:+.1%}",
        f"{told['mape']:.1%}",
        f"{told['median']:.1%}",
        f"{told['worst']:+.1%}",
    )


def toml_of(found: FittedConstants) -> str:
    """The lines of a machine file: values, their sources, and the interval of predictions."""
    rows = len(found.fitted) + len(found.held_out)
    every = "" if found.held_out else " --all-rows"
    provenance = f"athanor fit {found.target.kind} {found.target.name}{every}, to {len(found.fitted)} of {rows} rows"
    told = judged(found.held_out)
    lines = [f"# {key} = {value:.4g}" for key, value in found.values.items()]
    low, high = found.interval
    lines += ["", "[interval]", f"low = {low:.3f}", f"high = {high:.3f}", "", "[sources]"]
    lines += [
        f'"{key}" = "fitted: {provenance}; standard error {found.standard_errors[key]:.1%}"' for key in found.values
    ]
    if told["rows"]:
        lines.append(
            f'"interval" = "fitted: {provenance}, 5 % and 95 % quantiles of measured over predicted seconds;'
            f' mean error of the {told["rows"]} others {told["mape"]:.1%}"'
        )
    return "\n".join(lines) + "\n"
