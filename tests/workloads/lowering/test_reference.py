"""The reference itself: its gradients are those of its loss, and what it counts is what its operators did."""

import numpy as np
import pytest
from oracles.transformer.approximations import NOMINAL, kind_of
from oracles.transformer.counting import Memory, Message, Operator, Tensor
from oracles.transformer.model import Transformer, adam
from oracles.transformer.rank import Rank
from oracles.transformer.shapes import FORMATS, Choices, Group
from pytest import approx
from support.operators import (
    BESIDE,
    BOTH_DROPPING,
    CHOICES,
    CHUNKED,
    DROPPING,
    FURTHER,
    GATED,
    LATENT,
    LENGTH,
    NO_RANK,
    PATCHES,
    SHARED,
    TOKENS,
    WINDOWED,
)

STEP = 1e-5


def loss(model, choices, moved=None):
    """The loss, gradients and weights, with one weight's numbers moved in a direction."""
    rank = Rank(model, Group(), choices, TOKENS, LENGTH)
    if moved:
        name, by = moved
        made = rank.weight

        def weight(asked, shape, part):
            fresh = asked not in rank.weights
            found = made(asked, shape, part)
            if fresh and asked == name:
                found.values += by
            return found

        rank.weight = weight
    transformer = Transformer(rank)
    return transformer.forward(), transformer, rank


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize(
    "model",
    [
        *(DROPPING, GATED, LATENT, SHARED, CHOICES, BOTH_DROPPING, PATCHES),
        *(WINDOWED, CHUNKED, NO_RANK, BESIDE, FURTHER),
    ],
    ids=lambda model: model.name,
)
def test_gradients_are_differences_of_the_loss(model, fused):
    """Each weight's gradient along a random direction: nothing that a gradient needs was forgotten to be read."""
    choices = Choices("fp64", fused)
    _, transformer, rank = loss(model, choices)
    transformer.backward()
    weights = {name: each for name, each in rank.weights.items() if not name.startswith("mask ")}
    assert set(weights) == set(rank.gradients)
    for name, weight in weights.items():
        direction = np.random.default_rng(5).standard_normal(weight.values.shape)
        ahead, behind = (loss(model, choices, (name, sign * STEP * direction))[0] for sign in (1, -1))
        expected = (rank.gradients[name].values * direction).sum()
        assert (ahead - behind) / (2 * STEP) == approx(expected, rel=2e-4, abs=2e-7), name


@pytest.mark.parametrize("model", [DROPPING, GATED, SHARED, CHOICES], ids=lambda model: model.name)
def test_nominal_flops_are_about_those_that_were_done(model):
    """What is bound by memory may say its FLOPs in round numbers: half to thrice as many as were done, and one or two."""
    _, transformer, rank = loss(model, Choices())
    transformer.backward()
    memory = Memory()
    adam(memory, 1000, FORMATS["O2"]["ffn"], "update.adam")
    for each in [*rank.memory.done, *memory.done]:
        if not isinstance(each, Message) and each.kind == "sweep" and not each.left_out and "+" not in each.name:
            done = each.others / each.elements
            assert NOMINAL[kind_of(each.name)] <= 2 * done + 1, each.name
            assert done <= 3 * NOMINAL[kind_of(each.name)] + 2, each.name


def test_an_operator_is_charged_for_what_it_sees():
    memory = Memory()
    a, b = (Tensor(np.ones((4, 6)), format) for format in ("fp16", "fp32"))
    few = Tensor(np.ones(6), "fp32")
    memory.operator("sum", lambda a, b, few: (a + b, few * 2), [a, b], ["fp64", "(fp32)"], [few], again=2)
    memory.product("product", Tensor(np.ones((3, 4, 5)), "bf16"), Tensor(np.ones((3, 5, 2)), "bf16"), "fp32")
    first, second = memory.done
    assert first == Operator("sum", "sweep", 24 * (2 + 4 + 2), 24 * 8, 0.0, 24 + 6, 48, 24, 24, "fp16")
    assert (second.read, second.written, second.products) == (2 * 3 * (20 + 10), 4 * 3 * 8, 2 * 3 * 4 * 5 * 2)
