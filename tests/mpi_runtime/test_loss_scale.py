"""Loss scaling as a state machine, and halves that are halves."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.trainer.loss_scale import LossScale
from athanor.mpi_runtime.training.transformer.rounding import half, rounding
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.plan.setting import Setting
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_the_scale_follows_the_overflows(overflows, interval):
    """It is 2^(16 + growths - back-offs), never below 1; growths come after so many good steps in a row."""
    scale, expected, row = LossScale(interval=interval), 2.0**16, 0
    for step, overflowed in enumerate(overflows):
        scale.after(step, overflowed)
        row = 0 if overflowed else row + 1
        if overflowed:
            expected = max(expected / 2, 1.0)
        elif row == interval:
            expected, row = 2 * expected, 0
        assert scale.value == expected
    told = [each.what for each in scale.events]
    assert told.count("backed off") + told.count("skipped") == sum(overflows)


def test_a_scale_that_is_fixed_stays():
    scale = LossScale(8.0, fixed=True, interval=1)
    for step, overflowed in enumerate((False, True, False)):
        scale.after(step, overflowed)
    assert scale.value == 8.0 and [tuple(each) for each in scale.events] == [(1, "skipped", 8.0)]


@pytest.mark.parametrize(
    ("text", "precision", "value"),
    [("", "O0", None), ("", "O1", 65536.0), ("", "layerwise", 65536.0), ("none", "O3", None), ("128", "O0", 128.0)],
)
def test_scales_by_name(text, precision, value):
    setting = Setting.of("laptop", "moda-tiny", {"precision": precision})
    found = LossScale.parse(text, setting)
    assert (None if found is None else found.value) == value


@pytest.mark.parametrize("text", ["0", "-1", "inf", "many"])
def test_what_is_no_scale_is_refused(text):
    with pytest.raises(InputError, match="write dynamic, none or a number above 0"):
        LossScale.parse(text, Setting.of("laptop", "moda-tiny", {}))


def test_parts_round_as_their_policy_says():
    """Layer-wise: attention and experts in half, gates, norms and embeddings in single."""
    values = np.array([1 + 2.0**-12, 1e-9, 1e6], dtype=np.float32)
    with np.errstate(over="ignore"):
        for part, formats in POLICIES["layerwise"].items():
            found = rounding(POLICIES["layerwise"])(part)(values)
            halved = formats.compute == "fp16"
            assert found.dtype == np.float32
            assert found.tolist() == ([1.0, 0.0, np.inf] if halved else values.tolist())
    grid = np.arange(-2048, 2049, dtype=np.float32)
    assert (half(grid) == grid).all()
