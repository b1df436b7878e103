"""Documentation that is generated is current, links lead somewhere, and every key is explained."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from athanor.hardware.fabrics import AnyFabric, FatTree
from athanor.hardware.fabrics.fat_tree import Tier
from athanor.hardware.machine import Machine, load_machine
from athanor.mpi_runtime.cluster import missing
from athanor.reports.published.read_runs import published_runs
from athanor.workloads.model.model import Model
from athanor.workloads.results.trace import COLUMNS
from athanor.workloads.schedule.operation import ModelPart, Operation, Overlap, Role, Task
from support.command_line import athanor
from support.mpi_jobs import needs_mpi
from support.paths import ROOT
from support.runs import accelerators, with_some
from support.scripts import script

FABRICS = get_args(get_args(AnyFabric)[0])
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.fixture(scope="module")
def build():
    return script("docs/build.py")


def test_the_reference_of_the_command_line_is_current(build):
    assert (ROOT / "docs" / "cli.md").read_text() == build.command_line(), "run make pages"


def test_the_types_of_options_are_current(build):
    assert (ROOT / build.PLAN_OPTIONS).read_text() == build.plan_options(), "run make pages"


def test_the_diagram_of_the_architecture_is_current(build):
    diagram = build.diagram()
    assert (ROOT / build.DATA_FLOW).read_text() == diagram.svg(), "run make pages"
    boxes = {name for column in diagram.COLUMNS for name in column}
    leads = {**{start: (end,) for start, end in diagram.ARROWS.items()}, **diagram.FORKS}
    assert {*leads} | {end for ends in leads.values() for end in ends} == boxes


def test_tables_of_benchmarks_are_the_recorded_ones(build):
    markers = []
    for name in build.PAGES:
        text = (ROOT / name).read_text()
        assert build.filled(ROOT / name) == text, f"{name}: run make pages"
        markers += re.findall(r"<!-- (\w+) -->", text)
    assert {"speed", "network", "validation", "cells", "runtime"} <= set(markers)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_key_of_a_machine_file_is_explained():
    page = (ROOT / "docs" / "formats" / "machine.md").read_text()
    for key, _, _ in load_machine("sunway-oceanlight").numbers():
        last = key.rsplit(".", 1)[-1].removeprefix("latency")
        assert last in page, key
    for name in Machine.model_fields:
        assert name in page


@pytest.mark.parametrize("fabric", FABRICS, ids=lambda fabric: fabric.__name__)
def test_every_key_of_a_fabric_is_explained_on_its_page(fabric):
    kind = fabric.model_fields["kind"].default
    section = (ROOT / "docs" / "formats" / "fabrics" / f"{kind}.md").read_text()
    assert f"fabrics/{kind}.md" in (ROOT / "docs" / "formats" / "fabrics.md").read_text()
    for name in {*fabric.model_fields, *(Tier.model_fields if fabric is FatTree else ())} - {"kind", "latency_node"}:
        assert f"`{name}`" in section, name
    for routing in fabric.routings():
        assert f"`{routing}`" in section


def test_every_key_of_a_model_file_is_explained():
    page = (ROOT / "docs" / "formats" / "model.md").read_text()
    for name in Model.model_fields:
        assert f"`{name}`" in page, name


def test_every_key_of_the_summary_and_column_of_the_trace_is_explained():
    import athanor

    page = (ROOT / "docs" / "formats" / "json.md").read_text()
    totals = athanor.simulate("cluster-64", "moda-tiny").summary()
    nested = [
        key for value in totals.values() if isinstance(value, dict) for key in value if not isinstance(value[key], dict)
    ]
    for key in [*totals, *nested, *totals["links"][0]]:
        if key not in ("ep", "dp", "kind"):
            assert f"`{key}`" in page, key
    trace = (ROOT / "docs" / "formats" / "trace.md").read_text()
    for column in COLUMNS:
        assert f"`{column}`" in trace, column


def test_every_field_of_a_schedule_and_every_role_is_explained():
    page = (ROOT / "docs" / "formats" / "schedule.md").read_text()
    words = [each.name for record in (Operation, Task) for each in fields(record)]
    for word in (*words, *Role, *get_args(ModelPart), *get_args(Overlap)):
        assert f"`{word}`" in page, word


BEFORE, REAL = (ROOT / "README.md").read_text().split("Then run a plan for real")
COMMANDS = [line.strip() for line in BEFORE.splitlines() if line.startswith("    athanor ")]
COMMANDS += re.findall(r"`(athanor \w+ [^`]+)`", REAL.split("## What you can ask")[1].split("`athanor COMMAND")[0])
JOBS = [line.strip() for line in REAL.splitlines() if line.startswith(("    athanor ", "    mpiexec "))]
"""Commands that use each other's files, in their order."""


