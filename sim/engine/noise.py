"""What makes equal ranks unequal: nodes of different speed, drawn or named, and jitter from operation to operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...workloads.mesh.placement import Layout
from ...workloads.plan.setting import Setting

Array = NDArray[np.float64]

PARTS = 1 << 16
"""Parts of equal probability of the normal law, of which a number of 16 bits chooses one."""

TAIL = 128
"""Parts at either end of the law within which a value is drawn anew: in all others their middle is it."""

FARTHEST, GRID = 9.0, 1 << 17
"""Deviations up to which the law is tabulated, which one number in 10^19 exceeds, and points on either side of its middle."""


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
        if not self.spread and not self.slow:
            return 1.0
        layout, every = self.layout, np.ones(self.layout.reach)
        if self.spread:
            every = _lognormal(np.random.default_rng([self.seed, 4]), len(every), self.spread)
        for node, factor in self.slow.items():
            every[node] *= factor
        return every[layout.node].reshape(layout.mesh.shape)

    def of_operation(self, number: int) -> Array | float:
        """The jitter of one operation of the step on each rank; 1.0 where there is none."""
        if not self.jitter:
            return 1.0
        random = np.random.default_rng([self.seed, 5, self.step, *self.block, number])
        drawn, layout = _lognormal(random, self.layout.nodes, self.jitter), self.layout
        return (drawn if layout.sorted else drawn[layout.home]).reshape(layout.mesh.shape)

    def within(self, block: int) -> Noise:
        """The noise within a block of a pipeline: drawn once, however often the block is run."""
        return replace(self, block=(block,))


def _lognormal(random: np.random.Generator, count: int, deviation: float) -> Array:
    """Log-normal numbers of mean 1 and this standard deviation: every operation draws those of all nodes.

    16 random bits choose one of :data:`PARTS` of equal probability, five times as fast as NumPy draws normal numbers. Within the
    outermost parts more bits choose a quantile; those between them are less than a 400th of a deviation wide.
    """
    sigma = float(np.sqrt(np.log1p(deviation**2)))
    part = random.bit_generator.random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
    drawn: Array = _middles(sigma).take(part.astype(np.intp))
    ends = np.flatnonzero(part + np.uint16(TAIL) < 2 * TAIL)  # these wrap around
    drawn[ends] = _factor(_quantiles((part[ends] + random.random(len(ends))) / PARTS), sigma)
    return drawn


@lru_cache(maxsize=8)
def _middles(sigma: float) -> Array:
    """The factor in the middle of each part."""
    return _factor(_quantiles((np.arange(PARTS) + 0.5) / PARTS), sigma)


def _factor(deviations: Array, sigma: float) -> Array:
    factor: Array = np.exp(sigma * deviations - sigma**2 / 2)
    return factor


def _quantiles(probability: Array) -> Array:
    """Those of the normal law, within 1e-8."""
    below, at = _lower_half()
    found: Array = np.interp(np.minimum(probability, 1.0 - probability), below, at)
    return np.where(probability < 0.5, found, -found)


@lru_cache(maxsize=1)
def _lower_half() -> tuple[Array, Array]:
    """Probabilities up to 1/2 to be below some points, by the trapezoid rule, and these points."""
    at = np.linspace(-FARTHEST, 0.0, GRID)
    density = np.exp(-(at**2) / 2)
    below = np.cumsum(density) - density / 2
    return below / (2 * below[-1]), at
