"""How far the engine is from a referee that plays every rank, stream and message: ``python benchmarks/referee.py [--record]``.

Random plans of each kind of ``tests/support/refereed.py``, of up to 16 ranks and some of up to 64, are played by the referee of
``tests/oracles/referee`` and by the engine at each depth. Printed are errors of the step's seconds, engine over referee.
``--record`` keeps them in ``referee.json``, of which the page on accuracy has its table. ``--plans N`` takes N plans of each
kind, ``--kind TEXT`` only kinds whose name contains it, and ``--worst N`` also prints the N plans that are furthest off.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from athanor.hardware.errors import DoesNotFit, InputError
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.refereed import KINDS, Case, case

RECORD = Path(__file__).parent / "referee.json"
DEPTHS = ("links", "fluid", "message")
COLUMNS = ("plans", "depth", "number", "exact", "bias", "mean error", "95 %", "worst")
SMALL, LARGE, FEW = 16, 64, 10
"""Ranks of most plans at most, those of every so manieth one."""


def errors(played: Case, seconds: float, depth: str) -> float | None:
    """The engine's step over the referee's, less 1; None at a depth that does not take the plan."""
    try:
        return played.engine(depth) / seconds - 1
    except (InputError, DoesNotFit):
        return None


def judged(kind: str, plans: int, worst: int, console: Console) -> list[dict[str, Any]]:
    """Rows of the table, one for each depth."""
    found: dict[str, list[tuple[float, str]]] = {depth: [] for depth in DEPTHS}
    for seed in range(plans):
        played = case(kind, seed, LARGE if seed % FEW == FEW - 1 else SMALL)
        seconds = played.referee()
        for depth, of_depth in found.items():
            off = errors(played, seconds, depth)
            if off is not None:
                of_depth.append((off, played.text))
    rows = []
    for depth, of_depth in found.items():
        if not of_depth:
            continue
        off = np.array([each for each, _ in of_depth])
        rows.append(
            {
                "kind": kind,
                "depth": depth,
                "plans": len(off),
                "exact": float(np.mean(np.abs(off) < 1e-9)),
                "bias": float(off.mean()),
                "mean": float(np.abs(off).mean()),
                "most_of": float(np.percentile(np.abs(off), 95)),
                "worst": float(off[np.abs(off).argmax()]),
            }
        )
        for each, text in sorted(of_depth, key=lambda pair: -abs(pair[0]))[:worst]:
            console.print(f"{depth} {each:+.2%} {text}", highlight=False, soft_wrap=True)
    return rows


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as text."""
    return (
        row["kind"],
        row["depth"],
        str(row["plans"]),
        f"{row['exact']:.0%}",
        f"{row['bias']:+.1%}",
        f"{row['mean']:.1%}",
        f"{row['most_of']:.1%}",
        f"{row['worst']:+.1%}",
    )


def main() -> None:
    """Compare, print, and keep with ``--record``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--plans", type=int, default=40)
    parser.add_argument("--worst", type=int, default=0)
    parser.add_argument("--kind", default="")
    asked, console = parser.parse_args(), Console()
    rows = [row for kind in KINDS if asked.kind in kind for row in judged(kind, asked.plans, asked.worst, console)]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    if asked.record and not asked.kind:
        RECORD.write_text(json.dumps({"date": datetime.now(UTC).date().isoformat(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
