"""Files and folders of results: all or nothing, and names that mean something to HTML, terminals, CSV or shells."""

import csv
import io
import json
from types import SimpleNamespace

import athanor
import pandas as pd
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.files import write_all, write_whole
from athanor.hardware.machine import load_machine
from athanor.reports.content.inputs import inputs
from athanor.reports.content.sections import Section
from athanor.reports.content.words import shown
from athanor.reports.pages.html_page import write_report
from athanor.reports.pages.output_folder import Folder, all_or_nothing
from athanor.reports.pages.run import write_run
from athanor.reports.tables.runs import show_inference, show_run, table
from athanor.workloads.mesh.mesh_text import mesh_text
from athanor.workloads.model.model import load_model
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.drawn import read

NASTY = "a $x^{$ [bold] <b>&\"' :smile: {{ 1 }} %s _"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    target = tmp_path / "run.json"
    write_whole(target, "before")
    target.chmod(0o640)

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(InputError, match=r"run\.json: cannot be written: No space left"):
            write_whole(target, "after")
    assert contents(tmp_path) == {"run.json": b"before"}
    write_whole(target, "after")
    assert contents(tmp_path) == {"run.json": b"after"}
    assert target.stat().st_mode & 0o777 == 0o640


def test_links_are_followed_and_folders_refused(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        write_all({tmp_path / "first": "x", tmp_path / "folder": "y"})
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link", "folder"}


@pytest.mark.parametrize("before", [{}, {"a.txt": b"old", "b.txt": b"old"}])
def test_a_folder_is_filled_or_stays_as_it_was(tmp_path, before):
    out = tmp_path / "parent" / "out"
    if before:
        out.mkdir(parents=True)
        for name, content in before.items():
            (out / name).write_bytes(content)

    @all_or_nothing
    def write(folder, fails):
        folder.text("a.txt", "new")
        if fails:
            raise RuntimeError("in the middle")
        folder.frame("b.csv", pd.DataFrame({"fits": [True, False], "n": [1, 2]}))

    with pytest.raises(RuntimeError):
        write(Folder(out), True)
    assert (contents(out) if out.exists() else {}) == before
    assert out.parent.exists() == bool(before), "folders that nothing was written to are not made"
    write(Folder(out), False)
    assert contents(out) == {**before, "a.txt": b"new", "b.csv": b"fits,n\nyes,1\nno,2\n"}


def test_a_model_with_a_name_from_hell(tmp_path):
    """U6: the whole folder of a run is written, and every page, table and file has the name as it stands."""
    model = load_model("moda-tiny").model_copy(update={"name": NASTY})
    machine = load_machine("laptop").model_copy(update={"name": NASTY, "description": NASTY})
    run = athanor.simulate(machine, model, mesh={"ep": 2, "dp": 2})
    write_run(Folder(tmp_path / NASTY.replace("/", "")), run, machine, model, f"athanor simulate --model '{NASTY}'")
    (folder,) = tmp_path.iterdir()
    page = read(folder / "report.html")
    text = " ".join(page.text)
    assert NASTY in text
    assert "b" not in page.tags
    assert json.loads((folder / "run.json").read_text())["summary"]["model"] == NASTY
    console = Console(width=300, file=io.StringIO(), emoji=False)
    show_run(console, {**run.summary(), "warnings": [NASTY]}, run.summary()["links"])
    assert console.file.getvalue().count(NASTY) == 3


words = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=40).filter(
    lambda text: text == " ".join(text.split())
)


@settings(max_examples=25, deadline=None)
@given(name=words)
def test_any_name_stands_in_tables_pages_and_csv(tmp_path_factory, name):
    folder = Folder(tmp_path_factory.mktemp("out"))
    write_report(folder, name, name, [Section(name, name, (name,), [(name,)])], [name], [name])
    page = read(folder.path / "report.html")
    assert sum(text.strip() == name for text in page.text) == 9
    assert not {"b", "script", "img"} & set(page.tags)
    folder.frame("names.csv", pd.DataFrame({"name": [name], "n": [1]}))
    with (folder.path / "names.csv").open(newline="", encoding="utf-8") as lines:
        assert next(csv.DictReader(lines))["name"] == name
    console = Console(width=400, file=io.StringIO(), emoji=False)
    console.print(table(name, (name,), [(name,)], caption=name))
    assert console.file.getvalue().count(name) >= 4


def test_inference_shows_names_as_they_are():
    found = athanor.infer("laptop", "moda-tiny", mesh={"ep": 2}, prompt=4, new_tokens=1).summary()
    console = Console(width=300, file=io.StringIO(), emoji=False)
    show_inference(console, {**found, "model": NASTY})
    assert NASTY in console.file.getvalue()


def test_meshes_and_truths_as_people_write_them():
    assert mesh_text({"pp": 16, "dp": 8}) == shown({"pp": 16, "dp": 8}) == "pp=16,dp=8"
    assert [shown(each) for each in (True, False, None, [1, "a"], 3)] == ["yes", "no", "", "1, a", "3"]
    plan = {"mesh": {"ep": 2, "dp": 2}, "sequence_parallel": True, "chunks": None}
    (section,) = [
        each for each in inputs(load_machine("laptop"), load_model("moda-tiny"), plan) if each.title == "Plan"
    ]
    assert list(section.rows) == [("mesh", "ep=2,dp=2"), ("sequence_parallel", "yes")]


def test_a_folder_knows_what_it_wrote_when_nested(tmp_path):
    folder = Folder(tmp_path)
    with folder.whole():
        with folder.whole():
            folder.text("a", "1")
        assert contents(tmp_path) == {}, "the outer one decides"
    assert contents(tmp_path) == {"a": b"1"}
    assert SimpleNamespace(**vars(folder))._staged is None
