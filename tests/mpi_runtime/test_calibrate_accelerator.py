"""Calibration of a made-up accelerator: its constants come back; budgets, interruptions, sources of numbers."""

import tomllib
from collections import Counter

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import Machine, load_machine
from athanor.hardware.machine_writer import machine_toml
from athanor.hardware.records import build
from athanor.mpi_runtime.accelerator.fit import JudgedFit, checks, counts
from athanor.mpi_runtime.accelerator.machine import AcceleratorBuilder
from athanor.mpi_runtime.accelerator.measure import LEAST, SAMPLES, Measured, Measurer, Unable
from athanor.mpi_runtime.accelerator.model import Constants, Predictor, works
from athanor.mpi_runtime.accelerator.points import ALIGNED, GRIDS, LAYOUTS, STARTS, SWEEPS, family, plan
from athanor.mpi_runtime.calibration.samples import judged as judged_samples
from athanor.workloads.schedule.costs import compute_seconds
from athanor.workloads.schedule.work import FusedAttention, Gemm, Sweep
from support.accelerators import HALVES, KINDS, PEAKS, ROOFLINE, TRUE, MadeUpBench, calibrated, kept, measured

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
        FusedAttention(128.0, 128.0, 64.0, 64.0, 16.0, 5, "bf16", (128 + 1) / 256),
    )
    scores, *between, context = works(points["bf16 unfused causal forward 1 x 4 x 256 x 64"])
    assert (scores, context) == (Gemm(256.0, 256.0, 64.0, 4.0, "bf16"), Gemm(256.0, 64.0, 256.0, 4.0, "bf16"))
    assert [(sweep.size, sweep.read, sweep.written) for sweep in between] == [(4.0 * 256 * 256, 2, 2)] * 2
    assert works(points["fp32 Adam, 16384 elements"]) == (Sweep(16384.0, 16.0, 12.0, 12.0, "fp32"),)
    for point in points.values():
        if point.kind in ("gemm", "attention"):  # rates are those of full scores, whatever a mask hides
            products = [work for work in works(point) if isinstance(work, Gemm | FusedAttention)]
            assert point.size == pytest.approx(sum(work.flops / getattr(work, "share", 1.0) for work in products))
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
    held = JudgedFit.of(check for check in found.checks if check.point.held_out and counts(check.point))
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


@pytest.mark.parametrize("precisions", [("bf16",), ("fp64",), ("fp16", "fp8")])
def test_any_precisions_can_be_fitted(precisions, tmp_path):
    found = calibrated(
        "cuda", measured("cuda", tmp_path, quick=True, precisions=precisions), tmp_path, precisions=precisions
    )
    held = JudgedFit.of(check for check in found.checks if check.point.held_out and counts(check.point))
    assert set(found.machine.core_group.peak) == set(precisions)
    assert held.points > 10 and held.mape < 0.05


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
    judged = JudgedFit.of(again)
    assert (judged.points, judged.where) == (2, series[1].point.series)
    assert (judged.mape, judged.median, judged.worst, judged.bias) == pytest.approx((0.25, 0.25, -0.5, -0.25))
    first, second = (check.measured for check in again)
    assert judged.by_time == pytest.approx(0.5 * second / (first + second))
    assert JudgedFit.of([]) is None


def _series_of(point, seconds):
    return judged_samples(point, 1, [seconds] * 5, [""] * 5)


# --- the machine --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_machine_says_where_every_number_is_from_and_simulates(kind, tmp_path):
    precisions = ("fp32", "fp16")
    known = {"cpu": {"fp32": 90e9, "fp16": 200e9}, "cuda": PEAKS}[kind]
    device, constants, _ = KINDS[kind]
    bench = MadeUpBench(kind)
    bench.machine = Constants(
        **{**vars(constants), "efficiency": dict(zip(precisions, constants.efficiency.values(), strict=True))}
    ).applied(
        AcceleratorBuilder("true", device, precisions, None, {name: known[name] for name in precisions}, "").base([])
    )
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


@pytest.mark.parametrize("budget", [2.0, 6.0, 14.0])
def test_measuring_stays_within_its_budget(budget, tmp_path):
    bench, points = MadeUpBench("cpu"), plan("cpu", HALVES, False)
    found = Measurer(bench, kept(tmp_path), budget).measure(points)
    assert bench.time <= budget * 1.05
    assert len(found.series) + sum(found.left_out.values()) == len(points)
    assert set(found.left_out) == {"no time left"}
    assert all(len(each.seconds) >= LEAST for each in found.series)
    if budget == 14.0:  # most of it is used, and all kinds are there
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
    assert len(found.series) == len(points)  # the others at their turn, and what seemed too long in the end


FORWARD = ("gemm", "fp32", "forward", None, None, None, None)


def test_a_run_that_is_fast_by_chance_makes_no_endless_samples(tmp_path):
    """As where threads wait for cores that others have: most runs last for a time slice, some do not."""

    class Waiting(MadeUpBench):
        def ready(self, point):
            made, turns = super().ready(point), iter(range(10**9))

            def run(repeats):
                fast = next(turns) == 1  # the one that tells the number of repeats
                took = made(1)[0] if fast else max(made(1)[0], 12e-3)
                self.time += repeats * took
                return took, ""

            return run

    bench, points = Waiting("cpu"), plan("cpu", ("fp32",), True)
    found = Measurer(bench, kept(tmp_path), 30.0).measure(points)
    assert bench.time < 31.0
    assert len(found.series) > 0.5 * len(points)


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
