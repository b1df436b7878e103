"""How far predictions are from published measurements: ``python benchmarks/accuracy.py [--record] [fit.json]``.

Runs ``athanor validate`` and ``athanor fit all``, whose table shows where a fit comes to other values than those in use. A fit
that was made already is taken from its file: what ``athanor fit all --json fit.json`` wrote.
``--record`` keeps errors by source, by fit and without each publication in ``accuracy.json``, of which the documentation's tables
are made, and the pictures in ``docs/pictures``.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from athanor.hardware.cores import cores
from athanor.reports.pages.fit import show_refit
from athanor.reports.plots.accuracy import drawings
from athanor.reports.published.read_runs import read_runs
from athanor.reports.studies.accuracy.memory_rows import with_memory
from athanor.reports.studies.accuracy.refit import refit
from athanor.reports.studies.accuracy.validate import validate
from rich.console import Console

RECORD = Path(__file__).parent / "accuracy.json"
PICTURES = Path(__file__).parent.parent / "docs" / "pictures"


def main() -> None:
    """Judge all runs and make all fits anew, print what moved, and keep the figures with ``--record``."""
    console, runs = Console(), read_runs()
    told = validate(list(with_memory(runs)), jobs=cores())
    plain = told.plain()
    record: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat()}
    record |= {key: plain[key] for key in ("overall", "sources", "orders", "memory", "far")}
    console.print({key: record["overall"][key] for key in ("rows", "mape", "median", "bias", "null_mape", "coverage")})
    made = [word for word in sys.argv[1:] if word != "--record"]
    if made:
        plain = json.loads(Path(made[0]).read_text())
    else:
        found = refit(runs, lambda text: print(text, file=sys.stderr), jobs=cores())
        show_refit(console, found)
        plain = found.plain()
    again = {key: value for key, value in plain.items() if key != "rows"}
    record |= {
        **again,
        "fits": [{key: value for key, value in each.items() if key != "rows"} for each in again["fits"]],
    }
    if "--record" in sys.argv:
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
        for name, _, figure in drawings(told):
            if name in ("predicted_measured", "errors_by_source"):
                figure.savefig(PICTURES / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
