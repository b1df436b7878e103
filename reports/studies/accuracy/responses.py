"""How runs answer to constants: predicted over measured seconds, simulated where that counts and by planes in between.

A step takes as long as the longest path through its operations, whose times are amounts over rates. In the inverses of rates it
is a maximum of linear functions, so that every simulated point with its slopes is a plane below it (Kelley's cutting planes).
The highest plane stands for the simulator wherever it was seen to be within :data:`EXACT` of it; elsewhere the simulator is
asked. Planes that lie above a simulated value (shared links are not quite linear) are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....hardware.version import key
from ....sim.studies.points import points
from ....sim.workers import on_cores
from ...published.run import PublishedRun
from .cases import LeftOut
from .metrics import predict, simulated
from .targets import FittedConstant

Array = NDArray[np.float64]

EXACT = 0.002
"""How far planes may be from the simulator, relative to a step, until it is asked for slopes."""

NEAR = 0.002
"""How near a point is that need not be looked at again."""

NONE = float("nan")
"""A plane that is none."""

STEP = 0.03
"""The relative step of slopes."""

FOR_PEOPLE = {"source", "at", "notes", "assumed", "confidence", "fitted", "publication"}
"""Keys of a run that decide nothing about its answer."""

Answer = tuple[float, float, int | None]
"""Predicted and measured seconds (of a bandwidth, their inverses), and the sequences of the micro-batch that was taken."""

Ask = Callable[[Sequence[tuple[PublishedRun, Mapping[str, float]]]], list[Answer]]
"""Simulates runs, each on its machine with other values at some keys."""


@contextmanager
def simulator(
    jobs: int | None = None,
    known: Mapping[str, dict[str, Any]] | None = None,
    keep: Callable[[str, dict[str, Any]], None] = lambda name, answer: None,
) -> Iterator[Ask]:
    """Simulates by ``jobs`` processes, by default one a core; what was asked once, or is ``known`` from before, is not again.

    ``keep`` hears of each new answer with its key, which is made of the run, the values and the program.
    """
    earlier = dict(known or {})

    with on_cores(jobs) as crew:

        def ask(work: Sequence[tuple[PublishedRun, Mapping[str, float]]]) -> list[Answer]:
            keys = [_key(run, values) for run, values in work]
            tasks = {name: (run, dict(values)) for name, (run, values) in zip(keys, work, strict=True)}
            for name, answer in points(_answer, tasks, earlier, crew):
                if name not in earlier:
                    earlier[name] = answer
                    keep(name, earlier[name])
            return [_read(earlier[name]) for name in keys]

        yield ask


@lru_cache(maxsize=4096)
def _told(run: str) -> str:
    return key(run)


def _key(run: PublishedRun, values: Mapping[str, float]) -> str:
    """What decides an answer: the run as its record has it, values, and the program."""
    return f"{_told(run.model_dump_json(exclude=FOR_PEOPLE))}-{sorted(values.items())}"


def _read(answer: Mapping[str, Any]) -> Answer:
    if answer["seconds"] is None:
        return float("nan"), float("nan"), None
    return answer["seconds"], answer["measured"], answer["micro_batch"]


def _answer(work: tuple[PublishedRun, dict[str, float]]) -> dict[str, Any]:
    """Seconds of a run; what it sets of its machine holds. None where it is not predicted."""
    run, values = work
    other = {key: value for key, value in values.items() if key not in run.set}
    try:
        made = predict(run, simulated, lambda machine: machine.changed(other) if other else machine)
    except LeftOut:
        return {"seconds": None, "measured": None, "micro_batch": None}
    if (
        made.setting is None or made.seconds is None or made.measured_seconds is None
    ):  # a bandwidth: its inverse is a time
        return {"seconds": 1 / made.value, "measured": 1 / run.value, "micro_batch": None}
    return {"seconds": made.seconds, "measured": made.measured_seconds, "micro_batch": made.setting.plan.micro_batch}


def pinned(run: PublishedRun, micro_batch: int | None) -> PublishedRun:
    """A run with the micro-batch that was taken where none was published."""
    if micro_batch is None or run.catalogue_plan or run.plan.get("micro_batch"):
        return run
    return run.model_copy(update={"plan": {**run.plan, "micro_batch": micro_batch}})


@dataclass
class Responses:
    """Ratios of predicted to measured seconds of runs, over values of parameters; ``beside`` are other values of each run.

    A micro-batch that was not published stays the one that is fastest at the first point.
    """

    runs: Sequence[PublishedRun]
    parameters: tuple[FittedConstant, ...]
    ask: Ask
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen: list[Array] = []
        self._planes: Array = np.zeros((len(self.runs), 0, 1 + len(self.parameters)))

    def look(self, values: Array) -> float:
        """Simulate all runs at a point, and take slopes where planes are off; returns how far they were, at most.

        Points as near as :data:`NEAR` to one that was looked at are known.
        """
        if any(float(np.abs(np.log(values / seen)).max(initial=0.0)) < NEAR for seen in self.seen):
            return 0.0
        found = self._simulated(np.arange(len(self.runs)), values)
        off = np.abs(self.ratios(values)[0] / found - 1) if self.seen else np.full(len(self.runs), np.inf)
        self.seen.append(values.copy())
        self._bend(np.flatnonzero(off > EXACT), values, found)
        return float(off.max(initial=0.0))

    def _bend(self, rows: NDArray[np.intp], values: Array, found: Array) -> None:
        """Planes through the simulated ratios of some runs; those that lie above go."""
        here = self._inverse(values)
        slopes = np.zeros((len(rows), len(here)))
        for at, parameter in enumerate(self.parameters):
            moved = values.copy()
            moved[at] *= 1 / (1 + STEP) if parameter.rate else 1 + STEP
            slopes[:, at] = (self._simulated(rows, moved) - found[rows]) / (self._inverse(moved) - here)[at]
        above = self._heights(here) > found[:, None] * (1 + EXACT)
        above[np.setdiff1d(np.arange(len(self.runs)), rows)] = False
        self._planes[above] = NONE
        new = np.full((len(self.runs), 1, 1 + len(here)), NONE)
        new[rows, 0, 0], new[rows, 0, 1:] = found[rows] - slopes @ here, slopes
        self._planes = np.concatenate([self._planes, new], axis=1)

    def _heights(self, here: Array) -> Array:
        """Every plane of every run, ``[runs, planes]``; those that are none lie below all."""
        found: Array = self._planes[..., 0] + self._planes[..., 1:] @ here
        return np.where(np.isnan(found), -np.inf, found)

    def ratios(self, values: Array) -> tuple[Array, Array]:
        """Ratios by the planes, and their derivatives by the logarithms of values, ``[runs, parameters]``."""
        here = self._inverse(values)
        heights = self._heights(here)
        top = heights.argmax(axis=1)
        rows = np.arange(len(self.runs))
        return heights[rows, top], self._planes[rows, top, 1:] * here * self._sign

    @property
    def bends(self) -> Array:
        """The steepest that any run was seen to depend on each parameter, as derivatives by its logarithm at the last point."""
        here = self._inverse(self.seen[-1])
        steepest: Array = np.nan_to_num(np.abs(self._planes[..., 1:] * here)).max(axis=(0, 1))
        return steepest

    def _simulated(self, rows: NDArray[np.intp], values: Array) -> Array:
        """Simulated ratios of some runs."""
        mine = {key: float(v) for p, v in zip(self.parameters, values, strict=True) for key in p.keys}
        work = [(self.runs[row], {**self.beside.get(self.runs[row].id, {}), **mine}) for row in rows]
        found = self.ask(work)
        if not self.seen:
            self.runs = [pinned(run, micro) for run, (*_, micro) in zip(self.runs, found, strict=True)]
        return np.array([predicted / measured for predicted, measured, _ in found], dtype=np.float64)

    def _inverse(self, values: Array) -> Array:
        """What times are linear in: inverses of rates."""
        return np.array([1 / v if p.rate else v for p, v in zip(self.parameters, values, strict=True)])

    @property
    def _sign(self) -> Array:
        return np.array([-1.0 if each.rate else 1.0 for each in self.parameters])
