"""Calibration of an accelerator with PyTorch, where it is installed; what the command refuses; a GPU's clock with made-up events."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.mpi_runtime.accelerator import bench as bench_module
from athanor.mpi_runtime.accelerator import operators as operators_module
from athanor.mpi_runtime.accelerator.bench import TorchBench
from athanor.mpi_runtime.accelerator.calibrate import AcceleratorTask
from athanor.mpi_runtime.accelerator.device import MeasuredDevice
from athanor.mpi_runtime.accelerator.measure import Unable
from athanor.mpi_runtime.accelerator.operators import footprint, operators
from athanor.mpi_runtime.accelerator.points import family, plan
from click.testing import CliRunner
from support.accelerators import HALVES
from support.command_line import PATIENCE, eventually, has_lines, start
from support.paths import ROOT


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
        AcceleratorTask(tmp_path / "m.toml")


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
    (["--precision", "fp8"], "--precision fp8: "),
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
    device = MeasuredDevice(torch, "cpu")
    smallest = {family(point): point for point in reversed(plan("cpu", ("fp32",), True))}
    numbers = operators_module._random(device, "fp32", 3, operators_module.NOISE)
    assert numbers.shape == (3, operators_module.NOISE) and numbers.untyped_storage().nbytes() == 4 * numbers.numel()
    assert float(numbers.mean()) == pytest.approx(0, abs=0.01) and float(numbers.std()) == pytest.approx(1, abs=0.01)
    for point in smallest.values():
        if point.kind == "loop":
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


def test_what_the_device_refuses_leaves_a_point_out(torch, monkeypatch):
    point = next(point for point in plan("cpu", ("fp32",), True) if point.kind == "gemm")

    def refuses(reason):
        def run():
            raise reason

        monkeypatch.setattr(bench_module, "operators", lambda device, point: [run])
        return TorchBench(MeasuredDevice(torch, "cpu")).ready(point)

    for reason, told in (
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory"),
        (MemoryError(), "too little memory"),
        (RuntimeError('"addmm" not implemented for this type'), "no such operator"),
    ):
        with pytest.raises(Unable, match=told):
            refuses(reason)(1)
    monkeypatch.setattr(MeasuredDevice, "free", lambda self: 1000)
    with pytest.raises(Unable, match="too little memory"):
        operators(MeasuredDevice(torch, "cpu"), point)


def test_attention_in_single_operators_is_that_of_the_fused_kernel(torch, monkeypatch):
    drawn = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, 2, 16, 8, generator=drawn) for _ in range(3))
    for causal in (True, False):
        detail = {"count": 2, "length": 16, "size": 8, "precision": "fp32", "causal": causal, "backward": False}
        found = []
        for fused in (True, False):
            turns = iter((q, k, v))
            monkeypatch.setattr(operators_module, "_random", lambda *_, turns=turns: next(turns).clone())
            found.append(operators_module._attention(MeasuredDevice(torch, "cpu"), {**detail, "fused": fused})())
        assert torch.allclose(found[0][0], found[1], atol=1e-5)


@pytest.fixture(scope="module")
def on_this_computer(torch, tmp_path_factory):
    """One calibration of this computer's processor: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("accelerator")
    words = ["--quick", "--seconds", "12", "--precision", "fp32", "--out", str(folder / "out")]
    done = subprocess.run(_command(folder, *words), capture_output=True, text=True, timeout=PATIENCE)
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
    page = (ROOT / "docs" / "formats" / "accelerator.md").read_text()
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
    done = subprocess.run(_command(folder, *words), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["points_kept_from_before"] == told["points"] == len(before.splitlines())
    assert (folder / "machine.toml.samples.jsonl").read_text() == before


def test_an_interrupted_calibration_ends_with_130_and_keeps_its_points(torch, tmp_path):
    process = start(_command(tmp_path, "--precision", "fp32"))
    path = tmp_path / "machine.toml.samples.jsonl"
    assert eventually(lambda: has_lines(path, 3))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "athanor: interrupted" and "Traceback" not in said
    assert not (tmp_path / "machine.toml").exists()
    assert all(json.loads(text)["seconds"] for text in path.read_text().splitlines())
