"""Times of collectives that a benchmark measured, and the machine that gives the same ones: two numbers fitted, with errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import AthanorError, InputError
from ....hardware.machine import Machine, load_machine
from ....hardware.units import si
from ..kinds import Asked, Importer, Makes
from ..reading.keys import Keys

MOST_RANKS, MOST_SIZES = 4096, 24
"""Ranks of a log that is fitted, and sizes of it that are simulated: evenly spread over all."""

DIGITS = 4

MICRO = 1e-6
"""Benchmarks print microseconds."""

FITTED = {
    "all-reduce": ("ring", "halving-doubling", "binary-tree"),
    "all-gather": ("ring", "recursive-doubling", "bruck"),
    "reduce-scatter": ("ring", "recursive-halving"),
    "all-to-all": ("linear", "pairwise-shift"),
    "broadcast": ("chain", "binomial"),
    "reduce": ("chain", "binomial"),
}
"""Algorithms that are tried; the one with the least error is taken."""


MOST_BYTES, LEAST_SECONDS, MOST_SECONDS = 1e15, 1e-9, 1e6
"""Beyond these no collective was measured, and numbers run out of range."""


@dataclass(frozen=True)
class MeasuredCollective:
    """Seconds of an operation by its bytes: what a rank sends to each other one for an all-to-all, else a rank's whole vector."""

    source: str
    operation: str
    ranks: int
    hosts: int
    seconds: Mapping[float, float]


@dataclass(frozen=True)
class Fit:
    """What was fitted: the machine, the algorithm, and how far simulated times are from each measured one, as shares of it."""

    machine: Machine
    algorithm: str
    errors: Mapping[float, float]

    def __str__(self) -> str:
        """The errors in a line."""
        sizes, errors = [*self.errors], np.abs([*self.errors.values()])
        worst = int(np.argmax(errors))
        return (
            f"{self.algorithm}: simulated times are {np.median(errors):.1%} off in the median of {len(sizes)} sizes, at most"
            f" {errors[worst]:.1%} at {si(sizes[worst], 'B')}"
        )


class LogImporter(Importer):
    """A benchmark's log, read as a machine: a format says how times are read (``measured``)."""

    makes: ClassVar[Makes] = "machine"

    @staticmethod
    @abstractmethod
    def measured(path: str | Path, asked: Asked) -> MeasuredCollective:
        """The times of a log, in seconds by bytes as simulations count them."""

    def read(self, path: Path, asked: Asked) -> Machine:
        """The machine of ``asked.machine`` with bandwidth and latency as measured, with their errors."""
        return calibrated(self.measured(path, asked), asked)


def ranks_and_hosts(source: str | Path, asked: Asked, ranks: int | None, hosts: int | None) -> tuple[int, int]:
    """How many there are: as ``asked.defined`` says, else as a log does (None: it does not); raises :class:`InputError`."""
    found = {}
    for key, what, told in (
        ("ranks", "how many ranks there are", ranks),
        ("hosts", "on how many hosts its ranks are", hosts),
    ):
        number = Keys(asked.defined, "--define").whole(key, default=told)
        if number is None:
            raise InputError(f"{source}: does not say {what}; --define {key}=N")
        found[key] = number
    return found["ranks"], found["hosts"]


def size_and_time(words: Sequence[str], column: int, where: str) -> tuple[int, float]:
    """(bytes, microseconds) of a line of a log: its first word, and that of a column; raises :class:`InputError`."""
    try:
        size, time = int(words[0]), float(words[column])
        if 0 <= size < MOST_BYTES and 0 <= time < MOST_SECONDS / MICRO:
            return size, time
    except (ValueError, IndexError):
        pass
    raise InputError(f"{where}: must be a size and a time from 0 on, {' '.join(words)[:40]!r}")


def calibrated(measured: MeasuredCollective, asked: Asked) -> Machine:
    """The machine of ``asked`` with a bandwidth and a latency that give these times; tells how well they do.

    Raises :class:`InputError` where no machine is named, it has no room for the ranks, or the log has no times.
    """
    if asked.machine is None:
        raise InputError(
            f"{measured.source}: says nothing of the other numbers of a machine; --machine names one to take them from"
        )
    found = fitted(measured, load_machine(asked.machine))
    asked.tell(str(found))
    name = asked.name or found.machine.name
    return found.machine.model_copy(update={"name": name})


