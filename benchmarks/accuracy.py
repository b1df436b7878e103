"""How far predictions are from published measurements: ``python benchmarks/accuracy.py [--record]``.

Runs ``athanor validate``, and every fit whose values stand in the catalogue or among the libraries, again; where a fit comes to
other values than those in use, it says so. ``--record`` keeps errors by source and by fit in ``accuracy.json``, of which the
documentation's tables are made, and the pictures in ``docs/pictures``.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from athanor.hardware.machine import list_machines
from athanor.reports.plots.accuracy import drawings
from athanor.reports.published.read_runs import read_runs
from athanor.reports.studies.accuracy.fitting import FittedConstants, fit
from athanor.reports.studies.accuracy.memory_rows import with_memory
from athanor.reports.studies.accuracy.targets import target_of
from athanor.reports.studies.accuracy.validate import validate
from athanor.sim.workers import cores
from rich.console import Console

RECORD = Path(__file__).parent / "accuracy.json"
PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
SAME = 0.02
"""How far a value in use may be from what its fit finds: files keep few digits, and a fit starts where they stand."""


def fits() -> list[tuple[str, str]]:
    """(kind, name) of the fits that sources of machine files name, and of the libraries' own."""
    found = {}
    for machine in list_machines():
        for text in machine.sources.values():
            if text.startswith("fitted: athanor fit ") and "bagualu" not in text:
                kind, name = text.removeprefix("fitted: athanor fit ").split(",")[0].split(" ", 1)
                found[kind, name] = None
    return [*sorted(found), ("library", "deepspeed-zero3")]


def used(found: FittedConstants) -> dict[str, float]:
    """Values in use by key."""
    return {key: value for group, value in found.target.start.items() for key in group}


def main() -> None:
    """Judge all rows and all fits, print what differs, and keep the figures with ``--record``."""
    console, rows = Console(), read_runs()
    told = validate(list(with_memory(rows)), jobs=cores())
    plain = told.plain()
    record: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "fits": []}
    record |= {key: plain[key] for key in ("overall", "sources", "memory")}
    console.print({key: record["overall"][key] for key in ("rows", "mape", "median", "bias", "null_mape", "coverage")})
    for kind, name in fits():
        found = fit(target_of(kind, name), rows, every=kind == "library", jobs=cores())
        summary = {key: value for key, value in found.plain().items() if key != "rows"}
        record["fits"].append(summary)
        for key, value in found.values.items():
            here = used(found)[key]
            if abs(value / here - 1) > SAME:
                console.print(f"fit {kind} {name}: {key} comes to {value:.4g}, {here:.4g} is in use", highlight=False)
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
        for name, _, figure in drawings(told):
            if name in ("predicted_measured", "errors_by_source"):
                figure.savefig(PICTURES / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
