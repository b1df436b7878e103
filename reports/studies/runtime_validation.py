"""The validation study: training steps on an emulated cluster, predicted from nominal rates, from calibrated ones, and measured.

On each tree one job calibrates; every cell (placement, balancer, router skew; or a dense plan) is then measured in a job of its
own and predicted twice by the simulator, message by message. Nothing is fitted to what is measured here: plans are held out of
the calibration, which knows single collectives only.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...hardware.errors import AthanorError, InputError, suggestion
from ...hardware.machine import Machine, load_machine
from ...hardware.machine_writer import machine_toml
from ...mpi_runtime.cluster import Cluster, Shape, machine_of
from ...sim.simulate import simulate
from ...workloads.results.run import Run
from .comparison.compare import Pair, compare_runs, over_pairs

MODEL, DENSE_MODEL = "moda-tiny", "gpt-tiny"
TOKENS, STEPS = 512, 4
"""Tokens a rank, and steps of a cell: enough that a step takes tenths of a second, and messages exceed what queues hold."""

SKEWS = (0.0, 0.5, 1.0)
PLACEMENTS, BALANCERS = ("moda", "opposite"), ("none", "swipe")
EXPERTS, ONE_OF_EXPERTS = "experts", "ep"
"""All placements, balancers and skews, or a single one of these: moda, no balancer, :data:`ONE_SKEW`."""

ONE_SKEW = 0.5
WAYS: dict[str, dict[str, Any]] = {
    "dp": {"mesh": ("dp",), "zero": "0"},
    "fsdp": {"mesh": ("fsdp",), "zero": "3"},
    "tp": {"mesh": ("tp", "dp"), "zero": "0"},
    "pp": {
        "mesh": ("pp", "dp"),
        "zero": "0",
        "micro_batch": 2,
        "depth": "fluid",
    },  # pipelines have no depth of messages
}
"""Dense plans by name: axes of their meshes, of which one of two has :data:`WIDTH` ranks, and options."""

WIDTH = 4
"""Ranks of tp and pp: the heads and the layers of the dense model."""

TAPER = Fraction(3, 16)
"""The taper of the study's own trees."""

LIMIT = 300.0
"""Seconds that a job may take."""


class StudyFailed(AthanorError):
    """A job of the study failed; the message says which, and what it said."""

    exit_status = 1


@dataclass(frozen=True)
class StudyTree:
    """A tree of the study: its shape, and whether operations of its cells are computed for real as well as slept through."""

    supernodes: int
    nodes: int
    megabits: int
    compute: tuple[str, ...] = ("sleep",)
    plans: tuple[str, ...] = (EXPERTS,)
    taper: Fraction = TAPER

    @property
    def name(self) -> str:
        """Such as ``2x2 at 200 Mbit/s``, with the taper where it is another one than :data:`TAPER`."""
        pruned = "" if self.taper == TAPER else f", taper {self.taper}"
        return f"{self.supernodes}x{self.nodes} at {self.megabits} Mbit/s{pruned}"

    @property
    def shape(self) -> Shape:
        """The emulated cluster."""
        return Shape(
            supernodes=self.supernodes, nodes=self.nodes, node_rate=self.megabits * 1e6 / 8, taper=float(self.taper)
        )


TREES = (StudyTree(2, 2, 200, ("sleep", "gemm")), StudyTree(2, 4, 200), StudyTree(4, 4, 100))
"""Four, eight and sixteen nodes, sixteen at half the rate: all that is sent stays below what one computer's kernel carries."""


def chosen(text: str | None) -> tuple[StudyTree, ...]:
    """The trees that a text such as ``2x2,4x4`` names, all of them for None; raises ``InputError`` for others."""
    if text is None:
        return TREES
    known = {f"{tree.supernodes}x{tree.nodes}": tree for tree in TREES}
    for name in (names := text.split(",")):
        if name not in known:
            raise InputError(f"--trees {name}: no such tree{suggestion(name, known)}")
    return tuple(known[name] for name in names)


