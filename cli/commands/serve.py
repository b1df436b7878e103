"""``athanor serve``: a folder of results for the browser of this computer."""

from __future__ import annotations

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--port", type=click.IntRange(0, 65535), default=8340, show_default=True, help="0 for any that is free.")
def serve(folder: str, port: int) -> None:
    """Show a folder of results in a browser: each as a page, with links between studies, their points and runs.

    Only this computer is answered, on 127.0.0.1. Nothing is written. Ctrl-C ends it.
    """
    from ...reports.explored.folder import ResultsFolder
    from ...reports.explored.server import ResultsServer

    with ResultsServer(ResultsFolder(folder), port) as server:
        click.echo(f"{folder} is shown at {server.address} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo()
