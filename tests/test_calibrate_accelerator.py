"""Calibration of an accelerator: a made-up one whose constants must come back, budgets, interruptions, refusals; and PyTorch's own."""

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import Machine, load_machine
from athanor.hardware.records import build
from athanor.hardware.writer import machine_toml
from athanor.mpi_runtime.accelerator import bench as bench_module
from athanor.mpi_runtime.accelerator.bench import TorchBench
from athanor.mpi_runtime.accelerator.calibrate import Task, outcome
from athanor.mpi_runtime.accelerator.fit import SHAPES, Judged, checks, counts
from athanor.mpi_runtime.accelerator.machine import Maker
from athanor.mpi_runtime.accelerator.measure import LEAST, SAMPLES, Measured, Measurer, Unable
from athanor.mpi_runtime.accelerator.model import Constants, Predictor, works
from athanor.mpi_runtime.accelerator.operators import footprint
from athanor.mpi_runtime.accelerator.points import ALIGNED, GRIDS, LAYOUTS, STARTS, SWEEPS, family, plan
from athanor.mpi_runtime.calibration.keep import Kept
from athanor.workloads.costs import compute_seconds
from athanor.workloads.schedule import Attention, Gemm, Sweep
from click.testing import CliRunner

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
        maker = Maker("true", self.device, precisions, None, {name: peaks[name] for name in precisions}, "here")
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
    return Kept(tmp_path / f"{name}.samples.jsonl", {"device": "made-up"})


def measured(kind, tmp_path, noise=0.0, quick=False, precisions=HALVES):
    points = plan(kind, precisions, quick)
    return Measurer(MadeUpBench(kind, precisions, noise), kept(tmp_path), 1e6).measure(points)


def calibrated(kind, found, tmp_path, peaks=None, like=None, precisions=HALVES):
    device, _, known = KINDS[kind]
    given = {name: known[name] for name in precisions} if peaks is None else peaks
    maker = Maker("made", device, precisions, like, given, "made-up bench, 2026-11-22")
    return outcome(Task(tmp_path / "m.toml"), maker, found, {})


# --- what is measured ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_points_cover_every_operator_and_half_of_them_are_held_out(kind, quick):
    points = plan(kind, ("fp32", "fp16", "fp8"), quick)
    assert len({point.key for point in points}) == len(points)
    by_kind = Counter(point.kind for point in points)
    assert set(by_kind) == {"gemm", "attention", "sweep", "start", "loop"}
    assert {point.detail["operator"] for point in points if point.kind == "sweep"} == set(SWEEPS)
    assert {point.detail["operator"] for point in points if point.kind == "start"} == set(STARTS)
    products = [point for point in points if point.kind == "gemm"]
    assert {point.detail["layout"] for point in products} == set(LAYOUTS)
    eighths = [point for point in products if point.detail["precision"] == "fp8"]
    assert eighths and all(point.detail[side] % ALIGNED == 0 for point in eighths for side in "mnk")
    assert any(point.detail["m"] % ALIGNED for point in products)  # odd ones are there in the others
    for name in ("gemm", "attention", "sweep"):
        held = sum(point.held_out for point in points if point.kind == name)
        assert 0.4 < held / by_kind[name] < 0.6, name
    last = {}
    for point in points:  # what a large one will take is known from smaller ones
        assert point.size >= last.get(family(point), 0)
        last[family(point)] = point.size


def test_a_shape_is_held_out_in_all_its_layouts_and_precisions():
    found = {}
    for point in plan("cpu", HALVES, False):
        if point.kind == "gemm":
            sides = tuple(sorted(point.detail[side] for side in "mnk"))
            found.setdefault((sides, point.size), set()).add(point.held_out)
    alike = {shape for shape, halves in found.items() if len(halves) > 1}
    shapes = [tuple(sorted(shape)) for shape in GRIDS["cpu"].shapes()]
    assert all(shapes.count(sides) > 1 for sides, _ in alike)  # another shape of the same sides, turned


