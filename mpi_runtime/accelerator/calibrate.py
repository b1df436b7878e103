"""calibrate_accelerator(): operators of one accelerator in, a machine of it out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ...hardware.precisions import Precision
from ...hardware.version import version
from ..calibration.keep import KeptSamples
from ..calibration.samples import SampleSeries
from ..job.environment import Launcher, keep_memory
from .bench import TorchBench
from .device import MeasuredDevice
from .fit import SHAPES, AcceleratorFit, Fitter, HeldOutCheck, checks, solver
from .machine import AcceleratorBuilder
from .measure import Measured, Measurer
from .points import plan

SECONDS, QUICK_SECONDS = 180.0, 30.0
"""For which is measured at most where nothing is said."""

OUTLIERS = 0.25
"""Share of rejected samples above which it is said that something disturbed them."""


@dataclass(frozen=True)
class AcceleratorTask:
    """What to calibrate, and how: the file, the device by its name, precisions as a list, and the time that there is."""

    output: Path
    device: str | None = None
    threads: int | None = None
    precisions: str | None = None
    seconds: float | None = None
    peaks: Mapping[Precision, float] = field(default_factory=dict)
    like: Machine | None = None
    quick: bool = False
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise InputError(f"--seconds {self.seconds:g}: must be above 0, such as 180")
        launcher = Launcher.of(os.environ)
        if launcher and launcher.ranks > 1:
            raise InputError("--accelerator: measures one device from one process; start it without mpiexec")

    @property
    def budget(self) -> float:
        """Seconds of measuring at most."""
        return self.seconds or (QUICK_SECONDS if self.quick else SECONDS)

    @property
    def samples_file(self) -> Path:
        """Where finished points are kept."""
        return self.output.with_name(f"{self.output.name}.samples.jsonl")


@dataclass(frozen=True)
class AcceleratorOutcome:
    """A machine, what it was made from, and how far it is from what was measured."""

    task: AcceleratorTask
    machine: Machine
    fit: AcceleratorFit
    measured: Measured
    checks: Sequence[HeldOutCheck]
    about: Mapping[str, Any]
    warnings: Sequence[str]


def calibrate_accelerator(
    task: AcceleratorTask,
    *,
    ready: Callable[[], None] = lambda: None,
    advance: Callable[[str], None] = lambda text: None,
) -> AcceleratorOutcome:
    """Measure one accelerator within the task's time, fit the compute model to it, and make a machine.

    ``ready`` is called before anything runs, and may refuse; ``advance`` hears of what is done. Finished points are kept in
    ``task.samples_file`` and not measured again. Raises :class:`InputError` for what cannot be measured.
    """
    keep_memory()
    device = MeasuredDevice.named(task.device, task.threads)
    solver()
    precisions = device.precisions(task.precisions)
    ready()
    kept = KeptSamples(task.samples_file, {"athanor": version(), **device.about()}, task.fresh)
    measurer = Measurer(TorchBench(device), kept, task.budget)
    measured = measurer.measure(plan(device.kind, precisions, task.quick), advance)
    advance("fitting")
    where = f"athanor calibrate --accelerator, torch {device.torch.__version__}, {device.words}"
    maker = AcceleratorBuilder(
        task.output.stem, device, precisions, task.like, task.peaks, f"{where}, {time.strftime('%Y-%m-%d')}"
    )
    return outcome(task, maker, measured, device.about())


def outcome(
    task: AcceleratorTask, maker: AcceleratorBuilder, measured: Measured, about: Mapping[str, Any]
) -> AcceleratorOutcome:
    """The machine of what was measured; raises :class:`InputError` where that is too little."""
    base = maker.base(measured.series)
    fitter = Fitter(measured.series, base)
    if missing := fitter.missing():
        raise InputError(
            f"--seconds {task.budget:g}: left {missing} unmeasured; run it again with more, what was measured is kept in"
            f" {task.samples_file}"
        )
    tiles = task.like and task.like.core_group.tiles
    fit = fitter.fit([*([tiles.shapes] if tiles else []), *SHAPES[maker.device.kind]])
    machine = maker.make(base, fit, measured.series)
    told = [*maker.warnings, *_warnings(task, measured)]
    return AcceleratorOutcome(task, machine, fit, measured, checks(measured.series, machine), about, told)


def _warnings(task: AcceleratorTask, measured: Measured) -> list[str]:
    """What to know before believing the machine."""
    found = [
        f"{count} point{' was' if count == 1 else 's were'} left out: {reason}"
        for reason, count in sorted(measured.left_out.items())
    ]
    if measured.resumed:
        found.append(
            f"{measured.resumed} of {len(measured.series)} points are from {task.samples_file}, measured before; --fresh"
            " measures them anew"
        )
    if (share := _rejected(measured.series)) > OUTLIERS:
        found.append(f"{share:.0%} of all samples were rejected as disturbed: measure on a computer that is idle")
    return found


def _rejected(series: Sequence[SampleSeries]) -> float:
    samples = sum(len(each.seconds) for each in series)
    return sum(sum(each.rejected.values()) for each in series) / samples if samples else 0.0
