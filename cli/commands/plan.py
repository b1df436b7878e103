"""``athanor plan``: which plan of a model is the fastest on so many ranks, and what limits it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit, progress
from ..inputs import command_text, load, under_mpi
from ..options import jobs_option, machine_option, plan_options, required_option, result_options
from ..run_files import run_file_argument
from ..sections import SectionedCommand

if TYPE_CHECKING:
    from ...reports.pages.output_folder import Folder
    from ...sim.planning.question import Question
    from ...sim.planning.search import Search


@click.command("plan", cls=SectionedCommand)
@run_file_argument("search")
@machine_option()
@click.option("--gpus", type=int, help="Ranks to plan for, with an accelerator each.")
@click.option("--nodes", type=int, help="Nodes to plan for, instead of --gpus: all their ranks are used.")
@required_option("global_batch")
@click.option("--max-memory", metavar="SIZE", help="Memory that a rank may use, such as 60GB.  [default: all it has]")
@click.option(
    "--try",
    "tries",
    multiple=True,
    metavar="KEY=V,...",
    help="Values of an option, or sizes of a mesh axis, to search instead of the usual ones: tp=4,8 or pipeline=1f1b,2bw.",
)
@click.option(
    "--limit",
    type=int,
    help="Refuse to search more plans than this.  [default: above 500,000, fewer values of some options are tried]",
)
@click.option(
    "--simulate", "simulated", type=int, default=10, show_default=True, help="How many of the best plans to simulate."
)
@jobs_option("one a core; under mpiexec its ranks")
@plan_options(lambda option: option.fixable)
@result_options
def plan(
    machine: str,
    model: str,
    gpus: int | None,
    nodes: int | None,
    max_memory: str | None,
    tries: tuple[str, ...],
    limit: int | None,
    simulated: int,
    jobs: int | None,
    settings: tuple[str, ...],
    json_path: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Find the fastest plan: searches every mesh, placement, pipeline, ZeRO level, recomputation and micro-batch.

    An option that you give is the same in all plans; the others are searched. All plans are ranked by an estimate, and the
    best are simulated. With --out, finished meshes are kept: an interrupted search continues when it runs again. Under
    mpiexec all ranks search.
    """
    from ...sim.planning.question import Question
    from ...sim.workers import workers

    hardware, chosen = load(machine, model, settings)
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: must be at least 1")
    if simulated < 1:
        raise InputError(f"--simulate {simulated}: must be at least 1")
    said = ("--machine", machine, "--model", model, *(word for each in settings for word in ("--set", each)))
    question = Question.of(hardware, chosen, options, tries, gpus, nodes, _nbytes(max_memory), said)
    # Ranks of a job all come here, so that what the first one refuses ends them too.
    with workers(jobs, mpi=under_mpi()) as crew:
        if crew is None:
            return
        check_writable(json_path)
        folder = _folder(out)
        this = _search(question, crew, limit, simulated, folder, json_path)
    _tell(this, folder, json_path)


def _search(
    question: Question, crew: Any, limit: int | None, simulated: int, folder: Folder | None, json_path: str | None
) -> Search:
    """Search with progress; an interruption leaves what there is."""
    from ...hardware.kept_points import Points
    from ...sim.planning.search import search

    points = Points(folder.path) if folder else None
    latest: list[Search] = []
    with progress("plan") as advance:

        def on_mesh(key: str, part: Any, this: Search) -> None:
            if points:
                points.keep(key, part.plain())

        try:
            for this in search(
                question,
                limit=limit,
                simulated=simulated,
                workers=crew,
                known=points.known if points else None,
                on_mesh=on_mesh,
                advance=advance,
            ):
                latest[:] = [this]
        except KeyboardInterrupt:
            if latest:
                latest[0].interrupted = True
                _tell(latest[0], folder, json_path)
            raise
    return latest[0]


def _tell(this: Search, folder: Folder | None, json_path: str | None) -> None:
    """What was found, to where it was asked for."""
    from ...reports.pages.plan import show_search, write_search

    plain = this.plain()
    if folder:
        write_search(folder, plain, this.question, command_text())
    emit(json_path, plain)
    if json_path != "-":
        show_search(console(), plain)


def _folder(out: str | None) -> Folder | None:
    from ...reports.pages.output_folder import Folder

    return Folder(out) if out else None


def _nbytes(text: str | None) -> float | None:
    from ...hardware.units import read_bytes

    if text is None:
        return None
    try:
        return float(read_bytes(text))
    except ValueError as wrong:
        raise InputError(f"--max-memory {text}: {wrong}") from None