def test_the_operations_of_a_point_are_those_of_a_simulated_step():
    points = {point.series: point for point in plan("cpu", HALVES, False)}
    assert works(points["bf16 weights 3072 x 1024 x 16"]) == (Gemm(3072.0, 1024.0, 16.0, 1.0, "bf16"),)
    assert works(points["bf16 fused causal backward 2 x 8 x 128 x 64"]) == (
        Attention(128.0, 128.0, 64.0, 64.0, 16.0, 5, "bf16"),
    )
    scores, *between, context = works(points["bf16 unfused causal forward 1 x 4 x 256 x 64"])
    assert (scores, context) == (Gemm(256.0, 256.0, 64.0, 4.0, "bf16"), Gemm(256.0, 64.0, 256.0, 4.0, "bf16"))
    assert [(sweep.size, sweep.read, sweep.written) for sweep in between] == [(4.0 * 256 * 256, 2, 2)] * 2
    assert works(points["fp32 Adam, 16384 elements"]) == (Sweep(16384.0, 16.0, 12.0, 12.0, "fp32"),)
    for point in points.values():
        if point.kind in ("gemm", "attention"):
            assert point.size == sum(work.flops for work in works(point) if isinstance(work, Gemm | Attention))
        if point.kind == "sweep":
            (work,) = works(point)
            assert point.size == work.size * (work.read + work.written)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_points_predicted_together_take_what_each_takes_alone(kind):
    machine, points = MadeUpBench(kind).machine, plan(kind, HALVES, True)
    together = Predictor(points).seconds(machine)
    for point, seconds in zip(points, together, strict=True):
        alone = sum(
            float(compute_seconds(work, machine.processor(1), machine.calibration).seconds) for work in works(point)
        )
        assert seconds == pytest.approx(alone, rel=1e-12), point.series


# --- the fit ------------------------------------------------------------------------------------------------------------------


def test_the_constants_of_a_made_up_gpu_come_back(tmp_path):
    found = calibrated("cuda", measured("cuda", tmp_path, noise=0.02), tmp_path)
    constants = found.fit.constants
    assert constants.shapes == TRUE.shapes
    for kind, share in TRUE.efficiency.items():
        assert constants.efficiency[kind] == pytest.approx(share, rel=0.03)
    assert constants.attention == pytest.approx(TRUE.attention, rel=0.03)
    assert (constants.read, constants.written) == pytest.approx((TRUE.read, TRUE.written), rel=0.05)
    assert constants.overhead == pytest.approx(TRUE.overhead, rel=0.05)
    assert constants.fill == pytest.approx(TRUE.fill, rel=0.2)
    assert constants.cache == pytest.approx(TRUE.cache, rel=0.1)
    held = Judged.of(check for check in found.checks if check.point.held_out and counts(check.point))
    assert held.points > 100 and held.mape < 0.02
    errors = found.fit.errors
    assert 1e-4 < errors["efficiency.bf16"] < 0.02  # of the order of the noise
    machine = found.machine
    assert machine.core_group.peak == {name: PEAKS[name] for name in HALVES}
    assert machine.calibration.gemm_efficiency == pytest.approx(0.9, rel=0.03)
    assert machine.core_group.tiles.precisions["bf16"] == pytest.approx(0.6 / 0.9, rel=0.03)


def test_the_constants_of_a_made_up_processor_come_back_without_tiles(tmp_path):
    found = calibrated("cpu", measured("cpu", tmp_path), tmp_path)
    constants = found.fit.constants
    assert constants.shapes == () and found.machine.core_group.tiles is None
    assert constants.efficiency == pytest.approx(ROOFLINE.efficiency, rel=1e-3)
    assert (constants.read, constants.written) == pytest.approx((ROOFLINE.read, ROOFLINE.written), rel=1e-3)
    assert constants.overhead == pytest.approx(ROOFLINE.overhead, rel=1e-3)
    assert found.machine.core_group.memory_bandwidth == pytest.approx(constants.read, rel=1e-3)  # the faster
    assert found.machine.core_group.dma_write == pytest.approx(0.7, rel=1e-3)


def test_what_is_held_out_takes_no_part_in_fit_and_peaks(tmp_path):
    series = measured("cpu", tmp_path, quick=True)
    fit = calibrated("cpu", series, tmp_path, peaks={})
    moved = [_times(each, 0.5) if each.point.held_out else each for each in series.series]
    again = calibrated("cpu", Measured(moved), tmp_path, peaks={})
    assert again.fit.constants == fit.fit.constants
    assert again.machine.core_group == fit.machine.core_group
    told = {check.point.key: check.error for check in fit.checks}
    for check in again.checks:
        assert check.error == pytest.approx(
            (1 + told[check.point.key]) * (2 if check.point.held_out else 1) - 1, abs=1e-9
        )


def _times(series, factor):
    return type(series)(
        series.point, series.repeats, tuple(factor * each for each in series.seconds), series.reasons, series.date
    )


