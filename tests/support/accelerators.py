"""A made-up accelerator for tests: a bench that runs points by the compute model, with known constants, on its own clock."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from athanor.mpi_runtime.accelerator.calibrate import AcceleratorTask, outcome
from athanor.mpi_runtime.accelerator.fit import SHAPES
from athanor.mpi_runtime.accelerator.machine import AcceleratorBuilder
from athanor.mpi_runtime.accelerator.measure import Measurer
from athanor.mpi_runtime.accelerator.model import Constants, Predictor
from athanor.mpi_runtime.accelerator.points import plan
from athanor.mpi_runtime.calibration.keep import KeptSamples

HALVES = ("fp32", "bf16")
PEAKS = {"fp32": 60e12, "fp16": 900e12, "bf16": 900e12, "fp8": 1800e12, "fp64": 30e12}


@dataclass(frozen=True)
class MadeUp:
    """A device that is only described."""

    kind: str = "cuda"
    model: str = "Made-up 1"
    words: str = "Made-up 1"
    processors: int = 100
    clock: float = 1.5e9
    memory: float = 64e9
    local_memory: float = 2e5


TRUE = Constants(
    {"fp32": 0.9, "bf16": 0.6},
    read=2.2e12,
    written=2.6e12,
    overhead=3e-6,
    fill=48.0,
    cache=14e12,
    attention=0.55,
    shapes=SHAPES["cuda"][0],
)
ROOFLINE = Constants({"fp32": 0.7, "bf16": 0.7}, read=20e9, written=14e9, overhead=4e-6)
KINDS = {"cuda": (MadeUp(), TRUE, PEAKS), "cpu": (MadeUp("cpu", processors=1), ROOFLINE, {"fp32": 90e9, "bf16": 200e9})}


class MadeUpBench:
    """Runs points by the compute model with known constants, on a clock of its own; ``noise`` is relative."""

    def __init__(self, kind, precisions=HALVES, noise=0.0, slower=1.0, limit=None):
        self.device, self.constants, peaks = KINDS[kind]
        maker = AcceleratorBuilder(
            "true", self.device, precisions, None, {name: peaks[name] for name in precisions}, "here"
        )
        self.machine = self.constants.applied(maker.base([]))
        self.noise, self.slower, self.limit = noise, slower, limit
        self.time, self.ran = 0.0, Counter()
        self.random = np.random.default_rng(1)

    def now(self):
        return self.time

    def ready(self, point):
        if self.limit is not None and len(self.ran) >= self.limit:
            raise KeyboardInterrupt
        self.ran[point.key] += 1
        self.time += 0.01 * self.slower
        seconds = 5e-3 if point.kind == "loop" else float(Predictor([point]).seconds(self.machine)[0])

        def run(repeats):
            took = seconds * (1 + self.noise * abs(self.random.standard_normal()))
            self.time += repeats * took * self.slower
            return took, ""

        return run


def kept(tmp_path, name="m.toml"):
    return KeptSamples(tmp_path / f"{name}.samples.jsonl", {"device": "made-up"})


def measured(kind, tmp_path, noise=0.0, quick=False, precisions=HALVES):
    points = plan(kind, precisions, quick)
    return Measurer(MadeUpBench(kind, precisions, noise), kept(tmp_path), 1e6).measure(points)


def calibrated(kind, found, tmp_path, peaks=None, like=None, precisions=HALVES):
    device, _, known = KINDS[kind]
    given = {name: known[name] for name in precisions} if peaks is None else peaks
    maker = AcceleratorBuilder("made", device, precisions, like, given, "made-up bench, 2026-11-22")
    return outcome(AcceleratorTask(tmp_path / "m.toml"), maker, found, {})
