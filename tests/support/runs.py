"""Files of published runs with some of the runs only."""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from athanor.reports.published.read_runs import RUNS
from athanor.reports.published.run import PublishedRun

BEGIN = "[[run]]\n"


def with_some(folder: Path, choose: Callable[[list[str]], Iterable[str]]) -> Path:
    """Files of the published runs, in ``folder``, with those only that ``choose`` takes of a file's names; none is empty."""
    folder.mkdir(exist_ok=True)
    for path in RUNS.glob("*.toml"):
        head, *runs = path.read_text(encoding="utf-8").split(BEGIN)
        named = {tomllib.loads(run)["id"]: run for run in runs}
        if kept := set(choose(list(named))):
            chosen = [run for name, run in named.items() if name in kept]
            (folder / path.name).write_text(BEGIN.join([head, *chosen]), encoding="utf-8")
    return folder


def accelerators(run: PublishedRun) -> int:
    """How many it ran on; a great many where that is not known."""
    ranks = run.accelerators or 1
    for size in run.plan.get("mesh", {"all": 1 << 30}).values():
        ranks *= size
    return ranks
