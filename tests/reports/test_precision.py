"""``reproduce precision``: claims are what the trials gave, and trials what formats do."""

import json
import math

import numpy as np
import pytest
from athanor.mpi_runtime.trainer.alone import PrecisionTrial, precision_trial
from athanor.mpi_runtime.trainer.serial import Size
from athanor.reports.plots.draw import as_svg, draw
from athanor.reports.studies.reproductions import precision
from athanor.reports.studies.reproductions.desk import Desk
from athanor.workloads.model.model import Model

SMALL = Size(Model(**{**precision.MODEL, "layers": 1, "hidden": 8, "ffn_hidden": 8}), {}, 32, 8, 3e-3)


def told(name, policy, seed):
    """What made-up trials give where all that was published is so."""
    steps = precision.SETUPS[name].steps
    worse = {("small rate", "O3"): 0.1, ("as it is", "O2"): 0.1, ("tiny gradients", "O2"): 1.0}.get((name, policy), 0.0)
    loss = 2 + worse + 0.01 * seed
    if name == "loud" and policy in ("O1", "O2", "O3"):
        loss = None
    outlying = (name, policy) == ("outliers", "O2")
    scales = [65536.0] * (steps - 1) + [65536.0 / 8 if outlying else 65536.0]
    curve = [3.0 if loss is not None else None] * steps
    lost = 0.9 if (name, policy) == ("tiny gradients", "O2") else 0.0
    return {"loss": loss, "curve": curve, "still": 0.1, "lost": lost, "scales": scales, "skipped": 3 * outlying}


class Written(Desk):
    """A desk on which results are written already."""

    def __init__(self, results):
        super().__init__()
        self.results = results

    def each(self, call, tasks, told=str):
        return {label: self.results(*task) for label, task in tasks.items()}


def truths(change=lambda at, result: result):
    found = precision.build(Written(lambda *at: change(at, told(*at))))
    return {each.name: each.simulated for each in found.claims}


def test_claims_follow_from_the_trials():
    """All hold where trials say so; each fails alone where one does not."""
    assert all(truths().values()) and len(truths()) == 7
    wrong = {
        ("as it is", "O1"): {"loss": 3.0},
        ("as it is", "O2"): {"loss": 2.0},
        ("small rate", "O3"): {"loss": 2.0},
        ("loud", "layerwise"): {"loss": 3.0},
        ("loud", "bf16"): {"loss": 3.0},
        ("outliers", "O2"): {"skipped": 2},
        ("tiny gradients", "O2"): {"lost": 0.1},
    }
    for at, other in wrong.items():
        found = truths(lambda task, result, at=at, other=other: {**result, **(other if task[:2] == at else {})})
        assert sum(not each for each in found.values()) == 1, at


def test_the_form():
    found = precision.build(Written(told))
    assert json.loads(json.dumps(found.plain()))["name"] == "precision"
    trials, why = found.parts
    assert len(trials.section.rows) == sum(len(setup.policies) for setup in precision.SETUPS.values())
    assert len(why.section.rows) == len(precision.WHY)
    for drawing in trials.drawings:
        assert "<svg" in as_svg(draw(drawing.content))


def test_trials_are_repeatable_and_formats_bite():
    """The same seed gives the same numbers, other formats others; loud rows are no numbers in half, and are in others."""
    curves = [precision_trial(SMALL, PrecisionTrial(name))["curve"] for name in ("O0", "O0", "bf16", "fp8", "O2", "O3")]
    assert curves[0] == curves[1]
    assert len({tuple(np.round(each, 7)) for each in curves}) == 5
    for name, learns in (("O0", True), ("layerwise", True), ("bf16", True), ("O1", False), ("O2", False)):
        found = precision_trial(SMALL, PrecisionTrial(name, loud=1e7))
        assert math.isfinite(found["loss"]) == learns, name
        assert len(found["curve"]) == (8 if learns else 1)


def test_what_is_counted_of_a_trial():
    """Steps that overflow are left out and halve the scale; gradients that vanish, and weights that stay, are counted."""
    found = precision_trial(SMALL, PrecisionTrial("O2", outliers=((3, 1e7), (4, 1e7))))
    assert found["skipped"] == 2 and found["scales"] == [65536.0] * 4 + [32768.0] + [16384.0] * 3
    still = precision_trial(SMALL, PrecisionTrial("O3", learning_rate=1e-9))
    assert still["still"] > 0.9 > precision_trial(SMALL, PrecisionTrial("O0"))["still"]
    assert precision_trial(SMALL, PrecisionTrial("O2", str(2.0**-20)))["lost"] > 0.8
    one = precision_trial(SMALL, PrecisionTrial("O0"))
    assert one["loss"] == pytest.approx(one["curve"][-1]) and set(one["scales"]) == {1.0}
