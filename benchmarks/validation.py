"""Runs the validation study, and keeps what README and documentation show of it: ``python benchmarks/validation.py --record``.

The study is ``athanor validate-runtime --out out/validation``, a quarter of an hour on two cores. ``--grid`` runs dense plans and
one with experts over rates and tapers instead (``out/grid``), and keeps it beside the other under ``grid``; options after
``--`` say which trees: ``--grid -- --trees 2x2 --taper 1``. An interrupted study goes on where it stopped; ``--fresh`` begins
anew.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORD = Path(__file__).parent / "validation.json"
GRID = ("--plans", "ep,dp,fsdp,tp,pp", "--rate", "50,200,1000", "--taper", "1/8,1")


def main() -> None:
    """Run the study; with ``--record`` keep its figures and its plot."""
    own, more = sys.argv[1:], list[str]()
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    grid = "--grid" in own
    out = ROOT / "out" / ("grid" if grid else "validation")
    if "--fresh" in own:
        shutil.rmtree(out, ignore_errors=True)
    load = os.getloadavg()[0]
    asked = [*(GRID if grid else ()), *more]
    subprocess.run([sys.executable, "-m", "athanor.cli", "validate-runtime", *asked, "--out", str(out)], check=True)
    if "--record" not in own:
        return
    found = json.loads((out / "validation.json").read_text())
    where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    found |= {"machine": where, "date": datetime.now(UTC).date().isoformat(), "load": load}
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if grid:
        found = before | {"grid": found | {"asked": asked}}
    else:
        found |= {"grid": before["grid"]} if "grid" in before else {}
        for name in ("validation", "validation_errors"):
            shutil.copy(out / f"{name}.png", ROOT / "docs" / "pictures" / f"{name}.png")
    RECORD.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
