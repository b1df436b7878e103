"""From samples to a machine: the structure, the peaks, what was fitted, and where every number is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...hardware.core_group import CoreGroup
from ...hardware.machine import Machine
from ...hardware.precisions import Precision
from ...hardware.units import si
from ..calibration.machine import BEYOND, DIGITS
from ..calibration.samples import SampleSeries
from ..calibration.structure import bare
from ..calibration.topology import Topology
from .device import MeasuredDevice
from .fit import AcceleratorFit
from .model import Constants

MEASURED = ("core_group.tiles", "core_group.attention", "interval")
"""How keys begin whose sources a measurement leaves behind."""

Value = float | Mapping[str, float]


@dataclass
class AcceleratorBuilder:
    """Puts what was measured into a machine; ``like`` lends its structure and nominal rates, ``peaks`` are given ones.

    ``where`` tells program, versions, device and date.
    """

    name: str
    device: MeasuredDevice
    precisions: Sequence[Precision]
    like: Machine | None
    peaks: Mapping[Precision, float]
    where: str
    warnings: list[str] = field(default_factory=list)

    def base(self, series: Sequence[SampleSeries]) -> Machine:
        """The machine before anything is fitted: its structure, and peaks by data sheets or the best rates of fitted products."""
        machine = self.like or self._bare()
        nominal = {**(machine.core_group.peak if self.like else {}), **self.peaks}
        sources = {f"core_group.peak.{kind}": "given: --peak" for kind in self.peaks}
        peak: dict[Precision, float] = dict(nominal)
        for kind in self.precisions:
            if (best := best_product(series, kind)) is None:
                continue
            rate = _digits(best.point.size / best.median)
            if kind in nominal and rate <= nominal[kind] * (1 + BEYOND):
                continue
            if kind in nominal:
                more, less = si(rate, "FLOP/s"), si(nominal[kind], "FLOP/s")
                self.warnings.append(
                    f"core_group.peak.{kind}: {more} was measured, which takes the place of the nominal {less}"
                )
            peak[kind] = rate
            sources[f"core_group.peak.{kind}"] = (
                f"calibrated: best rate seen, of {best.point.series} ({self.where}); median of {len(best.used)} samples"
            )
        group = machine.core_group.model_copy(update={"peak": peak})
        changed = {"core_group": group, "interval": None, "sources": {**machine.sources, **sources}}
        return machine.model_copy(update=changed)

    def make(self, base: Machine, fit: AcceleratorFit, series: Sequence[SampleSeries]) -> Machine:
        """The machine with its fitted constants, rounded to digits that mean something, and their sources."""
        found = _rounded(fit.constants)
        machine = found.applied(base)
        machine = machine.model_copy(update={"core_group": _short(machine.core_group)})
        sources = {
            key: text
            for key, text in base.sources.items()
            if not key.startswith(("core_group.tiles", "core_group.attention", "interval"))
        }
        sources |= self._sources(machine, found, fit)
        machine = machine.model_copy(update={"sources": sources, **self._names()})
        machine = self._host(machine, series)
        return Machine.model_validate(machine.model_dump())

    def _names(self) -> dict[str, Any]:
        like = f", as {self.like.name}" if self.like else ""
        return {"name": self.name, "description": f"{self.where}{like}"}

    def _sources(self, machine: Machine, found: Constants, fit: AcceleratorFit) -> dict[str, str]:
        """Where the fitted numbers are from."""
        best = max(found.efficiency, key=lambda kind: found.efficiency[kind])
        one = "efficiency.all" if "efficiency.all" in fit.errors else f"efficiency.{best}"
        names = {
            "core_group.dma_read": "read",
            "core_group.dma_write": "written",
            "core_group.operator_overhead": "overhead",
            "calibration.gemm_efficiency": one,
        }
        if tiles := machine.core_group.tiles:
            names |= {"core_group.tiles.fill": "fill", "core_group.tiles.cache_bandwidth": "cache"}
            names |= {f"core_group.tiles.precisions.{kind}": f"efficiency.{kind}" for kind in tiles.precisions}
            names |= {"core_group.tiles.attention": "attention"}
        sources = {key: self._fitted(fit, name) for key, name in names.items()}
        nominal, measured = self._nominal_bandwidth, machine.core_group.memory_bandwidth
        if measured != nominal:
            if nominal:
                more, less = si(measured, "B/s"), si(nominal, "B/s")
                self.warnings.append(
                    f"core_group.memory_bandwidth: {more} was measured, which takes the place of the nominal {less}"
                )
            faster = "read" if found.read >= found.written else "written"
            sources["core_group.memory_bandwidth"] = f"{self._fitted(fit, faster)}; the faster of reading and writing"
        if machine.core_group.tiles:
            sources["core_group.tiles.shapes"] = (
                f"calibrated: of the sets that were tried the one with the least errors; {self.where}"
            )
            sources["core_group.tiles.fused_sums"] = "assumed: a sweep adds gradients to those of earlier micro-batches"
            if "attention" not in fit.errors:
                sources["core_group.tiles.attention"] = "assumed: all of it; no attention was measured"
        return sources

    @property
    def _nominal_bandwidth(self) -> float | None:
        return self.like.core_group.memory_bandwidth if self.like else None

    def _fitted(self, fit: AcceleratorFit, name: str) -> str:
        told = f"fitted to {fit.points} points, {fit.samples:,} samples"
        return f"calibrated: standard error: {fit.certainty(name)}; {told}; {self.where}"

    def _host(self, machine: Machine, series: Sequence[SampleSeries]) -> Machine:
        """What is not the device's: a step of a loop, and what nothing was measured of."""
        sources, group, node = dict(machine.sources), machine.core_group, machine.node
        if loop := next((each for each in series if each.point.kind == "loop"), None):
            step = _digits(loop.median / loop.point.size)
            group = group.model_copy(update={"scalar_step": step})
            sources["core_group.scalar_step"] = (
                f"calibrated: a step of a serial loop in Python on the host; {self.where}"
            )
        if not self.like:
            node = node.model_copy(update={"ring_bandwidth": group.memory_bandwidth})
            sources["node.ring_bandwidth"] = "assumed: the rate of memory; one accelerator sends nothing inside"
        return machine.model_copy(update={"core_group": group, "node": node, "sources": sources})

    def _bare(self) -> Machine:
        """One node with the device alone, as a calibration over MPI makes it of one rank."""
        device, machine = self.device, bare(self.name, Topology((0,), (None,), 0), 1, tuple(self.precisions))
        gpu = device.kind == "cuda"
        known = {
            "management_cores": 1 if gpu else 0,
            "compute_cores": device.processors,
            "memory": device.memory,
            "memory_bandwidth": 1.0,  # until one is measured
            **({"clock": device.clock} if device.clock else {}),
            **({"local_memory": device.local_memory} if device.local_memory else {}),
        }
        group = machine.core_group.model_copy(update=known)
        told = f"told by the system ({device.model})"
        sources = {
            **machine.sources,
            "nodes": "counted: one device",
            "node.core_groups": "counted: one device",
            "core_group.management_cores": "the host starts operators"
            if gpu
            else "assumed: threads start their operators",
            "core_group.compute_cores": f"{told}: multiprocessors" if gpu else "counted: threads that compute",
            "core_group.memory": told,
        }
        if gpu:
            unknown = "assumed: nothing tells it; for the record only"
            sources["core_group.clock"] = told if device.clock else unknown
            sources["core_group.local_memory"] = told if device.local_memory else unknown
        return machine.model_copy(update={"core_group": group, "sources": sources})


def best_product(series: Sequence[SampleSeries], precision: Precision) -> SampleSeries | None:
    """The product of a precision that ran fastest, of those that are fitted to."""
    products = [
        each
        for each in series
        if each.point.kind == "gemm" and not each.point.held_out and each.point.detail["precision"] == precision
    ]
    return max(products, key=lambda each: each.point.size / each.median, default=None)


def _rounded(found: Constants) -> Constants:
    """Constants with four digits: more than their standard errors leave certain."""
    values: dict[str, Any] = dict(vars(found))
    for name in ("read", "written", "overhead", "fill", "cache", "attention"):
        values[name] = _digits(values[name])
    values["efficiency"] = {kind: _digits(share) for kind, share in found.efficiency.items()}
    return Constants(**values)


def _short(group: CoreGroup) -> CoreGroup:
    """Shares of what is rounded, rounded themselves."""
    shares: dict[str, Any] = {name: _digits(getattr(group, name)) for name in ("dma_read", "dma_write")}
    if group.tiles:
        kinds = {kind: _digits(share) for kind, share in group.tiles.precisions.items()}
        shares["tiles"] = group.tiles.model_copy(update={"precisions": kinds})
    return group.model_copy(update=shares)


def _digits(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