def test_errors_are_counted_by_sign_and_size():
    series = [_series_of(point, 1e-3) for point in plan("cpu", ("fp32",), True) if point.kind == "gemm"][:2]
    machine = MadeUpBench("cpu").machine
    found = checks([_times(each, 1e3 * check) for each, check in zip(series, [1.0, 1.0], strict=True)], machine)
    predicted = [check.predicted for check in found]
    again = checks([_times(series[0], 1e3 * predicted[0]), _times(series[1], 2e3 * predicted[1])], machine)
    assert [check.error for check in again] == pytest.approx([0.0, -0.5], abs=1e-9)
    judged = Judged.of(again)
    assert (judged.points, judged.where) == (2, series[1].point.series)
    assert (judged.mape, judged.median, judged.worst, judged.bias) == pytest.approx((0.25, 0.25, -0.5, -0.25))
    first, second = (check.measured for check in again)
    assert judged.by_time == pytest.approx(0.5 * second / (first + second))
    assert Judged.of([]) is None


def _series_of(point, seconds):
    from athanor.mpi_runtime.calibration.samples import judged

    return judged(point, 1, [seconds] * 5, [""] * 5)


# --- the machine --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_machine_says_where_every_number_is_from_and_simulates(kind, tmp_path):
    precisions = ("fp32", "fp16")
    known = {"cpu": {"fp32": 90e9, "fp16": 200e9}, "cuda": PEAKS}[kind]
    device, constants, _ = KINDS[kind]
    bench = MadeUpBench(kind)
    bench.machine = Constants(
        **{**vars(constants), "efficiency": dict(zip(precisions, constants.efficiency.values(), strict=True))}
    ).applied(Maker("true", device, precisions, None, {name: known[name] for name in precisions}, "").base([]))
    found = Measurer(bench, kept(tmp_path), 1e6).measure(plan(kind, precisions, True))
    machine = calibrated(kind, found, tmp_path, peaks={}, precisions=precisions).machine
    assert machine.unsourced() == []
    read = build(Machine, tomllib.loads(machine_toml(machine)), "written")
    assert read == machine
    assert (read.nodes, read.node.core_groups, read.fabric.kind) == (1, 1, "crossbar")
    assert "best rate seen" in machine.source("core_group.peak.fp16")
    for key in ("core_group.dma_read", "core_group.operator_overhead", "calibration.gemm_efficiency"):
        assert machine.source(key).startswith("calibrated: standard error: ")
        assert "made-up bench, 2026-11-22" in machine.source(key)
    assert machine.core_group.scalar_step == pytest.approx(5e-8)
    run = athanor.simulate(machine, "moda-tiny", mesh={"dp": 1}, tokens_per_rank=64)
    assert run.summary()["step_seconds"] > 0


def test_a_machine_of_the_catalogue_lends_its_structure_and_nominal_rates(tmp_path):
    like = load_machine("eos-h100")
    made = calibrated("cuda", measured("cuda", tmp_path, quick=True), tmp_path, peaks={}, like=like)
    machine, group = made.machine, made.machine.core_group
    assert (machine.nodes, machine.node, machine.fabric) == (like.nodes, like.node, like.fabric)
    assert (group.memory, group.memory_bandwidth) == (like.core_group.memory, like.core_group.memory_bandwidth)
    assert group.peak == like.core_group.peak
    assert machine.interval is None and machine.unsourced() == []
    assert machine.source("core_group.memory_bandwidth") == like.source("core_group.memory_bandwidth")
    assert machine.source("core_group.dma_read").startswith("calibrated:")
    assert machine.source("core_group.tiles.fill").startswith("calibrated:")
    assert not [warning for warning in made.warnings if "takes the place" in warning]


def test_more_than_the_nominal_peak_takes_its_place(tmp_path):
    found = measured("cuda", tmp_path, quick=True)
    made = calibrated("cuda", found, tmp_path, peaks={"bf16": 100e12})
    (warning,) = [warning for warning in made.warnings if "takes the place" in warning]
    assert warning.startswith("core_group.peak.bf16: ") and warning.endswith("of the nominal 100 TFLOP/s")
    assert made.machine.core_group.peak["bf16"] > 102e12
    given = calibrated("cuda", found, tmp_path, peaks={"bf16": 989e12})
    assert given.machine.core_group.peak["bf16"] == 989e12
    assert given.machine.source("core_group.peak.bf16") == "given: --peak"


