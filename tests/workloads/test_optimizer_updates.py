"""Updates in NumPy, held to the formulas of their sources; shares of a tensor come to the same update as the whole."""

from __future__ import annotations

import numpy as np
import pytest
from athanor.mpi_runtime.training.optimizer_rounds import update_alone
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.model.tensors import Tensor
from athanor.workloads.optimizers import OPTIMIZERS, TensorShare
from athanor.workloads.optimizers import hyperparameters as usual
from athanor.workloads.optimizers.adam8bit import CODES, dequantise, quantise
from athanor.workloads.optimizers.muon import newton_schulz
from athanor.workloads.optimizers.optimizer import Gather, Sum, Sums, UpdatePass, UpdateProducts
from hypothesis import given, settings
from hypothesis import strategies as st

MATRIX, VECTOR = Tensor(12, 20), Tensor(1, 37)
FORMATS = POLICIES["fp64"]["ffn"]
RATE = usual.LEARNING_RATE


def trained(optimizer, part, tensor, steps=4, seed=0):
    """Weights before and after some steps, and the gradients; by the optimizer, alone."""
    random, policy = np.random.default_rng(seed), OPTIMIZERS.find(optimizer)
    weights, gradients = random.standard_normal(tensor.size), random.standard_normal((steps, tensor.size))
    before, state = weights.copy(), policy.rule(part, tensor).state(tensor.size, tensor, FORMATS)
    for step, gradient in enumerate(gradients, start=1):
        share = TensorShare(tensor, np.arange(tensor.size), weights, None, gradient.copy(), state, step)
        update_alone(policy, part, share)
    return before, weights, gradients


def adam_steps(gradients):
    """Adam's steps with both biases written out (Kingma and Ba 2015, Algorithm 1)."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        yield (m / (1 - 0.9**t)), (v / (1 - 0.999**t))


def test_adamw_is_the_published_one():
    """Algorithm 2 of Loshchilov and Hutter, in which decay does not pass through the moments."""
    w, found, gradients = trained("adamw", "ffn", MATRIX)
    for t, (m, v) in enumerate(adam_steps(gradients), start=1):
        epsilon = usual.EPSILON / np.sqrt(1 - 0.999**t)  # Athanor's Adam has it beside the biased root
        w = w - RATE * (m / (np.sqrt(v) + epsilon) + 0.01 * w)
    assert np.allclose(found, w, rtol=0, atol=2e-8)


def test_sgd_is_the_sum_of_decaying_gradients():
    before, found, gradients = trained("sgd:learning_rate=0.1,momentum=0.5", "ffn", MATRIX, steps=3)
    a, b, c = gradients
    momenta = a, 0.5 * a + b, 0.25 * a + 0.5 * b + c
    assert np.allclose(found, before - 0.1 * sum(momenta), rtol=1e-12)


def test_lamb_moves_every_tensor_by_its_own_length():
    """Algorithm 2 of You et al.: whatever the gradient's size, the step is the rate times the weights' norm."""
    w, found, gradients = trained("lamb", "ffn", MATRIX)
    for m, v in adam_steps(gradients):
        u = m / (np.sqrt(v) + 1e-6) + 0.01 * w
        moved = RATE * np.linalg.norm(w) / np.linalg.norm(u) * u
        assert np.linalg.norm(moved) == pytest.approx(RATE * np.linalg.norm(w))
        w = w - moved
    assert np.allclose(found, w, rtol=1e-12)


@pytest.mark.parametrize(("part", "tensor"), [("ffn", MATRIX), ("norm", VECTOR)])
def test_adafactor_is_the_published_one(part, tensor):
    """Algorithms 4 and 5 of Shazeer and Stern, in the means that they are written with, on matrices."""
    w, found, gradients = trained("adafactor", part, tensor)
    w, shape = w.reshape(tensor.rows, tensor.columns), (tensor.rows, tensor.columns)
    r = c = v = 0.0
    for t, g in enumerate(gradients.reshape(-1, *shape), start=1):
        beta = 1 - t**-0.8
        square = g**2 + 1e-30
        if tensor.matrix:
            r, c = beta * r + (1 - beta) * square.mean(axis=1), beta * c + (1 - beta) * square.mean(axis=0)
            second = np.outer(r, c) / r.mean()
        else:
            second = v = beta * v + (1 - beta) * square
        u = g / np.sqrt(second)
        u = u / max(1.0, np.sqrt((u**2).mean()))
        w = w - max(1e-3, np.sqrt((w**2).mean())) * min(1e-2, t**-0.5) * u
    assert np.allclose(found.reshape(shape), w, rtol=1e-12)


def test_adafactor_recovers_a_second_moment_of_rank_one():
    """Factors are exact where squared gradients are an outer product: then the first step is the sign's, clipped to 1."""
    rows, columns = np.linspace(1, 3, 12), np.linspace(0.1, 5, 20)
    policy = OPTIMIZERS.find("adafactor")
    weights, gradient = np.ones(240), np.outer(rows, columns).reshape(-1)
    state = policy.state(240, MATRIX, FORMATS)
    update_alone(policy, "ffn", TensorShare(MATRIX, np.arange(240), weights, None, gradient, state, 1))
    assert np.allclose(1 - weights, 1e-2, rtol=1e-9)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16), (3, 64)])
