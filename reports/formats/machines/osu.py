"""What the OSU micro-benchmarks print, as a machine's calibration: latencies of messages and of blocking collectives.

A title says what was measured; then a line for each size, with the average latency in microseconds.
"""

from __future__ import annotations

import re
from pathlib import Path

from ....hardware.errors import InputError
from ....hardware.machine import Machine
from ..kinds import Asked
from ..reading.files import text
from .measured import MICRO, LogImporter, MeasuredCollective, ranks_and_hosts, size_and_time

TITLE = re.compile(r"^#\s*OSU\s+\S+\s+(.*?)\s*(?:v[\d.]+.*)?$", re.MULTILINE)

TESTS = {
    "Latency Test": "message",
    "Bandwidth Test": "bandwidth",
    "Allreduce Latency Test": "all-reduce",
    "Allgather Latency Test": "all-gather",
    "Alltoall Latency Test": "all-to-all",
    "All-to-All Personalized Exchange Latency Test": "all-to-all",
    "Reduce_scatter Latency Test": "reduce-scatter",
    "Broadcast Latency Test": "broadcast",
    "Reduce Latency Test": "reduce",
}


def read_osu(path: str | Path, asked: Asked | None = None) -> Machine:
    """The machine of ``asked.machine`` with bandwidth and latency as measured, with their errors.

    The output does not say how many ranks there are and on how many hosts: ``asked.defined`` has ``ranks`` and ``hosts`` (of
    messages between two ranks, on two hosts unless it says 1).
    """
    return OsuBenchmarks().read(Path(path), asked or Asked())


class OsuBenchmarks(LogImporter):
    """OSU micro-benchmarks, their text: bandwidth and latency of a machine (--machine has its other numbers)."""

    @staticmethod
    def measured(path: str | Path, asked: Asked) -> MeasuredCollective:
        """The times, in seconds."""
        return measured_by_osu(path, asked)


def measured_by_osu(path: str | Path, asked: Asked) -> MeasuredCollective:
    """The times of an output, in seconds by bytes as simulations count them."""
    source = text(path)
    title = TITLE.search(source)
    test = title[1] if title else ""
    if test not in TESTS:
        raise InputError(f"{path}: {test or 'no title'} cannot be read; can be the OSU {', '.join(TESTS)}")
    kind = TESTS[test]
    if kind == "bandwidth":
        raise InputError(f"{path}: the OSU Bandwidth Test has many messages under way at once; use the Latency Test")
    pair = kind == "message"
    ranks, hosts = ranks_and_hosts(path, asked, *((2, 2) if pair else (None, None)))
    seconds = {}
    for number, line in enumerate(source.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        size, time = size_and_time(words, 1, f"{path}: line {number}")
        if size:
            seconds[float(size * (ranks if kind == "all-gather" else 1))] = time * MICRO
    return MeasuredCollective(Path(path).name, "broadcast" if pair else kind, ranks, hosts, seconds)
