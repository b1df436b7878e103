"""calibrate(): microbenchmarks in, a machine out; a collective call over all ranks of the job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ..devices import Computing
from ..job.agreement import flags, job
from ..job.ending import TIME_LIMIT
from ..job.host import BUSY
from ..job.world import World
from . import compute, structure
from .findings import Findings
from .keep import KeptSamples, job_of
from .machine import Calibrated, MachineBuilder, where
from .network import NetworkBench
from .points import BenchPoint, PointBatch, batches
from .samples import Action, Sampler, SampleSeries
from .topology import Topology, socket

SAMPLES, QUICK_SAMPLES = 15, 6
"""Clean samples of each point."""

LONGEST, QUICK_LONGEST = 0.25, 0.1
"""Seconds of one run above which larger sizes of a series are left out."""

PATIENCE, QUICK_PATIENCE = 60.0, 10.0
"""Seconds of a batch after which nobody waits any more for samples that nothing disturbs."""

PRECISIONS = ("fp64", "fp32", "fp16")


@dataclass(frozen=True)
class CalibrationTask:
    """What to calibrate: where the samples go, the machine whose structure the job has, and how much is measured."""

    output: Path
    like: Machine | None = None
    nodes_per_supernode: int | None = None
    quick: bool = False
    network_only: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.network_only and self.like is None:
            raise InputError("--network-only: leaves computing unmeasured; name a machine that has it with --like")
        structure.supernode_of(self.like, self.nodes_per_supernode)

    @property
    def nominal(self) -> Machine | None:
        """The machine whose structure the job has, with supernodes of the size that was asked for."""
        return self.like and self.like.with_supernodes_of(self.nodes_per_supernode)

    @property
    def samples_file(self) -> Path:
        """Where finished points are kept."""
        return self.output.with_name(f"{self.output.name}.samples.jsonl")

    @property
    def samples(self) -> int:
        """Clean samples of each point."""
        return QUICK_SAMPLES if self.quick else SAMPLES

    @property
    def longest(self) -> float:
        """Seconds of one run above which larger sizes of a series are left out."""
        return QUICK_LONGEST if self.quick else LONGEST

    @property
    def patience(self) -> float:
        """Seconds of a batch after which samples are taken as they are."""
        return QUICK_PATIENCE if self.quick else PATIENCE


@dataclass(frozen=True)
class CalibrationOutcome:
    """A calibrated machine, what it was made from, and where that was measured."""

    task: CalibrationTask
    calibrated: Calibrated
    findings: Findings
    job: dict[str, Any]
    about: dict[str, Any]

    @property
    def machine(self) -> Machine:
        """The machine."""
        return self.calibrated.machine


def calibrate(
    task: CalibrationTask,
    *,
    expect_ranks: int | None = None,
    time_limit: float = TIME_LIMIT,
    ready: Callable[[], None] = lambda: None,
    advance: Callable[[str], None] = lambda text: None,
) -> CalibrationOutcome | None:
    """Measure the computers that a job runs on, and make a machine of them.

    Every rank of the job calls it with the same arguments; rank 0 gets the outcome, the others None. ``ready`` is called on
    rank 0 before anything runs, and may refuse; ``advance`` hears there of what is done. Finished points are kept in
    ``task.samples_file`` and not measured again. Raises ``InputError`` (on one rank; on the others ``Ended``) for
    what cannot be measured.
    """
    with job("calibrate", flags(vars(task)), expect_ranks=expect_ranks, time_limit=time_limit) as world:
        world.agree(ready if world.first else lambda: None)
        supernode = structure.supernode_of(task.like, task.nodes_per_supernode)
        sockets = world.comm.allgather(socket())
        topology = world.agree(lambda: Topology(tuple(world.host), tuple(sockets), supernode))
        return _CalibrationJob(world, task, topology).run(advance if world.first else lambda text: None)


class _CalibrationJob:
    """One job: what it is to measure, and what it has."""

    def __init__(self, world: World, task: CalibrationTask, topology: Topology) -> None:
        self.world, self.task, self.topology = world, task, topology
        self.sampler = Sampler(world, task.longest, task.patience)
        self.on_kernel = int(np.bincount(self.sampler.kernels).max())
        self.base = world.agree(self._base)
        self.kept: KeptSamples | None = world.agree(self._kept)
        self.network, self.device = NetworkBench(world, topology), Computing()
        self.resumed = 0
        self.left_out: list[str] = []

    def _base(self) -> Machine:
        """The machine before it is measured."""
        if self.task.nominal:
            return structure.like(self.task.nominal, self.topology)
        return structure.bare(self.task.output.stem, self.topology, self.on_kernel, PRECISIONS)

    def _kept(self) -> KeptSamples | None:
        """The samples file, on rank 0."""
        if not self.world.first:
            return None
        return KeptSamples(self.task.samples_file, job_of(self.world), self.task.fresh)

    def run(self, advance: Callable[[str], None]) -> CalibrationOutcome | None:
        """Measure batch after batch, then put together what they say."""
        began = time.strftime("%Y-%m-%d")
        swept = self.world.comm.allreduce(compute.swept_bytes(self.on_kernel), op=_least())
        found: list[SampleSeries] = []
        for batch in batches(self.topology, self.task.quick, swept, not self.task.network_only):
            found += self._batch(batch)
            measured = {series.point.key for series in found}
            self.left_out += [point.series for point in batch.points if point.key not in measured]
            advance(f"{batch.name} done")
        if not self.world.first:
            return None
        findings = Findings(found, self.topology, self.base)
        told = where(list(self.world.hosts), began, self.world.library)
        calibrated = MachineBuilder(self.base, findings, self.task.like is not None, told).make()
        calibrated.warnings.extend(self._warnings(found))
        names = {"name": self.task.output.stem, "description": self._description(began)}
        calibrated.machine = calibrated.machine.model_copy(update=names)
        about = {**self.world.describe(), **self._about()}
        return CalibrationOutcome(self.task, calibrated, findings, job_of(self.world), about)

    def _batch(self, batch: PointBatch) -> list[SampleSeries]:
        """The series of a batch, in its order: those that are kept, and those that are measured now."""
        known: dict[str, SampleSeries] = {}
        wanted: list[int] | None = None
        if self.kept is not None:
            known = {point.key: series for point in batch.points if (series := self.kept.of(point, self.task.samples))}
            self.resumed += len(known)
            wanted = list(_missing(batch.points, known, self.task.longest))
        wanted = self.world.comm.bcast(wanted)
        points = [batch.points[number] for number in wanted]
        actions = [self._action(point) for point in points]
        for series in self.sampler.batch(points, actions, self.task.samples) if points else []:
            assert self.kept is not None
            self.kept.keep(series)
            known[series.point.key] = series
        return [known[point.key] for point in batch.points if point.key in known]

    def _action(self, point: BenchPoint) -> Action | None:
        network = ("ping-pong", "library ping-pong", "handover", "messages", "links", "collective")
        return self.network.action(point) if point.kind in network else compute.action(point, self.device)

    def _description(self, date: str) -> str:
        like = f", as {self.task.like.name}" if self.task.like else ""
        return f"Calibrated on {date} with {self.topology.shape}{like}"

    @property
    def _foreign(self) -> float:
        """The share of a core that others took while samples were taken."""
        return self.sampler.foreign / self.sampler.passed if self.sampler.passed else 0.0

    def _about(self) -> dict[str, Any]:
        return {
            "quick": self.task.quick,
            "network_only": self.task.network_only,
            "foreign_cores": self._foreign,
            "points_kept_from_before": self.resumed,
            "samples_file": str(self.task.samples_file),
        }

    def _warnings(self, found: list[SampleSeries]) -> Iterator[str]:
        """What to know before believing the machine."""
        disturbed = sum(not series.clean for series in found)
        if disturbed:
            yield (
                f"{disturbed} of {len(found)} points have too few samples that nothing disturbed; the fastest of"
                " theirs are used, and may still be too slow"
            )
        if self._foreign > BUSY:
            yield f"other processes took {self._foreign:.0%} of a core meanwhile: measure on computers that are idle"
        if self.sampler.shared:
            yield "ranks share cores: they wait for each other's turns, and such times say little about other numbers of ranks"
        if self.resumed:
            yield (
                f"{self.resumed} of {len(found)} points are from {self.task.samples_file}, measured before; --fresh measures"
                " them anew"
            )
        if self.left_out:
            names = list(dict.fromkeys(self.left_out))
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"sizes above one that took longer than {self.task.longest:g} s were left out of {'; '.join(names[:3])}{more}"


def _missing(points: list[BenchPoint], known: dict[str, SampleSeries], longest: float) -> Iterator[int]:
    """The points that are to be measured: those that are not known, but for sizes above one that is known to take too long."""
    ended = {series.point.series for series in known.values() if series.median > longest}
    return (number for number, point in enumerate(points) if point.key not in known and point.series not in ended)


def _least() -> Any:
    from mpi4py import MPI

    return MPI.MIN
