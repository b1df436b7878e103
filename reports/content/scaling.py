"""A scaling study as a title, in a sentence, and as rows: each point with its mesh, experts and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...hardware.units import si
from ...workloads.mesh.mesh_text import mesh_text
from .words import count_text

if TYPE_CHECKING:
    from ...sim.studies.scaling import Study

GROWN = {
    "experts": "Experts and the batch grow with the nodes: each point is a larger model.",
    "data": "The batch grows with the nodes: each point is the same model on more replicas.",
    None: "Model and batch stay the same.",
}
"""What grows in a study."""


def study_title(study: Study) -> str:
    """What a scaling study is of."""
    return f"{study.kind.capitalize()} scaling of {study.model.name} on {study.machine.name}"


def grown(study: Study) -> str:
    """What grows with the nodes, and from where to where."""
    first, last = study.points[0], study.points[-1]
    if first.experts == last.experts:
        return GROWN[study.grow]
    sizes = (count_text(each.summary["parameters"]["total"]) for each in (first, last))
    return f"{GROWN[study.grow]} {first.experts:,} to {last.experts:,} experts, {' to '.join(sizes)} parameters."


def answer(study: Study) -> str:
    """What the study found, in a sentence."""
    first, last = study.points[0], study.points[-1]
    step = si(last.summary["step_seconds"], "s", 3)
    if first is last:
        return f"{first.nodes:,} nodes: a step takes {step}, {si(first.summary['flops_per_second'], 'FLOP/s', 3)}."
    return (
        f"From {first.nodes:,} to {last.nodes:,} nodes: {last.speedup:.2f} times as fast, {last.efficiency:.1%} of the ideal"
        f" {last.nodes / first.nodes:g}. On {last.nodes:,} nodes a step takes {step},"
        f" {si(last.summary['flops_per_second'], 'FLOP/s', 3)}."
    )


def study_columns(study: Study) -> tuple[str, ...]:
    """Heads of :func:`study_rows`."""
    experts = ("experts",) if study.model.experts else ()
    return (
        "nodes",
        "mesh",
        *experts,
        "parameters",
        "step",
        "FLOP/s",
        "MFU",
        "HFU",
        "tokens/s",
        "speed-up",
        "efficiency",
    )


def study_rows(study: Study) -> list[tuple[str, ...]]:
    """The points of a scaling study."""
    return [
        (f"{point.nodes:,}", mesh_text(point.summary["mesh"]))
        + ((f"{point.experts:,}",) if study.model.experts else ())
        + (count_text(point.summary["parameters"]["total"], 4), si(point.summary["step_seconds"], "s"))
        + (
            si(point.summary["flops_per_second"], "FLOP/s"),
            f"{point.summary['mfu']:.1%}",
            f"{point.summary['hfu']:.1%}",
        )
        + (si(point.summary["tokens_per_second"], "tokens/s"),)
        + (f"{point.speedup:.2f}", f"{point.efficiency:.1%}")
        for point in study.points
    ]


def study_points(study: Study) -> list[dict[str, Any]]:
    """The points as rows of a CSV file, numbers as they are, the mesh as on the command line."""
    columns = ("ranks", "step_seconds", "tokens_per_second", "flops_per_second", "peak_fraction", "mfu", "hfu")
    return [
        {"nodes": point.nodes, "mesh": mesh_text(point.summary["mesh"]), "experts": point.experts}
        | {"parameters": point.summary["parameters"]["total"], **{key: point.summary[key] for key in columns}}
        | {"speedup": point.speedup, "efficiency": point.efficiency, **point.summary["breakdown"]}
        for point in study.points
    ]
