"""What a rank needs, part by part, and whether it has that much; and the lines that the parts are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Part = Literal["parameters", "gradients", "optimizer", "activations", "other"]

Cut = Literal["tp", "tep", "etp", "tokens", "whole"]
"""By what activations shrink: by tp (or a grid's columns), by sequence parallelism (or these columns), or by neither."""

Keeper = Literal["pool", "update", "library"]
"""Who has it: the pool of the framework; the pool too, but only while weights are updated; or driver and libraries."""

PARTS: tuple[Part, ...] = ("parameters", "gradients", "optimizer", "activations", "other")


@dataclass(frozen=True)
class MemoryLine:
    """Bytes of one thing that the ranks of each stage hold, ``nbytes[stage]``: on the device, or in ``host`` memory.

    ``name`` is that of the operator that keeps it or of the model's part that it belongs to. For activations, ``cut`` says
    what they shrink with, and ``kept`` under which kinds of recomputation they are there. ``keeper`` says who has it.
    """

    part: Part
    name: str
    what: str
    nbytes: Array
    host: bool = False
    cut: Cut = "whole"
    kept: tuple[str, ...] = ()
    keeper: Keeper = "pool"

    def divided(self, away: float) -> Iterator[MemoryLine]:
        """The line, of which a share lies in host memory."""
        if not away:
            yield self
            return
        if away < 1:
            yield replace(self, nbytes=(1 - away) * self.nbytes)
        if away > 0:
            yield replace(self, nbytes=away * self.nbytes, host=True)


@dataclass(frozen=True)
class Memory:
    """Bytes of the fullest rank of a stage, and what a rank has (``capacity``), on the device and in its host's memory.

    Frameworks print two of three numbers, and the system the third, which is ``total``: ``allocated`` is the most that tensors
    take at once (PyTorch's ``max_memory_allocated``), ``reserved`` what the pool of the framework takes from the device for them
    (``max_memory_reserved``); what driver and libraries keep comes on top.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    other: float
    capacity: float
    host: float = 0.0
    host_capacity: float = inf
    stage: int = 0
    allocated: float = 0.0
    reserved: float = 0.0

    @property
    def total(self) -> float:
        """All that a rank holds on the device."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.other

    @property
    def pressure(self) -> float:
        """The larger of the two shares that are taken, of the device's memory and of the host's."""
        return max(self.total / self.capacity, self.host / self.host_capacity)

    @property
    def fits(self) -> bool:
        """Whether it is no more than the rank has, here and there."""
        return bool(self.pressure <= 1)

    def __str__(self) -> str:
        """What a rank needs, and what there is; of the host where that is too little."""
        here = f"{self.total / 1e9:.1f} GB a rank of {self.capacity / 1e9:.1f} GB"
        if self.host <= self.host_capacity:
            return here
        host = f"{self.host / 1e9:.1f} GB of host memory of {self.host_capacity / 1e9:.1f} GB"
        return f"{here}, {host}" if self.total > self.capacity else f"{host} a rank"

    def printed(self) -> dict[str, float]:
        """The three numbers that people compare with, in bytes."""
        return {"peak_allocated": self.allocated, "reserved": self.reserved, "by_the_system": self.total}

    def table(self) -> dict[str, float]:
        """Every part, the total and the capacity of the device."""
        return {**{part: getattr(self, part) for part in PARTS}, "total": self.total, "capacity": self.capacity}
