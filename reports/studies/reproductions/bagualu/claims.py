"""``reproduce bagualu``: every published claim beside what Athanor computes, and how far the predictions can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .....hardware.machine import Machine, Unknowns, load_machine
from .....sim.studies.scaling import Kind, Study, scale
from .....workloads.results.run import Run
from ....published import published
from ...claims import Claim
from ..desk import Desk, Step, whole_run
from ..record import Reproduction
from .facts import MODELS, fact_claims, memory_claims
from .fit import RESULTS, results, targets, with_unknowns
from .parts import inputs_of, parts_of

WHAT_IF = ("swipe", "none", "capacity:1.25")


@dataclass
class BaGuaLu(Reproduction):
    """All claims, and the runs behind them."""

    free: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, Run] = field(default_factory=dict)
    placements: dict[str, Run] = field(default_factory=dict)
    balancers: dict[str, Run] = field(default_factory=dict)
    what_if: dict[str, Run] = field(default_factory=dict)
    weak: Study | None = None
    strong: Study | None = None

    def plain(self) -> dict[str, Any]:
        """Claims, the free directions and the scaling studies as plain data."""
        return {
            **super().plain(),
            "free_direction": self.free,
            "weak": self.weak.to_plain() if self.weak else None,
            "strong": self.strong.to_plain() if self.strong else None,
        }


def build(desk: Desk) -> BaGuaLu:
    """Simulate everything that BaGuaLu published and compare."""
    table = published("bagualu")
    machine = load_machine(table["machine"])
    found = BaGuaLu("bagualu", table["title"], machine, commands=["athanor fit bagualu"])
    skewed = {"router": "zipf:1.0", "allow_overcommit": True}
    tasks: dict[tuple[str, str], Step] = {
        **{("", name): (machine, name, {}) for name in MODELS},
        **{("placement", name): (machine, "moda-1.93t", {"placement": name}) for name in ("moda", "opposite")},
        **{("balancer", name): (machine, "moda-1.93t", {**skewed, "balancer": name}) for name in WHAT_IF},
        **{("two-level all-to-all", name): (machine, name, {"all_to_all": "two-level"}) for name in MODELS},
    }
    made = desk.each(whole_run, tasks, lambda way: " ".join(way).strip())
    runs = {way: Run.from_plain(plain, " ".join(way)) for way, plain in made.items()}
    found.models = _named(runs, "")
    found.placements = _named(runs, "placement")
    found.balancers = _named(runs, "balancer")
    found.what_if = _named(runs, "two-level all-to-all")
    found.strong, found.weak = _scaled(desk, machine, "strong"), _scaled(desk, machine, "weak")
    desk.progress("facts and memory")
    found.claims = [*fact_claims(machine), *_step_claims(found), *memory_claims(machine)]
    directions = {"(in use)": (machine, machine.calibration, "(in use)")} | {
        f"free direction {number}": (machine, each, each.varies)
        for number, each in enumerate(machine.calibration.free_direction, 1)
    }
    found.free = list(desk.each(_predictions, directions).values())
    found.parts, found.inputs = parts_of(found), inputs_of(found)
    found.warnings = list(dict.fromkeys(each for run in found.models.values() for each in run.summary()["warnings"]))
    return found


def _named(runs: dict[tuple[str, str], Run], what: str) -> dict[str, Run]:
    return {name: run for (way, name), run in runs.items() if way == what}


def _scaled(desk: Desk, machine: Machine, kind: Kind) -> Study:
    """A scaling study at the desk."""

    def on_point(key: str, study: Study) -> None:
        assert study.newest is not None
        desk.keep(key, study.newest.summary)
        desk.progress(f"{kind} scaling, {study.newest.nodes:,} nodes")

    return scale(kind, machine, "moda-1.93t", known=desk.known, on_point=on_point, workers=desk.crew)


def _step_claims(found: BaGuaLu) -> list[Claim]:
    """Claims about simulated steps; fitted are those that the fit looks at."""
    sources, published_ = published("bagualu")["sources"], targets()
    assert found.strong is not None and found.weak is not None
    inside, outside = (found.placements[name].summary()["step_seconds"] for name in ("moda", "opposite"))
    simulated = {f"eflops {name}": run.summary()["flops_per_second"] / 1e18 for name, run in found.models.items()}
    simulated |= {"placement_speedup": outside / inside, "strong_speedup": found.strong.points[-1].speedup}
    names = {
        **{f"eflops {name}": f"{name}: EFLOPS" for name in found.models},
        "placement_speedup": "speed-up of MoDa's placement",
        "strong_speedup": "strong scaling, 6,000 to 96,000 nodes",
    }
    claims = [
        Claim(
            text,
            published_[name],
            simulated[name],
            "fitted" if name in RESULTS else "predicted",
            sources[name.split()[0]],
        )
        for name, text in names.items()
    ]
    weak, target = found.weak.points[-1].efficiency, published("bagualu")["scaling"]["weak_efficiency"]
    balanced = found.balancers["swipe"].summary()["load_balance"]["max_over_mean"]
    return [
        *claims,
        Claim("weak-scaling efficiency at 96,000 nodes", target, weak, "predicted", sources["weak_efficiency"]),
        Claim("most over mean load after SWIPE, Zipf(1)", 1.0, balanced, "arithmetic", sources["swipe"]),
    ]


def _predictions(task: tuple[Machine, Unknowns, str]) -> dict[str, Any]:
    """What a set of unknowns that meets the fit's results says of all of BaGuaLu's results."""
    machine, unknowns, varies = task
    values = {name: getattr(unknowns, name) for name in Unknowns.model_fields}
    return {"varies": varies, **values, **results(with_unknowns(machine, Unknowns(**values)), targets())}
