"""How near the engine is to the truth where groups of ranks drift apart.

Random programs of ranks that drift apart and groups that contend run against the naive engine of ``tests/``, which has a
process for each rank and a flow for each message.

``python benchmarks/drift.py [PROGRAMS]`` prints the distribution of (engine's step / naive step) - 1, which
``docs/architecture.md`` quotes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from oracles.naive_engine import NaiveEngine
from support.programs import drifting_program, simulate


def main() -> None:
    """Compare and print."""
    programs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    table = Table(
        "depth", "exact", "mean", "5 %", "median", "95 %", "least", "most", title=f"{programs} drifting programs"
    )
    ratios: dict[str, list[float]] = {"fluid": [], "links": []}
    for seed in range(programs):
        machine, schedule = drifting_program(seed)
        expected = max(end for _, end in NaiveEngine(machine, schedule.layout).run(schedule).values())
        for depth, found in ratios.items():
            found.append(simulate(machine, schedule, depth)[1].seconds / expected - 1)
    for depth, found in ratios.items():
        off = np.array(found)
        figures = (off.mean(), *np.percentile(off, [5, 50, 95]), off.min(), off.max())
        table.add_row(depth, f"{np.mean(np.abs(off) < 1e-9):.0%}", *(f"{figure:+.1%}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