def fitted(measured: MeasuredCollective, base: Machine) -> Fit:
    """The fit with the algorithm whose errors are least.

    On one host the bandwidth of a core group's port and the latency inside a node are fitted, over several the network's
    efficiency and all latencies by one factor; with them the time for each message. Simulated times of an algorithm are linear in
    seconds a byte and in what messages wait: three simulations of each size tell by how much, and least squares of relative
    errors do the rest.
    """
    if not measured.seconds:
        raise InputError(f"{measured.source}: has no measured times")
    for size, seconds in measured.seconds.items():
        if not (0 <= size <= MOST_BYTES and LEAST_SECONDS <= seconds <= MOST_SECONDS):
            allowed = f"up to {MOST_BYTES:g} bytes in {LEAST_SECONDS:g} to {MOST_SECONDS:g} s can be fitted"
            raise InputError(f"{measured.source}: {size:g} bytes take {seconds:g} s; {allowed}")
    if measured.ranks < 2 or measured.ranks > MOST_RANKS:
        raise InputError(f"{measured.source}: {measured.ranks} ranks; can be fitted from 2 to {MOST_RANKS:,}")
    each, rest = divmod(measured.ranks, measured.hosts)
    if rest:
        raise InputError(f"{measured.source}: {measured.ranks} ranks are not equally many on {measured.hosts} hosts")
    if base.node.core_groups % each:
        raise InputError(
            f"{measured.source}: {each} ranks a host do not divide the {base.node.core_groups} core groups of {base.name}"
        )
    sizes = np.array(sorted(measured.seconds))
    if len(sizes) > MOST_SIZES:
        sizes = sizes[np.unique(np.linspace(0, len(sizes) - 1, MOST_SIZES).astype(int))]
    times = np.array([measured.seconds[size] for size in sizes])
    tries = [_fit(measured, base, algorithm, sizes, times, each) for algorithm in FITTED[measured.operation]]
    done = [each for each in tries if each is not None]
    if not done:
        raise InputError(f"{measured.source}: no algorithm of {measured.operation} runs on {measured.ranks} ranks")
    return min(done, key=lambda fit: float(np.mean(np.square([*fit.errors.values()]))))


def _fit(
    measured: MeasuredCollective,
    base: Machine,
    algorithm: str,
    sizes: NDArray[np.float64],
    times: NDArray[np.float64],
    each: int,
) -> Fit | None:
    """The fit with one algorithm; None where it does not run on so many ranks."""
    inside = measured.hosts == 1
    rate = "node.ring_bandwidth" if inside else "calibration.network_efficiency"
    waits = _waits(base, inside)

    def simulated(slowness: float, factor: float) -> NDArray[np.float64]:
        from ....sim.studies.collective import Collective

        machine = base.changed({rate: 1.0 / slowness, **{key: factor * value for key, value in waits.items()}})
        what = Collective(machine, measured.operation, measured.ranks, ranks_per_node=each, depth="auto")
        return np.array([what.run(algorithm, float(size)).seconds for size in sizes])

    first = 1.0 / (base.node.ring_bandwidth if inside else base.calibration.network_efficiency)
    try:
        plain = simulated(first, 0.0)
        of_bytes, of_waits = (simulated(2.0 * first, 0.0) - plain) / first, simulated(first, 1.0) - plain
    except AthanorError:
        return None
    shares = of_bytes / times, of_waits / times, 1.0 - (plain - of_bytes * first) / times
    slowness, factor = _least(*shares)
    if slowness <= 0:
        return None
    slowness = slowness if inside else max(slowness, 1.0)  # no more than the wire rate
    spread = _spread(*shares, (slowness, factor))
    off = {rate: spread[0] / slowness, **dict.fromkeys(waits, spread[1] / factor if factor else 0.0)}
    values = {rate: 1.0 / slowness, **{key: factor * value for key, value in waits.items()}}
    values = {key: float(f"{value:.{DIGITS}g}") for key, value in values.items()}
    made = base.changed(values)
    about = (
        f"calibrated: {measured.source}, {measured.operation} ({algorithm}) of {measured.ranks} ranks on {measured.hosts}"
        f" host{'s' * (measured.hosts > 1)}, {len(sizes)} sizes"
    )
    sources = {**base.sources, **{key: f"{about}; ±{off[key]:.2%}" for key in values}}
    errors = simulated(slowness, factor) / times - 1.0
    return Fit(
        made.model_copy(update={"sources": sources}),
        algorithm,
        dict(zip(map(float, sizes), map(float, errors), strict=True)),
    )


def _waits(base: Machine, inside: bool) -> dict[str, float]:
    """What a message waits, by key: all of it is fitted by one factor. Times for a message's way, and for the message itself."""
    fabric = base.fabric.model_dump(mode="python")
    found = {f"fabric.{key}": value for key, value in fabric.items() if key.startswith("latency")}
    for number, tier in enumerate(fabric.get("tiers", ())):
        found[f"fabric.tiers.{number}.latency"] = tier["latency"]
    if inside:
        found = {key: value for key, value in found.items() if key == "fabric.latency_node"}
    found["calibration.message_overhead"] = base.calibration.message_overhead
    if not any(found.values()):
        found["calibration.message_overhead"] = 1e-6
    return {key: float(value) for key, value in found.items() if value}


def _least(one: NDArray[np.float64], two: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    """The two numbers from 0 on by which ``one`` and ``two`` come nearest to what is wanted."""
    found, *_ = np.linalg.lstsq(np.stack([one, two], axis=1), wanted, rcond=None)
    if found.min() >= 0:
        return float(found[0]), float(found[1])
    if found[1] < 0:
        return max(0.0, float(one @ wanted / (one @ one))), 0.0
    return 0.0, max(0.0, float(two @ wanted / (two @ two))) if two.any() else 0.0


def _spread(
    one: NDArray[np.float64], two: NDArray[np.float64], wanted: NDArray[np.float64], found: tuple[float, float]
) -> tuple[float, float]:
    """Standard errors of both numbers, from what is left of the sizes."""
    design = np.stack([one, two], axis=1)
    left = wanted - design @ np.array(found)
    freedom = max(1, len(wanted) - 2)
    covariance = np.linalg.pinv(design.T @ design) * float(left @ left) / freedom
    return float(np.sqrt(covariance[0, 0])), float(np.sqrt(covariance[1, 1]))
