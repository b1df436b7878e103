"""Executes the commands that pages of the documentation tell people to type: ``make howtos``.

A page's commands run one after another in a folder of its own, as they stand there but for what :data:`SMALLER` makes shorter.
Pages in :data:`BY_TESTS` are executed by the test suite, and what :data:`LEFT_OUT` names is executed nowhere, with the reason;
``tests/house/test_howtos.py`` holds that every command of every page is in one of the three.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from importlib.util import find_spec
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent

BY_TESTS = {
    "README.md": "tests/house/test_docs.py, tests/mpi_runtime/test_calibrate.py (calibrate), tests/reports/test_reports.py",
    "docs/strategies/*.md": "tests/house/test_docs.py",
    "docs/howto/add-a-*.md": "tests/house/test_howto.py",
    "docs/howto/add-an-attention-kernel.md": "tests/house/test_howto.py",
    "docs/howto/add-an-optimizer.md": "tests/house/test_add_an_optimizer.py",
}
"""Pages whose commands tests execute, and which."""

LEFT_OUT = {
    "make ": "CI is `make test`, and `make demo` is reproduce bagualu, which a test computes",
    ". .venv/bin/activate": "commands run in that environment anyway",
    "athanor serve": "it serves until somebody stops it; tests/reports/test_serve.py starts it",
    "pip install": "it would change the environment that runs the commands; tests install the wheel",
}
"""Commands by how they begin that are executed nowhere, and why."""

MADE = {
    "docs/howto/run-a-study.md": ["cp examples/studies/swipe.toml study.toml"],
    "docs/formats/comparison.md": [
        "mpiexec -n 4 athanor execute --model moda-tiny --mesh ep=2,dp=2 --steps 2 -o measured.json",
        *(f"cp measured.json m{number}.json" for number in (1, 2, 3)),
        *(
            f"athanor simulate --machine laptop --model moda-tiny --mesh ep=2,dp=2 -o p{number}.json"
            for number in (1, 2, 3)
        ),
    ],
}
"""What has to be there before a page's commands: its reader has it."""

FILES = {
    "docs/howto/bring-and-take-files.md": {
        "train.sh": "ARGS=(--num-layers 4 --hidden-size 256 --num-attention-heads 8 --seq-length 128 --vocab-size 999\n"
        "  --max-position-embeddings 128 --micro-batch-size 1 --global-batch-size 64 --bf16)\n"
        "torchrun --nnodes $((WORLD_SIZE / 8)) --nproc_per_node 8 pretrain_gpt.py ${ARGS[@]}\n"
    },
    "docs/howto/calibrate-your-cluster.md": {
        "run.toml": 'machine = "cluster-64"\nmodel = "moda-tiny"\n\n[plan]\nmesh = "ep=4"\ntokens_per_rank = 64\n'
    },
    "docs/formats/routing-trace.md": {
        "routing.csv": "step,layer,expert,tokens\n"
        + "".join(
            f"{step},{layer},{expert},{100 - 9 * expert}\n" for step, layer, expert in product((1, 2), (0, 1), range(4))
        )
    },
}
"""The same as files."""

SMALLER = {
    "mpiexec -n 64 ": "mpiexec -n 4 ",
    "mpiexec -n 16 ": "mpiexec -n 2 ",
    "--steps 500": "--steps 20",
    "--steps 800": "--steps 30",
    "--checkpoint-every 100": "--checkpoint-every 10",
    "--model moda-1.93t --nodes 96000 --global-batch 96000": "--model moda-tiny --nodes 256 --global-batch 1024",
    "--gpus 1024 --global-batch 1536": "--gpus 64 --global-batch 64 --pipeline 1f1b --zero 1 --simulate 2",
    "--nodes 128 --global-batch 1536": "--nodes 8 --global-batch 64 --pipeline 1f1b --zero 1 --simulate 2",
    "--gpus 2048 --global-batch 1024": "--gpus 256 --global-batch 64 --simulate 2",
    "-o mine.toml --out out/mine": "-o mine.toml --out out/mine --seconds 20",
}
"""What takes long on two cores, and what stands for it: fewer ranks, steps, nodes, the same options."""

