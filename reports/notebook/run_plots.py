"""``run.plot``: the plots of a run as drawings that notebooks show."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...hardware.errors import InputError, suggestion
from ...workloads.results.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plots(run: Run) -> RunDrawings:
    """The plots of a run."""
    return RunDrawings(run)


KINDS = (".png", ".svg", ".pdf")

SHOWN = 96
"""Pixels for each inch of a figure."""


class RunDrawing:
    """A drawing of a run; it is drawn when it is first asked for."""

    def __init__(self, draw: Callable[[], Figure]) -> None:
        self._draw = draw

    @cached_property
    def figure(self) -> Figure:
        """Matplotlib's figure."""
        return self._draw()

    def save(self, path: str | Path) -> None:
        """Write it as the ending of ``path`` says; raises :class:`InputError` for another one, or where it cannot be written."""
        kind = Path(path).suffix.lower()
        if kind not in KINDS:
            raise InputError(f"{path}: must end in {', '.join(KINDS)}")
        try:
            self.figure.savefig(path, bbox_inches="tight")
        except OSError as reason:
            raise InputError(f"{path}: cannot be written: {reason.strerror}") from None

    def _repr_png_(self) -> tuple[bytes, dict[str, float]]:
        """PNG, which notebooks ask for, and how wide it is shown: hatched areas make SVG ten times as large."""
        from ..plots.draw import as_png

        return as_png(self.figure), {"width": SHOWN * self.figure.get_figwidth()}


class RunDrawings:
    """The plots of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def timeline(self, ranks: str | None = None) -> RunDrawing:
        """What each stream did in the step of median length, and when.

        ``ranks`` names a class of ranks (``run.classes``), by default the first. Raises :class:`InputError` for another name.
        """
        from ..plots.timelines import timelines
        from ..studies.comparison.sides import Side
        from ..studies.comparison.timeline import timeline

        side = Side.of(self._run)
        chosen = next(iter(side.classes), "") if ranks is None else ranks
        if chosen not in side.classes:
            raise InputError(f"ranks {chosen}: no such class of ranks{suggestion(chosen, side.classes)}")
        found = timeline(side, chosen)
        how = "measured" if self._run.totals.measured else "simulated"
        return RunDrawing(lambda: timelines({how: found}, height=2.6))

    def breakdown(self) -> RunDrawing:
        """Where the step's time goes, by phase and category: exposed seconds, mean over ranks."""
        from ..plots.runs import breakdown

        totals = self._run.summary()
        return RunDrawing(lambda: breakdown({totals["model"]: totals}, "model"))

    def links(self) -> RunDrawing:
        """The busy share of each kind of link: the mean of all, and of the most used one."""
        from ..plots.runs import links

        totals = self._run.summary()
        return RunDrawing(lambda: links(totals))

    def memory(self) -> RunDrawing:
        """What the fullest rank holds in bytes, against its capacity."""
        from ..plots.runs import memory

        totals = self._run.summary()
        return RunDrawing(lambda: memory({totals["model"]: totals["memory_per_rank_bytes"]}, "model"))

    def expert_load(self) -> RunDrawing:
        """Tokens of the ranks of an expert-parallel group over their mean, before and after balancing, in the first layer.

        Raises :class:`InputError` of a model without experts.
        """
        from ..plots.runs import expert_load

        if not self._run.expert_load:
            raise InputError(f"{self._run.totals.model} has no experts whose load could be drawn")
        return RunDrawing(lambda: expert_load({f"balancer {self._run.plan['balancer']}": self._run.expert_load}))
