"""What makes equal ranks unequal: nodes of different speed, and jitter from operation to operation; both seeded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...workloads.mesh.placement import Layout

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Multiplies compute times.

    ``spread`` is the relative standard deviation of the nodes' speeds, drawn once for a seed; ``jitter`` that of every
    operation on every node, drawn anew each time. Both are log-normal with mean 1, so that neither changes the mean
    work.
    """

    layout: Layout
    spread: float
    jitter: float
    seed: int
    step: int
    block: tuple[int, ...] = ()

    def slowness(self) -> Array | float:
        """How much longer than usual each rank's node takes, broadcasting over the mesh; 1.0 where all are alike."""
        if not self.spread:
            return 1.0
        return self._of_nodes(np.random.default_rng([self.seed, 4]), self.spread)

    def of_operation(self, number: int) -> Array | float:
        """The jitter of one operation of the step on each rank; 1.0 where there is none."""
        if not self.jitter:
            return 1.0
        return self._of_nodes(np.random.default_rng([self.seed, 5, self.step, *self.block, number]), self.jitter)

    def within(self, block: int) -> Noise:
        """The noise within a block of a pipeline: drawn once, however often the block is run."""
        return replace(self, block=(block,))

    def _of_nodes(self, random: np.random.Generator, deviation: float) -> Array:
        sigma = np.sqrt(np.log1p(deviation**2))
        normal = random.standard_normal(int(self.layout.node.max()) + 1, dtype=np.float32)
        factor: Array = np.exp(sigma * normal - sigma**2 / 2, dtype=np.float64)
        return factor[self.layout.node].reshape(self.layout.mesh.shape)
