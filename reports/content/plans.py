"""A plan search in words and rows."""

from __future__ import annotations

from typing import Any

from ...hardware.units import si
from ...workloads.mesh.mesh_text import mesh_text
from .words import percent, shown

COLUMNS = ("mesh", "placement", "options", "step s", "formula", "GB a rank")


def narrowing(found: dict[str, Any]) -> str:
    """What was left out where there were too many plans, and how to have it."""
    kept = "; ".join(f"{key.replace('_', '-')} {', '.join(map(str, each))}" for key, each in found["narrowed"].items())
    return (
        f"too many plans: only those with {kept} were searched, {found['left_out']:,} others were not;"
        " --try names other values, --limit allows more plans"
    )


def plan_row(plan: dict[str, Any]) -> tuple[str, ...]:
    """A plan as a line of a table; the formula's error stands where the engine has run it."""
    error = percent(plan["closed_form_seconds"] / plan["step_seconds"] - 1) if plan["simulated"] else ""
    total = plan["memory_per_rank_bytes"]["total"]
    return (
        mesh_text(plan["mesh"]),
        plan["placement"],
        options_text(plan),
        f"{plan['step_seconds']:.4g}",
        error,
        f"{total / 1e9:.1f}",
    )


def options_text(plan: dict[str, Any]) -> str:
    """The choices of a plan beside its mesh, those that are as always left out."""
    options = plan["options"]
    words = [f"zero {options['zero']}", f"recompute {options['recompute']}"]
    if options["micro_batch"]:
        words.insert(0, f"micro-batch {options['micro_batch']}")
    if "pp" in plan["mesh"]:
        chunks = f" x {options['chunks']}" if options["chunks"] > 1 else ""
        ends = ", ends count" if options.get("stage_layers") == "ends" else ""
        words.append(f"{options['pipeline']}{chunks}{ends}")
    words += ["sequence-parallel"] if options["sequence_parallel"] else []
    words += ["overlap"] if options["overlap"] != "none" else []
    words += [f"offload {options['offload']}"] if options["offload"] != "none" else []
    words += [f"tensor {options['tensor']}"] if options["tensor"] != "1d" else []
    words += [f"experts {options['expert_tensor']}"] if options["expert_tensor"] != "split" else []
    return ", ".join(words)


def sentence(found: dict[str, Any]) -> str:
    """What limits the best plan, and how far the next one is."""
    limits, parts = found["limits"], []
    if limits:
        shares = sorted(limits["breakdown"].items(), key=lambda pair: -pair[1])
        busiest = max(limits["links"].items(), key=lambda pair: pair[1], default=None)
        parts.append(
            "the best plan's step is "
            + ", ".join(f"{share:.0%} {name.replace('_', ' ')}" for name, share in shares[:4])
        )
        if busiest:
            parts.append(f"its busiest link is {busiest[0]}, {busiest[1]:.0%} of the time")
        parts.append(f"it takes {limits['memory']:.0%} of the memory")
    if found["margin"] is not None:
        parts.append(f"the next plan takes {found['margin']:.2%} longer")
    if found["margin_to_next_mesh"] is not None:
        parts.append(f"the next mesh {found['margin_to_next_mesh']:.2%}")
    if error := found["closed_form_error"]:
        parts.append(
            f"the formula is off by {error['mean_absolute']:.2%} in the mean, {percent(error['worst'])} at worst"
        )
    return "; ".join(parts).capitalize() + "."


def best_plan(found: dict[str, Any]) -> str:
    """The best plan in a sentence."""
    if not found["plans"]:
        return "No plan fits."
    best = found["plans"][0]
    more = options_text(best)
    return f"The fastest plan is {mesh_text(best['mesh'])}, {more}: a step takes {si(best['step_seconds'], 's')}."


def machine_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Each part of the machine twice as good."""
    return [
        (each["part"], f"{each['seconds']:.4g}", f"{each['gain']:.1%}", each["note"]) for each in found["sensitivity"]
    ]


def change_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Each choice made otherwise."""
    return [
        (each["option"].replace("_", "-"), shown(each["before"]), shown(each["after"]), f"{each['seconds']:.4g}")
        + (f"{each['gain']:.1%}", "" if each["fits"] else "does not fit")
        for each in found["changes"]
    ]
