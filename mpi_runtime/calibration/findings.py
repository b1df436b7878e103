"""What the samples say: the numbers of a machine, each with its standard error, and curves of messages and collectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.machine import Machine
from ...hardware.message_costs import LEVELS, MessageCost
from ...hardware.units import si
from .fits import Curve, curve, line, rate_of_large, standard_error
from .message_costs import both_ways, link_burst, one_way
from .points import COMPUTED, LARGE, SMALLEST
from .products import Products
from .samples import SampleSeries
from .steps import LinkRates, StepCosts
from .topology import Topology

Array = NDArray[np.float64]
Statistic = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class CalibrationFindings:
    """A number of the machine: its dotted key, its value in SI with a standard error, and from what it was found."""

    key: str
    value: float
    error: float
    unit: str
    how: str
    samples: int
    rejected: int

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"key": self.key, "value": self.value, "standard_error": self.error} | {
            name: getattr(self, name) for name in ("unit", "how", "samples", "rejected")
        }


@dataclass(frozen=True)
class FittedNumber:
    """A curve of time over size: its points, fitted and held out."""

    name: str
    detail: Mapping[str, Any]
    series: tuple[SampleSeries, ...]
    curve: Curve

    @classmethod
    def of(cls, name: str, series: Sequence[SampleSeries]) -> FittedNumber | None:
        """The fit of the points that are not held out; None where there are none."""
        told = [each for each in series if not each.point.held_out]
        if not told:
            return None
        found = curve([each.point.size for each in told], [each.median for each in told])
        ordered = sorted(series, key=lambda each: each.point.size)
        return cls(name, ordered[0].point.detail, tuple(ordered), found)

    def errors(self, held_out: bool) -> Array:
        """Relative errors of the fit on the points that were held out of it, or on those that it was made from."""
        chosen = [each for each in self.series if each.point.held_out is held_out]
        return self.curve.errors([each.point.size for each in chosen], [each.median for each in chosen])

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        pieces = [vars(piece) for piece in self.curve.pieces]
        errors = {"fit_errors": self.errors(False).tolist(), "held_out_errors": self.errors(True).tolist()}
        return {"name": self.name, **self.detail, "pieces": pieces, **errors}


class Findings:
    """All that follows from the samples of a job, for a machine whose structure and nominal rates are known."""

    def __init__(self, series: Iterable[SampleSeries], topology: Topology, machine: Machine) -> None:
        self.series, self.topology, self.machine = list(series), topology, machine
        self.by_kind: dict[str, dict[str, list[SampleSeries]]] = {}
        for each in self.series:
            self.by_kind.setdefault(each.point.kind, {}).setdefault(each.point.series, []).append(each)

    def of(self, kind: str) -> list[SampleSeries]:
        """The series of a kind."""
        return [each for found in self.by_kind.get(kind, {}).values() for each in found]

    def number(
        self, key: str, series: Sequence[SampleSeries], unit: str, how: str, statistic: Statistic, scale: float = 1.0
    ) -> CalibrationFindings:
        """A number that follows from the medians of some series."""
        value = scale * statistic([each.median for each in series])
        error = scale * standard_error(series, statistic)
        samples = sum(len(each.used) for each in series)
        rejected = sum(sum(each.rejected.values()) for each in series)
        return CalibrationFindings(key, value, error, unit, how, samples, rejected)

    # --- messages ---------------------------------------------------------------------------------------------------------

    @cached_property
    def overhead(self) -> CalibrationFindings | None:
        """Seconds of a message where many are posted at once; None where no rank has another to send to."""
        series = self.of("messages")
        counts = [each.point.size for each in series]
        how = f"slope over {min(counts, default=0)} to {max(counts, default=0)} messages of {SMALLEST} bytes posted at once"
        if not series:
            return None
        return self.number(
            "calibration.message_overhead", series, "s", how, lambda medians: line(counts, medians).slope
        )

    def latency(self, level: str, kind: str = "ping-pong") -> CalibrationFindings | None:
        """One-way seconds of the smallest message at a level, less the overhead; None where the job has no such pair.

        For the library's own ping-pong nothing is taken off.
        """
        smallest = [
            each for each in self.of(kind) if each.point.size == SMALLEST and each.point.detail["level"] == level
        ]
        if not smallest:
            return None
        less = self.overhead.value if self.overhead and kind == "ping-pong" else 0.0
        one, other = smallest[0].point.detail["pair"]
        how = f"one way of {SMALLEST} bytes between ranks {one} and {other}"
        how += f", less {si(less, 's')} of overhead" if less else ""
        return self.number(level, smallest, "s", how, lambda medians: max(0.0, medians[0] - less))

    @cached_property
    def steps(self) -> StepCosts:
        """What steps of collectives cost beside their bytes."""
        rates = LinkRates(**{name: found.value for name, found in self.links.items()})
        return StepCosts(self.of("collective"), self.topology, self.overhead.value if self.overhead else 0.0, rates)

    def step_latency(self, level: str) -> CalibrationFindings | None:
        """Seconds of a collective's step whose farthest message passes a level, less the overhead; None where there was none."""
        steps = self.steps
        if level not in steps.levels:
            return None
        how = f"what steps of {len(steps.series)} collectives of all ranks take beside overheads and bytes"
        return self.number(level, steps.series, "s", how, lambda medians: steps.latency(level, medians))

    @cached_property
    def message_costs(self) -> tuple[list[MessageCost], float]:
        """The table of what messages cost by level, way and size, and the seconds for which idle links send at once."""
        table = list[MessageCost]()
        by_level = {
            level: [each for each in self.of("ping-pong") if each.point.detail["level"] == level] for level in LEVELS
        }
        rates = LinkRates(**{name: found.value for name, found in self.links.items()})
        near = next((level for level in LEVELS[1:] if by_level[level]), LEVELS[0])
        rate = rates.nic if "nic" in self.links else pair.value if (pair := self.pair_rate(near)) else 0.0
        burst = link_burst(by_level[near], rate) if near != "node" else 0.0
        switch = None
        for level, series in by_level.items():
            if series and (found := self.pair_rate(level)):
                most = found.value if level != near or near == "node" else rate
                table += (entries := one_way(series, level, most, 0.0 if level == "node" else burst).entries())
                switch = entries[1].least if len(entries) > 1 else None
                handed = [each for each in self.of("handover") if each.point.detail["level"] == level]
                table += one_way(handed, level, most, 0.0 if level == "node" else burst, "handed", COMPUTED).entries()
        if samples := both_ways(self.of("collective"), self.topology, rates, burst):
            entries = samples.entries(switch)
            table += self._below(entries) + entries
        return table, burst

    def _below(self, entries: Sequence[MessageCost]) -> list[MessageCost]:
        """Both ways at the level below those of some entries, by as much less as the latencies of steps there are."""
        if not entries or entries[0].level != "top":
            return []
        far, near = self.step_latency("top"), self.step_latency("supernode")
        less = far.value - near.value if far and near else 0.0
        return [
            each.model_copy(update={"level": "supernode", "start": max(0.0, float(f"{each.start - less:.4g}"))})
            for each in entries
        ]

    @cached_property
    def pairs(self) -> list[FittedNumber]:
        """Ping-pong by level."""
        made = [FittedNumber.of(name, each) for name, each in self.by_kind.get("ping-pong", {}).items()]
        return [each for each in made if each]

    def pair_rate(self, level: str) -> CalibrationFindings | None:
        """Bytes per second of one pair at a level."""
        series = [each for each in self.of("ping-pong") if each.point.detail["level"] == level]
        return self._rate(level, series, 1.0, f"slope of ping-pong above {LARGE >> 10} KiB") if series else None

    @cached_property
    def links(self) -> dict[str, CalibrationFindings]:
        """Bytes per second of a node's ring, a node's interfaces and a supernode's trunk, all of them busy at once."""
        width, domain = self.topology.ranks_per_host, self.topology.domain
        found = {}
        for name, series in self.by_kind.get("links", {}).items():
            links = str(series[0].point.detail["links"])
            senders = width * (domain if links == "trunk" else 1)
            found[links] = self._rate(links, series, senders, f"slope above {LARGE >> 10} KiB, all busy: {name}")
        return found

    def _rate(self, key: str, series: Sequence[SampleSeries], senders: float, how: str) -> CalibrationFindings:
        sizes = [each.point.size for each in series]
        return self.number(key, series, "B/s", how, lambda medians: rate_of_large(sizes, medians, LARGE), senders)

    @cached_property
    def collectives(self) -> list[FittedNumber]:
        """Every algorithm on every group."""
        made = [FittedNumber.of(name, each) for name, each in self.by_kind.get("collective", {}).items()]
        return [each for each in made if each]

    def held_out(self) -> tuple[float, float, str] | None:
        """(median, worst, where) of the collectives' fits on sizes that were held out of them; None where none were."""
        errors = [
            (abs(float(error)), f"{each.name}, {size} B")
            for each in self.collectives
            for error, size in zip(
                each.errors(True), [one.point.size for one in each.series if one.point.held_out], strict=True
            )
        ]
        if not errors:
            return None
        worst, where = max(errors)
        return float(np.median([error for error, _ in errors])), worst, where

    # --- computing --------------------------------------------------------------------------------------------------------

    @cached_property
    def products(self) -> Products | None:
        """The products; None where none were measured."""
        series = self.of("gemm")
        return Products(series, self.of("start")) if series else None

    def memory(self) -> tuple[CalibrationFindings, CalibrationFindings] | None:
        """Bytes per second that a rank reads and writes while all do; a copy takes both. None where nothing was measured."""
        sweeps = self.of("sweep")
        if not sweeps:
            return None
        bytes_of = np.array(
            [[each.point.size / 4 * each.point.detail[way] for way in ("read", "written")] for each in sweeps]
        )

        def solved(medians: Sequence[float], way: int) -> float:
            from scipy.optimize import nnls

            measured = np.array(medians)
            a_byte = nnls(bytes_of / measured[:, None], np.ones(len(measured)))[0]
            return float(1.0 / max(a_byte[way], 1e-15))

        how = f"copies, reads and writes of {sweeps[0].point.size >> 20} MiB by all ranks at once"
        read, write = (
            self.number(name, sweeps, "B/s", how, lambda medians, way=way: solved(medians, way))  # type: ignore[misc]
            for way, name in enumerate(("read", "write"))
        )
        return read, write

    def vector(self) -> CalibrationFindings | None:
        """FLOP/s of operators that pass over elements, on all ranks at once; None where none were measured."""
        series = self.of("operator")
        if not series:
            return None
        flops = sum(each.point.size * each.point.detail["flops"] for each in series)
        how = f"{len(series)} norms, softmaxes, activations and their gradients, FLOPs as they are lowered"
        return self.number("core_group.vector", series, "FLOP/s", how, lambda medians: flops / sum(medians))

    def per_unit(self, kind: str, key: str, unit: str, how: str) -> CalibrationFindings | None:
        """Seconds of one unit (step, parameter, byte) of what a point of a kind does many of."""
        series = self.of(kind)
        if not series:
            return None
        size = series[0].point.size
        return self.number(key, series[:1], unit, how, lambda medians: medians[0] / size)
