"""Which tensors a rank has, or has parts of, and which rule of the optimizer updates each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...model.precision import Part
from ...model.tensors import Tensor, Tensors, tensors_of_input, tensors_of_layer, tensors_of_output
from ...optimizers.optimizer import UpdateRule
from ...plan.setting import Setting
from ...schedule.work import Amount
from .sharding import CUT, Holding, cut_axes, layers_of, shards


@dataclass(frozen=True)
class RuledTensors:
    """The tensors of a holding that one rule updates.

    ``tensors[shape]`` counts those that the rank has a part of, ``parameters`` their elements on the rank before ZeRO shards
    them; both are arrays along pp where stages differ.
    """

    rule: UpdateRule
    tensors: Mapping[Tensor, Amount]
    parameters: Amount


def held_tensors(setting: Setting) -> HeldTensors:
    """The tensors of which the ranks of a setting have parts; worked out once."""
    if "tensors" not in setting.holdings:
        setting.holdings["tensors"] = HeldTensors(setting)
    found: HeldTensors = setting.holdings["tensors"]
    return found


class HeldTensors:
    """The tensors of which the ranks of a setting have parts; worked out once for each part of the model."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._ruled: dict[Part, list[RuledTensors]] = {}
        self._stages = [_of_stage(setting, stage) for stage in range(setting.mesh.size("pp"))]

    def ruled(self, holding: Holding) -> list[RuledTensors]:
        """The tensors of a holding of the whole model, by the rule that updates them."""
        if holding.part not in self._ruled:
            self._ruled[holding.part] = self._by_rule(holding)
        return self._ruled[holding.part]

    def _by_rule(self, holding: Holding) -> list[RuledTensors]:
        optimizer, found = self.setting.plan.optimizing, dict[UpdateRule, dict[Tensor, Amount]]()
        for tensor, count in self.of(holding.part).items():
            found.setdefault(optimizer.rule(holding.part, tensor), {})[tensor] = count
        if len(found) == 1:
            ((rule, tensors),) = found.items()
            return [RuledTensors(rule, tensors, holding.parameters)]
        cut = self.setting.mesh.size(*split_axes(self.setting, holding.part))
        return [
            RuledTensors(rule, tensors, sum((count * each.size for each, count in tensors.items()), start=0.0) / cut)
            for rule, tensors in found.items()
        ]

    def of(self, part: Part) -> dict[Tensor, Amount]:
        """How many tensors of each shape (whole, as the model has them) a rank has a part of."""
        mesh, counts = self.setting.mesh, [stage.get(part, Counter()) for stage in self._stages]
        apart = mesh.size(
            *(axis for axis in cut_axes(self.setting, part) if axis not in split_axes(self.setting, part))
        )
        found: dict[Tensor, Amount] = {}
        for tensor in dict.fromkeys(shape for each in counts for shape in each):
            each = [count[tensor] / apart for count in counts]
            found[tensor] = each[0] if len(each) == 1 else mesh.along("pp", each)
        return found


def split_axes(setting: Setting, part: Part) -> tuple[str, ...]:
    """The axes along which single tensors of a part are cut; whole experts are dealt, over tp too if they stay so."""
    dealt = setting.expert_axes if part == "expert" else ()
    return tuple(axis for axis in setting.mesh.parts_of(CUT[part]) if axis not in dealt)


def together(setting: Setting, holding: Holding) -> tuple[str, ...]:
    """The axes along which ranks have parts of the same tensors of a holding: cut by tensor parallelism, or sharded."""
    axes = {*split_axes(setting, holding.part), *(holding.shards if setting.plan.sharding.shards_state else ())}
    return tuple(axis for axis in setting.mesh.axes if axis in axes)


def matrices_touched(setting: Setting, holding: Holding, count: Amount) -> Amount:
    """Of so many tensors of a rank, how many have a part in its shard: a run of 1/n of all, which begins and ends within one."""
    parts = shards(setting, holding)
    return count if parts == 1 else np.minimum(count, np.asarray(count) / parts + 1.0) * 1.0


def _of_stage(setting: Setting, stage: int) -> Tensors:
    model, last = setting.model, setting.last_part[0]
    found: dict[Part, Counter[Tensor]] = {}
    kinds = Counter(model.stack[at] for at in layers_of(setting, stage))
    for kind, times in kinds.items():
        for part, shapes in tensors_of_layer(model, kind).items():
            for tensor, count in shapes.items():
                found.setdefault(part, Counter())[tensor] += times * count
    ends = [tensors_of_input(model)] if stage == 0 else []
    if stage == last:
        ends.append(tensors_of_output(model, table=not model.tied or last > 0))
        if last and model.at_both_ends and not model.tied:
            ends.append({"embedding": Counter([Tensor(model.vocabulary, model.hidden)])})
    for each in ends:
        for part, shapes in each.items():
            found.setdefault(part, Counter()).update(shapes)
    return found
