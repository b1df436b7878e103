"""``athanor import``: files of others become a model, a run file, a machine or a run."""

from __future__ import annotations

from pathlib import Path

import click

from ...hardware.errors import InputError
from ..sections import Names


def _formats() -> list[str]:
    from ...reports.formats.importers import IMPORTERS

    return IMPORTERS.names()


@click.command("import")
@click.argument("kind", metavar="FORMAT", type=Names(_formats))
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("-o", "output", metavar="OUT", help="The file to write.  [default: show it here]")
@click.option("--name", help="Name of what is made.  [default: what the file says of itself, or its own name]")
@click.option(
    "--machine",
    type=Names("machines", files=True),
    help="The machine that a run file is for; or whose other numbers a new machine takes.",
)
@click.option("--model", type=Names("models", files=True), help="The model, where the file does not describe it.")
@click.option("--architecture", metavar="NAME", help="With hf: read the file as this one (athanor list architectures).")
@click.option("--ignore", multiple=True, metavar="KEY", help="Leave out a key that cannot be carried.")
@click.option(
    "--define",
    "defined",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the file leaves open: a variable of a script, or a key.",
)
def import_(
    kind: str,
    file: str,
    output: str | None,
    name: str | None,
    machine: str | None,
    model: str | None,
    architecture: str | None,
    ignore: tuple[str, ...],
    defined: tuple[str, ...],
) -> None:
    """Read a file of another tool; what it says that cannot be carried is refused, by its key.

    FORMAT is one of athanor list importers. Models, run files and machines are written as TOML, runs as JSON.
    """
    from ...hardware.files import write_all
    from ...reports.formats.importers import IMPORTERS
    from ...reports.formats.kinds import Asked
    from ...reports.formats.writing import files_of

    pairs = [each.partition("=") for each in defined]
    if wrong := next((key for key, equals, _ in pairs if not equals), None):
        raise InputError(f"--define {wrong}: write KEY=VALUE")

    def tell(note: str) -> None:
        click.echo(f"athanor: note: {note}", err=True)

    asked = Asked(
        name=name,
        machine=machine,
        model=model,
        architecture=architecture,
        ignore=frozenset(ignore),
        defined={key.strip(): value.strip() for key, _, value in pairs},
        tell=tell,
    )
    importer = IMPORTERS.find(kind)
    made = importer.read(Path(file), asked)
    target = Path(output) if output else Path(f"{Path(file).stem}.toml")
    contents = files_of(made, target)
    if output:
        write_all({**contents})
        click.echo(f"{' and '.join(map(str, contents))}: {importer.makes} of {file}")
        return
    for path, text in contents.items():
        click.echo(f"# {path.name}\n{text}" if len(contents) > 1 else text, nl=False)