def test_too_little_for_a_fit_says_what_is_missing(tmp_path):
    series = measured("cpu", tmp_path, quick=True).series
    products = [each for each in series if each.point.kind == "gemm"]
    with pytest.raises(InputError, match=r"--seconds 180: left memory-bound operators unmeasured; run it again"):
        calibrated("cpu", Measured(products), tmp_path)
    with pytest.raises(InputError, match="left products and memory-bound operators unmeasured"):
        calibrated("cpu", Measured([]), tmp_path)
    few = [next(each for each in series if each.point.kind == kind and not each.point.held_out) for kind in SOME]
    with pytest.raises(InputError, match="left too many points unmeasured"):
        calibrated("cpu", Measured(few), tmp_path)


SOME = ("gemm", "sweep", "start")


# --- measuring within a budget ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [2.0, 8.0, 30.0])
def test_measuring_stays_within_its_budget(budget, tmp_path):
    bench, points = MadeUpBench("cpu"), plan("cpu", HALVES, False)
    found = Measurer(bench, kept(tmp_path), budget).measure(points)
    assert bench.time <= budget * 1.05
    assert len(found.series) + sum(found.left_out.values()) == len(points)
    assert set(found.left_out) == {"no time left for it"}
    assert all(len(each.seconds) >= LEAST for each in found.series)
    if budget == 30.0:  # most of it is used, and all kinds are there
        assert bench.time > 0.5 * budget
        assert {family(each.point) for each in found.series} == {family(point) for point in points}


def test_with_time_enough_all_points_have_all_samples(tmp_path):
    points = plan("cpu", HALVES, True)
    found = measured("cpu", tmp_path, quick=True)
    assert [each.point for each in found.series] == points and not found.left_out
    assert {len(each.seconds) for each in found.series} == {SAMPLES}
    short = next(each for each in found.series if each.point.kind == "start")
    assert short.repeats > 100 and short.repeats * short.median > 1e-3


def test_one_disturbed_point_does_not_keep_its_family_out(tmp_path):
    class Disturbed(MadeUpBench):
        def ready(self, point):
            if not self.ran:
                self.time += 8.0  # another process took the computer
            return super().ready(point)

    points = [point for point in plan("cpu", ("fp32",), False) if family(point) == FORWARD]
    found = Measurer(Disturbed("cpu"), kept(tmp_path), 30.0).measure(points)
    assert len(found.series) > 0.6 * len(points)


FORWARD = ("gemm", "fp32", "forward", None, None, None, None)


def test_points_that_cannot_run_are_left_out_and_counted(tmp_path):
    class Small(MadeUpBench):
        def ready(self, point):
            if point.size > 1e9:
                raise Unable("too little memory")
            return super().ready(point)

    points = plan("cuda", HALVES, True)
    found = Measurer(Small("cuda"), kept(tmp_path), 1e6).measure(points)
    large = sum(point.size > 1e9 for point in points)
    assert found.left_out == {"too little memory": large} and large
    made = calibrated("cuda", found, tmp_path)
    assert f"{large} points were left out: too little memory" in made.warnings


def test_an_interruption_keeps_what_is_finished_and_the_next_run_goes_on(tmp_path):
    points = plan("cpu", HALVES, True)
    with pytest.raises(KeyboardInterrupt):
        Measurer(MadeUpBench("cpu", limit=20), kept(tmp_path), 1e6).measure(points)
    path = tmp_path / "m.toml.samples.jsonl"
    assert len(path.read_text().splitlines()) == 20
    bench = MadeUpBench("cpu")
    found = Measurer(bench, kept(tmp_path), 1e6).measure(points)
    assert found.resumed == 20 and len(bench.ran) == len(points) - 20
    assert set(bench.ran.values()) == {1}
    assert [each.point for each in found.series] == points
    assert len(path.read_text().splitlines()) == len(points)
    made = calibrated("cpu", found, tmp_path)
    assert any(text.startswith(f"20 of {len(points)} points are from") for text in made.warnings)


# --- PyTorch ------------------------------------------------------------------------------------------------------------------


