"""Files of a scaling study: JSON, CSV, plots and report."""

from __future__ import annotations

from ...hardware.machine import load_machine
from ...hardware.units import si
from ...sim.studies.scaling import Study
from ..plots import plots
from ..published import published
from ..studies.bagualu_fit import RESULTS
from .html_page import Picture, Section, inputs, write_report
from .output_folder import Folder


def write_study(folder: Folder, study: Study, command: str) -> None:
    """Write ``scale.json``, ``points.csv``, plots and ``report.html``."""
    import pandas as pd

    plain = study.to_plain()
    folder.json("scale.json", plain)
    columns = (
        "nodes",
        "ranks",
        "step_seconds",
        "tokens_per_second",
        "flops_per_second",
        "peak_fraction",
        "speedup",
        "efficiency",
    )
    rows = [{column: point[column] for column in columns} | point["breakdown"] for point in plain["points"]]
    folder.frame("points.csv", pd.DataFrame(rows))
    curve = plots.strong_scaling if study.kind == "strong" else plots.weak_scaling
    measured, note = _published(study)
    drawn = folder.figure(f"{study.kind}_scaling", curve(study, measured, note))
    steps = folder.figure("breakdown", plots.breakdown({f"{point.nodes:,}": point.summary for point in study.points}))
    cells = [
        (f"{point.nodes:,}", f"{point.summary['step_seconds']:.3f}", si(point.summary["flops_per_second"], "FLOP/s"))
        + (f"{point.speedup:.2f}", f"{point.efficiency:.1%}")
        for point in study.points
    ]
    sections = [
        Section(
            "Scaling",
            "Experts and the global batch stay the same."
            if study.kind == "strong"
            else "Experts and the global batch grow with the nodes.",
            ("nodes", "step s", "FLOP/s", "speed-up", "efficiency"),
            cells,
            0,
            [
                Picture(
                    drawn, "Simulated points with their parallel efficiency, the ideal line, and what was published."
                )
            ],
        ),
        Section("Where the time goes", figures=[Picture(steps, "Shares of a step at each node count.")]),
        *inputs(study.machine, study.model, {**study.model.plan, **study.options}),
    ]
    warnings = list(dict.fromkeys(warning for point in study.points for warning in point.summary["warnings"]))
    title = f"{study.kind.capitalize()} scaling of {study.model.name} on {study.machine.name}"
    write_report(folder, title, f"{len(study.points)} points, simulated.", sections, [command], warnings)


def _published(study: Study) -> tuple[float | None, str]:
    """What BaGuaLu published of this study's largest point, if anything, and whether the machine was fitted to it."""
    results = published("bagualu")
    if study.machine.name != results["machine"] or study.points[-1].nodes != 96000:
        return None, ""
    fitted = study.machine.calibration == load_machine(results["machine"]).calibration
    if study.kind == "weak":
        eflops = results["eflops"].get(study.model.name)
        looked_at = f"eflops {study.model.name}" in RESULTS
        return (1e18 * eflops if eflops else None), ", fitted to" if fitted and looked_at else ""
    same = study.model.name == "moda-1.93t" and study.points[0].nodes * results["scaling"]["strong_ratio"] == 96000
    return (float(results["scaling"]["strong_speedup"]) if same else None), ", fitted to" if fitted else ""
