"""Notebooks of the documentation: each is executed, and what it gives is what stands in it."""

import json

import pytest
from support.mpi_jobs import needs_mpi
from support.paths import ROOT
from support.scripts import script

FOLDER = ROOT / "docs" / "notebooks"


@pytest.fixture(scope="module")
def notebooks():
    """The file that executes notebooks; one kernel for all."""
    for library in ("nbclient", "ipykernel"):
        pytest.importorskip(library)
    return script("docs/notebooks/execute.py")


def test_every_notebook_is_named(notebooks):
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*notebooks.PAGES, *notebooks.MEASURED}


def test_what_notebooks_show_comes_out_again(notebooks):
    """Texts and tables to the letter, and a picture wherever there is one."""
    stored = [notebooks.read(name) for name in notebooks.PAGES]
    for name, before, now in zip(notebooks.PAGES, stored, notebooks.executed(stored), strict=True):
        assert notebooks.told(now) == notebooks.told(before), f"{name}: run make notebooks"


@needs_mpi
def test_notebooks_that_measure_run_to_their_end(notebooks):
    """With the same kinds of output as they have stored: tables and pictures."""
    stored = [notebooks.read(name) for name in notebooks.MEASURED]
    for before, now in zip(stored, notebooks.executed(stored), strict=True):
        kinds = [
            [
                [sorted(output.get("data", {"stream": 0})) for output in cell.outputs]
                for cell in each.cells
                if "outputs" in cell
            ]
            for each in (before, now)
        ]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_notebooks_tell_nothing_of_who_executed_them(path):
    """And each has outputs: tables and at least one plot."""
    plain = json.loads(path.read_text())
    assert set(plain["metadata"]) == {"kernelspec", "language_info"}
    outputs = [output for cell in plain["cells"] for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert all(output["output_type"] != "error" for output in outputs)
    texts = [
        text for output in outputs for text in [*output.get("text", []), *output.get("data", {}).get("text/html", [])]
    ]
    assert not [text for text in texts if "/home/" in text or "/tmp/" in text or "/root/" in text or str(ROOT) in text]
