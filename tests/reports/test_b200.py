"""Steps that others measured on eight B200: constants are fitted to those of two models, and these are of the two others."""

import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.reports.published.read_runs import read_runs
from athanor.reports.studies.accuracy.metrics import predict, simulated

HELD_OUT = [
    each
    for each in read_runs()
    if each.id.startswith("b200_") and not each.fitted and each.id.endswith(("mbc4", "mbc8"))
]


@pytest.fixture(scope="module")
def errors():
    """Predicted seconds over measured ones, less one, of the runs that nothing was fitted to."""
    made = [predict(each, simulated) for each in HELD_OUT]
    return np.array([each.seconds / each.measured_seconds - 1 for each in made])


def test_runs_that_nothing_was_fitted_to_are_met(errors):
    assert len(errors) == 8
    assert np.abs(errors).mean() < 0.07 and np.abs(errors).max() < 0.25


def test_its_constants_say_what_they_were_fitted_to():
    machine = load_machine("dgx-b200")
    for key in ("calibration.gemm_efficiency", "core_group.dma_read"):
        assert machine.source(key).startswith("fitted: ") and "14 of 29" in machine.source(key)
