"""A command of a job with a fault on one rank: ``faulty.py KIND RANK LIMIT WORDS…``.

The fault comes in the job's second step, and the time limit counts from then on: what a start takes depends on the computer.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from athanor.mpi_runtime.job.environment import Launcher, prepare

prepare()

kind, rank, limit, words = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
launcher = Launcher.of(os.environ)
mine = launcher is None or launcher.rank == rank


def fault(data):
    """What goes wrong."""
    match kind:
        case "exit":
            sys.exit(0)
        case "exit status":
            sys.exit(7)
        case "raise":
            raise ValueError("seven")
        case "memory":
            raise MemoryError
        case "hang":
            while True:
                time.sleep(0.1)
        case "spin":
            while True:
                pass
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        case "nan":
            for flat in data.holdings.flats:
                flat.share[...] = float("nan")


if mine and kind == "early":  # before the others can meet it
    sys.exit(0)

from athanor.mpi_runtime.execute import execute
from athanor.mpi_runtime.job.ending import Watchdog

step, steps = execute.ScheduledJob._step, []


def run(self, *which):
    steps.append(which)
    if len(steps) == 2:
        Watchdog(limit, self.world).__enter__()
        if mine:
            fault(self.data)
    return step(self, *which)


execute.ScheduledJob._step = run
sys.argv = ["athanor", *words]
from athanor.cli import main

main()
