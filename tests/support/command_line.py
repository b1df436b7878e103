"""The command line for tests: in this process, where imports are paid once; or as a process, where that is what is tested."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, contextmanager, nullcontext
from unittest.mock import patch

from athanor.cli import main

PATIENCE = 300
"""Seconds after which a test gives up what it waits for: it ends what hangs, and judges no speed, on however busy a computer."""

ATHANOR = [sys.executable, "-m", "athanor.cli"]
"""The command as a process of its own."""


def athanor(*arguments, cwd=None) -> subprocess.CompletedProcess[str]:
    """What a command prints and its exit status; it runs in this process, as it would on pipes."""
    words = ["athanor", *map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    status = 0
    with (
        chdir(cwd) if cwd else nullcontext(),
        patch.multiple(sys, argv=words, stdin=io.StringIO(), stdout=out, stderr=err),
        patch.dict(os.environ),
    ):
        try:
            main()
        except SystemExit as done:
            status = done.code or 0
    for stream in (out, err):
        stream.flush()
    printed, said = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(words, status, printed, said)


def eventually(condition, seconds=PATIENCE) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true)


def has_lines(path, count: int) -> bool:
    """Whether a file is there with so many whole lines."""
    return path.exists() and path.read_text().count("\n") >= count


@contextmanager
def answering_interrupts():
    """What starts in here takes SIGINT, however pytest was started.

    A shell starts jobs in the background with SIGINT ignored (so does ``nohup``'s caller, often), and every process
    below them ignores it as well. A signal that has a handler here is at its default in a process that starts here.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start(command, **settings) -> subprocess.Popen[str]:
    """Start a process that can be interrupted; its output is kept, as text."""
    kept = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **settings}
    with answering_interrupts():
        return subprocess.Popen([*map(str, command)], **kept)
