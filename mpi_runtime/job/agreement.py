"""What a job is about, compared by all ranks before it begins: each of them was started by a command line of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ...hardware.errors import AthanorError, Ended
from ...hardware.version import version
from .ending import TIME_LIMIT, Watchdog, ending_together, numbers_text
from .kept_memory import keep_freed_memory
from .world import World, refuse, start

ROOMS = ("hardware", "workloads", "mpi_runtime")
"""Whose code a job over MPI runs."""

MOST_TOLD = 3
"""Differences that a message names."""

LONGEST = 60
"""Characters of a value in a message."""

MISSING = "nothing"

JOINING = 30.0
"""Seconds that a rank which cannot begin waits for the others, to tell them."""


@contextmanager
def job(
    command: str, arguments: Mapping[str, Any], *, expect_ranks: int | None = None, time_limit: float = TIME_LIMIT
) -> Iterator[World]:
    """All of a job: MPI's start, the ranks' agreement on what they are about, and an end together, within the time limit.

    Raises :class:`InputError` where MPI is missing, :class:`Ended` where ranks were given different things.
    """
    keep_freed_memory()
    with Watchdog(time_limit) as watchdog:
        world = start(expect_ranks)
        watchdog.joined(world)
        with ending_together(world):
            _meet(world, "", {"command": command, **program()})
            _meet(world, "", {"--time-limit": time_limit, **arguments})
            yield world


def refuse_together(message: str, status: int) -> None:
    """End the job for what this rank alone, or every rank, has found wrong before the job began; raises :class:`Ended`.

    Returns where there is no MPI to tell the others by.
    """
    with Watchdog(JOINING) as watchdog:
        try:
            world = start()
        except AthanorError:
            return
        watchdog.joined(world)
        with ending_together(world):
            _meet(world, message, {}, status)


def agree_on(world: World, what: Mapping[str, Any]) -> None:
    """End the job, on all ranks alike, where they do not hold the same; keys are said as they are, values flattened."""
    _meet(world, "", what)


def _meet(world: World, refused: str, what: Mapping[str, Any], status: int = 0) -> None:
    """The meeting of all ranks: those that were refused say so, and the others compare digests, and texts where these differ."""
    texts = dict(_flat(what))
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
    met = world.comm.allgather((refused, status, digest))
    if all(each == met[0] for each in met) and not refused:
        return
    wrong = [rank for rank, (text, _, _) in enumerate(met) if text]
    if wrong:
        first, alike = wrong[0], all(each == met[0] for each in met)
        text = met[first][0] if alike else f"{world.named(first)}: {met[first][0]}"
        raise Ended(text if world.first else "", met[first][1])
    refuse(world, _differences(world, world.comm.allgather(texts)))


def _differences(world: World, given: list[dict[str, str]]) -> str:
    """Which ranks differ in what from most of the others."""
    told = []
    for key in dict.fromkeys(key for each in given for key in each):
        values = [each.get(key, MISSING) for each in given]
        usual, count = Counter(values).most_common(1)[0]
        if count < len(values):
            for value in dict.fromkeys(value for value in values if value != usual):
                ranks = [rank for rank, found in enumerate(values) if found == value]
                has = "has" if len(ranks) == 1 else "have"
                told.append(f"{numbers_text(ranks, world)} {has} {key} {_short(value)}, others {_short(usual)}")
    more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return f"ranks differ: {'; '.join(told[:MOST_TOLD])}{more}; start all with the same command and files"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every value by its dotted key, as text."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(each, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(value)


def flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the names that the command line gives them."""
    return {f"--{name.replace('_', '-')}": value for name, value in options.items()}


@cache
def program() -> dict[str, str]:
    """What runs: versions, and a digest of the code."""
    import mpi4py
    import numpy

    digest, root = hashlib.sha256(), Path(__file__).parents[2]
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return {
        "Athanor's version": version(),
        "Athanor's code": digest.hexdigest()[:12],
        "Python": platform.python_version(),
        "NumPy": numpy.__version__,
        "mpi4py": mpi4py.__version__,
    }
