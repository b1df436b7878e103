"""Jobs of real MPI processes for tests: started, waited for, and never left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.command_line import PATIENCE, start
from support.paths import JOBS

BIN = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=str(BIN)) or shutil.which("mpiexec")

OPEN_MPI = MPIEXEC is not None and (Path(MPIEXEC).parent / "ompi_info").exists()
"""Whether jobs are started by Open MPI. Its mpiexec answers Ctrl-C itself: it ends all ranks, and its status is 1."""

ASKED = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
"""What Open MPI's mpiexec wants to hear before it starts ranks as root, or more ranks than cores; MPICH's does not ask."""

for name, value in ASKED.items():
    os.environ.setdefault(name, value)

needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec: extra mpich is not installed")


def command(ranks, *args):
    """The mpiexec of this environment and the command of each rank; ``athanor`` and ``python`` are its own as well."""
    program = {"athanor": str(BIN / "athanor"), "python": sys.executable}[args[0]]
    return [MPIEXEC, "-n", str(ranks), program, *map(str, args[1:])]


def job(ranks, *args, timeout=PATIENCE, **environment):
    """Run a job to its end; returns its CompletedProcess with text."""
    return subprocess.run(
        command(ranks, *args),
        stdin=subprocess.DEVNULL,  # mpiexec reads it: in the background of a terminal that would stop it
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class Told:
    """What one command of a job said: each rank's exit status, output and errors, and the files that were there after it."""

    statuses: set[int]
    out: str
    errors: str
    files: list[str]

    @property
    def said(self) -> list[str]:
        """What Athanor itself said, line by line, whatever rank said it."""
        return [line for line in self.errors.splitlines() if line.startswith("athanor: ")]


def told(folder, ranks, commands, timeout=PATIENCE):
    """What each of ``commands`` says that one job runs in turn in ``folder``: MPI starts once for all of them."""
    words, path = [[str(word) for word in words] for words in commands], folder.parent / f"{folder.name}.told.json"
    done = subprocess.run(
        command(ranks, "python", JOBS / "commands.py", path, json.dumps(words)),
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found = []
    for each in json.loads(path.read_text()):
        statuses, out, errors = zip(*each["ranks"], strict=True)
        found.append(Told(set(statuses), "".join(out), "".join(errors), each["files"]))
    return found


def begin(ranks, *args):
    """Start a job in a session of its own."""
    return start(command(ranks, *args), start_new_session=True)


def members(process):
    """The process ids of what descends from a job's mpiexec."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != process.pid:
            above = parents[above]
        if above == process.pid and pid != process.pid:
            found.append(pid)
    return sorted(found)


def read(path):
    """A file of a process; nothing where the process has ended."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def ranks_of(process, count, timeout=PATIENCE):
    """The ranks of a job, once all of them have loaded MPI: what they are called, and in which folder they lie, says nothing."""
    until = time.monotonic() + timeout
    while time.monotonic() < until and process.poll() is None:
        found = [pid for pid in members(process) if "libmpi" in read(f"/proc/{pid}/maps")]
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{count} ranks never ran")


def says(process, text):
    """Whether a job that was begun says something on stderr; waits for it."""
    return any(text in line for line in iter(process.stderr.readline, ""))


def gone(pids, timeout=PATIENCE):
    """Whether processes end within a time."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if not any(running(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def finish(process, timeout=PATIENCE):
    """(exit status, stdout, stderr) of a job that was begun; it is killed where it does not end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err
