"""``athanor doctor``: what works on this computer, and what to do about what does not."""

from __future__ import annotations

import sys

import click

from ...hardware.errors import InputError
from ..inputs import under_mpi
from ..options import json_option
from ..sections import SectionedCommand


@click.command(cls=SectionedCommand)
@json_option("Write what was found as JSON; - for standard output.")
def doctor(json_path: str | None) -> None:
    """Try what Athanor uses on this computer, and say what to do where it does not work.

    Python, packages and extras; a small simulation; MPI, its launcher and some ranks that really start; network namespaces;
    places to write to; a browser; completion in the shell. It changes nothing. Exit status 0 where the core works (Python,
    libraries, the simulation), 1 where it does not.
    """
    from ...reports.tables.terminal import check_writable, emit
    from ..doctor import examine

    if under_mpi():
        raise InputError("athanor doctor starts ranks itself: call it without mpiexec")
    check_writable(json_path)
    found = []
    for each in examine():
        found.append(each)
        if json_path != "-":
            click.echo(f"{'ok' if each.works else 'no' if each.core else '--'}  {each.subject:18}{each.found}")
            if not each.works:
                click.echo(f"{'':22}needed for: {each.needed}")
                click.echo(f"{'':22}do: {each.do}")
    works = all(each.works for each in found if each.core)
    emit(json_path, {"works": works, "findings": [each.plain() for each in found]})
    if json_path != "-":
        open_ends = sum(not each.works for each in found)
        more = f"; {open_ends} of {len(found)} things are missing or broken" if open_ends else ""
        click.echo(f"the core works{more}" if works else f"the core does not work{more}")
    if not works:
        sys.exit(1)
