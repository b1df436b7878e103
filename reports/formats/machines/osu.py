"""What the OSU micro-benchmarks print, as a machine's calibration: latencies of messages and of blocking collectives.

A title says what was measured; then a line for each size, with the average latency in microseconds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from ....hardware.errors import InputError
from ....hardware.machine import Machine
from ..kinds import Asked, Importer, Makes
from ..reading.files import text
from ..reading.keys import Keys
from .measured import MeasuredCollective, calibrated

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

MICRO = 1e-6


def read_osu(path: str | Path, asked: Asked | None = None) -> Machine:
    """The machine of ``asked.machine`` with bandwidth and latency as measured, with their errors.

    The output does not say how many ranks there are and on how many hosts: ``asked.defined`` has ``ranks`` and ``hosts`` (of
    messages between two ranks, on two hosts unless it says 1).
    """
    asked = asked or Asked()
    return calibrated(measured_by_osu(path, asked), asked)


class OsuBenchmarks(Importer):
    """OSU micro-benchmarks, their text: bandwidth and latency of a machine (--machine has its other numbers)."""

    makes: ClassVar[Makes] = "machine"

    def read(self, path: Path, asked: Asked) -> Machine:
        """The machine."""
        return read_osu(path, asked)


def measured_by_osu(path: str | Path, asked: Asked) -> MeasuredCollective:
    """The times of an output, in seconds by bytes as simulations count them."""
    source = text(path)
    title = TITLE.search(source)
    test = title[1] if title else ""
    if test not in TESTS:
        raise InputError(f"{path}: {test or 'no title'} cannot be read; can be the OSU {', '.join(TESTS)}")
    kind, defined = TESTS[test], Keys(asked.defined, "--define")
    if kind == "bandwidth":
        raise InputError(f"{path}: the OSU Bandwidth Test has many messages under way at once; use the Latency Test")
    pair = kind == "message"
    ranks = defined.whole("ranks", default=2 if pair else None)
    if ranks is None:
        raise InputError(f"{path}: does not say how many ranks there are; --define ranks=N")
    hosts = defined.whole("hosts", default=2 if pair else None)
    if hosts is None:
        raise InputError(f"{path}: does not say on how many hosts its ranks are; --define hosts=N")
    seconds = {}
    for number, line in enumerate(source.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            size, time = int(words[0]), float(words[1])
        except (ValueError, IndexError):
            raise InputError(f"{path}: line {number}: must be a size and a latency, {line.strip()[:40]!r}") from None
        if not (0 <= size < 10**15 and 0 < time < 1e15):
            raise InputError(f"{path}: line {number}: must be a size and a latency above 0")
        if size:
            seconds[float(size * (ranks if kind == "all-gather" else 1))] = time * MICRO
    return MeasuredCollective(Path(path).name, "broadcast" if pair else kind, ranks, hosts, seconds)
