"""What a campaign came to, as tables: its ledger, its spread over seeds, its checkpoints, its faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...hardware.units import KILOWATT_HOUR, duration, si
from .sections import Section

Row = tuple[str, ...]


def answer(found: Mapping[str, Any]) -> str:
    """How long the training takes, and what it costs."""
    wall = found["wall_clock_seconds"]
    return (
        f"{si(found['tokens'], 'tokens')} in {found['steps']:,} steps take {duration(wall['median'])} (nine of ten seeds:"
        f" {duration(wall['p5'])} to {duration(wall['p95'])}), {found['goodput']:.1%} of it productive. They are interrupted"
        f" {found['interruptions']:,} times, and take {energy(found['energy_joules'])},"
        f" {found['co2_kilograms'] / 1e3:,.4g} t of CO2 and {found['cost']:,.0f} USD, on {found['nodes']:,} nodes."
    )


def energy(joules: float) -> str:
    """Energy as people write it."""
    hours = joules / KILOWATT_HOUR
    return f"{hours / 1e3:,.4g} MWh" if hours >= 1e3 else f"{hours:,.4g} kWh"


def ledger_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Time by what it went to, in the median seed."""
    whole = sum(found["ledger"].values())
    for entry, seconds in found["ledger"].items():
        if seconds > 0:
            yield (entry.replace("_", " "), duration(seconds), f"{seconds / whole:.2%}", si(found["watts"][entry], "W"))
    yield ("wall clock", duration(whole), "100.00%", si(found["mean_watts"], "W"))


LEDGER = ("", "time", "share", "power")
INTERVALS = ("interval", "work between checkpoints")
FAULTS = ("component", "interruptions, mean over seeds")


def interval_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """The interval in use, and by each rule."""
    names = {
        "used": "in use, whole steps",
        "young": "Young",
        "daly_first_order": "Daly, first order",
        "daly": "Daly, higher order",
        "optimum": "best of those simulated",
    }
    for key, name in names.items():
        yield (name, duration(found["checkpoint_interval_seconds"][key]))


def fault_rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """Interruptions by component."""
    for name, count in found["interruptions_by_component"].items():
        yield (name, f"{count:,.4g}")


def checkpoint_text(found: Mapping[str, Any]) -> str:
    """What a checkpoint is."""
    each = found["checkpoint"]
    return (
        f"A checkpoint is {si(each['bytes'], 'B')}; writing it takes {duration(each['write_seconds'])} (limited by"
        f" {each['write_limit']}), of which steps wait {duration(each['save_seconds'])}; loading it"
        f" {duration(each['load_seconds'])}. A fault strikes every {duration(found['mtbf_seconds'])}."
    )


def sections(found: Mapping[str, Any]) -> list[Section]:
    """The tables of a campaign."""
    where = f"The seed with the median wall clock, {found['ledger_seed']}."
    return [
        Section("Where the time goes", where, LEDGER, [*ledger_rows(found)]),
        Section("Checkpoints", checkpoint_text(found), INTERVALS, [*interval_rows(found)]),
        Section("Faults", f"Policy {found['policy']}.", FAULTS, [*fault_rows(found)]),
    ]
