"""Files and tables of a reproduction: claims, free directions, plots and report."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from ..workloads.lowering import lower_step
from ..workloads.memory import memory
from ..workloads.model import load_model
from ..workloads.setting import Setting
from . import plots
from .claims import Claim
from .output import Folder
from .published import published
from .report import Picture, Section, breakdown_section, inputs, write_report
from .reproduce import Reproduction
from .tables import claims_table, percent, study_table, table

FREE_COLUMNS = ("varies", "tokens/node", "GEMM", "network", "us/message", "ps/param.")
PREDICTED_COLUMNS = ("1.93T EF", "placed", "strong", "14.5T EF", "174T EF")
FREE_TEXT = (
    "Four unknowns meet four results exactly, at each of these numbers of tokens a node; with 174T left out, at each of these"
    " message overheads. What follows for 14.5T (and, in the last rows, for 174T) is all that the fit predicts of them:"
    " read no more into it than this range."
)


def free_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """The fit's free directions: unknowns, and what each set of them predicts."""
    return [
        (
            row["varies"],
            f"{row['tokens_per_node']:,}",
            f"{row['gemm_efficiency']:.3f}",
            f"{row['network_efficiency']:.3f}",
            f"{row['message_overhead'] * 1e6:.2f}",
            f"{row['update_overhead'] * 1e12:.1f}",
            f"{row['eflops moda-1.93t']:.3f}",
            f"{row['placement_speedup']:.3f}",
            f"{row['strong_speedup']:.2f}",
            f"{row['eflops moda-14.5t']:.3f}",
            f"{row['eflops moda-174t']:.3f}",
        )
        for row in found.free
    ]


def show_reproduction(console: Console, found: Reproduction) -> None:
    """Claims, scaling and free directions on the terminal."""
    console.print(claims_table([claim.plain() for claim in found.claims], published("bagualu")["title"]))
    for study in (found.strong, found.weak):
        if study:
            console.print(study_table(study))
    console.print(
        table("How far predictions move", [*FREE_COLUMNS, *PREDICTED_COLUMNS], free_rows(found), caption=FREE_TEXT)
    )
    console.print(
        table("What if", ["", "step s", "EFLOP/s", "most over mean", "moved", "dropped"], what_if_rows(found))
    )


def what_if_rows(found: Reproduction) -> list[tuple[str, ...]]:
    """Balancers under skewed routing, and a two-level all-to-all that the published runs did not have."""
    named = {f"1.93T, Zipf(1) routing, balancer {name}": run for name, run in found.balancers.items()}
    named |= {f"{name}, two-level all-to-all": run for name, run in found.what_if.items()}
    rows: list[tuple[str, ...]] = []
    for name, run in named.items():
        totals = run.summary()
        load = totals["load_balance"]
        speed = (f"{totals['step_seconds']:.3f}", f"{totals['flops_per_second'] / 1e18:.3f}")
        shares = (f"{load['moved_fraction']:.1%}", f"{load['dropped_fraction']:.1%}")
        rows.append((name, *speed, f"{load['max_over_mean']:.2f}", *shares))
    return rows


def write_reproduction(folder: Folder, found: Reproduction, command: str) -> None:
    """Write ``claims.json``, ``claims.csv``, plots and ``report.html``."""
    import pandas as pd

    folder.json("claims.json", found.plain())
    folder.frame("claims.csv", pd.DataFrame([claim.plain() for claim in found.claims]))
    pictures = _pictures(folder, found)
    first = next(iter(found.models.values()))
    load = load_model("moda-1.93t")
    sections = [
        Section(
            "Claims",
            CLAIMS_TEXT,
            ("claim", "kind", "source", "target", "simulated", "error"),
            _claim_rows(found.claims),
            3,
        ),
        Section("Scaling", figures=pictures[:2]),
        Section("How far predictions move", FREE_TEXT, (*FREE_COLUMNS, *PREDICTED_COLUMNS), free_rows(found), 1),
        breakdown_section(first.summary(), pictures[2:3]),
        Section("Placement and balancing", figures=pictures[3:5]),
        Section("What if", "", ("", "step s", "EFLOP/s", "most over mean", "moved", "dropped"), what_if_rows(found)),
        Section("Memory", figures=pictures[5:]),
        *inputs(found.machine, load, first.plan),
    ]
    warnings = list(dict.fromkeys(warning for run in found.models.values() for warning in run.summary()["warnings"]))
    lead = "Published, simulated, and how the one came from the other: exact, fitted or predicted."
    write_report(folder, published("bagualu")["title"], lead, sections, [command, "athanor fit bagualu"], warnings)


FITTED = ", fitted to"

CLAIMS_TEXT = (
    "Exact claims follow from definitions. To fitted ones a constant was fitted, so they prove only that one set of constants"
    " can meet them all. Predicted ones were not looked at by the fit."
)


def _claim_rows(claims: list[Claim]) -> list[tuple[str, ...]]:
    return [
        (
            claim.name,
            claim.kind,
            claim.source,
            f"{claim.target:.5g}",
            f"{claim.simulated:.5g}",
            percent(claim.relative_error),
        )
        for claim in claims
    ]


def _pictures(folder: Folder, found: Reproduction) -> list[Picture]:
    results = published("bagualu")
    assert found.strong is not None and found.weak is not None
    speedup, ratio = results["scaling"]["strong_speedup"], results["scaling"]["placement_speedup"]
    rate = 1e18 * results["eflops"]["moda-1.93t"]
    drawn = {
        "strong_scaling": (plots.strong_scaling(found.strong, speedup, FITTED), "The last point was fitted to 12x."),
        "weak_scaling": (plots.weak_scaling(found.weak, rate, FITTED), "The last point was fitted to 1.18 EFLOP/s."),
        "breakdown": (plots.breakdown(_summaries(found.models)), "One step of each model on 96,000 nodes."),
        "placements": (plots.placements(_summaries(found.placements), ratio, FITTED), "The ratio was fitted to 1.6x."),
        "expert_load": (plots.expert_load(_loads(found)), "Zipf(1) routing over 400 experts."),
        "memory": (plots.memory(_memory(found)), "Updates sharded in the hierarchy (as run), and not."),
    }
    return [Picture(folder.figure(name, figure), caption) for name, (figure, caption) in drawn.items()]


def _summaries(runs: dict[str, Any]) -> dict[str, Any]:
    return {name: run.summary() for name, run in runs.items()}


def _loads(found: Reproduction) -> dict[str, dict[str, list[float]]]:
    return {name: found.balancers[name].expert_load for name in ("swipe", "capacity:1.25")}


def _memory(found: Reproduction) -> dict[str, dict[str, float]]:
    """Memory of each model as run, and without sharding."""
    tables = {}
    for name, run in found.models.items():
        tables[name] = run.summary()["memory_per_rank_bytes"]
        setting = Setting.of(found.machine, name, {"zero": "0"})
        tables[f"{name}\n--zero 0"] = memory(setting, lower_step(setting)[1]).table()
    return tables
