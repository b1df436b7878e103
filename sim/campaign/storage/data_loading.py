"""How long steps wait for data: reading, decoding, and batches that are fetched ahead."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....hardware.machine import Machine
from ....hardware.site.storage import Storage
from ....workloads.datasets import Dataset
from .file_system import transfer

Array = NDArray[np.float64]

ROUNDING = 1e-9
"""Share of a step below which a stall is rounding."""

SIMULATED = 400
"""Steps for which loading is played."""


@dataclass(frozen=True)
class DataLoading:
    """Loading of one step's samples, by every node its share. ``step_seconds`` are those of a step with what it waits for data.

    ``read_seconds`` and ``decode_seconds`` are the means of a batch; ``stall_seconds`` is what a step waits for it on average,
    and ``utilisation`` the share of the time that accelerators have data (MLPerf Storage's AU). ``fill_seconds`` is what a start
    takes until the shuffle buffer and the first batch are there.
    """

    dataset: str
    bytes_per_step: float
    bytes_per_second: float
    read_seconds: float
    read_limit: str
    decode_seconds: float
    stall_seconds: float
    step_seconds: float
    fill_seconds: float
    utilisation: float

    def table(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def load_steps(
    data: Dataset,
    samples: float,
    step_seconds: float,
    machine: Machine,
    storage: Storage,
    nodes: int,
    *,
    prefetch: int = 2,
    workers: int = 4,
    shuffle: int = 0,
    seed: int = 0,
) -> DataLoading:
    """Loading of steps of ``samples`` on ``nodes`` nodes, each with so many ``workers`` that decode.

    ``prefetch`` batches may be ready ahead of their step, and ``shuffle`` samples a node are read before the first one. A
    step begins when the slowest node has its batch.
    """
    nbytes = samples * data.sample_bytes
    files = max(1, round(samples / data.samples_per_file))
    read = transfer(machine, storage, nodes, nbytes, files, reading=True)
    decode = samples / nodes * data.decode / workers
    random = np.random.default_rng([seed, 8])
    each = max(1.0, samples / nodes)
    spread = data.deviation / sqrt(each)
    # one node's large batch holds all up where nodes' own ways limit; servers see the mean of all
    slowest = 1.0 + spread * (
        largest_normal(random, nodes, SIMULATED) if read.limit == "nodes" else np.zeros(SIMULATED)
    )
    reads = read.seconds * np.maximum(slowest, 0.0)
    stall = mean_stall(reads, np.full(SIMULATED, decode), step_seconds, prefetch)
    ahead = shuffle * data.sample_bytes * nodes
    fill = transfer(machine, storage, nodes, ahead, 1, reading=True).seconds if shuffle else 0.0
    return DataLoading(
        data.name,
        nbytes,
        nbytes / step_seconds,
        read.seconds,
        read.limit,
        decode,
        stall,
        step_seconds + stall,
        fill + read.seconds + decode,
        step_seconds / (step_seconds + stall),
    )


def mean_stall(reads: Array, decodes: Array, step_seconds: float, prefetch: int) -> float:
    """Seconds that a step waits for its batch on average, the first one left out.

    Batches are read one after another, and decoded one after another. The reading of a batch begins when the step that is
    ``prefetch`` batches before it does, so that no more of them lie ready; with 0 it begins when the step before it has ended.
    """
    begun: list[float] = []
    was_read = was_decoded = 0.0
    for number, (read, decode) in enumerate(zip(reads.tolist(), decodes.tolist(), strict=True)):
        if prefetch == 0:
            free = begun[-1] + step_seconds if begun else 0.0
        else:
            free = begun[number - prefetch] if number >= prefetch else 0.0
        was_read = max(was_read, free) + read
        was_decoded = max(was_decoded, was_read) + decode
        begun.append(max(was_decoded, begun[-1] + step_seconds if begun else 0.0))
    if len(begun) < 2:
        return 0.0
    stall = (begun[-1] - begun[0]) / (len(begun) - 1) - step_seconds
    return stall if stall > ROUNDING * step_seconds else 0.0


def largest_normal(random: np.random.Generator, of: int, count: int) -> Array:
    """The largest of so many standard normal numbers, drawn ``count`` times; from eight on by its limit law (Gumbel)."""
    if of < 8:
        drawn: Array = random.standard_normal((count, of)).max(axis=1)
        return drawn
    scale = sqrt(2.0 * log(of))
    middle = scale - (log(log(of)) + log(4.0 * pi)) / (2.0 * scale)
    found: Array = middle - np.log(-np.log(random.random(count))) / scale
    return found
