"""What makes equal ranks unequal: nodes of different speed, drawn or named, and jitter from operation to operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...workloads.mesh.placement import Layout
from ...workloads.plan.setting import Setting

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """Multiplies compute times.

    ``spread`` is the relative standard deviation of the nodes' speeds, drawn once for a seed; ``jitter`` that of every
    operation on every node, drawn anew each time. Both are log-normal with mean 1, so that neither changes the mean
    work. ``slow`` names nodes that take so many times as long beside.
    """

    layout: Layout
    spread: float
    jitter: float
    seed: int
    step: int
    block: tuple[int, ...] = ()
    slow: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, setting: Setting, step: int) -> Noise:
        """The noise of a plan's step; raises :class:`InputError` where no rank lives on a node that is named as slow."""
        plan, layout = setting.plan, setting.layout
        slow = plan.slowness_of_nodes
        idle = sorted(set(slow).difference(np.unique(layout.node).tolist() if slow else ()))
        if idle:
            raise InputError(
                f"--slow-nodes {plan.slow_nodes}: no rank of --mesh {setting.mesh} lives on node {idle[0]:,}"
            )
        return cls(layout, plan.speed_spread, plan.jitter, plan.seed, step, slow=slow)

    def slowness(self) -> Array | float:
        """How much longer than usual each rank's node takes, broadcasting over the mesh; 1.0 where all are alike."""
        drawn = self._of_nodes(np.random.default_rng([self.seed, 4]), self.spread) if self.spread else 1.0
        if not self.slow:
            return drawn
        named = np.ones(int(self.layout.node.max()) + 1)
        named[list(self.slow)] = list(self.slow.values())
        every: Array = named[self.layout.node].reshape(self.layout.mesh.shape) * drawn
        return every

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
