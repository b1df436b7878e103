"""Every page that tells how to add something is done as it stands, in a copy of the package, and what it adds is found.

A block of Python or TOML goes into the file that the line above names first: into the package where that is a room of it, else
into the working directory. A block of ``diff`` changes files of the package, and commands of ``sh`` are run.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from support.mpi_jobs import MPIEXEC, told
from support.paths import ROOT

ROOMS = ("hardware", "workloads", "sim", "mpi_runtime", "reports", "cli")
PAGES = sorted(ROOT.glob("docs/howto/add-a*.md"))

ADDED = {
    "add-a-balancer": ("balancer", "own_balancers:Overflow:1.1"),
    "add-a-collective": ("all_to_all", "backward"),
    "add-a-fabric": ("machine", "meshed"),
    "add-a-layer-part": ("model", "my-retnet"),
    "add-a-machine": ("machine", "my-cluster"),
    "add-a-mesh-axis": ("site", 2),
    "add-a-model": ("model", "my-model"),
    "add-a-recomputation": ("recompute", "own_recomputation:FeedForwardAgain"),
    "add-a-router": ("router", "own_routers:Geometric:0.5"),
    "add-a-sharding": ("zero", "mics"),
    "add-a-strategy": ("pipeline", "own_pipelines:Sequential"),
    "add-an-attention-kernel": ("attention", "forgetful"),
}
"""What each page adds: the option, or the file, and its name in results."""


def blocks(page):
    """(language, the line above, text) of each block."""
    return re.findall(r"^([^\n]*)\n\n```(\w+)\n(.*?)(?=^```$)", page.read_text(), re.MULTILINE | re.DOTALL)


def patched(package, text):
    """Change files as a diff says: lines that stay say where, each of them there once."""
    for name, body in re.findall(r"^--- (\S+)\n\+\+\+ \S+\n(.*?)(?=^--- |\Z)", text, re.MULTILINE | re.DOTALL):
        for hunk in filter(None, body.split("@@\n")):
            lines = [(line[:1], line[1:]) for line in hunk.splitlines()]
            old, new = ("\n".join(text for sign, text in lines if sign in kept) for kept in (" -", " +"))
            content = (package / name).read_text()
            assert content.count(f"\n{old}\n") == 1, f"{name}: not there once:\n{old}"
            (package / name).write_text(content.replace(f"\n{old}\n", f"\n{new}\n"))


def commands(text):
    return [shlex.split(line) for line in text.replace("\\\n", " ").splitlines()]


RUN = """
import contextlib, io, json, sys
from athanor.cli import main

told = []
for words in json.loads(sys.argv[1]):
    sys.argv, status = words, 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            main()
        except SystemExit as done:
            status = done.code or 0
    told.append([status, out.getvalue(), errors.getvalue()])
print(json.dumps(told))
"""
"""Commands in one process, where imports are paid once."""

WHOLE = {"simulate": "-o", "execute": "-o", "memory": "--json", "plan": "--json"}
"""How a command writes a result that says all of its plan."""


def test_every_page_is_done():
    assert {page.stem for page in PAGES} >= set(ADDED)
    assert {page.stem for page in PAGES} - set(ADDED) <= {"add-an-optimizer"}  # which has a test of its own


@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec: extra mpich is not installed")
def test_pages_add_what_they_say(tmp_path, monkeypatch):
    """All pages in one copy of the package: each adds one thing, and simulate, memory, plan and execute know all of them."""
    package, here = tmp_path / "package" / "athanor", tmp_path / "here"
    here.mkdir()
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "pyproject.toml"):
        shutil.copy(ROOT / name, package)
    alone, jobs, kept = [], [], {}
    for page in ADDED:
        for above, language, text in blocks(ROOT / "docs" / "howto" / f"{page}.md"):
            path = re.match(r"`([\w./-]+)`", above)
            if language in ("python", "toml") and path:
                target = (package if path[1].split("/")[0] in ROOMS else here) / path[1]
                assert not target.exists()
                target.write_text(text)
            elif language == "diff":
                patched(package, text)
            elif language == "sh":
                for words in commands(text):
                    at = words.index("athanor")
                    name = words[at + 1]
                    if name in WHOLE and (page, name) not in kept:  # a second thing of a page is only run
                        kept[page, name] = tmp_path / f"{page}.{name}.json"
                        words += [WHOLE[name], str(kept[page, name])]
                    assert words[:at] in ([], ["mpiexec", "-n", "2"])
                    (jobs if at else alone).append(words[at:])
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(alone)], cwd=here, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    for words, (status, printed, errors) in zip(alone, json.loads(done.stdout), strict=True):
        assert status == 0, f"{shlex.join(words)}: {errors}"
        assert len(printed.splitlines()) > 3
    for words, answer in zip(jobs, told(here, 2, [words[1:] for words in jobs], timeout=200), strict=True):
        assert answer.statuses == {0}, f"{shlex.join(words)}: {answer.errors}"
    for page, (option, value) in ADDED.items():
        for command in WHOLE:
            assert _found(json.loads(kept[page, command].read_text()), option, value), f"{page}: {command}"


def _found(answer, option, value):
    """Whether an option of a plan, or the machine or the model, has that value anywhere in an answer."""
    if isinstance(answer, dict):
        here = answer.get(option)
        if here == value or (isinstance(here, dict) and here.get("name") == value):
            return True
        return any(_found(each, option, value) for each in answer.values())
    return isinstance(answer, list) and any(_found(each, option, value) for each in answer)
