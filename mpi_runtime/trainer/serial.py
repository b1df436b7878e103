"""A training in one process that routes tokens as the ranks of a mesh do: for experiments of seconds, without MPI."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...workloads.model.model import Model
from ...workloads.plan.setting import Setting
from ..training.transformer.experts.gate_training import GateTraining
from ..training.transformer.experts.serial import AsWanted, MeshRouter
from ..training.transformer.reference import Reference
from ..training.transformer.training import sizes_of
from .corpus import Made

HELD_OUT = 1 << 20
"""The number of the first batch that no training sees."""


@dataclass(frozen=True)
class Experiment:
    """What is tried: a policy that balances, how gates are trained, and from which seed.

    ``pieces``: the auxiliary loss looks at so many equal runs of a batch one by one, as over micro-batches. ``shape``: what is
    otherwise in the model.
    """

    balancer: str = "none"
    balance_loss: float = 0.0
    z_loss: float = 0.0
    gate_bias: float = 0.0
    pieces: int = 1
    shape: tuple[tuple[str, Any], ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Size:
    """How large an experiment is."""

    model: Model
    mesh: dict[str, int]
    tokens_per_rank: int
    steps: int
    learning_rate: float
    held_out: int = 8


def experiment(size: Size, of: Experiment) -> dict[str, Any]:
    """Train on a made corpus, in single precision.

    Returns ``loss``, on sequences that no step has seen; ``curve``, that of every step; ``violation``, the load of the fullest
    expert over the mean, less one, averaged over the last quarter of the steps and all layers; ``settled``, the first step from
    which on its mean of twenty steps stays below half of what it is in the first twenty; and ``score``, the largest of gates in
    the last quarter. Where a model has shared experts, ``removed`` is the loss without them, with one more of the others instead.
    """
    model_of = Model(**{**size.model.model_dump(exclude_unset=True), **dict(of.shape)})
    options = {"mesh": size.mesh, "balancer": of.balancer, "tokens_per_rank": size.tokens_per_rank, "seed": of.seed}
    optimizer = f"adam:learning_rate={size.learning_rate}"
    setting = Setting.of("laptop", model_of, {**options, "precision": "O0", "optimizer": optimizer})
    gates = GateTraining(of.balance_loss, of.z_loss, of.gate_bias, of.pieces)
    router = MeshRouter(setting, learned=True)
    model = Reference(sizes_of(setting), of.seed, np.float32, setting.plan.optimizing, router, gates)
    corpus, length = Made(size.model.vocabulary, of.seed), size.model.seq_len
    count = setting.mesh.replicas * size.tokens_per_rank // length
    curve, violations, scores = [], [], []
    for step in range(size.steps):
        words = corpus.batch(step, count, length + 1)
        curve.append(model.step(words[:, :-1], words[:, 1:]))
        violations.append(float(np.mean([load.max() / load.mean() - 1 for load in model.loads.values()])))
        scores.append(max(model.largest.values()))
    unseen = [corpus.batch(HELD_OUT + at, count, length + 1) for at in range(size.held_out)]
    loss = float(np.mean([model.loss(words[:, :-1], words[:, 1:]) for words in unseen]))
    return {
        "loss": loss,
        "removed": _removed(model, unseen) if model_of.shared_experts else loss,
        "curve": curve,
        "violation": float(np.mean(violations[-max(1, size.steps // 4) :])),
        "settled": _settled(violations),
        "score": float(np.max(scores[-max(1, size.steps // 4) :])),
    }


def _removed(model: Reference, unseen: list[Any]) -> float:
    """The loss of a model without its shared experts, and one more expert for each token."""
    for weight, values in model.weights.items():
        if weight.operator == "shared experts":
            values[...] = 0
    model.sizes = replace(model.sizes, top_k=model.sizes.top_k + 1)
    model.router = AsWanted()
    return float(np.mean([model.loss(words[:, :-1], words[:, 1:]) for words in unseen]))


def _settled(violations: list[float], window: int = 20) -> int:
    """The first step from which on the mean of a window stays below half of the first window's; all of them where none is."""
    means = (
        np.convolve(violations, np.ones(window) / window, "valid")
        if len(violations) >= window
        else np.array(violations)
    )
    above = np.flatnonzero(means > means[0] / 2)
    return int(above[-1]) + 1
