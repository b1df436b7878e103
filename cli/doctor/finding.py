"""A finding: one thing that Athanor uses, whether it works here, and what to do where it does not."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PATIENCE = 60.0
"""Seconds that a program has to answer."""


@dataclass(frozen=True)
class Finding:
    """What was found.

    ``found`` is what is there, or why it does not work; ``needed`` says for what; ``do`` what makes it work, and is empty where
    nothing has to be done. Without what is ``core`` nothing works.
    """

    subject: str
    works: bool
    found: str
    needed: str = ""
    do: str = ""
    core: bool = False

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """What a program printed and said, and its exit status; None where it could not be started or did not end."""

    status: int | None
    out: str
    said: str

    @property
    def reason(self) -> str:
        """What it said last: where a program fails, that is the reason."""
        lines = [line.strip() for line in (self.said or self.out).splitlines() if line.strip()]
        return lines[-1] if lines else f"it ended with status {self.status} and said nothing"


def answer(command: Sequence[str], environment: Mapping[str, str] | None = None, patience: float = PATIENCE) -> Answer:
    """Start a program and wait for it; it is killed where it takes longer than ``patience`` seconds."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"no answer within {patience:g} s")
    except OSError as reason:
        return Answer(None, "", f"cannot be started: {reason.strerror}")
    return Answer(done.returncode, done.stdout, done.stderr)