ENVIRONMENT = {"SLURM_ARRAY_TASK_ID": "1", "COLUMNS": "120"}
"""What a scheduler says, where a page's commands ask for it."""

STATUS = {"athanor memory --machine selene --model gpt3-175b --mesh pp=2,dp=64,tp=8 --json -": 3}
"""Exit statuses that pages say, where they are not 0."""

STARTS = ("athanor ", "mpiexec ", "make ", ". ", "pip ", "python ")
"""How lines begin that are commands."""

PATIENCE = 600
"""Seconds that a command may take."""


def pages() -> list[str]:
    """Pages that have commands, by their paths in the repository; ``docs/cli.md`` has only what ``--help`` prints."""
    every = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
    names = [path.relative_to(ROOT).as_posix() for path in every]
    return [name for name in names if name != "docs/cli.md" and commands(name)]


def commands(page: str) -> list[str]:
    """The commands of a page in their order: lines that are indented as code, and blocks of ``sh``; comments are cut off."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for fence, body, line in re.findall(r"^```(\w*)\n(.*?)^```$|^    (?! )([^\n]+)$", text, re.MULTILINE | re.DOTALL):
        lines = body.splitlines() if fence == "sh" else [line] if line else []
        found += [re.sub(r"\s+#\s.*$", "", " ".join(each.split())) for each in lines if each.startswith(STARTS)]
    return found


def left_out(command: str) -> str:
    """Why a command is executed nowhere; nothing where it is."""
    return next((why for begin, why in LEFT_OUT.items() if command.startswith(begin)), "")


def by_tests(page: str) -> str:
    """Which test executes a page's commands; nothing where none does."""
    return next((tests for pattern, tests in BY_TESTS.items() if fnmatch(page, pattern)), "")


def missing_here(command: str) -> str:
    """What this computer lacks for a command, in one clause; nothing where it has all."""
    words = shlex.split(command)
    if "--accelerator" in words and find_spec("torch") is None:
        return "PyTorch is not installed (extra accelerator)"
    if "cluster" in words:
        from athanor.mpi_runtime.cluster import missing

        return missing() or ""
    if words[0] == "mpiexec" and not shutil.which("mpiexec", path=_path()):
        return "there is no mpiexec"
    return ""


def smaller(command: str) -> str:
    """The command that stands for one that takes long."""
    for long, short in SMALLER.items():
        command = command.replace(long, short)
    return command


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def execute(page: str) -> Iterator[tuple[str, str]]:
    """(command, why it failed or was not executed) of a page; the second is empty where all went well."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        for name, content in FILES.get(page, {}).items():
            (Path(folder) / name).write_text(content, encoding="utf-8")
        environment = {**os.environ, **ENVIRONMENT, "PATH": _path(), "XDG_RUNTIME_DIR": folder}
        lacking = ""
        for number, command in enumerate([*MADE.get(page, []), *commands(page)]):
            if left_out(command):
                continue
            lacking = missing_here(command) or (lacking and f"{lacking}, for the commands before")
            if lacking:
                yield command, f"not executed: {lacking}"
                continue
            why = run(smaller(command), Path(folder), environment, STATUS.get(command, 0))
            if number >= len(MADE.get(page, [])) or why:
                yield command, why


def run(command: str, folder: Path, environment: Mapping[str, str], status: int = 0) -> str:
    """Why a command fails in a folder, or ends with another exit status than this; nothing where it does not."""
    try:
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"failed: not done after {PATIENCE} s"
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"failed: status {done.returncode}: {said[-1] if said else ''}" if done.returncode != status else ""


def main(chosen: list[str]) -> int:
    """Execute the commands of the pages that are named, else of all that no test executes; returns the exit status."""
    failed = 0
    for page in chosen or [page for page in pages() if not by_tests(page)]:
        begun = time.perf_counter()
        for command, why in execute(page):
            print(f"{'ok' if not why else '--' if why.startswith('not') else 'NO'}  {page}: {command}", flush=True)
            if why:
                print(f"    {why}", flush=True)
            failed += why.startswith("failed")
        print(f"    {page}: {time.perf_counter() - begun:.0f} s", flush=True)
    print(f"{failed} commands failed" if failed else "all commands that were executed succeeded")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
