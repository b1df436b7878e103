"""The fault campaign: jobs over MPI of which one rank does something wrong, at any step and on any rank (``make faults``).

Every job has to end by itself, with the status of its fault, one line of Athanor's at most, and nothing left behind: within
its time limit and five seconds. What is wrong, on which rank and how many ranks there are is drawn from a seed. Kinds that the
launcher alone can see (a killed rank) have no line.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.mpi_jobs import command  # noqa: E402
from support.paths import JOBS  # noqa: E402

LIMIT, GRACE, PATIENCE = 2.0, 5.0, 60.0
"""Seconds from a fault that hangs to the time limit, how much longer a job may take, and the limit of other jobs."""

TINY = ("--model", "moda-tiny", "--tokens-per-rank", "64", "--steps", "4", "--no-check", "--time-limit", "120")


@dataclass(frozen=True)
class Kind:
    """What goes wrong, the statuses with which a job may end for it, and the line that is said; none where there is none."""

    name: str
    statuses: frozenset[int] | None  # None: any but 0
    line: str | None

    @property
    def limit(self) -> float:
        """Seconds of the time limit: short where the job is to run into it."""
        return LIMIT if self.statuses == {124} else PATIENCE


KINDS = (
    Kind("exit", frozenset({1}), r"rank \d+ on \S+: left the job, with sys\.exit\(0\)"),
    Kind("exit status", frozenset({1}), r"rank \d+ on \S+: left the job, with sys\.exit\(7\)"),
    Kind("raise", frozenset({1}), r"rank \d+ on \S+: ValueError: seven \(faulty\.py:\d+\)"),
    Kind("memory", frozenset({1}), r"rank \d+ on \S+: MemoryError: .*"),
    Kind("hang", frozenset({124}), r"--time-limit 2: the job ran longer and was ended.*faulty\.py.*"),
    Kind("spin", frozenset({124}), r"--time-limit 2: the job ran longer and was ended.*"),
    Kind(
        "stop",
        frozenset({124}),
        r"--time-limit 2: the job ran longer and was ended \(rank \d+ on \S+ does not answer\)",
    ),
    Kind("kill", None, None),
    Kind("segfault", None, None),
    Kind("term", None, None),
    Kind("interrupt", frozenset({130}), "interrupted"),
    Kind("nan", frozenset({1}), r"ranks? .*: (loss|gradients) of step \d+: no number .*"),
    Kind("other words", frozenset({2}), r"ranks differ: rank \d+ on \S+ has --\S+ .*"),
    Kind("wrong words", frozenset({2}), r"rank \d+ on \S+: none\.toml: no such file"),
)


def words_of(kind: Kind, ranks: int, rank: int, random: random.Random) -> list[str]:
    """The command line of a job with such a fault."""
    tiny = (*TINY, "--mesh", f"dp={ranks}")
    if kind.name not in ("other words", "wrong words"):
        return command(ranks, "python", JOBS / "faulty.py", kind.name, rank, kind.limit, "execute", *tiny)
    others = [("--steps", "5"), ("--seed", "7"), ("--balancer", "none"), ("--zero", "1"), ("--collectives", "library")]
    more = random.choice(others) if kind.name == "other words" else ("--machine", "none.toml")
    launcher, _, _, *program = command(1, "athanor", "execute", *tiny)
    found = [launcher]
    for each in range(ranks):
        found += [*([":"] if each else []), "-n", "1", *program, *(more if each == rank else ())]
    return found


def left_of(group: int) -> list[str]:
    """Processes of a job's session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = path.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, session = fields.split()[:4]
        if int(session) == group and state not in "ZX":
            found.append(name)
    return found


def wrong_with(kind: Kind, words: list[str], folder: Path) -> tuple[str, float]:
    """What is wrong about how a job ends, or nothing; and the seconds from its first step, or its start, to its end."""
    process = subprocess.Popen(
        words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    said, begun = [], time.monotonic()
    assert process.stderr is not None and process.stdout is not None
    for line in process.stderr:
        said.append(line.rstrip())
        if "first step done" in line:
            begun = time.monotonic()
    out, status = process.stdout.read(), process.wait()
    passed = time.monotonic() - begun
    until = time.monotonic() + 1
    while (left := left_of(process.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    if left:
        os.killpg(process.pid, signal.SIGKILL)
        return f"left {left}", passed
    lines = [line.removeprefix("athanor: ") for line in said if line.startswith("athanor: ")]
    if status == 0 or (kind.statuses is not None and status not in kind.statuses):
        return f"status {status}: {lines or said[-3:]}", passed
    if kind.line is not None and (len(lines) != 1 or not re.fullmatch(kind.line, lines[0])):
        return f"said {lines or said[-3:]}", passed
    if any("Traceback" in line for line in said) or "tokens/s" in out:
        return "said more than a line", passed
    if passed > kind.limit + GRACE and "words" not in kind.name:
        return f"took {passed:.1f} s from its first step", passed
    return (f"left {sorted(each.name for each in folder.iterdir())}" if any(folder.iterdir()) else ""), passed


def main() -> None:
    """All jobs, one after another; the status is 1 where one did not end as it has to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=4, help="2 to so many")
    parser.add_argument("--kind", choices=[each.name for each in KINDS])
    given = parser.parse_args()
    draw, failed, slowest = random.Random(given.seed), 0, 0.0
    kinds = [each for each in KINDS if given.kind in (None, each.name)]
    for number in range(given.count):
        kind, ranks = kinds[number % len(kinds)], draw.randint(2, given.ranks)
        rank = draw.randrange(ranks)
        words = words_of(kind, ranks, rank, draw)
        with tempfile.TemporaryDirectory() as folder:
            wrong, passed = wrong_with(kind, words, Path(folder))
        failed += bool(wrong)
        slowest = max(slowest, passed)
        print(
            f"{number + 1:4} {kind.name} on rank {rank} of {ranks}: {wrong or 'as it has to'}, {passed:.1f} s",
            flush=True,
        )
    print(f"{given.count - failed} of {given.count} ended as they have to; the slowest took {slowest:.1f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