def test_a_gpus_samples_lie_between_its_own_events(monkeypatch):
    """Operators are queued behind a wait, so that the host's pace does not count; repeats take turns through the operands."""
    gpu = SimpleNamespace(time=0.0, log=[])

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = gpu.time
            gpu.log.append("event")

        def synchronize(self):
            gpu.log.append("synchronize")

        def elapsed_time(self, other):
            return 1e3 * (other.at - self.at)

    class On:
        def __init__(self, index):
            assert index == 1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    def sleep(cycles):
        assert cycles > 0
        gpu.time += 1.0
        gpu.log.append("wait")

    def operator(name, seconds):
        def run():
            gpu.time += seconds
            gpu.log.append(name)

        return run

    cuda = SimpleNamespace(Event=Event, device=On, _sleep=sleep, synchronize=lambda index: None)
    device = SimpleNamespace(kind="cuda", index=1, processors=8, torch=SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(bench_module, "operators", lambda device, point: [operator("a", 0.002), operator("b", 0.004)])
    point = next(point for point in plan("cuda", HALVES, True) if point.kind == "gemm")
    runner = TorchBench(device).ready(point)
    gpu.log.clear()
    assert runner(4) == (pytest.approx(0.003), "")
    assert gpu.log == ["wait", "event", "a", "b", "a", "b", "event", "synchronize"]
    assert runner(1)[0] == pytest.approx(0.002)


def test_without_pytorch_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = command(["--accelerator", "-o", str(tmp_path / "m.toml")])
    assert str(done.exception) == (
        "--accelerator: needs PyTorch, which is not installed: pip install 'athanor[accelerator]'"
    )
    assert list(tmp_path.iterdir()) == []


def command(words):
    from athanor.cli import cli

    return CliRunner().invoke(cli, ["calibrate", *words])


REFUSALS = [
    (["--device", "cpu"], "--device: needs --accelerator"),
    (["--peak", "bf16=1TFLOP/s"], "--peak: needs --accelerator"),
    (["--accelerator", "--network-only"], "--network-only: is for calibrations over MPI, not for --accelerator"),
    (["--accelerator", "--time-limit", "5"], "--time-limit: is for calibrations over MPI"),
    (
        ["--accelerator", "--peak", "bf61=1TFLOP/s"],
        "--peak bf61=1TFLOP/s: bf61 is no precision (fp64, fp32, fp16, bf16,",
    ),
    (["--accelerator", "--peak", "bf16=1GB/s"], "needs a compute rate such as bf16=989TFLOP/s"),
    (["--accelerator", "--peak", "bf16=-1 TFLOP/s"], "must be above zero, such as bf16=989TFLOP/s"),
    (["--accelerator", "--seconds", "0"], "--seconds 0: must be above 0"),
    (["--accelerator", "--seconds", "nan"], "--seconds nan: must be above 0"),
    (["--accelerator", "--like", "selenee"], "did you mean selene?"),
]


@pytest.mark.parametrize(("words", "message"), REFUSALS)
def test_what_contradicts_itself_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(["-o", "m.toml", *words])
    assert isinstance(done.exception, InputError) and message in str(done.exception)
    assert "\n" not in str(done.exception) and list(tmp_path.iterdir()) == []


def test_a_job_of_several_ranks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(InputError, match="start it without mpiexec"):
        Task(tmp_path / "m.toml")


@pytest.fixture(scope="module")
def torch():
    """PyTorch where it is installed, on one thread: tests run beside each other."""
    found = pytest.importorskip("torch", reason="PyTorch is not installed: extra accelerator")
    before = found.get_num_threads()
    found.set_num_threads(1)
    yield found
    found.set_num_threads(before)


WITH_TORCH = [
    (["--device", "cudaa"], "--device cudaa: torch "),
    (["--device", "cuda:99"], "has no such device (cpu"),
    (
        ["--precision", "bf61"],
        "--precision bf61: bf61 is no precision (fp64, fp32, fp16, bf16, fp8); did you mean bf16?",
    ),
    (["--precision", "fp32,"], "--precision fp32,: nothing is no precision"),
    (["--threads", "0"], "--threads 0: must lie in 1 to 4096"),
    (["--out", "m.toml/x", "--device", "cpu"], "--out m.toml/x: cannot be written"),
]


@pytest.mark.parametrize(("words", "message"), WITH_TORCH)
def test_what_the_device_does_not_have_is_refused(torch, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m.toml").write_text("")
    done = command(["-o", "n.toml", "--accelerator", *words])
    assert isinstance(done.exception, InputError) and message in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


def test_operators_compute_what_their_points_say(torch):
    """Shapes of what comes out, and bytes of operands, are those that the model is charged with."""
    from athanor.mpi_runtime.accelerator.device import Device
    from athanor.mpi_runtime.accelerator.operators import operators

    device = Device(torch, "cpu")
    small = [point for point in plan("cpu", ("fp32",), True) if point.size < 1 << 27]
    assert {family(point) for point in small} == {family(point) for point in plan("cpu", ("fp32",), True)}
    for number, point in enumerate(small):
        if point.kind == "loop" or number % 3:
            continue
        made = operators(device, point)
        out, detail = made[0](), point.detail
        assert len(made) == 1 or len(made) * footprint(point)[0] >= 2 * device.last_cache or len(made) == 256
        if point.kind == "gemm":
            assert out.shape == (detail["m"], detail["n"])
        if point.kind == "attention":
            parts = out if detail["backward"] else [out]
            assert len(parts) == (3 if detail["backward"] else 1)
            shape = (detail["count"], detail["length"], detail["size"])
            assert all(tuple(part.shape)[-3:] == shape and bool(torch.isfinite(part).all()) for part in parts)


def test_attention_in_single_operators_is_that_of_the_fused_kernel(torch, monkeypatch):
    from athanor.mpi_runtime.accelerator import operators as module
    from athanor.mpi_runtime.accelerator.device import Device

    drawn = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, 2, 16, 8, generator=drawn) for _ in range(3))
    for causal in (True, False):
        detail = {"count": 2, "length": 16, "size": 8, "precision": "fp32", "causal": causal, "backward": False}
        found = []
        for fused in (True, False):
            turns = iter((q, k, v))
            monkeypatch.setattr(module, "_random", lambda *_, turns=turns: next(turns).clone())
            found.append(module._attention(Device(torch, "cpu"), {**detail, "fused": fused})())
        assert torch.allclose(found[0][0], found[1], atol=1e-5)


