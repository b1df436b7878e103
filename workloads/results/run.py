"""The Run: what was done and when, in one format for the simulator and the MPI runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from ...hardware.errors import InputError
from ...hardware.files import write_whole
from ...hardware.records import describe, parsed_json
from ...hardware.shown import Shown, made
from .run_inputs import RunInputs
from .totals import Totals
from .trace import COLUMNS, TraceRow

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT, OLDER = "athanor-run/2", "athanor-run/1"
"""The format of files, and the one before, whose traces have names instead of roles."""

ROWS_AT_ONCE = 10_000
"""Rows that are written together."""


class Plot(Protocol):
    """A drawing that notebooks show; ``figure`` is matplotlib's."""

    @property
    def figure(self) -> Figure:
        """The figure, to be changed or shown elsewhere."""

    def save(self, path: str | Path) -> None:
        """Write it as the ending of ``path`` says: PNG, SVG or PDF."""


class RunPlots(Protocol):
    """Plots of a run."""

    def timeline(self, ranks: str | None = None) -> Plot:
        """What each stream did in a step, and when; ``ranks`` names the class of ranks, by default the first."""

    def breakdown(self) -> Plot:
        """Where the step's time goes, by phase and category."""

    def links(self) -> Plot:
        """How much each kind of link is used."""

    def memory(self) -> Plot:
        """What the fullest rank holds, against its capacity."""

    def expert_load(self) -> Plot:
        """The load of experts' ranks before and after balancing; raises :class:`InputError` of a model without experts."""


VOLATILE = ("wall_seconds", "peak_rss_bytes")
"""Keys of a summary that differ from one execution to the next; all others are decided by the inputs and the seed."""


@dataclass(frozen=True)
class Run(Shown):
    """A simulated or measured run.

    ``totals`` is the summary that ``--json`` prints; ``trace`` has a row for each operation and observed class of
    ranks, which may be made only when it is asked for; ``classes`` says which ranks those are; ``expert_load`` is the load of the
    ranks of one expert-parallel group in the first layer, over its mean, before and after balancing. ``inputs`` are the
    machine and the model, where the run knows them.
    """

    totals: Totals
    plan: dict[str, Any]
    classes: dict[str, dict[str, Any]]
    trace: Sequence[TraceRow] = field(repr=False)
    expert_load: dict[str, list[float]] = field(repr=False)
    inputs: RunInputs | None = field(default=None, repr=False, compare=False)

    def summary(self) -> dict[str, Any]:
        """The totals, as plain data."""
        return self.totals.plain()

    @property
    def plot(self) -> RunPlots:
        """Plots of this run, which notebooks show: ``run.plot.timeline()``."""
        found: RunPlots = made("plots", self)
        return found

    def to_frame(self) -> pd.DataFrame:
        """The trace as a data frame, with times in seconds from the start of the step."""
        import pandas as pd

        return pd.DataFrame(list(self.trace), columns=list(COLUMNS))

    def links_frame(self) -> pd.DataFrame:
        """Use of each kind of link as a data frame."""
        import pandas as pd

        return pd.DataFrame([each.model_dump() for each in self.totals.links])

    def save(self, path: str | Path) -> None:
        """Write the whole run as JSON; raises :class:`InputError` where that is impossible."""
        write_whole(path, chain(self._pieces(), ["\n"]))

    def to_plain(self) -> dict[str, Any]:
        """The whole run as plain data."""
        return {
            "format": FORMAT,
            "summary": self.totals.plain(),
            "plan": self.plan,
            **({"inputs": self.inputs.plain()} if self.inputs else {}),
            "classes": self.classes,
            "expert_load": self.expert_load,
            "trace": {"columns": list(COLUMNS), "rows": [list(row) for row in self.trace]},
        }

    def to_json(self) -> str:
        """The whole run as JSON text."""
        return "".join(self._pieces())

    def _pieces(self) -> Iterator[str]:
        """The same, some rows at a time."""
        whole = json.dumps(replace(self, trace=()).to_plain())
        end = "]}}"  # rows stand last
        yield whole.removesuffix(end)
        rows, between = iter(self.trace), ""
        while some := [list(row) for row in islice(rows, ROWS_AT_ONCE)]:
            yield between + json.dumps(some)[1:-1]
            between = ", "
        yield end

    @classmethod
    def from_plain(cls, plain: Any, name: str) -> Run:
        """The run that :meth:`to_plain` gave; raises :class:`InputError` that names its source for anything else."""
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            found = plain.get("format") if isinstance(plain, dict) else None
            older = "; an older athanor wrote it: make the run again" if found == OLDER else ""
            raise InputError(f'{name}: format is {found!r}, must be "{FORMAT}"{older}')
        try:
            trace = plain["trace"]
            if trace["columns"] != list(COLUMNS):
                raise InputError(f"{name}: trace.columns must be {', '.join(COLUMNS)}")
            rows = list(_rows(trace["rows"], name))
            inputs = RunInputs.read(plain["inputs"], name) if "inputs" in plain else None
            totals = _totals(plain["summary"], name)
            return cls(totals, plain["plan"], plain["classes"], rows, plain["expert_load"], inputs)
        except (KeyError, TypeError) as reason:
            raise InputError(f"{name}: a run has no or a wrong {reason}") from None

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read what :meth:`save` wrote; raises :class:`InputError` for anything else."""
        try:
            plain = parsed_json(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except (OSError, ValueError) as reason:
            raise InputError(f"{path}: no run can be read from it: {reason}") from None
        return cls.from_plain(plain, str(path))


def _totals(summary: Any, name: str) -> Totals:
    """The totals of a file; raises :class:`InputError` that names the key which is wrong."""
    try:
        return Totals.model_validate(summary)
    except ValidationError as wrong:
        raise InputError(f"{name}: summary.{describe(Totals, wrong)}") from None


def _rows(rows: Any, name: str) -> Iterator[TraceRow]:
    """The rows of a trace as records; raises :class:`InputError` for the first that is none, and says what is wrong in it."""
    if not isinstance(rows, list):
        raise InputError(f"{name}: trace.rows must be a list")
    for number, row in enumerate(rows):
        try:
            yield TraceRow.read(row)
        except ValueError as reason:
            raise InputError(f"{name}: row {number} of the trace {reason}") from None
