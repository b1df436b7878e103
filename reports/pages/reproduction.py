"""Files and tables of a reproduction: claims, what stands beside them, figures and report."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from ..studies.claims import Claim
from ..studies.reproductions.record import ReportPart, Reproduction
from ..tables.runs import claims_table, percent, table
from .html_page import Picture, Section, write_report
from .output_folder import Folder

LEAD = "Published, simulated, and how the one came from the other: exact, fitted or predicted."

CLAIMS_TEXT = (
    "Exact claims follow from definitions. To fitted ones a constant was fitted, so they prove only that one set of constants"
    " can meet them all. Predicted ones were not looked at by any fit."
)


def show_reproduction(console: Console, found: Reproduction) -> None:
    """Claims and the tables beside them on the terminal."""
    console.print(claims_table([claim.plain() for claim in found.claims], found.title))
    for part in found.parts:
        if part.shown and part.section.rows:
            section = part.section
            console.print(
                table(section.title, section.columns, section.rows, section.text_columns, caption=section.text)
            )


def write_reproduction(folder: Folder, found: Reproduction, command: str) -> None:
    """Write ``claims.json``, ``claims.csv``, figures and ``report.html``."""
    import pandas as pd

    folder.json("claims.json", found.plain())
    folder.frame("claims.csv", pd.DataFrame([claim.plain() for claim in found.claims]))
    columns = ("claim", "kind", "source", "target", "simulated", "error")
    claims = Section("Claims", CLAIMS_TEXT, columns, [_row(claim) for claim in found.claims], 3)
    sections = [claims, *(_drawn(folder, part) for part in found.parts), *found.inputs]
    write_report(folder, found.title, LEAD, sections, [command, *found.commands], found.warnings)


def _drawn(folder: Folder, part: ReportPart) -> Section:
    """The part's section with its figures, which are written too."""
    pictures = [Picture(folder.figure(each.name, each.draw()), each.caption) for each in part.drawings]
    return replace(part.section, figures=pictures)


def _row(claim: Claim) -> tuple[str, ...]:
    error = percent(claim.relative_error)
    return (claim.name, claim.kind, claim.source, f"{claim.target:.5g}", f"{claim.simulated:.5g}", error)
