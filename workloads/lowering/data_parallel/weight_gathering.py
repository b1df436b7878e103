"""Weights that are not at hand: sharded over replicas (ZeRO-3, ZeRO++), in host memory, or both; fetched layer by layer.

ZeRO-3 gathers the weights of a layer before its forward pass and before its backward pass, and reduces gradients to shards:
3 (n - 1)/n of the parameters in all, once for every micro-batch (Rajbhandari et al. 2020, section 7.2.2). ZeRO++ gathers
8-bit weights forward (half the volume), the secondary shard along fsdp alone backward (nothing across nodes), and sends
4-bit gradients by two all-to-alls (a quarter): across nodes 3 M become 0.75 M (Wang et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ....hardware.precisions import BYTES
from ...model.precision import Part
from ...schedule.operation import Role, Task
from ...schedule.work import Amount, HostCopy, Sweep
from ...sharding import Sharding
from ..builder import HOST_IN, WEIGHTS, Program
from ..layer.layer_hooks import LayerHook
from .gradient_sync import Update
from .sharding import Holding, held_beside_layers, held_of_layer, layers_of_longest


def offloaded(part: Part, kept: Mapping[str, float]) -> float:
    """The share of a layer's part that lies in host memory (M6-10T, Lin et al. 2021, chooses it to fit)."""
    own = kept.get("experts", 0.0) if part == "expert" else 0.0
    return max(own, kept.get("parameters", 0.0))


@dataclass(frozen=True)
class Gathered(LayerHook):
    """Makes updated weights whole beside the first forward pass: the next layer's beside that through this one.

    Where state is sharded and weights are not (Megatron-LM's --overlap-param-gather). In steps alike, gathering those of the
    step before costs what gathering those of this one would.
    """

    update: Update
    layers: tuple[int, ...]
    _coming: dict[int, int] = field(default_factory=dict)

    def begin(self, program: Program, again: bool) -> None:
        """The first layer's weights are on their way."""
        if not again:
            self.start(program, self.layers[0])

    def before(self, program: Program, layer: int, again: bool) -> None:
        """The layer's weights are there; the next layer's are on their way."""
        if again:
            return
        if (coming := self._coming.pop(layer, None)) is not None:
            program.need(coming)
        at = self.layers.index(layer) + 1
        if at < len(self.layers):
            self.start(program, self.layers[at])

    def start(self, program: Program, layer: int) -> None:
        """Gather a layer's weights beside what follows."""
        for name, exchange in self.update.gathers(program, held_of_layer(self.update.setting, layer)):
            task = Task(Role.WEIGHT_GATHER, layer=layer)
            label = f"weights.{name}"
            self._coming[layer] = program.aside(task, exchange, "gradient_sync", WEIGHTS, label=label)

    @classmethod
    def ahead(cls, program: Program, update: Update) -> None:
        """Before blocks, which cannot wait for what began before them: the first layer's now, all others beside the blocks.

        So the others are taken to be there in time. Each stage gathers its own layers, all as many as the longest has.
        """
        mine = cls(update, tuple(layers_of_longest(update.setting)))
        mine.start(program, mine.layers[0])
        program.join()
        for layer in mine.layers[1:]:
            mine.start(program, layer)


