"""Dense Transformers for real: the serial model against finite differences, every strategy against the serial model."""

from dataclasses import replace

import athanor
import numpy as np
import pytest
from athanor.mpi_runtime.training.transformer import functions as f
from athanor.mpi_runtime.training.transformer.reference import Reference
from athanor.mpi_runtime.training.transformer.weights.shards import (
    EMBEDDING,
    Place,
    Sizes,
    Weight,
    cut,
    initial,
    join,
    local_shape,
)
from athanor.workloads.schedule.work import Exchange
from oracles.dense_ranks import EXCHANGING, Ranks, Tasks
from support.gradients import gradients_that_are_finite_differences

SMALL = Sizes(layers=2, heads=4, kv_heads=4, head=2, hidden=8, ffn_hidden=12, vocabulary=16)
MODERN = Sizes(2, 8, 4, 3, 8, 12, vocabulary=15, gated=True, rms=True, tied=False)
"""Grouped queries, heads of another width, gates, RMS norms, an output layer of its own, a vocabulary that does not divide."""

DEEP = Sizes(layers=4, heads=4, kv_heads=4, head=2, hidden=8, ffn_hidden=12, vocabulary=13)


def batch(sizes, sequences=8, seed=0, tokens=8):
    """Words, and the words that follow them."""
    words = np.random.default_rng(seed).integers(0, sizes.vocabulary, (sequences, tokens + 1))
    return words[:, :-1], words[:, 1:]


def close(found, expected, tolerance):
    """Equal within a tolerance of the largest number."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# --- the serial model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [SMALL, MODERN])
def test_gradients_are_finite_differences(sizes):
    model, (words, targets), step = Reference(sizes, seed=1), batch(sizes, 3), 1e-5
    gradients = gradients_that_are_finite_differences(model, words, targets, step, np.random.default_rng(2), rel=1e-6)
    assert all(np.abs(each).max() > 1e-4 for each in gradients.values())


def test_attention_looks_back_only():
    model, (words, targets) = Reference(SMALL, seed=1), batch(SMALL, 1)
    changed = words.copy()
    changed[0, 5] = (changed[0, 5] + 1) % SMALL.vocabulary
    per_token = [f.losses(model._forward(each, targets)[1].parts) for each in (words, changed)]
    assert (per_token[0][:5] == per_token[1][:5]).all() and (per_token[0][5:] != per_token[1][5:]).all()


def test_an_untrained_model_guesses_and_a_trained_one_learns():
    model, (words, targets) = Reference(SMALL, seed=3), batch(SMALL)
    losses = [model.step(words, targets) for _ in range(60)]
    assert 0.5 * np.log(SMALL.vocabulary) < losses[0] < 1.7 * np.log(SMALL.vocabulary)
    assert losses[-1] < losses[0] - 0.3


def test_the_loss_is_the_cross_entropy_however_the_vocabulary_is_cut():
    random = np.random.default_rng(4)
    logits, targets = 30 * random.standard_normal((50, 12)), random.integers(0, 12, 50)
    shifted = logits - logits.max(axis=1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(50), targets]
    assert np.allclose(f.losses(f.loss_parts(logits, targets)), expected)
    parts = [f.loss_parts(logits[:, first : first + 4], targets, first) for first in (0, 4, 8)]
    joined = f.join_losses(parts[2], f.join_losses(parts[0], parts[1]))
    assert np.allclose(f.losses(joined), expected)
    whole = f.loss_grad(logits, joined, targets, 50)
    cut_up = [f.loss_grad(logits[:, at : at + 4], joined, targets, 50, at) for at in (0, 4, 8)]
    assert np.allclose(np.hstack(cut_up), whole) and np.allclose(whole.sum(axis=1), 0)


# --- cutting ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [SMALL, MODERN])
@pytest.mark.parametrize("mesh", [{"tp": 4}, {"row": 2, "col": 2}])
def test_what_is_cut_can_be_joined(sizes, mesh):
    ranks = Ranks(sizes, mesh, seed=5)
    for weight in sizes.weights():
        whole = initial(weight, sizes, 5)
        parts = [(place, cut(whole, weight, sizes, place)) for place in ranks.places]
        assert all(part.shape == local_shape(weight, sizes, place) for place, part in parts)
        assert (join(parts, weight, sizes) == whole).all()
        if sizes.vocabulary % 4 == 0 and weight.kind != "norm":
            assert sum(part.size for _, part in parts) == whole.size


def test_heads_and_gates_are_cut_by_themselves():
    """A rank's queries, keys and values are those of the same heads; its gates and values those of the same columns."""
    place = Place({"tp": 1}, {"tp": 2})
    columns = np.tile(np.arange(3 * SMALL.hidden), (SMALL.hidden, 1))
    assert cut(columns, Weight(0, "attention", "qkv"), SMALL, place)[0].tolist() == [*range(12, 24)]
    columns = np.tile(np.arange(2 * MODERN.ffn_hidden), (MODERN.hidden, 1))
    assert cut(columns, Weight(0, "ffn", "up"), MODERN, place)[0].tolist() == [*range(6, 12), *range(18, 24)]


