"""Speed and memory of whole processes, start-up included: ``make bench``, or ``python benchmarks/speed.py --record``.

Each command runs several times; what counts is the smallest CPU time (user and system) of the process and its peak memory.
Times of two sizes are compared as ratios within one run of this file. ``--record`` keeps the figures in ``speed.json``, from
which ``make pages`` makes the README's table.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RECORD = Path(__file__).parent / "speed.json"
ATHANOR = [sys.executable, "-m", "athanor.cli"]
RUNS = 5
ENOUGH = 30.0
"""CPU seconds after which a command is not run again."""

FOLDER = Path(tempfile.gettempdir())
DEEP = FOLDER / "athanor-384-layers.toml"

STEP = ["simulate", "--machine", "sunway-oceanlight", "--model", "moda-1.93t", "--json", "-"]
UNEVEN = [*STEP, "--router", "zipf:1.0", "--balancer", "none"]
ANYWAY = ["--allow-overcommit", "--json", "-"]
SINGLE = [
    ("import athanor", [sys.executable, "-c", "import athanor"], 0.3, None),
    ("athanor --help", [*ATHANOR, "--help"], 0.3, None),
    ("one MoDa-1.93T step, 96,000 nodes, SWIPE", [*ATHANOR, *STEP], None, None),
    ("the same, uneven experts (Zipf 1.0, no balancer)", [*ATHANOR, *UNEVEN], 1.0, 300),
    ("the same, jitter on every node", [*ATHANOR, *UNEVEN, "--jitter", "0.05"], 1.4, 300),
    ("one MoDa-174T step, 96,000 nodes", [*ATHANOR, *STEP[:4], "moda-174t", *STEP[5:]], None, None),
    ("weak scaling, 9 points to 96,000 nodes", [*ATHANOR, "scale", "weak", *STEP[1:]], 8.0, None),
    ("athanor reproduce bagualu", [*ATHANOR, "reproduce", "bagualu", "--json", "-"], None, None),
    (
        "96,000 nodes, uneven, 500 steps with drift, their rows written as they come",
        [*ATHANOR, *UNEVEN, "--drift", "0.1", "--steps", "500", "-o", str(FOLDER / "athanor-500-steps.run")],
        60.0,
        300,
    ),
    (
        "384 layers, uneven, jitter, 96,000 nodes",
        [*ATHANOR, *STEP[:4], str(DEEP), *UNEVEN[5:], "--jitter", "0.05", ANYWAY[0]],
        10.0,
        500,
    ),
    (
        "deepseek-v3 on eos-h100, uneven, 120 micro-batches",
        [*ATHANOR, "simulate", "--machine", "eos-h100", "--model", "deepseek-v3", *UNEVEN[len(STEP) :], *ANYWAY],
        6.0,
        400,
    ),
    (
        "mixtral-8x22b on selene, uneven, 64 micro-batches",
        [*ATHANOR, "simulate", "--machine", "selene", "--model", "mixtral-8x22b", *UNEVEN[len(STEP) :], *ANYWAY]
        + ["--mesh", "ep=8,tp=8,pp=8", "--global-batch", "512"],
        10.0,
        500,
    ),
]
GROWTH = [
    ("balanced (SWIPE)", [], 1.1),
    ("uneven experts", UNEVEN[len(STEP) :], 2.2),
    ("uneven experts and jitter", [*UNEVEN[len(STEP) :], "--jitter", "0.05"], 2.2),
]
NODES = [6000, 12000, 24000, 48000, 96000]


def measure(command: list[str]) -> dict[str, float]:
    """The smallest CPU seconds of up to five runs, and the largest peak memory in MiB."""
    seconds, mebibytes = [], []
    for _ in range(RUNS):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
        seconds.append(usage.ru_utime + usage.ru_stime)
        mebibytes.append(usage.ru_maxrss / 1024)
        if sum(seconds) > ENOUGH:
            break
    return {"cpu_seconds": min(seconds), "peak_mib": max(mebibytes)}


def scaled(nodes: int) -> list[str]:
    """Options of a model grown to so many nodes: experts and ep in proportion, as weak scaling does."""
    return ["scale", "weak", "--nodes", str(nodes), *STEP[1:]]


def run_all(console: Console) -> dict[str, Any]:
    """Measure everything, printing as it goes."""
    found: dict[str, Any] = {"rows": [], "growth": []}
    moda = (Path(__file__).parents[1] / "workloads/model/catalogue/moda-1.93t.toml").read_text(encoding="utf-8")
    DEEP.write_text(re.sub(r"(?m)^layers = \d+", "layers = 384", moda), encoding="utf-8")
    table = Table("work", "CPU s", "target", "peak MiB", "target ", title="Whole processes, start-up included")
    for name, command, most_seconds, most_memory in SINGLE:
        figures = measure(command)
        found["rows"].append({"work": name, **figures, "target_seconds": most_seconds, "target_mib": most_memory})
        table.add_row(
            name,
            f"{figures['cpu_seconds']:.2f}",
            f"{most_seconds or ''}",
            f"{figures['peak_mib']:.0f}",
            f"{most_memory or ''}",
        )
    console.print(table)
    growth = Table("plan", *(f"{nodes:,}" for nodes in NODES), "worst doubling", "target", title="CPU s by nodes")
    for name, options, most in GROWTH:
        seconds = [measure([*ATHANOR, *scaled(nodes), *options])["cpu_seconds"] for nodes in NODES]
        ratios = [after / before for before, after in pairwise(seconds)]
        found["growth"].append(
            {"plan": name, "nodes": NODES, "cpu_seconds": seconds, "worst": max(ratios), "target": most}
        )
        growth.add_row(name, *(f"{each:.2f}" for each in seconds), f"{max(ratios):.2f}x", f"{most}x")
    console.print(growth)
    return found


def main() -> None:
    """Measure, print, and with ``--record`` keep."""
    console = Console(width=130)
    found = run_all(console)
    found["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    found["date"] = datetime.now(UTC).date().isoformat()
    found["load"] = os.getloadavg()[0]
    console.print(f"{found['machine']}, load {found['load']:.1f}, {found['date']}; smallest of up to {RUNS} runs")
    if "--record" in sys.argv[1:]:
        RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