def test_newton_schulz_keeps_singular_vectors_and_levels_singular_values(shape):
    matrix = np.random.default_rng(3).standard_normal(shape)
    left, before, right = np.linalg.svd(matrix, full_matrices=False)
    values = left.T @ newton_schulz(matrix) @ right.T
    diagonal = np.diag(values)
    assert np.allclose(values, np.diag(diagonal), atol=1e-9)
    assert (diagonal > 0).all() and (diagonal < 1.25).all()
    assert (diagonal[before > 0.1 * np.linalg.norm(matrix)] > 0.6).all()
    assert np.allclose(newton_schulz(matrix.T), newton_schulz(matrix).T)
    assert np.allclose(newton_schulz(7 * matrix), newton_schulz(matrix), atol=1e-6)


def test_muon_is_the_published_one_and_leaves_the_rest_to_adamw():
    w, found, gradients = trained("muon", "ffn", MATRIX)
    m, scale = 0.0, 0.2 * np.sqrt(20)
    for g in gradients:
        m = 0.95 * m + g
        o = newton_schulz((g + 0.95 * m).reshape(12, 20)).reshape(-1)
        w = w - RATE * (scale * o + 0.1 * w)
    assert np.allclose(found, w, rtol=1e-12)
    for part, tensor in (("norm", VECTOR), ("embedding", MATRIX), ("gate", MATRIX), ("attention", VECTOR)):
        ours, theirs = (trained(name, part, tensor)[1] for name in ("muon", "adamw:weight_decay=0.1"))
        assert (ours == theirs).all()


def test_muons_products_are_those_that_it_makes():
    """FLOPs of the policy against products counted as they are made."""

    class Counted(np.ndarray):
        flops = 0

        def __matmul__(self, other):
            Counted.flops += 2 * self.shape[0] * self.shape[1] * other.shape[1]
            return np.asarray(self).__matmul__(np.asarray(other)).view(Counted)

    for tensor in (MATRIX, Tensor(20, 12)):
        Counted.flops = 0
        newton_schulz(np.random.default_rng(0).standard_normal((tensor.rows, tensor.columns)).view(Counted))
        (products,) = (
            each for each in OPTIMIZERS.find("muon").steps(tensor, FORMATS) if isinstance(each, UpdateProducts)
        )
        assert sum(2 * m * n * k * times for m, n, k, times in products.shapes) == Counted.flops


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=300),
    name=st.sampled_from(sorted(CODES)),
)
def test_codes_are_the_nearest_of_256_values_of_the_blocks_scale(values, name):
    codes, found = CODES[name](), np.array(values)
    found = found if name == "first" else np.abs(found)
    assert len(np.unique(codes)) == 256 and codes[-1] == 1 and 0 in codes
    back = dequantise(*quantise(found, codes), codes)
    scale = float(np.float32(np.abs(found).max()))
    nearest = np.abs(found[:, None] - scale * codes).min(axis=1)
    assert np.allclose(np.abs(back - found), nearest, atol=1e-6 * max(scale, 1e-30))


