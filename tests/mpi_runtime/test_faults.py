"""Whatever one rank does ends the whole job: with one line that names it, the right status, and within the time limit."""

import os
import re

import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.locks import lock
from support.mpi_jobs import BIN, MPIEXEC, begin, finish, gone, job, needs_mpi, ranks_of
from support.paths import JOBS

TINY = ["--model", "moda-tiny", "--mesh", "dp=2", "--tokens-per-rank", "64", "--steps", "3", "--no-check"]


def said(text):
    return [line for line in text.splitlines() if line.startswith("athanor: ")]


def faulty(kind, rank, limit):
    return ["python", JOBS / "faulty.py", kind, rank, limit, "execute", *TINY]


@needs_mpi
@pytest.mark.parametrize(
    ("kind", "status", "line"),
    [
        ("exit", 1, r"rank 1 on \S+: left the job, with sys\.exit\(0\)"),
        ("nan", 1, r"rank 1 on \S+: loss of step 1: no number \(NaN or infinite\)"),
    ],
)
def test_a_rank_that_fails_is_named(kind, status, line):
    done = job(2, *faulty(kind, 1, 60))
    (found,) = said(done.stderr)
    assert re.fullmatch(f"athanor: ({line})", found)
    assert (done.returncode, done.stdout) == (status, "")


@needs_mpi
@pytest.mark.parametrize(("stopped", "speaks"), [(0, "rank 0"), (1, "rank 1")])
def test_the_time_limit_holds_with_a_stopped_rank(stopped, speaks):
    process = begin(2, *faulty("stop", stopped, 1))
    ranks = ranks_of(process, 2)
    status, _, errors = finish(process)
    assert status == 124
    (line,) = said(errors)
    assert re.fullmatch(rf"athanor: --time-limit 1: .* \({speaks} on \S+ does not answer\)", line)
    assert gone(ranks)


@needs_mpi
@pytest.mark.parametrize(
    ("one", "other", "line"),
    [
        (
            ["execute", *TINY], ["execute", *TINY, "--steps", "2"],
            "ranks differ: rank 1 on HOST has --steps 2, others 3; start all with the same command and files",
        ),
        (["execute", *TINY], ["calibrate", "-o", "m.toml"], "ranks differ: rank 1 on HOST has command calibrate, others execute; .*"),
        (["execute", *TINY], ["execute", *TINY, "--machine", "none.toml"], "rank 1 on HOST: none.toml: no such file"),
    ],
)  # fmt: skip
def test_ranks_that_were_started_differently_say_in_what(one, other, line, tmp_path):
    import subprocess

    athanor = str(BIN / "athanor")
    words = [MPIEXEC, "-n", "1", athanor, *one, ":", "-n", "1", athanor, *other]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL)
    (found,) = said(done.stderr)
    assert re.fullmatch("athanor: " + line.replace("HOST", r"\S+"), found)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])


def test_a_limit_holds_while_no_python_runs(tmp_path):
    """As in MPI_Init, which holds Python's lock: here with a sleep that does."""
    import subprocess
    import sys

    code = (
        "import ctypes\nfrom athanor.mpi_runtime.job.ending import Watchdog\n"
        "with Watchdog(0.3): ctypes.PyDLL(None).sleep(30)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 124
    assert (
        done.stderr.strip()
        == "athanor: --time-limit 0.3: the job ran longer and was ended; MPI had not started on all ranks"
    )


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_one_process_writes_another_leaves_alone(kind, tmp_path):
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    mine = lock(path)
    assert lock(path) is mine
    child = os.fork()
    if not child:
        from athanor.hardware import locks

        locks._HELD = {}
        try:
            lock(path)
        except InputError as reason:
            os._exit(7 if str(os.getppid()) in str(reason) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    del mine
    assert lock(path) is not None
