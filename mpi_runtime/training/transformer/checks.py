"""Whether a step of a model did what it should: loss, gradients and weights against one process that computes it all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ....workloads.model.number_types import TYPES
from ....workloads.optimizers.optimizer import UpdatePass
from ....workloads.plan.setting import Setting
from ...job.world import World
from ..checks import compare, tolerance_of
from ..optimizer_rounds import update_alone
from .experts.serial import MeshRouter
from .messages import Array
from .reference import Reference, Weights
from .training import ModelTraining
from .weights.holdings import Flat
from .weights.shards import Weight, cut

EXACT = 1e-11
"""Relative to the largest number, where all is in double precision: only the order of sums differs."""


def serial_bytes(setting: Setting) -> float:
    """Bytes that the serial model takes: weights, gradients and state, and what it keeps of the whole batch."""
    model, batch = setting.model, setting.batch
    layer = 16 * model.hidden + 3 * model.matrices * model.ffn_hidden + 4 * model.heads * batch.seq_len
    if model.experts:
        layer += (16 + 3 * model.matrices) * model.top_k * model.hidden
    token = model.layers * layer + 3 * model.vocabulary
    return 8.0 * (5 * model.parameters.total + setting.mesh.replicas * batch.tokens * token)


class ModelChecks:
    """Compares the first step with the serial model, in double precision, from the weights that ranks began with.

    Where formats are shorter, an update can turn on a gradient's last digits: there weights are compared with the optimizer on
    the rank's own gradients, which were compared before, and those that other ranks updated with the serial model's to within
    what two updates may differ.
    """

    def __init__(self, training: ModelTraining) -> None:
        self.training = training
        self.before = [each.share.copy() for each in training.holdings.flats]
        formats = training.formats.values()
        self._change = 0.0  # the largest that the serial model makes
        self.exact = all(each.compute == each.weight == each.gradient == "fp64" for each in formats)
        used = {name for each in formats for name in (each.compute, each.weight, each.gradient)}
        self.tolerance = EXACT if self.exact else max(tolerance_of(np.dtype(TYPES[name])) for name in used)

    def compare(self, world: World) -> dict[str, int]:
        """Compare; returns how many numbers were on this rank. Raises ``CheckFailed`` on one rank, ``Ended`` on the others."""
        place = self.training.place
        counts = place.me("pp") == place.of("pp") - 1 and place.me("tp") == place.me("col") == 0
        loss = np.array([world.comm.allreduce(self.training.loss if counts else 0.0)])
        return world.agree(lambda: self._compare(loss))

    def _compare(self, loss: Array) -> dict[str, int]:
        training = self.training
        router = MeshRouter(training.setting, training.learned) if training.sizes.experts else None
        model = Reference(
            training.sizes, training.setting.plan.seed, optimizer=training.setting.plan.optimizing, router=router
        )
        for flat in training.holdings.flats:
            for piece in flat.pieces:
                self._round(model.weights, piece.weight, flat)
        start = {weight: each.copy() for weight, each in model.weights.items()}
        expected = model.step(*training.source(0))
        self._change = max(float(np.abs(model.weights[weight] - each).max()) for weight, each in start.items())
        compare("the loss", loss, np.array([expected]), self.tolerance)
        found = {"losses": 1, "gradients": 0, "weights": 0}
        for flat, before in zip(training.holdings.flats, self.before, strict=True):
            where = f"of {'embedding and output' if flat.layer is None else f'layer {flat.layer}'}"
            gradients = self._expected(model.gradients, flat)[flat.first : flat.first + len(flat.reduced)]
            found["gradients"] += compare(f"gradients {where}", flat.reduced, gradients, self.tolerance)
            for weights, after, tolerance in self._weights(flat, before, self._expected(model.weights, flat)):
                found["weights"] += compare(f"weights {where}", weights, after, tolerance)
        return found

    def _weights(self, flat: Flat, before: Array, after: Array) -> Iterator[tuple[Array, Array, float]]:
        """(found, expected, tolerance) of a vector's weights: of its own share alone where it keeps no others."""
        share = after[flat.first : flat.first + flat.width]
        whole = (flat.share, share) if flat.weights is None else (flat.weights, after)
        if self.exact:
            yield *whole, self.tolerance
            return
        yield flat.share, self._updated(flat, before), tolerance_of(before.dtype)
        change = self._change / max(float(np.abs(after).max()), 1e-30)
        yield *whole, max(2.1 * change, self.tolerance)

    def _updated(self, flat: Flat, before: Array) -> Array:
        """A share after an update of its own gradients alone; where that takes sums or wholes of other ranks, as it is."""
        found, optimizer = before.copy(), self.training.setting.plan.optimizing
        master = None if flat.master is None else before.astype(flat.master.dtype)
        for of, each in self.training.holdings.tensors:
            if of is not flat:
                continue
            if all(isinstance(step, UpdatePass) for step in each.rule.steps(each.tensor, flat.formats)):
                fresh = replace(each, state=each.rule.state(len(each.index), each.tensor, flat.formats))
                update_alone(optimizer, each.part, fresh.share(found, master, flat.reduced, 1, 1))
            else:
                found[each.here] = flat.share[each.here]
        return found

    def _round(self, weights: Weights, weight: Weight, flat: Flat) -> None:
        """The serial model begins with weights as they are kept."""
        weights[weight] = weights[weight].astype(TYPES[flat.formats.weight]).astype(np.float64)

    def _expected(self, values: Weights, flat: Flat) -> Array:
        """A whole vector as the serial model has it, with its padding."""
        training = self.training
        parts = [cut(values[piece.weight], piece.weight, training.sizes, training.place) for piece in flat.pieces]
        whole = np.zeros(flat.width * flat.shards.count)
        joined = np.concatenate([part.reshape(-1) for part in parts])
        whole[: len(joined)] = joined
        return whole
