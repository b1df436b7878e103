"""What nccl-tests print, or write with -J, as a machine's calibration.

Text: comments with ``#``, among them a line for each rank and the names of columns; then a line for each size. Times are in
microseconds, of the run out of place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....hardware.errors import InputError
from ....hardware.machine import Machine
from ..kinds import Asked
from ..reading.files import text
from ..reading.keys import Keys
from ..reading.trees import json_of
from .measured import FITTED, MICRO, LogImporter, MeasuredCollective, ranks_and_hosts, size_and_time

RANK = re.compile(r"^#\s+Rank\s+\d+\s.*?\bon\s+(\S+)\s+device", re.MULTILINE)
NAMED = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|alltoall|broadcast|reduce)_perf\b")
OPERATIONS = {
    "all_reduce": "all-reduce",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "alltoall": "all-to-all",
    "broadcast": "broadcast",
    "reduce": "reduce",
}


def read_nccl_tests(path: str | Path, asked: Asked | None = None) -> Machine:
    """The machine of ``asked.machine`` with bandwidth and latency as measured, with their errors.

    ``asked.defined`` has what the log leaves open: ``operation`` (older ones do not say it), ``ranks`` and ``hosts``. Raises
    :class:`InputError` that says what is missing or wrong.
    """
    return NcclTests().read(Path(path), asked or Asked())


class NcclTests(LogImporter):
    """nccl-tests, text or JSON: bandwidth and latency of a machine (--machine has its other numbers)."""

    @staticmethod
    def measured(path: str | Path, asked: Asked) -> MeasuredCollective:
        """The times, in seconds."""
        return measured_by_nccl(path, asked)


def measured_by_nccl(path: str | Path, asked: Asked) -> MeasuredCollective:
    """The times of a log, in seconds by bytes as simulations count them."""
    source = text(path)
    defined = Keys(asked.defined, "--define")
    told, hosts, rows = _of_json(source, str(path)) if source.lstrip().startswith("{") else _of_text(source, str(path))
    operation = defined.text("operation", default=told)
    operation = OPERATIONS.get(str(operation), operation)
    if operation not in FITTED:
        raise InputError(
            f"{path}: does not say which operation it measures; --define operation=NAME of {', '.join(FITTED)}"
        )
    ranks, count = ranks_and_hosts(path, asked, len(hosts) or None, len(dict.fromkeys(hosts)) or 1)
    each = ranks if operation == "all-to-all" else 1
    seconds = {size / each: time * MICRO for size, time in rows if size >= each and time > 0}
    return MeasuredCollective(Path(path).name, str(operation), ranks, count, seconds)


Log = tuple[str | None, list[str], list[tuple[float, float]]]
"""The operation where it is told, the host of each rank, and (bytes, microseconds)."""


def _of_text(source: str, name: str) -> Log:
    column: int | None = None
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(source.splitlines(), 1):
        words = line.split()
        if line.lstrip().startswith("#"):
            heads = [word for word in words if word != "#"]
            if heads[:2] == ["size", "count"] and "time" in heads:
                column = heads.index("time")
            continue
        if column is None or len(words) <= column or not words[0].isdecimal():
            continue
        rows.append(size_and_time(words, column, f"{name}: line {number}"))
    if not rows:
        raise InputError(
            f"{name}: has no lines of sizes and times below a line of columns, # size count type ... time algbw busbw"
        )
    told = NAMED.search(source)
    return told and told[1], RANK.findall(source), rows


def _of_json(source: str, name: str) -> Log:
    """Objects with a size and times, wherever they are; ranks and the operation from the objects around them."""
    table = json_of(source, name)
    rows, hosts, told = [], [], None
    for keys, each in _objects(table):
        if "size" in each and (inside := each.get("out_of_place", each.get("outOfPlace", each))) is not None:
            inside = inside if isinstance(inside, dict) else {}
            time = next((inside[key] for key in ("time", "time_us", "time_usec", "timeUsec") if key in inside), None)
            if time is not None:
                rows.append((_value(each["size"], name, "size"), _value(time, name, "time")))
        host = each.get("host", each.get("hostname"))
        if isinstance(host, str) and ({"rank", "device", "gpu", "pid"} & {*each}):
            hosts.append(host)
        if told is None:
            words = " ".join(str(value) for key, value in each.items() if key in keys and isinstance(value, str))
            told = NAMED.search(words)
    if not rows:
        raise InputError(f"{name}: has no objects with a size and a time")
    return told and told[1], hosts, rows


TELLING = ("test", "name", "command", "cmd", "binary", "collective", "args")
"""Keys that may name the program that measured."""


def _objects(value: Any, depth: int = 0) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if depth > 20:
        return
    if isinstance(value, dict):
        yield TELLING, value
        for each in value.values():
            yield from _objects(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each, depth + 1)


def _value(value: Any, name: str, key: str) -> float:
    return float(Keys({key: value}, name).number(key))
