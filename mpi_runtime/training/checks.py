"""Whether a step did what it should: tokens, gradients and weights of this rank against what NumPy alone makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import AthanorError
from ...workloads.optimizers import TensorShare
from ...workloads.schedule.work import Exchange
from ..job.world import World
from ..messages.groups import Group
from ..messages.transport import Transport
from .flat_vectors import FlatVector
from .moe_holdings import HeldExperts
from .optimizer_rounds import mean_of, update_alone
from .step_data import Training

Array = NDArray[Any]

TOLERANCE = {2: 2e-2, 4: 1e-4, 8: 1e-10}
"""Relative to the largest number, by the bytes of a number: sums in another order differ in their last digits."""

OF_BRAINS = 1e-1
"""The same of bf16, whose numbers have three binary digits less than other halves."""


def tolerance_of(kind: np.dtype[Any]) -> float:
    """That of numbers of a type."""
    return OF_BRAINS if kind.name == "bfloat16" else TOLERANCE[kind.itemsize]


class CheckFailed(AthanorError):
    """The runtime computed something else than NumPy alone does."""

    exit_status = 1


class ExpertChecks:
    """Compares the first step of a model with experts: the step has whole numbers for gradients of what is not computed."""

    def __init__(self, training: Training) -> None:
        self.training = training
        training.exact = True
        self.before = vectors_of(training.holdings.vectors)

    def compare(self, world: World) -> dict[str, int]:
        """Compare; returns how many numbers were on this rank. Raises ``CheckFailed`` on one rank, ``Ended`` on the others."""
        training, groups = self.training, _groups(self.training.transport, self.training.synchronised)
        training.exact = False
        found = {
            "token_layers": world.agree(lambda: check_tokens(training)),
            "gradients": check_gradients(training, groups),
            "weights": check_weights(training, self.before, groups),
        }
        training.kept.clear()
        return found


def _groups(transport: Transport, exchanges: list[tuple[str, Exchange]]) -> dict[tuple[str, ...], Group]:
    """The groups that gradients are reduced over, by axes."""
    return {exchange.axes: transport.group(stream, exchange) for stream, exchange in exchanges}


def check_tokens(training: Training) -> int:
    """Every token came back to where it started, with the weighted sum of its experts' answers; so did its gradient.

    Returns how many token-layers were compared; raises :class:`CheckFailed`.
    """
    compared = 0
    for (micro_batch, number), layer in training.layers.items():
        for what, found, expected in zip(
            ("tokens", "gradients of tokens"),
            (layer.merged, layer.merged_gradient),
            layer.expected(),
            strict=True,
        ):
            compare(f"{what} of layer {number}, micro-batch {micro_batch}", found, expected)
        compared += len(layer.tokens)
    return compared


def check_gradients(training: Training, groups: dict[tuple[str, ...], Group]) -> int:
    """Gradients of this rank's share are the sums that the MPI library makes of those before the reduction."""
    compared = 0
    for key, held in training.holdings.vectors.items():
        for number, kept in training.kept.get(key, {}).items():
            total = kept.astype(np.promote_types(kept.dtype, np.float32))
            if held.replicas > 1:
                total = _summed(groups[held.axes], total)
            reduced = held.vector.cut(held.vector.gradients, number)
            mine = slice(held.vector.home, held.vector.home + 1) if held.vector.sharded else slice(None)
            compare(f"gradients over {held.vector.name}", reduced[mine], total.reshape(reduced.shape)[mine])
            compared += reduced[mine].size
    return compared


def check_weights(training: Training, before: dict[Any, Array], groups: dict[tuple[str, ...], Group]) -> int:
    """Weights after the update are those that one serial update makes of whole vectors, and the same on all replicas."""
    compared = 0
    for key, held in training.holdings.vectors.items():
        gradients, vector = held.vector.gradients, held.vector
        if vector.sharded:
            gradients = _gathered(groups[held.axes], vector)
        expected = before[key].copy()
        master = None if vector.master is None else expected.astype(vector.master.dtype)
        for place, each in zip(vector.placed, vector.tensors, strict=True):
            start = sum(vector.padded[: place.segment]) + place.start
            here = slice(start, start + each.tensor.size)
            share = TensorShare(
                each.tensor,
                np.arange(each.tensor.size),
                expected[here],
                None if master is None else master[here],
                mean_of(gradients[here], held.replicas),
                each.rule.state(each.tensor.size, each.tensor, vector.formats),
                vector.step,
            )
            update_alone(vector.optimizer, each.part, share)
        compare(f"weights over {vector.name}", vector.weights, expected)
        compared += len(expected)
    return compared


def _gathered(group: Group, vector: FlatVector) -> Array:
    """The reduced gradients of all ranks' cells in one vector, gathered by the MPI library."""
    whole = np.zeros_like(vector.gradients)
    for number in range(len(vector.sizes)):
        mine = np.ascontiguousarray(vector.cut(vector.gradients, number)[vector.home])
        parts = group.comm.allgather((vector.home, mine))
        cells = vector.cut(whole, number)
        for home, values in parts:
            cells[home] = values
    return whole


def _summed(group: Group, values: Array) -> Array:
    """The sum over a group, by the MPI library."""
    total = np.empty_like(values)
    group.comm.Allreduce(values, total)
    return total


def compare(what: str, found: Array, expected: Array, tolerance: float | None = None) -> int:
    """Raise :class:`CheckFailed` for numbers off by more than ``tolerance`` of the largest; returns how many there are."""
    if found.shape != expected.shape:
        raise CheckFailed(f"check of {what}: shape {found.shape}, must be {expected.shape}")
    if not expected.size:
        return 0
    allowed = tolerance_of(found.dtype) if tolerance is None else tolerance
    scale = max(float(np.abs(expected).max()), 1e-30)
    off = np.abs(found.astype(np.float64) - expected)
    if not off.max() <= allowed * scale:
        worst = np.unravel_index(int(off.argmax()), off.shape)
        digits = 16 if found.dtype.itemsize == 8 else 6
        raise CheckFailed(
            f"check of {what}: {float(found[worst]):.{digits}g} at {[int(at) for at in worst]},"
            f" must be {float(expected[worst]):.{digits}g}"
        )
    return expected.size


def vectors_of(held: dict[Any, HeldExperts]) -> dict[Any, Array]:
    """Copies of all weights."""
    return {key: each.vector.weights.copy() for key, each in held.items()}
