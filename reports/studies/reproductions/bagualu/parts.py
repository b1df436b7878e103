"""What the report on BaGuaLu shows beside its claims: scaling, free directions of the fit, memory, what if."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .....workloads.lowering import lower_step
from .....workloads.memory import memory
from .....workloads.model.model import load_model
from .....workloads.plan.setting import Setting
from ....content.figures import Breakdown, ExpertLoad, MemoryByPart, ScalingCurve, StepsByCategory
from ....content.inputs import inputs
from ....content.scaling import study_columns, study_rows, study_title
from ....content.sections import Drawing, ReportPart, Section
from ....content.steps import breakdown_section
from ....published import published

if TYPE_CHECKING:
    from .claims import BaGuaLu

FREE_COLUMNS = ("varies", "tokens/node", "GEMM", "network", "us/message", "ps/param.")
PREDICTED_COLUMNS = ("1.93T EF", "placed", "strong", "14.5T EF", "174T EF")
FREE_TEXT = (
    "Four unknowns meet four results exactly, at each of these numbers of tokens a node; with 174T left out, at each"
    " of these message overheads. What follows for 14.5T (and, in the last rows, for 174T) is all that the fit"
    " predicts of them: read no more into it than this range."
)


def free_rows(found: BaGuaLu) -> list[tuple[str, ...]]:
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


def parts_of(found: BaGuaLu) -> list[ReportPart]:
    """The report's parts, in their order."""
    assert found.strong is not None and found.weak is not None
    drawn = _drawings(found)
    first = next(iter(found.models.values()))
    what_if = Section(
        "What if", "", ("", "step s", "EFLOP/s", "most over mean", "moved", "dropped"), what_if_rows(found)
    )
    free = Section("How far predictions move", FREE_TEXT, (*FREE_COLUMNS, *PREDICTED_COLUMNS), free_rows(found), 1)
    return [
        *(
            ReportPart(
                Section(study_title(study), "", study_columns(study), study_rows(study), 2),
                [drawn[f"{study.kind}_scaling"]],
            )
            for study in (found.strong, found.weak)
        ),
        ReportPart(free),
        ReportPart(breakdown_section(first.summary(), ()), [drawn["breakdown"]], shown=False),
        ReportPart(Section("Placement and balancing"), [drawn["placements"], drawn["expert_load"]]),
        ReportPart(what_if),
        ReportPart(Section("Memory"), [drawn["memory"]]),
    ]


def inputs_of(found: BaGuaLu) -> list[Section]:
    """Machine, model and plan of the first run."""
    first = next(iter(found.models.values()))
    return inputs(found.machine, load_model("moda-1.93t"), first.plan)


def what_if_rows(found: BaGuaLu) -> list[tuple[str, ...]]:
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


FITTED = ", fitted to"


def _drawings(found: BaGuaLu) -> dict[str, Drawing]:
    results = published("bagualu")
    strong, weak = found.strong, found.weak
    assert strong is not None and weak is not None
    speedup, ratio = results["scaling"]["strong_speedup"], results["scaling"]["placement_speedup"]
    rate = 1e18 * results["eflops"]["moda-1.93t"]
    drawn = [
        Drawing(
            "strong_scaling",
            "The last point was fitted to 12x.",
            ScalingCurve(strong, speedup, FITTED),
        ),
        Drawing(
            "weak_scaling",
            "The last point was fitted to 1.18 EFLOP/s.",
            ScalingCurve(weak, rate, FITTED),
        ),
        Drawing(
            "breakdown",
            "One step of each model on 96,000 nodes.",
            Breakdown(_summaries(found.models), "model"),
        ),
        Drawing(
            "placements",
            "The ratio was fitted to 1.6x.",
            StepsByCategory(_summaries(found.placements), "Placement of the same mesh", "placement", ratio, FITTED),
        ),
        Drawing(
            "expert_load",
            "Zipf(1) routing over 400 experts.",
            ExpertLoad(_loads(found)),
        ),
        Drawing(
            "memory",
            "Updates sharded in the hierarchy (as run), and not.",
            MemoryByPart(_memory(found), "model"),
        ),
    ]
    return {each.name: each for each in drawn}


def _summaries(runs: dict[str, Any]) -> dict[str, Any]:
    return {name: run.summary() for name, run in runs.items()}


def _loads(found: BaGuaLu) -> dict[str, dict[str, list[float]]]:
    return {name: found.balancers[name].expert_load for name in ("swipe", "capacity:1.25")}


def _memory(found: BaGuaLu) -> dict[str, dict[str, float]]:
    """Memory of each model as run, and without sharding."""
    tables = {}
    for name, run in found.models.items():
        tables[name] = run.summary()["memory_per_rank_bytes"]
        setting = Setting.of(found.machine, name, {"zero": "0"})
        tables[f"{name}\n--zero 0"] = memory(setting, lower_step(setting)[1]).table()
    return tables
