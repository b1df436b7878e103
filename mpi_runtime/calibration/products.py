"""Matrix products: the best rate that was reached, and the efficiency and overhead with which the machine's model meets all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.machine import Machine
from ...hardware.precisions import Precision
from .fits import REPLICATES
from .samples import SampleSeries

Array = NDArray[np.float64]

SCALE = 0.1
"""Relative error above which a product pulls less on the fit than by least squares."""


@dataclass(frozen=True)
class Efficiency:
    """The share of the peak and the start of an operator that were fitted, with standard errors, and the model's seconds."""

    efficiency: float
    overhead: float
    efficiency_error: float
    overhead_error: float
    modelled: tuple[float, ...]


class Products:
    """Measured products, and the start of an operator that does nothing."""

    def __init__(self, products: Sequence[SampleSeries], starts: Sequence[SampleSeries] = ()) -> None:
        self.products, self.starts = list(products), list(starts)
        self.shape = np.array([[each.point.detail[side] for side in "mnk"] for each in products], dtype=np.float64)
        self.precisions: list[Precision] = [each.point.detail["precision"] for each in products]
        self.seconds = np.array([each.median for each in products])
        self.flops = 2.0 * self.shape.prod(axis=1)

    def best(self, precision: Precision) -> tuple[float, float, SampleSeries] | None:
        """(FLOP/s, standard error, product) of the best rate in a precision; None where none was measured."""
        rates = [
            (flops / seconds, each)
            for flops, seconds, each, kind in zip(self.flops, self.seconds, self.products, self.precisions, strict=True)
            if kind == precision
        ]
        if not rates:
            return None
        rate, series = max(rates, key=lambda pair: pair[0])
        spread = np.std([np.median(each) for each in _resampled(series)]) / series.median
        return float(rate), float(rate * spread), series

    def modelled(self, machine: Machine, ranks_per_node: int, efficiency: float, overhead: float) -> Array:
        """Seconds of all products by the machine's model, with another efficiency and overhead than its own."""
        processor = machine.processor(ranks_per_node)
        seconds = np.empty(len(self.products))
        for precision in set(self.precisions):
            chosen = [kind == precision for kind in self.precisions]
            m, n, k = self.shape[chosen].T
            cost = processor.core_group.gemm(
                m, n / processor.groups, k, precision, efficiency, processor.bandwidth_share
            )
            seconds[chosen] = cost.seconds + overhead
        return seconds

    def fit(self, machine: Machine, ranks_per_node: int) -> Efficiency:
        """The efficiency (at most 1) and overhead with which the model is nearest to all products in relative terms.

        Soft-L1 least squares of the logarithms of modelled over measured seconds. Standard errors come from fits of resampled
        medians.
        """
        measured, starts = self.seconds, np.array([each.median for each in self.starts])
        efficiency, overhead = self._fit(machine, ranks_per_node, measured, starts)
        random = np.random.default_rng(len(measured))

        def medians(series: Sequence[SampleSeries]) -> Array:
            return np.array([np.median(random.choice(each.used, len(each.used))) for each in series])

        again = np.array(
            [
                self._fit(machine, ranks_per_node, medians(self.products), medians(self.starts), (efficiency, overhead))
                for _ in range(REPLICATES // 4)
            ]
        )
        modelled = self.modelled(machine, ranks_per_node, efficiency, overhead)
        errors = again.std(axis=0)
        return Efficiency(efficiency, overhead, float(errors[0]), float(errors[1]), tuple(modelled.tolist()))

    def _fit(
        self,
        machine: Machine,
        ranks_per_node: int,
        measured: Array,
        starts: Array,
        first: tuple[float, float] | None = None,
    ) -> tuple[float, float]:
        from scipy.optimize import least_squares

        least = float(min(measured.min(), starts.min(initial=np.inf)))
        near = np.log(first or (0.8, max(least, 1e-9)))
        low, high = np.log([1e-3, 1e-10]), np.zeros(2)

        def residuals(logarithms: Array) -> Array:
            efficiency, overhead = np.exp(logarithms)
            modelled = self.modelled(machine, ranks_per_node, float(efficiency), float(overhead))
            ours: Array = np.log(np.concatenate([modelled / measured, overhead / starts]))
            return ours

        found: Any = least_squares(
            residuals, np.clip(near, low, high), bounds=(low, high), loss="soft_l1", f_scale=SCALE
        )
        efficiency, overhead = np.exp(found.x)
        return float(efficiency), float(overhead)


def _resampled(series: SampleSeries) -> Iterator[Array]:
    """Resamplings of the samples of a series."""
    random = np.random.default_rng(len(series.used))
    for _ in range(REPLICATES):
        yield random.choice(series.used, len(series.used))