@dataclass(frozen=True)
class Fetched(LayerHook):
    """Fetches weights before each pass through a layer; with overlap, the next layer's beside the pass through this one."""

    update: Update
    layers: tuple[int, ...]
    _coming: dict[tuple[int, bool], int] = field(default_factory=dict)

    def begin(self, program: Program, again: bool) -> None:
        """Embedding and output are there, which are few beside the layers; with overlap, the first layer is on its way."""
        if self._gathers(again):
            ends = held_beside_layers(self.update.setting)
            self._gather(program, ends, Task(part="ends"), again, None, aside=False)
            self._dequantise(program, ends, Task(part="ends"), again)
        if self._overlap and self.layers:
            self._begin(program, self.layers[-1 if again else 0], again)

    def before(self, program: Program, layer: int, again: bool) -> None:
        """The layer's weights are there; the next layer's are on their way."""
        if not self._overlap:
            self._fetch(program, layer, again, aside=False)
        elif (coming := self._coming.pop((layer, again))) >= 0:
            program.need(coming)
        if self._gathers(again):
            self._dequantise(program, held_of_layer(self.update.setting, layer), Task(layer=layer), again)
        if not self._overlap:
            return
        at = self.layers.index(layer) + (-1 if again else 1)
        if 0 <= at < len(self.layers):
            self._begin(program, self.layers[at], again)

    @property
    def _overlap(self) -> bool:
        return self.update.setting.plan.gradients_overlap

    @property
    def _sharded(self) -> bool:
        return self._sharding.shards_weights

    def _gathers(self, again: bool) -> bool:
        """Whether weights are gathered before a pass; before the backward one not where they have stayed whole."""
        return self._sharded and (self._sharding.reshards or not again)

    @property
    def _sharding(self) -> Sharding:
        return self.update.setting.plan.sharding

    def _begin(self, program: Program, layer: int, again: bool) -> None:
        number = self._fetch(program, layer, again, aside=True)
        self._coming[layer, again] = -1 if number is None else number

    def _fetch(self, program: Program, layer: int, again: bool, aside: bool) -> int | None:
        """From the host, then from the other shards; returns the last operation where it runs aside."""
        holdings, last = held_of_layer(self.update.setting, layer), None
        from_host = self._from_host(holdings)
        task, label = Task(Role.WEIGHT_FETCH, layer=layer), f"weights.in{_again(again)}"
        if from_host is not None and aside:
            last = program.aside(task, HostCopy(from_host, "in"), "offload", HOST_IN, label=label)
        elif from_host is not None:
            program.add(task, HostCopy(from_host, "in"), "offload", label)
        if self._gathers(again):
            last = self._gather(program, holdings, Task(layer=layer), again, last, aside)
        return last

    def _from_host(self, holdings: list[Holding]) -> Amount | None:
        """Bytes of the rank's part (or shard) of what lies in host memory."""
        setting = self.update.setting
        kept = setting.plan.offload_shares
        away = {each.part: offloaded(each.part, kept) for each in holdings}
        if not any(away.values()):
            return None
        nbytes: Amount = 0.0
        for each in holdings:
            width = setting.mesh.size(*each.shards) if self._sharded else 1
            size = each.parameters * BYTES[self.update.formats[each.part].weight] / width
            nbytes = nbytes + away[each.part] * size
        return nbytes

    def _gather(
        self, program: Program, holdings: list[Holding], at: Task, again: bool, after: int | None, aside: bool
    ) -> int | None:
        """All-gathers of the holdings' weights."""
        behind, word = _again(again), _word(at)
        self.update.shards(program, holdings, at.doing(Role.SHARD_BOOKKEEPING), f"{word}.shards{behind}")
        for vector in self.update.vectors(holdings, "weight"):
            coming = self._sharding.gathering(vector, again)
            if self.update.setting.mesh.size(*coming.axes) == 1:
                continue
            task, label = at.doing(Role.WEIGHT_GATHER), f"{word}.{vector.kind}.{vector.element}.all-gather{behind}"
            exchange = self.update.exchange(program, coming)
            if aside:
                after = program.aside(task, exchange, "gradient_sync", WEIGHTS, after, label)
            else:
                program.add(task, exchange, "gradient_sync", label)
        return after

    def _dequantise(self, program: Program, holdings: list[Holding], at: Task, again: bool) -> None:
        """What came in fewer bits becomes weights, once it is there."""
        for vector in self.update.vectors(holdings, "weight"):
            coming = self._sharding.gathering(vector, again)
            if coming.quantised and self.update.setting.mesh.size(*coming.axes) > 1:
                count, kept = coming.nbytes / coming.quantised, BYTES[vector.element]
                back = Sweep(count, coming.quantised, kept, 1, vector.element)
                label = f"{_word(at)}.{vector.kind}.{vector.element}.dequantise"
                program.add(at.doing(Role.DEQUANTISE), back, "gradient_sync", label)


def _word(at: Task) -> str:
    """How labels begin, of weights of a layer or of both ends."""
    return "embedding.weights" if at.part == "ends" else "weights"


def _again(again: bool) -> str:
    """How labels end, of what comes once more for the backward pass."""
    return ".again" if again else ""
