"""``athanor doctor``: what it says works, works; what it says does not, has a reason and something to do; only the core counts."""

import json
import re
import sys
import tempfile
import tomllib
from importlib import metadata

import pytest
from athanor.cli import doctor
from athanor.cli.doctor import mpi, packages, surroundings
from athanor.mpi_runtime.cluster import missing
from support.command_line import athanor
from support.mpi_jobs import needs_mpi
from support.paths import ROOT


def found(check):
    return {each.subject: each for each in check()}


def program(folder, name, text):
    """An executable script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def few_checks(monkeypatch):
    """Those that start no other programs."""
    monkeypatch.setattr(doctor, "CHECKS", (*doctor.CORE, surroundings.places, surroundings.completion))


def test_here_the_core_works(few_checks, tmp_path):
    done = athanor("doctor", "--json", tmp_path / "found.json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["works"] is True
    assert [each["subject"] for each in told["findings"] if each["core"]] == ["Python", "libraries", "simulation"]
    assert all(each["do"] for each in told["findings"] if not each["works"])
    for each in told["findings"]:
        assert each["found"] in done.stdout
        assert not each["works"] or each["found"]
    assert done.stdout.splitlines()[-1].startswith("the core works")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (["numpy>=999"], "numpy .* is there, it has to be >=999"),
        (["nowhere-to-be-found"], "nowhere-to-be-found is not installed"),
    ],
)
def test_a_library_that_is_missing_or_too_old_ends_with_status_1(few_checks, wanted, reason, monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    done = athanor("doctor", "--json", "-")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["works"] is False
    (library,) = [each for each in told["findings"] if each["subject"] == "libraries"]
    assert library["works"] is False
    assert re.search(reason, library["found"])
    assert "pip install" in library["do"]


def test_a_library_that_cannot_be_loaded_is_found(tmp_path, monkeypatch):
    (tmp_path / "brokenlib.py").write_text("raise ImportError('no libbroken.so\\nmore')\n")
    info = tmp_path / "brokenlib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brokenlib\nVersion: 1.0\n")
    (info / "RECORD").write_text("brokenlib.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(metadata, "requires", lambda name: ["brokenlib"])
    assert (
        found(packages.libraries)["libraries"].found == "brokenlib 1.0 cannot be loaded: ImportError: no libbroken.so"
    )


def test_an_extra_is_what_it_brings_beside_what_is_always_there(monkeypatch):
    wanted = [
        "click>=8",
        "click; extra == 'fit'",
        "scipy>=1; extra == 'fit'",
        "athanor[fit]; extra == 'studies'",
        "nosuch; extra == 'studies'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    told = found(packages.extras)
    assert told["extra fit"].found == f"scipy {metadata.version('scipy')}"
    assert (told["extra studies"].works, told["extra studies"].found) == (False, "nosuch is not installed")
    assert told["extra studies"].do == "pip install 'athanor[studies]'"


def test_a_check_that_fails_itself_is_a_finding(monkeypatch):
    def broken():
        raise KeyError("no such thing")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    (each,) = doctor.examine()
    assert (each.works, each.core) == (False, False)
    assert "no such thing" in each.found
    monkeypatch.setattr(doctor, "CORE", (broken,))
    assert athanor("doctor").returncode == 1


def test_every_extra_is_looked_at_or_for_who_works_on_athanor():
    """And those for MPI by starting ranks."""
    known = {*packages.EXTRAS, "mpich", "openmpi", "sysmpi", "dev", "testing", "docs", "mutation", "traces"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*project["optional-dependencies"]} == known


@needs_mpi
def test_ranks_really_start_and_find_each_other():
    told = found(mpi.ranks)
    assert all(each.works for each in told.values()), told
    assert told["ranks"].found.startswith("2 ranks on 1 kernel; ")
    assert "MPI" in told["MPI library"].found


@needs_mpi
@pytest.mark.parametrize("launched", ["exit 3", 'shift 2; "$@"; exec "$@"', "echo '[]'", "echo no"])
def test_a_launcher_that_starts_no_job_is_told(tmp_path, launched, monkeypatch):
    """One that ends, one that starts each rank by itself, and those that print something else."""
    fake = program(tmp_path, "mpiexec", launched)
    monkeypatch.setattr(mpi, "_launcher", lambda: str(fake))
    alone = mpi.Answer(
        0, json.dumps({"ranks": 1, "kernels": 1, "library": "MPI", "flops": [1.0], "round_trip": 0.0}), ""
    )
    real = mpi.answer
    monkeypatch.setattr(mpi, "answer", lambda words: alone if len(words) == 3 else real(words))
    told = found(mpi.ranks)["ranks"]
    assert not told.works
    assert told.do


def test_without_mpi_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(mpi, "answer", lambda words: mpi.Answer(2, "", "mpi4py is not installed"))
    (each,) = mpi.ranks()
    assert (each.works, each.found) == (False, "mpi4py is not installed")
    assert "athanor[mpich]" in each.do


def test_namespaces_are_there_where_a_cluster_can_be(monkeypatch):
    from athanor.mpi_runtime import cluster

    monkeypatch.setattr(cluster, "missing", lambda: "the kernel refuses")
    (each,) = surroundings.namespaces()
    assert (each.works, each.found) == (False, "the kernel refuses")
    monkeypatch.undo()
    (each,) = surroundings.namespaces()
    assert each.works == (missing() is None)


def test_folders_that_cannot_be_written_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    told = found(surroundings.places)
    assert [each.works for each in told.values()] == [True, False, False]
    assert all(each.do for each in told.values() if not each.works)


@pytest.mark.parametrize(
    ("script", "works"),
    [("echo Browser 1.0; echo '<title>ran</title>'", True), ("echo Browser 1.0", False), ("exit 1", False)],
)
def test_a_browser_works_where_it_shows_a_page(script, works, tmp_path, monkeypatch):
    program(tmp_path, "chromium", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (each,) = surroundings.browser()
    assert each.works is works
    assert str(tmp_path) in each.found


def test_no_browser(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (each,) = surroundings.browser()
    assert not each.works and "is on PATH" in each.found


@pytest.mark.parametrize("shell", surroundings.LINES)
def test_completion_is_found_in_the_shells_own_file(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    (each,) = surroundings.completion()
    file, line = surroundings.LINES[shell]
    assert not each.works
    assert each.do == f"add to {tmp_path / file}: {line}"
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(f"alias ll='ls -l'\n{line}\n")
    (each,) = surroundings.completion()
    assert each.works and not each.do


def test_another_installation_on_the_path_is_told(tmp_path, monkeypatch):
    other = program(tmp_path, "athanor", "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    told = found(packages.python)["command"]
    assert not told.works
    assert str(other) in told.found
    monkeypatch.setenv("PATH", str(other.parent / "empty"))
    told = found(packages.python)["command"]
    assert sys.executable in told.do


def test_ranks_of_a_job_do_not_start_jobs(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    done = athanor("doctor")
    assert done.returncode == 2
    assert "without mpiexec" in done.stderr
