"""Files of a scaling study: JSON, CSV, plots and report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...hardware.machine import load_machine
from ..content.inputs import inputs
from ..content.scaling import answer, grown, study_columns, study_points, study_rows, study_title
from ..content.sections import Picture, Section
from ..plots.runs import breakdown
from ..plots.scaling import scaling
from ..published import published
from ..studies.reproductions.bagualu.fit import RESULTS
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

if TYPE_CHECKING:
    from ...sim.studies.scaling import Study


@all_or_nothing
def write_study(folder: Folder, study: Study, command: str) -> None:
    """Write ``scale.json``, machine and model, ``points.csv``, plots and ``report.html``."""
    import pandas as pd

    folder.json("scale.json", study.to_plain())
    folder.inputs(study.machine, study.model)
    folder.frame("points.csv", pd.DataFrame(study_points(study)))
    drawn = folder.figure(f"{study.kind}_scaling", scaling(study, *_published(study)))
    runs = {f"{point.nodes:,}": point.summary for point in study.points}
    steps = folder.figure("breakdown", breakdown(runs, "nodes"))
    caption = (
        "Simulated points with their parallel efficiency, the ideal line, and what was published, if anything was."
    )
    sections = [
        Section("Scaling", grown(study), study_columns(study), study_rows(study), 2, [Picture(drawn, caption)]),
        Section("Where the time goes", figures=[Picture(steps, "Shares of a step at each node count.")]),
        *inputs(study.machine, study.model, {**study.model.plan, **study.options}),
    ]
    warnings = list(dict.fromkeys(warning for point in study.points for warning in point.summary["warnings"]))
    write_report(folder, study_title(study), answer(study), sections, [command], warnings)


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