@pytest.fixture(scope="module")
def on_this_computer(torch, tmp_path_factory):
    """One calibration of this computer's processor: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("accelerator")
    words = ["--quick", "--seconds", "12", "--precision", "fp32", "--out", str(folder / "out")]
    done = subprocess.run(_command(folder, *words), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder, done


def _command(folder, *words):
    given = ["--accelerator", "--device", "cpu", "--threads", "1", "-o", str(folder / "machine.toml")]
    return [sys.executable, "-m", "athanor.cli", "calibrate", *given, *words]


def test_the_files_of_an_accelerator_s_calibration(on_this_computer):
    folder, done = on_this_computer
    machine = load_machine(folder / "machine.toml")
    assert machine.unsourced() == []
    assert 1e8 < machine.core_group.peak["fp32"] < 1e15
    assert 1e8 < machine.core_group.memory_bandwidth < 1e14
    assert {path.name for path in (folder / "out").iterdir()} == {
        "accelerator.json",
        "points.csv",
        "report.html",
        "predicted.png",
        "predicted.svg",
    }
    told = json.loads((folder / "out" / "accelerator.json").read_text())
    page = (Path(__file__).parent.parent / "docs" / "formats" / "accelerator.md").read_text()
    for part in (told, told["checks"][0], told["errors_by_operator"][0], told["errors"]["held_out"]):
        for key in part:
            assert f"`{key}`" in page, key
    lines = [json.loads(text) for text in (folder / "machine.toml.samples.jsonl").read_text().splitlines()]
    assert len(lines) == told["points"]
    for line in lines:
        assert line["job"]["torch"] and line["job"]["threads"] == 1
        for key in line["job"]:
            assert f"`{key}`" in page, key
        assert f"`{line['point']['kind']}`" in page
    assert "The compute model's errors" in done.stdout and "Held out of the fit:" in done.stdout
    simulated = athanor.simulate(
        folder / "machine.toml", "moda-tiny", mesh={"dp": 1}, tokens_per_rank=64, precision="O0"
    )
    assert simulated.summary()["step_seconds"] > 0


def test_what_was_measured_is_not_measured_again(on_this_computer):
    folder, _ = on_this_computer
    before = (folder / "machine.toml.samples.jsonl").read_text()
    words = ["--quick", "--seconds", "0.001", "--precision", "fp32", "--json", "-"]
    done = subprocess.run(_command(folder, *words), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["points_kept_from_before"] == told["points"] == len(before.splitlines())
    assert (folder / "machine.toml.samples.jsonl").read_text() == before


def test_an_interrupted_calibration_ends_with_130_and_keeps_its_points(torch, tmp_path):
    process = subprocess.Popen(
        _command(tmp_path, "--precision", "fp32"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    path, until = tmp_path / "machine.toml.samples.jsonl", time.monotonic() + 90
    while time.monotonic() < until and not (path.exists() and path.read_text().count("\n") >= 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "athanor: interrupted" and "Traceback" not in said
    assert not (tmp_path / "machine.toml").exists()
    assert all(json.loads(text)["seconds"] for text in path.read_text().splitlines())
