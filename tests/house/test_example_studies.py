"""Studies that come with Athanor, as a file, by name, or on a page: their plans are such as their machines and models can have."""

import re
import tomllib
from pathlib import Path

import pytest
from athanor.sim.studies.study.designs import points_of
from athanor.sim.studies.study.study_file import CATALOGUE, StudyFile
from athanor.sim.studies.study.trials import machine_of, model_of
from athanor.workloads.plan.setting import Setting
from support.paths import ROOT

PAGE = ROOT / "docs" / "howto" / "run-a-study.md"

FILES = {each.stem: each for each in [*CATALOGUE.glob("*.toml"), *(ROOT / "examples" / "studies").glob("*.toml")]}


def of_the_page():
    """The first study of the page."""
    return StudyFile.of(tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.S)[1]), Path("page.toml"))


@pytest.mark.parametrize("named", [*FILES, "the page"])
def test_points_are_not_refused(named):
    file = of_the_page() if named == "the page" else StudyFile.read(FILES[named])
    planned = points_of(file)
    assert planned
    for point in planned:
        assert not point.refused, point.refused
        Setting.of(machine_of(point.trial), model_of(point.trial), point.trial.plan)