FEWER = {
    "plan": "--gpus 64 --global-batch 64 --pipeline 1f1b --zero 1 --recompute full --simulate 2",
    "validate": "--data few",
}
"""What makes the two longest commands short: fewer GPUs and one choice each of some options, one run of each publication."""


@pytest.mark.parametrize("command", [command for command in COMMANDS if "reproduce" not in command])
def test_commands_of_the_readme_run(command, tmp_path):
    """All but ``reproduce``, whose claims ``test_reports.py`` computes."""
    words = shlex.split(command)[1:]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    if "few" in FEWER.get(words[0], "").split():
        one_run_of_each_publication(tmp_path / "few")
    done = athanor(*words, *FEWER.get(words[0], "").split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5
    if "--out" in words:
        assert (tmp_path / words[words.index("--out") + 1] / "report.html").exists()


def one_run_of_each_publication(folder):
    """Of each publication the run on the fewest accelerators."""
    runs = published_runs()
    with_some(folder, lambda names: [min(names, key=lambda name: accelerators(runs[name]))])


STRATEGIES = sorted((ROOT / "docs" / "strategies").glob("*.md"))


@pytest.mark.parametrize("page", STRATEGIES, ids=lambda page: page.stem)
def test_commands_of_a_strategys_page_run(page):
    """And the rows that the page explains after them are there."""
    text = page.read_text()
    commands = re.findall(r"^    (athanor .*)$", text.replace("\\\n", " "), re.MULTILINE)
    if not commands:
        assert page.stem in ("README", "pipeline", "memory")
    printed = ""
    for command in commands:
        done = athanor(*shlex.split(command)[1:])
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert len(done.stdout.splitlines()) > 5
        printed += done.stdout
    explained = " ".join(re.findall(r"^prints? .*$", text, re.MULTILINE))
    for name in re.findall(r"`([a-z_.]+)`", explained):
        assert re.search(rf"^ *{re.escape(name)} ", printed, re.MULTILINE) or name == "tp", name


@needs_mpi
def test_jobs_of_the_readme_run(tmp_path):
    """One after another; those on an emulated cluster where there can be one. ``test_calibrate.py`` runs calibrations."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    jobs = [job for job in JOBS if " calibrate " not in job and (missing() is None or " cluster " not in job)]
    assert len(jobs) >= 3
    environment = {**os.environ, "PATH": path, "XDG_RUNTIME_DIR": str(tmp_path)}
    for job in jobs:
        fewer = ["--steps", "5"] if " train " in job else ["--steps", "2"] if " execute " in job else []
        done = subprocess.run(
            [*shlex.split(job), *fewer], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{job}: {done.stderr}"
        assert done.stdout.strip()


def test_commands_of_the_readme_exist():
    """Each option that README and pages use is one that the commands have."""
    reference = (ROOT / "docs" / "cli.md").read_text()
    for page in PAGES:
        for line in page.read_text().splitlines():
            if found := re.match(r"    (?:mpiexec -n \d+ )?athanor (\w+)", line):
                command = found[1]
                assert f"## athanor {command}" in reference
                for option in re.findall(r"--[a-z-]+", line):
                    assert option in reference, f"{page.name}: {option}"
