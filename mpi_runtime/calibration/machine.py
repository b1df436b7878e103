"""From what was found to a machine whose every number says where it is from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...hardware.fabrics.crossbar import Crossbar
from ...hardware.fabrics.fat_tree import FatTree
from ...hardware.fabrics.pruned_fat_tree import PrunedFatTree
from ...hardware.machine import Machine
from ...hardware.precisions import Precision
from ...hardware.units import si
from .findings import CalibrationFindings, Findings
from .products import Efficiency

DIGITS = 4
"""Significant digits of a measured number: more than its standard error leaves certain."""

BEYOND = 0.02
"""By how much a share may exceed 1 without a warning."""

SATURATED = 0.95
"""A trunk that carries this share of what its nodes inject, or more, was no bottleneck: what it could carry is not known."""


@dataclass
class Calibrated:
    """A machine with measured numbers, what was found of them, and what to know before believing them."""

    machine: Machine
    found: list[CalibrationFindings] = field(default_factory=list)
    products: Efficiency | None = None
    warnings: list[str] = field(default_factory=list)


class MachineBuilder:
    """Puts what was found into a machine.

    ``nominal`` says that the machine's rates are those of data sheets, which stay: only shares of them, latencies and
    overheads are measured. ``where`` tells hosts, date and library.
    """

    def __init__(self, base: Machine, findings: Findings, nominal: bool, where: str) -> None:
        self.findings, self.nominal, self.where = findings, nominal, where
        self.made = Calibrated(base)
        self.width = findings.topology.ranks_per_host

    def make(self) -> Calibrated:
        """The machine; its structure, and all that was not measured, stays as it was."""
        self._compute()
        self._network()
        self._unmeasured()
        machine = self.made.machine
        calibration = machine.calibration.model_copy(update={"free_direction": ()})
        self.made.machine = machine.model_copy(update={"calibration": calibration})
        return self.made

    def put(self, *numbers: CalibrationFindings | None) -> None:
        """Set numbers of the machine, with their sources; shares above 1 become 1, with a warning."""
        for found in numbers:
            if found is None:
                continue
            if not found.unit and found.value > 1:
                if found.value > 1 + BEYOND:
                    self.made.warnings.append(
                        f"{found.key}: {found.value:.3g} was measured, more than the nominal rate allows; 1 is taken"
                    )
                found = replace(found, value=1.0)
            found = replace(found, value=float(f"{found.value:.{DIGITS}g}"))
            self.made.found.append(found)
            self._set({found.key: found.value}, self.source(found))

    def _set(self, values: dict[str, float], source: str) -> None:
        machine = self.made.machine.changed(values)
        sources = {**machine.sources, **dict.fromkeys(values, source)}
        self.made.machine = machine.model_copy(update={"sources": sources})

    def source(self, found: CalibrationFindings) -> str:
        """What the machine file says of a number."""
        value, error = (
            shown(number, found.unit, digits) for number, digits in ((found.value, DIGITS), (found.error, 2))
        )
        more = f", {found.rejected} rejected" if found.rejected else ""
        counted = f"median of {found.samples} samples{more}"
        return f"calibrated: {value}, standard error {error}, {counted}; {found.how}; {self.where}"

    # --- computing --------------------------------------------------------------------------------------------------------

    def _compute(self) -> None:
        findings = self.findings
        self._memory()
        self.put(
            findings.per_unit("loop", "core_group.scalar_step", "s", "a step of a serial loop in Python"),
            findings.per_unit("bookkeeping", "calibration.update_overhead", "s", "a parameter written, 4 bytes"),
        )
        if vector := findings.vector():
            groups = self.made.machine.processor(self.width).groups
            self.put(replace(vector, value=vector.value / groups, error=vector.error / groups))
        products = findings.products
        if products is None:
            return
        for precision in ("fp64", "fp32"):
            self._peak(precision, precision)
        self._peak("fp16", "fp32")
        fitted = products.fit(self.made.machine, self.width)
        self.made.products = fitted
        samples = sum(len(each.used) for each in [*products.products, *products.starts])
        rejected = sum(sum(each.rejected.values()) for each in [*products.products, *products.starts])
        off = float(np.median(np.abs(np.array(fitted.modelled) / products.seconds - 1)))
        how = f"fitted to {len(products.products)} products and the start of an operator, median error {off:.1%}"
        for key, value, error, unit in (
            ("calibration.gemm_efficiency", fitted.efficiency, fitted.efficiency_error, ""),
            ("core_group.operator_overhead", fitted.overhead, fitted.overhead_error, "s"),
        ):
            self.put(CalibrationFindings(key, value, error, unit, how, samples, rejected))

    def _peak(self, precision: Precision, measured: Precision) -> None:
        """The best rate of products in a precision, of each core group of a rank."""
        assert self.findings.products is not None
        best, machine = self.findings.products.best(measured), self.made.machine
        if best is None or precision not in machine.core_group.peak:
            return
        rate, error, series = best
        how = f"best rate of products, with {series.point.series}, on all ranks at once"
        if precision != measured:
            how += f"; {precision} is computed in single precision here, at its rate"
        groups = machine.processor(self.width).groups
        key, samples, rejected = f"core_group.peak.{precision}", len(series.used), sum(series.rejected.values())
        found = CalibrationFindings(key, rate / groups, error / groups, "FLOP/s", how, samples, rejected)
        self._rate(found, machine.core_group.peak[precision])

    def _memory(self) -> None:
        """The rates at which a rank reads and writes memory, as shares of the nominal or of the faster one."""
        memory = self.findings.memory()
        if memory is None:
            return
        faster, processor = max(memory, key=lambda found: found.value), self.made.machine.processor(self.width)
        each = 1.0 / (processor.groups * processor.bandwidth_share)
        mine = replace(faster, key="core_group.memory_bandwidth", value=each * faster.value, error=each * faster.error)
        self._rate(mine, processor.core_group.memory_bandwidth)
        processor = self.made.machine.processor(self.width)
        full = processor.groups * processor.core_group.memory_bandwidth * processor.bandwidth_share
        for found, key in zip(memory, ("core_group.dma_read", "core_group.dma_write"), strict=True):
            self.put(self._share(found, key, full))

    def _rate(self, found: CalibrationFindings, nominal: float) -> None:
        """Set a rate of data sheets where none is known, or where more was measured."""
        if self.nominal and found.value <= nominal * (1 + BEYOND):
            return
        if self.nominal:
            more, less = shown(found.value, found.unit), shown(nominal, found.unit)
            self.made.warnings.append(f"{found.key}: {more} was measured, which takes the place of the nominal {less}")
        self.put(found)

    def _share(self, found: CalibrationFindings, key: str, full: float) -> CalibrationFindings:
        """A rate as a share of another one."""
        how = f"{shown(found.value, found.unit)} of {shown(full, found.unit)}; {found.how}"
        return replace(found, key=key, value=found.value / full, error=found.error / full, unit="", how=how)

    # --- messages ---------------------------------------------------------------------------------------------------------

    def _network(self) -> None:
        findings, links = self.findings, self.findings.links
        self.put(findings.overhead)
        for level, key, factor in self._latencies():
            if found := findings.step_latency(level) or findings.latency(level):
                self.put(replace(found, key=key, value=factor * found.value, error=factor * found.error))
        self._messages()
        if ring := links.get("ring"):
            node = self.made.machine.node
            ports = node.core_groups if node.ports else 1
            self.put(replace(ring, key="node.ring_bandwidth", value=ring.value / ports, error=ring.error / ports))
        nic = links.get("nic") or (None if self.nominal else findings.pair_rate("top"))
        if nic:
            node, pair = self.made.machine.node, findings.pair_rate("supernode") or findings.pair_rate("top")
            best = nic if self.nominal else max((nic, pair or nic), key=lambda found: found.value)
            mine = replace(best, value=best.value / node.interfaces, error=best.error / node.interfaces)
            self._rate(replace(mine, key="node.interface_bandwidth"), node.interface_bandwidth)
            self.put(self._share(nic, "calibration.network_efficiency", self.made.machine.node.injection))
        if trunk := links.get("trunk"):
            self._taper(trunk)

    def _messages(self) -> None:
        """The table of messages' costs, and what idle links let pass at once."""
        table, burst = self.findings.message_costs
        how = "ping-pong one way, steps of a ring all-reduce of all ranks both ways, of messages whose bytes take less than half"
        values: dict[str, tuple[str, Any]] = {}
        if table:
            values["messages"] = (f"calibrated: {how}; {self.where}", tuple(table))
        if burst:
            how = "how far the line through large messages of ping-pong stays below what starting them takes"
            values["link_burst"] = (f"calibrated: {how}; {self.where}", float(f"{burst:.{DIGITS}g}"))
        machine = self.made.machine
        calibration = machine.calibration.model_copy(
            update={"messages": (), "link_burst": None, **{key: value for key, (_, value) in values.items()}}
        )
        sources = {key: text for key, text in machine.sources.items() if key != "calibration.link_burst"}
        sources |= {f"calibration.{key}": source for key, (source, _) in values.items()}
        self.made.machine = machine.model_copy(update={"calibration": calibration, "sources": sources})

    def _taper(self, trunk: CalibrationFindings) -> None:
        """The taper of the trunks, where they and not the nodes held the messages back."""
        machine, domain = self.made.machine, self.findings.topology.domain
        key = {PrunedFatTree: "fabric.taper", FatTree: "fabric.tiers.0.taper"}.get(type(machine.fabric))
        if key is None:
            return
        if trunk.value < SATURATED * domain * machine.injection:
            self.put(self._share(trunk, key, machine.fabric.supernode * machine.injection))
        elif domain < machine.fabric.supernode:
            self.made.warnings.append(
                f"{key}: {domain} of {machine.fabric.supernode} nodes of a supernode do not fill its trunk; the taper is"
                " not measured"
            )
        else:
            self.put(replace(self._share(trunk, key, domain * machine.injection), value=1.0))

    def _latencies(self) -> Iterator[tuple[str, str, float]]:
        """(level of a pair, key of the machine, share of the measured time that belongs to it)."""
        fabric, hosts = self.made.machine.fabric, self.findings.topology.hosts
        yield "node", "fabric.latency_node", 1.0
        match fabric:
            case Crossbar():
                yield "supernode", "fabric.latency_link", 0.5
            case PrunedFatTree():
                yield "supernode", "fabric.latency_supernode", 1.0
                yield "top", "fabric.latency_top", 1.0
            case FatTree():
                yield "supernode", "fabric.tiers.0.latency", 1.0
                crossed = sum((hosts - 1) // size > 0 for size in fabric.sizes)
                yield "top", f"fabric.tiers.{crossed - 1}.latency", 1.0

    # --- what was not measured ----------------------------------------------------------------------------------------------

    def _unmeasured(self) -> None:
        """Give what a bare machine still lacks a value from what was measured, and say so."""
        machine, keys = self.made.machine, {found.key for found in self.made.found}
        if self.nominal:
            known = isinstance(machine.fabric, Crossbar | FatTree | PrunedFatTree)
            if not known and self.findings.topology.hosts > 1:
                self.made.warnings.append(
                    f"latencies between nodes are those of --like: messages over a {machine.fabric.kind} are not taken apart"
                )
            return
        if "node.ring_bandwidth" not in keys:
            rate = machine.core_group.memory_bandwidth
            self._set(
                {"node.ring_bandwidth": rate}, "assumed: the rate of memory; one rank a host sends nothing inside"
            )
        tree = isinstance(machine.fabric, PrunedFatTree)
        if tree and "fabric.taper" not in keys:
            self._set({"fabric.taper": 1.0}, "assumed: no two full supernodes were there to measure it")
        below = machine.fabric.latency_node
        others = ("fabric.latency_supernode", "fabric.latency_top") if tree else ("fabric.latency_link",)
        for key in others:
            if key in keys:
                below = getattr(machine.fabric, key.removeprefix("fabric."))
            elif self.findings.topology.hosts > 1 or tree:
                self._set({key: below}, "assumed: that of the level below; no pair of ranks was there to measure it")


def shown(value: float, unit: str, digits: int = DIGITS) -> str:
    """A number with its unit; a share as it is."""
    return si(value, unit, digits) if unit else f"{value:.{digits}g}"


def where(hosts: list[str], date: str, library: str) -> str:
    """Hosts, date and library, as sources say them."""
    names = list(dict.fromkeys(hosts))
    told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{told}; {date}; {library}"
