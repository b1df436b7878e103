"""Points a second of studies: ``python benchmarks/studies.py [--points N] [--jobs N] [--record]``.

A Latin hypercube over rates of a machine and sizes of a plan, of ``athanor simulate`` with balanced experts: of MoDa-1.93T on
the 96,000 nodes that BaGuaLu had, and of Mixtral on 64 nodes of Eos. Times are of the whole command, its tables and plots too.
``--record`` keeps the figures in ``studies.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "studies.json"

TARGET = 20.0
"""Points a second of balanced plans on two cores."""

STUDIES = {
    "moda-1.93t on 96,000 nodes of sunway-oceanlight, SWIPE": """
machine = "sunway-oceanlight"
model = "moda-1.93t"
[sample.over]
machine.calibration.network_efficiency = { from = 0.4, to = 0.9 }
machine.calibration.gemm_efficiency = { from = 0.2, to = 0.6 }
machine.fabric.taper = ["1/16", "3/16", "1/4", "1/1"]
plan.tokens_per_rank = { from = 1024, to = 4096, step = 1024 }
""",
    "mixtral-8x7b on 64 nodes of eos-h100, even experts": """
machine = "eos-h100"
model = "mixtral-8x7b"
allow_overcommit = true
[plan]
mesh = "dp=64,ep=8"
balancer = "even"
[sample.over]
machine.calibration.network_efficiency = { from = 0.4, to = 0.9 }
machine.calibration.gemm_efficiency = { from = 0.3, to = 0.7 }
plan.tokens_per_rank = { from = 8192, to = 32768, step = 8192 }
plan.zero = ["0", "1", "2"]
""",
}


def measure(text: str, points: int, jobs: int) -> dict[str, Any]:
    """Points a second of a study, by the clock and by the CPU time of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "study.toml", Path(folder) / "out"
        file.write_text(f'{text}\n[sample]\nmethod = "latin-hypercube"\npoints = {points}\n', encoding="utf-8")
        command = [sys.executable, "-m", "athanor.cli", "study", str(file), "--out", str(out), "--jobs", str(jobs)]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr[-500:]}")
        rows = (out / "points.csv").read_text(encoding="utf-8").count(",ok,")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "points": points, "ok": rows, "jobs": jobs, "wall_seconds": wall, "cpu_seconds": cpu,
        "points_per_second": points / wall, "points_per_cpu_second": points / cpu,
    }  # fmt: skip


def main() -> None:
    """Measure, print, and with ``--record`` keep."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--points", type=int, default=10_000)
    asked.add_argument("--jobs", type=int, default=2)
    asked.add_argument("--record", action="store_true")
    given = asked.parse_args()
    found: dict[str, Any] = {"target_points_per_second": TARGET, "studies": []}
    for name, text in STUDIES.items():
        load = os.getloadavg()[0]
        figures = measure(text, given.points, given.jobs)
        found["studies"].append({"study": name, **figures, "load_before": load, "load_after": os.getloadavg()[0]})
        told = (
            f"{figures['points_per_second']:.1f} points a second, {figures['points_per_cpu_second']:.1f} a CPU second"
        )
        print(f"{name}: {given.points:,} points ({figures['ok']:,} ok) by {given.jobs} processes: {told}")
    found["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    found["date"] = datetime.now(UTC).date().isoformat()
    if given.record:
        RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
