"""One self-contained HTML report: sections of text, tables and figures, with inputs, sources, warnings and commands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...hardware.version import version
from ..content.sections import Section
from .output_folder import Folder

TEMPLATES = Path(__file__).parent / "templates"


@lru_cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template("report.html.j2")


def write_report(
    folder: Folder, title: str, lead: str, sections: Sequence[Section], commands: Sequence[str], warnings: Sequence[str]
) -> None:
    """Write ``report.html``: it needs no other file and no network."""
    text = _template().render(
        title=title, lead=lead, sections=sections, commands=commands, warnings=warnings, version=version()
    )
    folder.text("report.html", text)
