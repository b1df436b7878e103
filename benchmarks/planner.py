"""The planner's speed and how far its formula is off: ``python benchmarks/planner.py [--record]``.

Each search runs in this process, on one core: plans a second of processor time that are judged in closed form, whether they
fit or not, and the formula's error on the ten plans that the engine runs. ``--record`` keeps the figures in ``planner.json``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from athanor.hardware.machine import load_machine
from athanor.sim.planning.question import Question
from athanor.sim.planning.search import search
from athanor.workloads.model.model import load_model
from rich.console import Console
from rich.table import Table

RECORD = Path(__file__).parent / "planner.json"
SEARCHES: list[tuple[str, str, int, int, dict[str, Any]]] = [
    ("selene", "gpt3-175b", 1024, 1536, {}),
    ("cloud-brain-2", "pangu-200b", 2048, 1024, {}),
    ("cloud-brain-2", "pangu-200b", 1024, 1024, {}),
    ("sunway-oceanlight", "moda-1.93t", 96000, 96000, {"zero": "1", "recompute": "none"}),
]
LEAST, WITHIN = 2000, 0.03
"""Plans a second, and the formula's error on the best ten, that are aimed at."""


def run(machine: str, model: str, gpus: int, batch: int, fixed: dict[str, Any]) -> dict[str, Any]:
    """One search's figures."""
    asked = Question.of(load_machine(machine), load_model(model), {"global_batch": batch, **fixed}, gpus=gpus)
    *_, last = search(asked)
    found = last.plain()
    kept = (
        "machine",
        "model",
        "ranks",
        "enumerated",
        "ranked",
        "plans_per_second",
        "search_seconds",
        "closed_form_error",
    )
    best = found["plans"][0]
    return {key: found[key] for key in kept} | {"mesh": best["mesh"], "step_seconds": best["step_seconds"]}


def main() -> None:
    """Run all searches, print their figures, and keep them with ``--record``."""
    table = Table("machine", "model", "ranks", "plans", "plans/s", "s", "mean error", "worst", "best mesh", "step s")
    found = []
    for each in SEARCHES:
        row = run(*each)
        found.append(row)
        error = row["closed_form_error"]
        mesh = ",".join(f"{axis}={size}" for axis, size in row["mesh"].items())
        table.add_row(
            row["machine"],
            row["model"],
            f"{row['ranks']:,}",
            f"{row['enumerated']:,}",
            f"{row['plans_per_second']:,.0f}",
            f"{row['search_seconds']:.1f}",
            f"{error['mean_absolute']:.2%}",
            f"{error['worst']:+.2%}",
            mesh,
            f"{row['step_seconds']:.4g}",
        )
    Console(width=150).print(table)
    fast = [row for row in found if row["plans_per_second"] >= LEAST]
    near = [row for row in found if abs(row["closed_form_error"]["worst"]) <= WITHIN]
    print(f"{len(fast)} of {len(found)} at {LEAST:,} plans/s or more, {len(near)} within {WITHIN:.0%} on the best ten")
    if "--record" in sys.argv:
        where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        kept = {
            "machine": where,
            "date": datetime.now(UTC).date().isoformat(),
            "load": os.getloadavg()[0],
            "searches": found,
        }
        RECORD.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
