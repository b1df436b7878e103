"""Runs the validation study, and keeps what README and documentation show of it: ``python benchmarks/validation.py --record``.

The study is ``athanor validate-runtime --out out/validation``, a quarter of an hour on two cores. An interrupted one goes on
where it stopped; ``--fresh`` begins anew.
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
RECORD, OUT = Path(__file__).parent / "validation.json", ROOT / "out" / "validation"


def main() -> None:
    """Run the study; with ``--record`` keep its figures and its plot."""
    if "--fresh" in sys.argv:
        shutil.rmtree(OUT, ignore_errors=True)
    load = os.getloadavg()[0]
    subprocess.run([sys.executable, "-m", "athanor.cli", "validate-runtime", "--out", str(OUT)], check=True)
    if "--record" in sys.argv:
        found = json.loads((OUT / "validation.json").read_text())
        where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        found |= {"machine": where, "date": datetime.now(UTC).date().isoformat(), "load": load}
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
        for name in ("validation", "validation_errors"):
            shutil.copy(OUT / f"{name}.png", ROOT / "docs" / "pictures" / f"{name}.png")


if __name__ == "__main__":
    main()
