"""``reproduce bagualu``: every published claim beside what Athanor computes, and how far the predictions can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..hardware.machine import Machine, Unknowns, load_machine
from ..sim.scaling import Study, scale, scaled
from ..sim.simulate import simulate
from ..workloads.run import Run
from ..workloads.setting import Setting
from .claims import MODELS, Claim, fact_claims, memory_claims
from .fit import with_unknowns
from .published import published

Progress = Callable[[str], None]
WHAT_IF = ("swipe", "none", "capacity:1.25")


@dataclass
class Reproduction:
    """All claims, and the runs behind them."""

    machine: Machine
    claims: list[Claim] = field(default_factory=list)
    free: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, Run] = field(default_factory=dict)
    placements: dict[str, Run] = field(default_factory=dict)
    balancers: dict[str, Run] = field(default_factory=dict)
    what_if: dict[str, Run] = field(default_factory=dict)
    weak: Study | None = None
    strong: Study | None = None

    def plain(self) -> dict[str, Any]:
        """Claims and the free directions as plain data."""
        return {
            "name": "bagualu",
            "machine": self.machine.name,
            "claims": [claim.plain() for claim in self.claims],
            "free_direction": self.free,
            "weak": self.weak.to_plain() if self.weak else None,
            "strong": self.strong.to_plain() if self.strong else None,
        }


def reproduce_bagualu(progress: Progress = lambda text: None) -> Reproduction:
    """Simulate everything that BaGuaLu published and compare."""
    table = published("bagualu")
    machine = load_machine(table["machine"])
    found = Reproduction(machine)
    for name in MODELS:
        progress(f"{name} on 96,000 nodes")
        found.models[name] = simulate(machine, name)
    progress("placements")
    found.placements = {name: simulate(machine, "moda-1.93t", placement=name) for name in ("moda", "opposite")}
    progress("strong scaling")
    found.strong = scale("strong", machine, "moda-1.93t")
    progress("weak scaling")
    found.weak = scale("weak", machine, "moda-1.93t")
    for balancer in WHAT_IF:
        progress(f"Zipf(1) routing, balancer {balancer}")
        run = simulate(machine, "moda-1.93t", router="zipf:1.0", balancer=balancer, allow_overcommit=True)
        found.balancers[balancer] = run
    progress("two-level all-to-all")
    found.what_if = {name: simulate(machine, name, all_to_all="two-level") for name in MODELS}
    progress("facts and memory")
    found.claims = [*fact_claims(machine), *_step_claims(found), *memory_claims(machine)]
    for number, alternative in enumerate(machine.calibration.free_direction):
        progress(f"free direction {number + 1} of {len(machine.calibration.free_direction)}")
        found.free.append(_predictions(machine, alternative, alternative.varies))
    found.free.insert(0, _predictions(machine, machine.calibration, "(in use)"))
    return found


def _step_claims(found: Reproduction) -> list[Claim]:
    """Claims about simulated steps."""
    table, sources = published("bagualu"), published("bagualu")["sources"]
    claims = []
    for name, run in found.models.items():
        eflops = run.summary()["flops_per_second"] / 1e18
        claims.append(
            Claim(f"{name}: EFLOPS", table["eflops"][name], eflops, table["eflops_kind"][name], sources["eflops"])
        )
    inside, outside = (found.placements[name].summary()["step_seconds"] for name in ("moda", "opposite"))
    assert found.strong is not None and found.weak is not None
    scaling = table["scaling"]
    strong, weak = found.strong.points[-1], found.weak.points[-1]
    balanced = found.balancers["swipe"].summary()["load_balance"]["max_over_mean"]
    return [
        *claims,
        Claim(
            "speed-up of MoDa's placement",
            scaling["placement_speedup"],
            outside / inside,
            "fitted",
            sources["placement_speedup"],
        ),
        Claim(
            "strong scaling, 6,000 to 96,000 nodes",
            scaling["strong_speedup"],
            strong.speedup,
            "fitted",
            sources["strong_speedup"],
        ),
        Claim(
            "weak-scaling efficiency at 96,000 nodes",
            scaling["weak_efficiency"],
            weak.efficiency,
            "predicted",
            sources["weak_efficiency"],
        ),
        Claim(
            "most over mean load after SWIPE, Zipf(1)",
            1.0,
            balanced,
            "exact",
            "overview: the load is absolutely balanced",
        ),
    ]


def _predictions(machine: Machine, unknowns: Unknowns, varies: str) -> dict[str, Any]:
    """What a set of unknowns that meets the fit's results says of all of BaGuaLu's results."""
    other = with_unknowns(machine, Unknowns(**{name: getattr(unknowns, name) for name in Unknowns.model_fields}))
    reference = Setting.of(other, "moda-1.93t", {})
    _, options = scaled("strong", reference, 6000)
    whole, swapped, part, middle, large = (
        simulate(other, model, **choice).summary()
        for model, choice in (
            ("moda-1.93t", {}),
            ("moda-1.93t", {"placement": "opposite"}),
            ("moda-1.93t", options),
            ("moda-14.5t", {}),
            ("moda-174t", {}),
        )
    )
    return {
        "varies": varies,
        **{name: getattr(unknowns, name) for name in Unknowns.model_fields},
        "eflops_1.93t": whole["flops_per_second"] / 1e18,
        "placement": swapped["step_seconds"] / whole["step_seconds"],
        "strong": part["step_seconds"] / whole["step_seconds"],
        "eflops_14.5t": middle["flops_per_second"] / 1e18,
        "eflops_174t": large["flops_per_second"] / 1e18,
    }
