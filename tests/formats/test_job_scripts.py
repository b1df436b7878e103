"""Scripts for Slurm and PBS, run under launchers that are not there: who starts what, on how many ranks, and in which order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from athanor.cli.command_line import cli
from athanor.hardware.machine import load_machine
from athanor.hardware.machine_writer import machine_toml
from athanor.mpi_runtime.job.environment import Launcher
from athanor.reports.formats.exporters import EXPORTERS
from athanor.reports.formats.kinds import Wanted
from support.command_line import athanor
from support.paths import ROOT

RECORDER = f"""#!{sys.executable}
import json, os, shutil, sys
with open(os.environ["TOLD"], "a") as file:
    names = ("LAUNCHED", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "OMP_NUM_THREADS")
    file.write(json.dumps([sys.argv[1:], {{name: os.environ[name] for name in names if name in os.environ}}]) + "\\n")
if sys.argv[1] == "calibrate":
    shutil.copy(os.environ["MACHINE"], sys.argv[sys.argv.index("-o") + 1])
"""
LAUNCHER = """#!/bin/bash
if [ "$1" = --version ]; then echo "$VERSION"; exit; fi
words=()
while [ "$1" != athanor ]; do words+=("$1"); shift; done
for word in "${words[@]}"; do [[ $word == --ntasks=* ]] && export SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=${word#--ntasks=}; done
LAUNCHED="${words[*]}" exec "$@"
"""
RUN = 'machine = "laptop"\nmodel = "moda-tiny"\n[plan]\nmesh = "ep=2,dp=4"\ntokens_per_rank = 64\nranks_per_node = 8\n'


def script_of(folder, kind, run=RUN):
    (folder / "run.toml").write_text(run)
    done = athanor("export", kind, "run.toml", "-o", "job.sh", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stderr


def started(folder, version=""):
    """What a script starts: the words of each ``athanor``, and what is in its environment."""
    (folder / "bin").mkdir()
    for name, text in {"athanor": RECORDER, "srun": LAUNCHER, "mpiexec": LAUNCHER}.items():
        path = folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    (folder / "laptop.toml").write_text(machine_toml(load_machine("laptop")))
    told = folder / "told.jsonl"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "PBS", "PMI"))}
    extra = {"TOLD": str(told), "MACHINE": str(folder / "laptop.toml"), "VERSION": version, "CALIBRATE": "--quick"}
    environment = {**clean, **extra, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "job.sh"], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in told.read_text().splitlines()]


def parsed(folder, words, monkeypatch):
    """The options of a command line, as its own command reads them."""
    monkeypatch.chdir(folder)
    for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    name, *rest = words
    command = cli.get_command(None, name)
    return command.make_context(name, rest).params


@pytest.mark.parametrize(
    ("kind", "version", "bound"),
    [
        ("slurm-athanor", "", "--ntasks=8 --ntasks-per-node=8 --cpus-per-task=1 --cpu-bind=cores"),
        ("pbs-athanor", "HYDRA build details", "-n 8 -ppn 8 -bind-to core:1"),
        ("pbs-athanor", "mpiexec (Open MPI) 5.0.11", "-n 8 --map-by ppr:8:node:PE=1 --bind-to core"),
    ],
)
def test_a_job_calibrates_executes_compares_and_trains(kind, version, bound, tmp_path, monkeypatch):
    script_of(tmp_path, kind)
    found = started(tmp_path, version)
    assert [words[0] for words, _ in found] == ["calibrate", "execute", "simulate", "compare", "train"]
    for words, around in found:
        alone = words[0] in ("simulate", "compare")
        assert around.get("LAUNCHED") == (None if alone else bound)
        assert around["OMP_NUM_THREADS"] == "1"
        if kind == "slurm-athanor":
            assert Launcher.of(around) == (None if alone else Launcher("slurm", 0, 8))
    options = {words[0]: parsed(tmp_path, words, monkeypatch) for words, _ in found}
    for command in ("calibrate", "execute", "train"):
        assert options[command]["expect_ranks"] == 8
    assert options["calibrate"]["quick"] and options["train"]["predict"]
    for key in ("mesh", "tokens_per_rank", "ranks_per_node", "machine", "model", "steps"):
        assert options["execute"][key] == options["simulate"][key], key
    assert options["compare"]["files"] == ("out/predicted.json", "out/measured.json")


def test_the_scripts_of_the_examples_are_what_is_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    for kind, name in (("slurm-athanor", "job.slurm"), ("pbs-athanor", "job.pbs")):
        (text,) = EXPORTERS.find(kind).files(Path("examples/job.toml"), Wanted(Path(name))).values()
        assert (ROOT / "examples" / name).read_text() == text


def test_what_a_job_cannot_do_is_said(tmp_path):
    said = script_of(tmp_path, "slurm-athanor", RUN.replace('"moda-tiny"', '"deepseek-v2-lite"'))
    assert "the script leaves training out" in said
    text = (tmp_path / "job.sh").read_text()
    assert "athanor execute" in text and "athanor train" not in text
    (tmp_path / "own.toml").write_text((ROOT / "examples" / "own_cluster.toml").read_text())
    for run, wrong in (
        (
            RUN.replace("laptop", "own.toml")
            .replace("ranks_per_node = 8", "ranks_per_node = 2")
            .replace("dp=4", "dp=3,tp=1")
            .replace("ep=2", "ep=1"),
            "3 ranks, 2 a node, do not fill",
        ),
        (
            RUN + "[set]\ncalibration.network_efficiency = 0.5\n",
            "set.calibration.network_efficiency is of the run file's machine",
        ),
    ):
        (tmp_path / "wrong.toml").write_text(run)
        done = athanor("export", "slurm-athanor", tmp_path / "wrong.toml", "-o", tmp_path / "none.sh")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and wrong in done.stderr
        assert not (tmp_path / "none.sh").exists()
