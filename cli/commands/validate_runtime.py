"""The command ``athanor validate-runtime``."""

from __future__ import annotations

import click

from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text
from ..options import result_options


@click.command("validate-runtime")
@click.option("--trees", help="Trees to run on, such as 2x2,2x4.  [default: 2x2,2x4,4x4]")
@click.option("--plans", help="Plans to run: experts, ep, dp, fsdp, tp, pp, with commas between.  [default: experts]")
@click.option("--rate", metavar="MBIT/S", help="Rates of a node, such as 50,200,1000.  [default: 200, of 4x4 100]")
@click.option("--taper", help="Tapers of the trees' uplinks, such as 1/8,1.  [default: 3/16]")
@result_options
def validate_runtime(
    trees: str | None,
    plans: str | None,
    rate: str | None,
    taper: str | None,
    json_path: str | None,
    out: str | None,
) -> None:
    """Run training steps on emulated clusters, and print how far the predictions were off (takes minutes).

    Calibrates in one job, measures in others, and predicts from nominal and from calibrated rates. With --out,
    finished cells are kept: an interrupted study continues when it runs again.
    """
    from ...hardware.kept_points import Points
    from ...reports.pages.output_folder import Folder
    from ...reports.pages.runtime_validation import show_validation, write_validation
    from ...reports.studies.runtime_validation import chosen, steps_of, validate, varied

    check_writable(json_path)
    picked = varied(chosen(trees), plans, rate, taper)
    folder = Folder(out) if out else None
    points = Points(folder.path) if folder else None
    with progress("validate-runtime", steps_of(picked)) as advance:
        found = validate(
            picked,
            kept=points.known if points else None,
            keep=points.keep if points else lambda key, value: None,
            advance=advance,
        )
    if folder:
        write_validation(folder, found, command_text())
    emit(json_path, found.plain())
    if json_path != "-":
        show_validation(console(), found)
