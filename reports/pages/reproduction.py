"""Files and tables of a reproduction: what was found in short, figures, claims, what stands beside them, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console

from ..content.figures import ClaimErrors
from ..content.sections import Drawing, Picture, ReportPart, Section
from ..content.words import shown
from ..plots.draw import draw
from ..studies.claims import KINDS, Claim
from ..studies.reproductions.record import Reproduction
from ..tables.runs import claim_cells, claims_table, table
from .html_page import write_report
from .output_folder import Folder, all_or_nothing

KIND_COLUMNS = ("kind", "what it means", "claims", "agree", "median error", "worst error")

NEAR = 0.05
"""Numbers that are off by less than this agree with what was published."""


def answer(claims: Sequence[Claim]) -> str:
    """What was found, in two sentences."""
    told = []
    for kind in KINDS:
        mine = [claim for claim in claims if claim.kind == kind]
        if mine and kind != "contradiction":
            told.append(f"{sum(map(agrees, mine))} of {len(mine)} {kind}")
    against = sum(claim.kind == "contradiction" for claim in claims)
    more = f" {against} figures of the sources contradict others of theirs." if against else ""
    return f"Claims that agree with what was published, numbers within {NEAR:.0%}: {', '.join(told)}.{more}"


def agrees(claim: Claim) -> bool:
    """Whether a claim is met: a truth as it was published, a number nearly."""
    return claim.simulated == claim.target if claim.yes_or_no else abs(claim.relative_error) <= NEAR


def kind_rows(claims: Sequence[Claim]) -> Iterator[tuple[str, ...]]:
    """How far claims of each kind are from what was published."""
    for kind, meaning in KINDS.items():
        mine = [claim for claim in claims if claim.kind == kind]
        sizes = [abs(claim.relative_error) for claim in mine if not claim.yes_or_no]
        errors = (f"{np.median(sizes):.1%}", f"{max(sizes):.1%}") if sizes else ("", "")
        if mine:
            yield (kind, meaning, f"{len(mine)}", f"{sum(map(agrees, mine))}", *errors)


def show_reproduction(console: Console, found: Reproduction) -> None:
    """Claims and the tables beside them on the terminal."""
    console.print(claims_table([claim.plain() for claim in found.claims], found.title))
    for part in found.parts:
        if part.shown and part.section.rows:
            section = part.section
            console.print(
                table(section.title, section.columns, section.rows, section.text_columns, caption=section.text)
            )


@all_or_nothing
def write_reproduction(folder: Folder, found: Reproduction, command: str) -> None:
    """Write ``claims.json``, ``claims.csv``, figures and ``report.html``."""
    import pandas as pd

    folder.json("claims.json", found.plain())
    sides = ("target", "simulated")
    rows = [
        {**each, **{side: shown(each[side]) for side in sides}} for each in (claim.plain() for claim in found.claims)
    ]
    folder.frame("claims.csv", pd.DataFrame(rows))
    numbers: dict[str, list[float]] = {
        kind: errors
        for kind in KINDS
        if (errors := [each.relative_error for each in found.claims if each.kind == kind and not each.yes_or_no])
    }
    drawings = []
    if numbers:
        caption = "A mark for each claim that is a number."
        drawings = [Drawing("claims", caption, ClaimErrors(numbers, {kind: kind for kind in KINDS}))]
    short = ReportPart(Section("In short", "", KIND_COLUMNS, [*kind_rows(found.claims)], 2), drawings)
    columns = ("claim", "kind", "source", "target", "simulated", "error")
    claims = Section("Claims", "", columns, [_row(claim) for claim in found.claims], 3)
    sections = [*(_drawn(folder, part) for part in (short, *found.parts)), claims, *found.inputs]
    write_report(folder, found.title, answer(found.claims), sections, [command, *found.commands], found.warnings)


def _drawn(folder: Folder, part: ReportPart) -> Section:
    """The part's section with its figures, which are written too."""
    pictures = [Picture(folder.figure(each.name, draw(each.content)), each.caption) for each in part.drawings]
    return replace(part.section, figures=pictures)


def _row(claim: Claim) -> tuple[str, ...]:
    return (claim.name, claim.kind, claim.source, *claim_cells(claim.plain()))