def varied(
    trees: tuple[StudyTree, ...], plans: str | None = None, rate: str | None = None, taper: str | None = None
) -> tuple[StudyTree, ...]:
    """The trees with other plans, such as ``dp,tp``, at each of some rates in Mbit/s, ``50,1000``, and tapers, ``1/8,1``.

    Raises ``InputError`` for what is none.
    """
    names = (EXPERTS,) if plans is None else tuple(plans.split(","))
    for name in names:
        if name not in (known := (EXPERTS, ONE_OF_EXPERTS, *WAYS)):
            raise InputError(f"--plans {name}: no such plan{suggestion(name, known)}")
    rates = [None] if rate is None else [_megabits(text) for text in rate.split(",")]
    tapers = [TAPER] if taper is None else [_taper(text) for text in taper.split(",")]
    return tuple(
        replace(tree, plans=names, megabits=megabits or tree.megabits, taper=each)
        for megabits in rates
        for each in tapers
        for tree in trees
    )


def _megabits(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise InputError(f"--rate {text}: must be from 1 to 10,000 Mbit/s")
    return int(text)


def _taper(text: str) -> Fraction:
    try:
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        found = Fraction(0)
    if not 0 < found <= 1:
        raise InputError(f"--taper {text}: must be a share above 0 and up to 1, such as 1/8")
    return found


def steps_of(trees: tuple[StudyTree, ...]) -> int:
    """Jobs of a study."""
    return sum(1 + len(list(cells(tree))) for tree in trees)


@dataclass(frozen=True)
class Cell:
    """A configuration of the study."""

    tree: StudyTree
    placement: str
    balancer: str
    skew: float
    compute: str
    plan: str = EXPERTS

    @property
    def model(self) -> str:
        """The model that is trained."""
        return DENSE_MODEL if self.plan in WAYS else MODEL

    @property
    def depth(self) -> str:
        """The depth at which it is predicted."""
        return str(WAYS.get(self.plan, {}).get("depth", "message"))

    @property
    def options(self) -> dict[str, Any]:
        """The plan, as ``simulate`` and ``execute`` take it."""
        ranks = self.tree.supernodes * self.tree.nodes
        if way := WAYS.get(self.plan):
            axes = way["mesh"]
            mesh = {axes[0]: ranks} if len(axes) == 1 else {axes[0]: WIDTH, axes[1]: ranks // WIDTH}
            more = {key: value for key, value in way.items() if key not in ("mesh", "depth")}
            return {"mesh": mesh, **more, "tokens_per_rank": TOKENS, "steps": STEPS}
        return {
            "mesh": {"ep": self.tree.supernodes, "dp": self.tree.nodes},
            "placement": self.placement,
            "balancer": self.balancer,
            "router": f"zipf:{self.skew:g}" if self.skew else "uniform",
            "tokens_per_rank": TOKENS,
            "steps": STEPS,
        }

    @property
    def name(self) -> str:
        """Such as ``2x2 at 200 Mbit/s, moda, swipe, skew 0.5, sleep``."""
        if self.plan in WAYS:
            return f"{self.tree.name}, {self.plan}, {self.compute}"
        return f"{self.tree.name}, {self.placement}, {self.balancer}, skew {self.skew:g}, {self.compute}"


def cells(tree: StudyTree) -> Iterator[Cell]:
    """The cells of a tree: all that sleep; of those that compute for real one skew is enough."""
    for plan in tree.plans:
        if plan == ONE_OF_EXPERTS:
            yield Cell(tree, PLACEMENTS[0], BALANCERS[0], ONE_SKEW, "sleep", plan)
        elif plan != EXPERTS:
            yield Cell(tree, "", "", 0.0, "sleep", plan)
    for compute in tree.compute if EXPERTS in tree.plans else ():
        for placement in PLACEMENTS:
            for balancer in BALANCERS:
                for skew in SKEWS if compute == "sleep" else SKEWS[1:2]:
                    yield Cell(tree, placement, balancer, skew, compute)


@dataclass(frozen=True)
class RuntimeOutcome:
    """What came of a cell: its measured run beside the prediction from nominal rates, and beside the calibrated one."""

    cell: Cell
    nominal: Pair
    calibrated: Pair

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        step = self.calibrated.step
        return {
            "name": self.cell.name,
            "tree": self.cell.tree.name,
            "ranks": self.cell.tree.supernodes * self.cell.tree.nodes,
            "megabits": self.cell.tree.megabits,
            "taper": float(self.cell.tree.taper),
            "plan": self.cell.plan,
            "model": self.cell.model,
            **{key: value for key, value in self.cell.options.items() if key != "steps"},
            "skew": self.cell.skew,
            "compute": self.cell.compute,
            "measured_seconds": step.measured,
            "measured_variation": step.variation,
            **{
                kind: {
                    "step_seconds": pair.step.predicted,
                    "relative_error": pair.step.relative_error,
                    "phases": {row.name: row.relative_error for row in pair.phases},
                }
                for kind, pair in (("zero_fit", self.nominal), ("calibrated", self.calibrated))
            },
        }


GROUPINGS: dict[str, Callable[[Cell], Any]] = {
    "plan": lambda cell: cell.plan,
    "megabits": lambda cell: cell.tree.megabits,
    "ranks": lambda cell: cell.tree.supernodes * cell.tree.nodes,
    "taper": lambda cell: cell.tree.taper,
}
"""By what the errors of cells are told apart as well."""


@dataclass(frozen=True)
class Validation:
    """The study: outcomes of its cells, and of each tree the bandwidth across supernodes over that inside them, measured."""

    outcomes: list[RuntimeOutcome]
    cross_over_inside: dict[str, float]

    def of(self, compute: str) -> list[RuntimeOutcome]:
        """The cells in which ranks compute in this way."""
        return [each for each in self.outcomes if each.cell.compute == compute]

    def plain(self) -> dict[str, Any]:
        """As plain data; ``docs/formats/validation.md`` defines each key."""
        slept, computed = self.of("sleep"), self.of("gemm")
        return {
            "zero_fit": judged([each.nominal for each in slept]),
            "calibrated": judged([each.calibrated for each in slept]),
            "calibrated_gemm": judged([each.calibrated for each in computed]) if computed else None,
            "by": {
                name: {
                    str(value): {
                        side: judged([getattr(each, pair) for each in slept if of(each.cell) == value])
                        for side, pair in (("zero_fit", "nominal"), ("calibrated", "calibrated"))
                    }
                    for value in dict.fromkeys(of(each.cell) for each in slept)
                }
                for name, of in GROUPINGS.items()
            },
            "rank_correlation_by_tree": {
                name: over_pairs(pairs)["rank_correlation"] for name, pairs in self._by_tree(slept).items()
            },
            "cross_over_inside": float(np.median(list(self.cross_over_inside.values()))),
            "cross_over_inside_by_tree": self.cross_over_inside,
            "cells": [each.plain() for each in self.outcomes],
        }

    def _by_tree(self, outcomes: list[RuntimeOutcome]) -> dict[str, list[Pair]]:
        """The nominal pairs of each tree: of one machine, between whose plans a user chooses."""
        found: dict[str, list[Pair]] = {}
        for each in outcomes:
            found.setdefault(each.cell.tree.name, []).append(each.nominal)
        return found


def judged(pairs: list[Pair]) -> dict[str, Any]:
    """Errors of the step over cells, and whether they stand in their true order."""
    found = over_pairs(pairs)
    return {
        "mape": found["mape"],
        "worst": abs(found["worst"]["relative_error"]),
        "worst_cell": found["worst"]["name"],
        "bias": found["bias"],
        "rank_correlation": found["rank_correlation"],
        "cells": len(pairs),
    }


def validate(
    trees: tuple[StudyTree, ...] = TREES,
    kept: Mapping[str, Any] | None = None,
    keep: Callable[[str, Any], None] = lambda key, value: None,
    advance: Callable[[str], None] = lambda text: None,
) -> Validation:
    """Run the study, some minutes.

    ``kept`` are results of an earlier, interrupted one by key, ``keep`` is called with each new one, ``advance`` with what is
    being done. Raises ``InputError`` where no cluster can be emulated, and :class:`StudyFailed` where a job fails.
    """
    known = dict(kept or {})
    outcomes: list[RuntimeOutcome] = []
    ratios: dict[str, float] = {}
    for tree in trees:
        todo = [cell for cell in cells(tree) if cell.name not in known]
        if todo or f"machine {tree.name}" not in known:
            with Cluster.up(tree.shape, name="validation") as cluster, tempfile.TemporaryDirectory() as folder:
                bench = _Bench(cluster, Path(folder), tree)
                if f"machine {tree.name}" not in known:
                    advance(f"calibrating {tree.name}")
                    known[f"machine {tree.name}"] = {"file": bench.calibrate()}
                    keep(f"machine {tree.name}", known[f"machine {tree.name}"])
                for cell in todo:
                    advance(cell.name)
                    known[cell.name] = bench.measure(cell)
                    keep(cell.name, known[cell.name])
        nominal, calibrated = machine_of(tree.shape), _machine(known[f"machine {tree.name}"]["file"])
        ratios[tree.name] = _cross_over_inside(calibrated)
        for cell in cells(tree):
            measured = Run.from_plain(known[cell.name], cell.name)
            # Who sleeps takes the nominal machine's time for computing: only the network was another than nominal there.
            fitted = calibrated if cell.compute == "gemm" else _with_compute_of(nominal, calibrated)
            outcomes.append(RuntimeOutcome(cell, _pair(cell, nominal, measured), _pair(cell, fitted, measured)))
    return Validation(outcomes, ratios)


def _pair(cell: Cell, machine: Machine, measured: Run) -> Pair:
    """A cell's prediction on a machine beside its run."""
    options: dict[str, Any] = {**cell.options, "depth": cell.depth}
    predicted = simulate(machine, cell.model, **options)
    (pair,) = compare_runs(predicted, measured).pairs
    return Pair(**{**vars(pair), "name": cell.name})


def _with_compute_of(nominal: Machine, calibrated: Machine) -> Machine:
    """The calibrated network with the nominal processors."""
    own = {key: getattr(nominal.calibration, key) for key in ("gemm_efficiency", "update_overhead", "tokens_per_node")}
    calibration = calibrated.calibration.model_copy(update=own)
    sources = {key: text for key, text in calibrated.sources.items() if not key.startswith("core_group")}
    sources |= {key: text for key, text in nominal.sources.items() if key.startswith("core_group")}
    sources |= {f"calibration.{key}": nominal.source(f"calibration.{key}") for key in own}
    update = {"core_group": nominal.core_group, "calibration": calibration, "sources": sources}
    return calibrated.model_copy(update=update)


def _cross_over_inside(machine: Machine) -> float:
    """The share of a node's own rate that it has across supernodes when all send."""
    taper = getattr(machine.fabric, "taper", None)
    assert taper is not None
    return float(taper)


def _machine(text: str) -> Machine:
    """A machine from the text of its file."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        return load_machine(file.name)


@dataclass(frozen=True)
class _Bench:
    """Runs the jobs of one tree."""

    cluster: Cluster
    folder: Path
    tree: StudyTree

    def calibrate(self) -> str:
        """The calibrated machine's file, as text; where cells compute for real, so does it."""
        nominal, found = self.folder / "nominal.toml", self.folder / "calibrated.toml"
        nominal.write_text(machine_toml(machine_of(self.tree.shape)))
        computed = any(cell.compute != "sleep" for cell in cells(self.tree))
        only = () if computed else ("--network-only",)
        self._job("calibration", "calibrate", "--like", str(nominal), "--quick", *only, "-o", str(found))
        return found.read_text()

    def measure(self, cell: Cell) -> dict[str, Any]:
        """The Run of a cell, as plain data."""
        nominal, found = self.folder / "nominal.toml", self.folder / "run.json"
        nominal.write_text(machine_toml(machine_of(self.tree.shape)))
        options = {**cell.options, "mesh": ",".join(f"{axis}={size}" for axis, size in cell.options["mesh"].items())}
        flags = [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]
        machine = ("--machine", str(nominal), "--model", cell.model)
        self._job(cell.name, "execute", *machine, *flags, "--compute", cell.compute, "--no-check", "-o", str(found))
        return Run.load(found).to_plain()

    def _job(self, what: str, *arguments: str) -> None:
        done = self.cluster.run([sys.executable, "-m", "athanor.cli", *arguments], limit=LIMIT, capture=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise StudyFailed(f"{what}: a job ended with status {done.returncode}: {said[0] if said else 'no message'}")
