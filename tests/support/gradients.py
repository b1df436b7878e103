"""Gradients of a serial model beside differences of its loss."""

import numpy as np
import pytest


def gradients_that_are_finite_differences(model, words, targets, step, random, rel):
    """The model's gradients by weight, once each is the slope of the loss along a direction drawn from ``random``."""
    model.differentiate(words, targets)
    gradients = {weight: each.copy() for weight, each in model.gradients.items()}
    for weight, weights in model.weights.items():
        direction = random.standard_normal(weights.shape)
        ends = []
        for way in (1, -1):
            weights += way * step * direction
            ends.append(model.loss(words, targets))
            weights -= way * step * direction
        expected = (ends[0] - ends[1]) / (2 * step)
        assert np.sum(gradients[weight] * direction) == pytest.approx(expected, rel=rel, abs=rel * 1e-3), str(weight)
    return gradients