def test_words_that_pad_the_vocabulary_are_never_guessed():
    ranks, words = Ranks(Sizes(1, 4, 4, 2, 8, 12, vocabulary=5), {"tp": 4}, seed=5), np.zeros((1, 4), dtype=int)
    held = [each[EMBEDDING] for each in ranks.weights]
    assert [each.shape for each in held] == [(2, 8)] * 4 and not held[3].any() and not held[2][1].any()
    assert ranks.step(words, words + 4) == pytest.approx(Reference(ranks.sizes, 5).step(words, words + 4), rel=1e-12)
    assert not held[3].any() and not held[2][1].any()


# --- strategies against the serial model ------------------------------------------------------------------------------------

STRATEGIES = {
    "serial": (SMALL, {}, {}),
    "dp": (SMALL, {"dp": 4}, {}),
    "tp 2": (SMALL, {"tp": 2}, {}),
    "tp 4": (SMALL, {"tp": 4}, {}),
    "tp 4 modern": (MODERN, {"tp": 4}, {}),
    "tp 2 by tokens": (SMALL, {"tp": 2}, {"sequence_parallel": True}),
    "tp 4 by tokens": (MODERN, {"tp": 4}, {"sequence_parallel": True}),
    "cp 2": (SMALL, {"cp": 2}, {}),
    "cp 4": (SMALL, {"cp": 4}, {}),
    "grid": (SMALL, {"row": 2, "col": 2}, {}),
    "grid modern": (MODERN, {"row": 2, "col": 2}, {}),
    "pp 2": (SMALL, {"pp": 2}, {}),
    "pp 4": (DEEP, {"pp": 4}, {}),
    "pp 2 in chunks": (DEEP, {"pp": 2}, {"chunks": 2}),
    "pp 3 of unlike stages": (DEEP, {"pp": 3}, {"layers": [1, 2, 1]}),
    "pp 2 in chunks, the first and last empty": (DEEP, {"pp": 2}, {"chunks": 3, "layers": [0, 1, 1, 1, 1, 0]}),
    "pp 4 x tp, unlike": (DEEP, {"pp": 4, "tp": 2}, {"layers": [0, 1, 2, 1]}),
    "dp x tp": (SMALL, {"dp": 2, "tp": 2}, {}),
    "dp x tp by tokens": (SMALL, {"dp": 2, "tp": 2}, {"sequence_parallel": True}),
    "tp x cp": (SMALL, {"tp": 2, "cp": 2}, {}),
    "cp x tp by tokens": (SMALL, {"cp": 2, "tp": 2}, {"sequence_parallel": True}),
    "pp x tp": (SMALL, {"pp": 2, "tp": 2}, {}),
    "pp x tp by tokens": (SMALL, {"pp": 2, "tp": 2}, {"sequence_parallel": True}),
    "pp x cp": (SMALL, {"pp": 2, "cp": 2}, {}),
    "dp x cp": (SMALL, {"dp": 2, "cp": 2}, {}),
    "dp x pp in chunks": (DEEP, {"dp": 2, "pp": 2}, {"chunks": 2}),
    "dp x grid": (SMALL, {"dp": 2, "row": 2, "col": 2}, {}),
    "grid x cp": (SMALL, {"row": 2, "col": 2, "cp": 2}, {}),
    "grid of nine": (
        Sizes(layers=1, heads=3, kv_heads=3, head=4, hidden=12, ffn_hidden=9, vocabulary=14),
        {"row": 3, "col": 3},
        {},
    ),
    "fused": (SMALL, {"dp": 2, "tp": 2}, {"fused": True}),
    "fused cp 2": (SMALL, {"cp": 2}, {"fused": True}),
    "fused cp 4": (MODERN, {"cp": 4}, {"fused": True}),
    "fused cp x tp by tokens": (SMALL, {"cp": 2, "tp": 2}, {"fused": True, "sequence_parallel": True}),
    "fused pp x cp": (SMALL, {"pp": 2, "cp": 4}, {"fused": True}),
    "pp x grid": (SMALL, {"pp": 2, "row": 2, "col": 2}, {}),
    "fsdp x pp x tp": (SMALL, {"fsdp": 2, "pp": 2, "tp": 2}, {"sequence_parallel": True}),
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_train_as_one_process_does(strategy, recompute):
    """Loss, gradients and weights of two steps, in double precision, but for the order of sums."""
    sizes, mesh, options = STRATEGIES[strategy]
    micro_batches = 2
    sequences = 12 if "nine" in strategy else 8
    ranks, model = Ranks(sizes, mesh, seed=6, recompute=recompute, **options), Reference(sizes, seed=6)
    for step in range(2):
        words, targets = batch(sizes, sequences, seed=step)
        assert ranks.step(words, targets, micro_batches) == pytest.approx(model.step(words, targets), rel=1e-12)
        for weight in sizes.weights():
            close(ranks.joined(ranks.gradients, weight), model.gradients[weight], 1e-12)
    for weight in sizes.weights():
        before = initial(weight, sizes, 6)
        assert np.abs(model.weights[weight] - before).max() > 1e-4
        close(ranks.joined(ranks.weights, weight), model.weights[weight], 1e-8)


def test_single_precision_stays_single():
    """No operation widens its numbers: what exchanges carry is what the schedule says."""
    plans = (
        ({"tp": 2, "cp": 2}, {"sequence_parallel": True}),
        ({"row": 2, "col": 2}, {}),
        ({"cp": 4, "tp": 2}, {"fused": True}),
    )
    for mesh, options in plans:
        ranks, model = Ranks(SMALL, mesh, seed=7, kind=np.float32, **options), Reference(SMALL, 7, np.float32)
        kinds, carried = set(), ranks.exchange
        ranks.exchange = lambda messages, to_previous, kinds=kinds, carried=carried: (
            kinds.update(each.payload.dtype for _, each in messages),
            carried(messages, to_previous),
        )
        words, targets = batch(SMALL)
        assert ranks.step(words, targets, 1) == pytest.approx(model.step(words, targets), rel=1e-5)
        assert kinds == {np.dtype(np.float32)}
        assert {each.dtype for each in ranks.gradients[0].values()} == {np.dtype(np.float32)}
        for weight in SMALL.weights():
            close(ranks.joined(ranks.gradients, weight), model.gradients[weight], 1e-4)


@pytest.mark.parametrize(
    ("mesh", "options"),
    [
        ({"tp": 4}, {}),
        ({"tp": 4}, {"sequence_parallel": True}),
        ({"cp": 4}, {}),
        ({"tp": 2, "cp": 2}, {}),
        ({"tp": 4}, {"tensor": "2d"}),
        ({"tp": 2, "dp": 2}, {"attention": "fused"}),
        ({"cp": 4}, {"attention": "fused"}),
    ],
)
def test_tasks_are_those_of_the_lowering(mesh, options):
    """The tasks that these tests go by were written down by hand; the schedule's are the same, in the same order."""
    schedule = athanor.lower("laptop", "gpt-tiny", mesh=mesh, tokens_per_rank=64, **options)
    axes = dict(zip(schedule.mesh.axes, schedule.mesh.shape, strict=True))
    tasks = Tasks(Place({}, axes, "sequence_parallel" in options), "attention" in options)
    once = [[*tasks.attention(), *tasks.ffn()], [*tasks.ffn_backward(), *tasks.attention_backward()]]
    forward = [replace(task, layer=at) for at in range(4) for task in once[0]]
    backward = [replace(task, layer=at) for at in (3, 2, 1, 0) for task in once[1]]
    expected = [*tasks.embed(), *forward, *tasks.output(), *tasks.output_backward(), *backward, *tasks.embed_backward()]
    operations = [each for each in schedule.operations if each.phase != "update"]
    assert [replace(each.task, overlaps=None) for each in operations] == expected
    assert [isinstance(each.work, Exchange) for each in operations] == [each.role in EXCHANGING for each in expected]