def test_blocks_have_scales_of_their_own():
    values = np.concatenate([np.full(usual.BLOCK, 1e-6), np.full(usual.BLOCK, 1e3), [5.0]])
    found, scales = quantise(values, CODES["first"]())
    assert scales == pytest.approx([1e-6, 1e3, 5])
    assert np.allclose(dequantise(found, scales, CODES["first"]()), values)


def test_eight_bits_begin_as_adam_and_stay_near_it():
    """The first step takes moments before they are rounded; later ones differ by what eight bits leave out."""
    before, adam, _ = trained("adam", "ffn", Tensor(64, 64), steps=1)
    _, eight, _ = trained("adam8bit", "ffn", Tensor(64, 64), steps=1)
    assert (adam == eight).all()
    _, adam, _ = trained("adam", "ffn", Tensor(64, 64), steps=20)
    _, eight, _ = trained("adam8bit", "ffn", Tensor(64, 64), steps=20)
    moved, off = np.abs(adam - before), np.abs(adam - eight)
    assert 0 < off.mean() < 0.25 * moved.mean()


@settings(max_examples=60, deadline=None)
@given(
    optimizer=st.sampled_from(sorted(set(OPTIMIZERS) - {"adam8bit"})),
    place=st.sampled_from([("ffn", MATRIX), ("attention", VECTOR), ("norm", VECTOR), ("embedding", MATRIX)]),
    cuts=st.lists(st.integers(0, 37), max_size=4),
    seed=st.integers(0, 99),
)
def test_shares_of_a_tensor_come_to_the_update_of_the_whole(optimizer, place, cuts, seed):
    """However a tensor's elements are dealt out, empty shares among them, with sums and wholes answered as they are asked for."""
    part, tensor = place
    policy = OPTIMIZERS.find(optimizer)
    rule = policy.rule(part, tensor)
    _, expected, gradients = trained(optimizer, part, tensor, steps=2, seed=seed)
    random = np.random.default_rng(seed)
    start = random.standard_normal(tensor.size)
    order = np.random.default_rng(seed + 1).permutation(tensor.size)
    places = np.split(order, sorted(cuts))
    weights = [start[index].copy() for index in places]
    states = [rule.state(len(index), tensor, FORMATS) for index in places]
    for step, gradient in enumerate(gradients, start=1):
        shares = [
            TensorShare(tensor, index, mine, None, gradient[index], state, step)
            for index, mine, state in zip(places, weights, states, strict=True)
        ]
        updates, asked = [rule.update(share) for share in shares], []
        requests = [next(each, None) for each in updates]
        while any(each is not None for each in requests):
            kinds = {type(each) for each in requests}
            assert len(kinds) == 1, "all shares ask for the same"
            asked.append(kinds.pop())
            if asked[-1] is Sum:
                total = sum(each.values for each in requests)
                answers = [total] * len(updates)
            else:
                whole = np.zeros(tensor.size)
                for index, each in zip(places, requests, strict=True):
                    whole[index] = each.values
                answers = [whole] * len(updates)
            requests = [_sent(each, answer) for each, answer in zip(updates, answers, strict=True)]
        steps = rule.steps(tensor, FORMATS)
        assert asked == [
            Sum if isinstance(each, Sums) else Gather
            for each in steps
            if not isinstance(each, UpdatePass | UpdateProducts)
        ]
    found = np.zeros(tensor.size)
    for index, mine in zip(places, weights, strict=True):
        found[index] = mine
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)


def _sent(update, answer):
    try:
        return update.send(answer)
    except StopIteration:
        return None
