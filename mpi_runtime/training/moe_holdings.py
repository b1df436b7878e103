"""From what a rank holds of the model to the flat vectors of the runtime, and where single experts lie in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.lowering.data_parallel.sharding import Holding, held, held_beside_layers, held_of_layer
from ...workloads.model.precision import Formats, Part
from ...workloads.model.tensors import Tensor, tensors_of_input, tensors_of_layer, tensors_of_output
from ...workloads.plan.setting import Setting
from ...workloads.schedule.operation import Operation
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange
from ..messages.transport import Transport, every_operation
from .flat_vectors import FlatVector, PlacedTensor

Array = NDArray[Any]
Key = tuple[tuple[str, ...], str]
"""The axes over which parameters are replicated, and their format on the network."""


@dataclass(frozen=True)
class HeldExperts:
    """A vector, the axes along which ranks have the same one, how many these are, and the parts of the model in it."""

    vector: FlatVector
    axes: tuple[str, ...]
    replicas: int
    parts: tuple[Part, ...]


class MoeHoldings:
    """All that this rank holds.

    Operations of the Schedule find their vector by axes and format, as the lowering made them: gradients of all layers at
    once, or, where they are reduced beside the backward pass, layer by layer.
    """

    def __init__(
        self, setting: Setting, formats: Mapping[Part, Formats], schedule: Schedule, transport: Transport
    ) -> None:
        self.setting, self.layered = setting, setting.plan.gradients_overlap
        self.vectors: dict[Key, HeldExperts] = {}
        parts: dict[Key, list[Holding]] = {}
        for each in held(setting):
            parts.setdefault((each.replicas, formats[each.part].gradient), []).append(each)
        exchanges = {self.key(op): op for op in every_operation(schedule) if op.category == "gradient_sync"}
        for key, holdings in parts.items():
            cells, home, homes = 1, 0, np.zeros(1, dtype=int)
            if key in exchanges:
                work = exchanges[key].work
                assert isinstance(work, Exchange)
                stream = exchanges[key].stream
                cells, home = transport.cells(stream, work), transport.home(stream, work)
                homes = transport.homes(stream, work) if len(transport.group(stream, work).ranks) == cells else homes
            sharded = setting.plan.sharding.shards_state and key in exchanges
            parts_of = tuple(each.part for each in holdings)
            vector = FlatVector(
                "+".join(key[0]),
                self._sizes(holdings),
                cells,
                home,
                sharded,
                formats[holdings[0].part],
                setting.plan.optimizing,
                [int(each) for each in homes],
                list(self._placed(parts_of)),
            )
            self.vectors[key] = HeldExperts(vector, key[0], setting.mesh.size(*key[0]), parts_of)

    @staticmethod
    def key(operation: Operation) -> Key:
        """The key of the vector that an exchange of gradients or weights is about."""
        assert isinstance(operation.work, Exchange)
        return operation.work.axes, operation.work.element

    def of_part(self, part: Part) -> HeldExperts:
        """What holds a part of the model."""
        return next(each for each in self.vectors.values() if part in each.parts)

    def segment(self, layer: int | None) -> int:
        """The segment of a layer's gradients; of all else where there is no layer."""
        return 0 if not self.layered else self.setting.model.layers if layer is None else layer

    def bytes(self) -> int:
        """Bytes of all vectors."""
        return sum(each.vector.bytes() for each in self.vectors.values())

    def _placed(self, parts: tuple[Part, ...]) -> Iterator[PlacedTensor]:
        """The tensors of a vector: part after part, layer after layer in each; or with a segment for each layer."""
        layers = [*range(self.setting.model.depth), None]
        segments = [[layer] for layer in layers] if self.layered else [layers]
        for number, mine in enumerate(segments):
            start = 0
            for part in parts:
                for tensor in (tensor for layer in mine for tensor in self._tensors(part, layer)):
                    yield PlacedTensor(part, tensor, number, start)
                    start += tensor.size

    def _tensors(self, part: Part, layer: int | None) -> Iterator[Tensor]:
        """A rank's tensors of a part of a layer, or of what belongs to none; experts one after another, both matrices of each."""
        model = self.setting.model
        if part == "expert":
            local = 0 if layer is None else model.experts // self.setting.mesh.size(*self.setting.expert_axes)
            up = Tensor(model.hidden, model.ffn_hidden)
            yield from local * (up, Tensor(up.columns, up.rows))
        elif layer is not None:
            yield from tensors_of_layer(model, model.stack[layer]).get(part, Counter()).elements()
        else:
            for ends in (tensors_of_input(model), tensors_of_output(model)):
                yield from ends.get(part, Counter()).elements()

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
