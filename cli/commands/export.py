"""``athanor export``: runs, machines and run files in the formats of others."""

from __future__ import annotations

from pathlib import Path

import click

from ...hardware.errors import InputError
from ..sections import Names


def _formats() -> list[str]:
    from ...reports.formats.exporters import EXPORTERS

    return EXPORTERS.names()


@click.command()
@click.argument("kind", metavar="FORMAT", type=Names(_formats))
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("-o", "output", metavar="OUT", required=True, help="The file to write; a folder where there are several.")
@click.option("--machine", type=Names("machines", files=True), help="The machine, where a run file names none.")
@click.option("--model", type=Names("models", files=True), help="The model, where a run file names none.")
@click.option("--ranks", type=int, metavar="N", help="Of formats with a file a rank write the first N.  [default: all]")
def export(kind: str, file: str, output: str, machine: str | None, model: str | None, ranks: int | None) -> None:
    """Write a run, a machine or a run file in the format of another tool.

    FORMAT is one of athanor list exporters, which says of what each is made: traces of a run that simulate or execute
    wrote with -o; a platform of a machine; flags and scripts of a run file, RUN.TOML.
    """
    from ...hardware.files import write_all
    from ...reports.formats.exporters import EXPORTERS
    from ...reports.formats.kinds import Wanted

    if ranks is not None and ranks < 1:
        raise InputError(f"--ranks {ranks}: must be at least 1")

    def tell(note: str) -> None:
        click.echo(f"athanor: note: {note}", err=True)

    wanted = Wanted(Path(output), machine=machine, model=model, ranks=ranks, tell=tell)
    contents = EXPORTERS.find(kind).files(Path(file), wanted)
    for folder in {path.parent for path in contents}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as reason:
            raise InputError(f"{folder}: cannot be made: {reason.strerror}") from None
    write_all(contents)
    size = sum(len(content) for content in contents.values())
    paths = [*map(str, contents)]
    named = paths[0] if len(paths) == 1 else f"{len(paths)} files from {paths[0]} on"
    click.echo(f"{named}: {kind} of {file}, {size:,} bytes")
