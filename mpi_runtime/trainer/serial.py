"""A training in one process that routes tokens as the ranks of a mesh do: for experiments of seconds, without MPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...workloads.model.model import Model
from ...workloads.plan.setting import Setting
from ..training.transformer.experts.gate_training import GateTraining
from ..training.transformer.experts.serial import MeshRouter
from ..training.transformer.reference import Reference
from ..training.transformer.training import sizes_of
from .corpus import Made

HELD_OUT = 1 << 20
"""The number of the first batch that no training sees."""


@dataclass(frozen=True)
class Experiment:
    """What is tried: a policy that balances, how gates are trained, and from which seed.

    ``pieces``: the auxiliary loss looks at so many equal runs of a batch one by one, as over micro-batches.
    """

    balancer: str = "none"
    balance_loss: float = 0.0
    z_loss: float = 0.0
    gate_bias: float = 0.0
    pieces: int = 1
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

    Returns ``loss``, on sequences that no step has seen; ``curve``, that of every step; and ``violation``, the load of the
    fullest expert over the mean, less one, averaged over the last quarter of the steps and all layers.
    """
    options = {"mesh": size.mesh, "balancer": of.balancer, "tokens_per_rank": size.tokens_per_rank, "seed": of.seed}
    optimizer = f"adam:learning_rate={size.learning_rate}"
    setting = Setting.of("laptop", size.model, {**options, "precision": "O0", "optimizer": optimizer})
    gates = GateTraining(of.balance_loss, of.z_loss, of.gate_bias, of.pieces)
    router = MeshRouter(setting, learned=True)
    model = Reference(sizes_of(setting), of.seed, np.float32, setting.plan.optimizing, router, gates)
    corpus, length = Made(size.model.vocabulary, of.seed), size.model.seq_len
    count = setting.mesh.replicas * size.tokens_per_rank // length
    curve, violations = [], []
    for step in range(size.steps):
        words = corpus.batch(step, count, length + 1)
        curve.append(model.step(words[:, :-1], words[:, 1:]))
        violations.append(float(np.mean([load.max() / load.mean() - 1 for load in model.loads.values()])))
    unseen = [corpus.batch(HELD_OUT + at, count, length + 1) for at in range(size.held_out)]
    return {
        "loss": float(np.mean([model.loss(words[:, :-1], words[:, 1:]) for words in unseen])),
        "curve": curve,
        "violation": float(np.mean(violations[-max(1, size.steps // 4) :])),
    }
