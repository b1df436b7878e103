"""From what a rank holds of the model to the flat vectors of the runtime, and where single experts lie in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.lowering.data_parallel.sharding import Holding, held, held_beside_layers, held_of_layer
from ...workloads.model.model import Model
from ...workloads.model.precision import Formats, Part
from ...workloads.plan.setting import Setting
from ...workloads.schedule.operation import Operation
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange
from ..messages.transport import Transport, every_operation
from .flat_vectors import FlatVector

Array = NDArray[Any]
Key = tuple[tuple[str, ...], str]
"""The axes over which parameters are replicated, and their format on the network."""


@dataclass(frozen=True)
class Held:
    """A vector, the parts of the model in it, and the share of the vector that each part is."""

    vector: FlatVector
    axes: tuple[str, ...]
    replicas: int
    spans: dict[Part, tuple[float, float]]


class MoeHoldings:
    """All that this rank holds.

    Operations of the Schedule find their vector by axes and format, as the lowering made them: gradients of all layers at
    once, or, where they are reduced beside the backward pass, layer by layer.
    """

    def __init__(
        self, setting: Setting, formats: dict[Part, Formats], schedule: Schedule, transport: Transport
    ) -> None:
        self.setting, self.layered = setting, setting.plan.gradients_overlap
        self.vectors: dict[Key, Held] = {}
        parts: dict[Key, list[Holding]] = {}
        for each in held(setting):
            parts.setdefault((each.replicas, formats[each.part].gradient), []).append(each)
        exchanges = {self.key(op): op for op in every_operation(schedule) if op.category == "gradient_sync"}
        for key, holdings in parts.items():
            cells, home = 1, 0
            if key in exchanges:
                work = exchanges[key].work
                assert isinstance(work, Exchange)
                cells, home = transport.cells(exchanges[key].stream, work), transport.home(exchanges[key].stream, work)
            sharded = setting.plan.zero != "0" and key in exchanges
            vector = FlatVector(
                "+".join(key[0]), self._sizes(holdings), cells, home, sharded, formats[holdings[0].part]
            )
            self.vectors[key] = Held(vector, key[0], setting.mesh.size(*key[0]), _spans(holdings))

    @staticmethod
    def key(operation: Operation) -> Key:
        """The key of the vector that an exchange of gradients or weights is about."""
        assert isinstance(operation.work, Exchange)
        return operation.work.axes, operation.work.element

    def of_part(self, part: Part) -> Held:
        """What holds a part of the model."""
        return next(each for each in self.vectors.values() if part in each.spans)

    def segment(self, layer: int | None) -> int:
        """The segment of a layer's gradients; of all else where there is no layer."""
        return 0 if not self.layered else self.setting.model.layers if layer is None else layer

    def experts(self, values: str, layer: int, local: int) -> tuple[Array, Array]:
        """Both matrices of all local experts of a layer, ``[local, hidden, ffn]`` and back, as views of weights or gradients."""
        model, vector = self.setting.model, self.of_part("expert").vector
        count = local * model.expert_size
        start = 0 if self.layered else layer * count
        flat = vector.segment(getattr(vector, values), self.segment(layer))[start : start + count]
        each = flat.reshape(local, 2, model.hidden * model.ffn_hidden)
        up = each[:, 0].reshape(local, model.hidden, model.ffn_hidden)
        return up, each[:, 1].reshape(local, model.ffn_hidden, model.hidden)

    def bytes(self) -> int:
        """Bytes of all vectors."""
        return sum(each.vector.bytes() for each in self.vectors.values())

    def _sizes(self, holdings: list[Holding]) -> list[int]:
        """Parameters of each segment: all at once, or by layer and then what belongs to none."""
        if not self.layered:
            return [int(np.rint(sum(float(np.max(each.parameters)) for each in holdings)))]
        mine = {each.part for each in holdings}
        layers = [held_of_layer(self.setting, layer) for layer in range(self.setting.model.depth)]
        every = [*layers, held_beside_layers(self.setting)]
        return [
            int(np.rint(sum(float(np.max(each.parameters)) for each in segment if each.part in mine)))
            for segment in every
        ]


def _spans(holdings: list[Holding]) -> dict[Part, tuple[float, float]]:
    """The fractions of a vector between which each part lies."""
    ends = np.cumsum([each.parameters for each in holdings]) / sum(each.parameters for each in holdings)
    starts = [0.0, *ends[:-1]]
    return {each.part: (float(a), float(b)) for each, a, b in zip(holdings, starts, ends, strict=True)}


def initial_expert(model: Model, seed: int, layer: int, expert: int) -> tuple[Array, Array]:
    """Both matrices of an expert before training: any rank can make any expert's."""
    random = np.random.default_rng([seed, 7, layer, expert])
    shape = (model.hidden, model.ffn_hidden)
    up = random.standard_normal(shape, dtype=np.float32) * model.hidden**-0.5
    down = random.standard_normal(shape[::-1], dtype=np.float32) * model.ffn_hidden**-0.5
    return up.astype(np.float32), down.astype(np.float32)
