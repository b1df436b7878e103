"""The package as users have it: what its wheel holds, that it works far from the checkout, and that their mypy sees its types."""

import json
import zipfile

import pytest
from athanor.reports.published.read_runs import published_runs
from support.paths import ROOT
from support.wheel import VERSION


@pytest.fixture(scope="module")
def held(installed_wheel):
    """Paths in the wheel."""
    with zipfile.ZipFile(installed_wheel.wheel) as wheel:
        return {name for name in wheel.namelist() if ".dist-info/" not in name}


def sources():
    """Files of the checkout that belong to the package: those of the root that Python needs, and all of the rooms."""
    rooms = [path.parent for path in ROOT.glob("*/__init__.py")]
    assert len(rooms) >= 6
    files = [
        ROOT / "__init__.py",
        ROOT / "__main__.py",
        ROOT / "py.typed",
        *(path for room in rooms for path in room.rglob("*")),
    ]
    return {f"athanor/{path.relative_to(ROOT)}" for path in files if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_the_rooms_and_nothing_else(held):
    """Code and data of each room; no tests, documentation, benchmarks or settings."""
    assert held == sources()


def test_every_folder_with_code_is_a_package():
    """Else its modules would be installed, and `find_packages` and tools that follow it would not see them."""
    for room in [path.parent for path in ROOT.glob("*/__init__.py")]:
        for path in room.rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path


def test_the_command_works_in_an_empty_folder(installed_wheel, tmp_path):
    command = ["simulate", "--machine", "cluster-64", "--model", "moda-tiny", "--json", "-", "--out", "out"]
    done = installed_wheel.run(installed_wheel.athanor, *command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["step_seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "moda-tiny" in (tmp_path / "out" / "report.html").read_text()


def test_the_version_comes_through_the_sdist_to_the_command(installed_wheel, tmp_path):
    """``python -m athanor`` is the command as well."""
    for command in ([installed_wheel.athanor], [installed_wheel.python, "-m", "athanor"]):
        done = installed_wheel.run(*command, "--version", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"athanor, version {VERSION}\n")


def test_the_catalogues_are_there(installed_wheel, tmp_path):
    """Each machine and model of the checkout, and published figures, load from the installed package."""
    script = """
import json
import athanor
from athanor.reports.published.read_runs import published_runs

names = [[each.name for each in listed()] for listed in (athanor.list_machines, athanor.list_models)]
print(json.dumps([athanor.__file__, *names, len(published_runs())]))
"""
    done = installed_wheel.run(installed_wheel.python, "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    where, machines, models, figures = json.loads(done.stdout)
    assert where.startswith(str(installed_wheel.folder))
    assert sorted(machines) == sorted(path.stem for path in (ROOT / "hardware/catalogue").glob("*.toml"))
    assert sorted(models) == sorted(path.stem for path in (ROOT / "workloads/model/catalogue").glob("*.toml"))
    assert figures == len(published_runs())


RIGHT = """
from athanor import Machine, PlanOptions, Run, execute, infer, load_machine, lower, plan, scale, simulate

machine: Machine = load_machine("cluster-64")
run: Run = simulate(machine=machine, model="moda-tiny", jitter=0.05)
again: Run = simulate("run.toml", mesh={"ep": 2, "dp": 2}, zero="1", tensor="2d", placement={"ep": "node"})
options: PlanOptions = {"mesh": "ep=2,dp=2", "sequence_parallel": True, "seq_len": None}
lower("laptop", "moda-tiny", step=1, **options)
scale("weak", "laptop", "moda-tiny", [4, 8], **options)
plan("laptop", "moda-tiny", gpus=4, global_batch=8)
infer("laptop", "moda-tiny", prompt=8, new_tokens=2, top_k=1)
execute("laptop", "moda-tiny", time_limit=60.0, **options)
"""
WRONG = """
from athanor import PlanOptions, execute, infer, load_machine, lower, plan, scale, simulate

ranks: int = load_machine("cluster-64")
load_machine(64)
simulate(machine=64)
simulate("laptop", "moda-tiny", mesh="ep=2,dp=2", jiter=0.05)
simulate("laptop", "moda-tiny", jitter="much")
lower("laptop", "moda-tiny", tensor="3d")
scale("sideways", "laptop", "moda-tiny")
plan("laptop", "moda-tiny", gpus=4, glob_batch=8)
infer("laptop", "moda-tiny", prompt=8, new_tokens=2, top_k="all")
execute("laptop", "moda-tiny", sequence_parallel="yes")
options: PlanOptions = {"meshes": "ep=2"}
"""


def test_mypy_of_a_user_sees_the_types(installed_wheel, tmp_path):
    for name, text in (("right.py", RIGHT), ("wrong.py", WRONG)):
        (tmp_path / name).write_text(text)
    said = installed_wheel.mypy("right.py", "wrong.py", cwd=tmp_path).stdout
    errors = [line.partition(": error: ")[0] for line in said.splitlines() if ": error: " in line]
    assert errors == [f"wrong.py:{line}" for line in range(4, 15)], said
