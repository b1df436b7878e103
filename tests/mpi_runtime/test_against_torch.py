"""The serial model against PyTorch, where that is installed: another framework's kernels, and its automatic differentiation."""

import numpy as np
import pytest
from athanor.mpi_runtime.training.transformer.reference import Reference
from athanor.mpi_runtime.training.transformer.weights.shards import Sizes

torch = pytest.importorskip("torch")

SIZES = {
    "dense": Sizes(layers=2, heads=4, kv_heads=4, head=2, hidden=8, ffn_hidden=12, vocabulary=16),
    "grouped, gated": Sizes(2, 8, 4, 3, 8, 12, vocabulary=15, gated=True, rms=True, tied=False),
    "one expert": Sizes(
        2, 4, 4, 2, 8, 12, vocabulary=16, experts=4, expert_hidden=6, top_k=1, moe=(False, True)
    ),
    "two of four, shared": Sizes(
        2, 4, 2, 2, 8, 12, 16, gated=True, rms=True, experts=4, expert_hidden=6, top_k=2, hidden_beside=5, moe=(True, True)
    ),
}  # fmt: skip


def batch(sizes):
    words = np.random.default_rng(4).integers(0, sizes.vocabulary, (5, 9))
    return words[:, :-1], words[:, 1:]


@pytest.mark.parametrize("name", SIZES)
def test_losses_and_gradients_are_those_of_torch(name):
    from oracles.torch_model import TorchModel

    sizes = SIZES[name]
    model, (words, targets) = Reference(sizes, seed=1), batch(sizes)
    loss, expected = TorchModel(sizes, model.weights).gradients(words, targets)
    assert model.differentiate(words, targets) == pytest.approx(loss, rel=1e-12)
    assert set(expected) == set(model.gradients)
    for weight, found in model.gradients.items():
        np.testing.assert_allclose(found, expected[weight], rtol=0, atol=1e-11 * np.abs(expected[weight]).max())
        assert np.abs(found).max() > 0


@pytest.mark.parametrize("name", SIZES)
def test_training_is_that_of_torchs_adam(name):
    """Some steps from the same weights: losses to 1e-5, since epsilon stands elsewhere in its Adam."""
    from oracles.torch_model import TorchModel

    sizes = SIZES[name]
    model, (words, targets) = Reference(sizes, seed=1), batch(sizes)
    other, adam = TorchModel(sizes, model.weights), model.optimizer
    step = torch.optim.Adam(other.weights.values(), adam.learning_rate, (adam.beta1, adam.beta2), eps=1e-8)
    losses = []
    for _ in range(5):
        losses.append(model.step(words, targets))
        step.zero_grad()
        loss = other.loss(words, targets)
        loss.backward()
        step.step()
        assert losses[-1] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert losses[-1] < losses[0]
