"""``reproduce convergence``: claims are what the experiments gave, and experiments what a training gives."""

import json

import numpy as np
import pytest
from athanor.mpi_runtime.trainer.serial import Experiment, Size, experiment
from athanor.reports.plots.draw import as_svg, draw
from athanor.reports.studies.reproductions import convergence
from athanor.reports.studies.reproductions.desk import Desk
from athanor.workloads.model.model import Model

SMALL = Size(Model(**{**convergence.MODEL, "layers": 1, "hidden": 8, "ffn_hidden": 8}), {"ep": 8}, 16, 12, 3e-3, 1)


def told(name, seed):
    """What a made-up experiment of an expected outcome gives."""
    level = {"capacity 1": 0.4, "capacity 1.25": 0.2, "auxiliary loss, by sequence": 0.1, "bias 1e-3": -0.1}
    level["auxiliary loss, of 4 sequences"] = 0.05
    violation = {"bias 1e-3": 0.1, "bias 1e-2": 0.4, "bias 1e-4": 0.6, "dropless": 2.0}
    loss = 2 + level.get(name, 0.0) + 0.01 * seed
    rest = {
        "settled": 300 if name == "bias 1e-4" else 100,
        "score": 3.0 if name == "z-loss" else 5.0,
        "removed": loss + 0.3,
    }
    return {"loss": loss, "curve": [loss] * 40, "violation": violation.get(name, 1.0), **rest}


class Written(Desk):
    """A desk on which results are written already."""

    def __init__(self, results):
        super().__init__()
        self.results = results

    def each(self, call, tasks, told=str):
        return {label: self.results(*task) for label, task in tasks.items()}


def truths(results):
    return {each.name: each.simulated for each in convergence.build(Written(results)).claims if each.yes_or_no}


def test_claims_follow_from_the_experiments():
    """All hold where experiments say so; each fails alone where one does not."""
    assert all(truths(told).values()) and len(truths(told)) == 10
    wrong = {
        "capacity 1.25": {"loss": 2.5},
        "bias 1e-2": {"violation": 0.05},
        "auxiliary loss, by sequence": {"loss": 1.9},
        "auxiliary loss, of 4 sequences": {"loss": 1.9},
        "bias 1e-4": {"settled": 50},
        "z-loss": {"score": 6.0},
        "a shared expert": {"removed": 1.0},
        "dropless": {"violation": 0.5},
    }
    for name, change in wrong.items():
        found = truths(lambda at, seed, name=name, change=change: {**told(at, seed), **(change if at == name else {})})
        assert sum(not each for each in found.values()) == 1, name


def test_exact_claims_and_form():
    found = convergence.build(Written(told))
    exact = [each for each in found.claims if not each.yes_or_no]
    assert [each.simulated for each in exact] == pytest.approx([0.01, 1.28], rel=1e-6)
    assert json.loads(json.dumps(found.plain()))["name"] == "convergence"
    part, rest = found.parts
    assert len(rest.section.rows) == len(convergence.NOT_TRIED)
    assert len(part.section.rows) == len(convergence.TRIED)
    (drawing,) = part.drawings
    assert "<svg" in as_svg(draw(drawing.content))


def test_experiments_are_repeatable_and_policies_bite():
    """The same seed gives the same numbers; what drops tokens, or moves them, trains another model."""
    ways = [Experiment(), Experiment(), Experiment("capacity:0.5"), Experiment("swipe"), Experiment(gate_bias=0.1)]
    curves = [experiment(SMALL, way)["curve"] for way in ways]
    assert curves[0] == curves[1]
    assert len({tuple(np.round(each, 6)) for each in curves}) == 4
    assert experiment(SMALL, Experiment(seed=1))["curve"] != curves[0]
