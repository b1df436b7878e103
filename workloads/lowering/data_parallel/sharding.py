"""Who holds what: the parameters of each part of the model on a rank, and over which axes they are replicated and sharded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ....hardware.frozen import FrozenArrays
from ...mesh.axes import REPLICAS, TENSOR
from ...model.layers import Layer
from ...model.model import Parameters
from ...model.precision import Part
from ...plan.setting import Setting
from ...schedule.work import Amount


@dataclass(frozen=True)
class Holding(FrozenArrays):
    """Parameters of one part of the model that a rank holds: an array along pp where stages hold unequal parts.

    They are replicated over ``replicas``; of these, ZeRO spreads what it shards over ``shards``.
    """

    part: Part
    parameters: Amount
    replicas: tuple[str, ...]
    shards: tuple[str, ...]


CUT: dict[Part, tuple[str, ...]] = {
    "expert": TENSOR,
    "ffn": TENSOR,
    "attention": TENSOR,
    "gate": (),
    "norm": ("col",),
    "embedding": TENSOR,
    "adapter": TENSOR,
}
"""The axes along which each part is cut; pp takes whole layers; over all other axes with own tokens it is replicated."""


def cut_axes(setting: Setting, part: Part) -> tuple[str, ...]:
    """The axes over which a part is spread: those along which it is cut, and of experts those over which they are dealt."""
    dealt = setting.expert_axes if part == "expert" else ()
    return tuple(dict.fromkeys((*dealt, *CUT[part])))


def held(setting: Setting) -> list[Holding]:
    """What a rank holds of the whole model; worked out once."""
    if "held" not in setting.holdings:
        setting.holdings["held"] = _held(setting)
    return list(setting.holdings["held"])


def holding_form(setting: Setting) -> tuple[object, ...]:
    """What decides what ranks hold, beside the model: settings that have it in common may share :attr:`Setting.holdings`."""
    plan = setting.plan
    return setting.mesh, setting.dealt, setting.expert_axes, setting.expert_cut, plan.zero, plan.optimizer


def _held(setting: Setting) -> list[Holding]:
    stages, parts, stack = setting.mesh.size("pp"), parts_of(setting), setting.model.stack
    known, found = dict[tuple[object, ...], Parameters](), list[Parameters]()
    for stage in range(stages):
        kinds = Counter(stack[layer] for part in parts[stage::stages] for layer in part)
        key = (
            stage == 0,
            stage == setting.last_part[0],
            *sorted((stack.index(kind), count) for kind, count in kinds.items()),
        )
        if key not in known:  # stages with as many layers of each kind hold as much
            known[key] = _of_stage(setting, stage, kinds)
        found.append(known[key])
    return _holdings(setting, found)


def trained(setting: Setting, holdings: list[Holding] | None = None) -> list[Holding]:
    """Those holdings (of the whole model, by default) whose weights have gradients and are updated."""
    every = held(setting) if holdings is None else holdings
    return [each for each in every if setting.model.trains(each.part)]


def held_of_layer(setting: Setting, layer: int) -> list[Holding]:
    """What a rank that has a layer holds of it; worked out once for each kind of layer."""
    kind = setting.model.stack[layer]
    if kind not in setting.holdings:
        setting.holdings[kind] = _holdings(setting, [setting.model.of_layer(kind)])
    return list(setting.holdings[kind])


def held_beside_layers(setting: Setting) -> list[Holding]:
    """What a rank holds of embedding and output; worked out once."""
    if "ends" not in setting.holdings:
        stages = setting.mesh.size("pp")
        setting.holdings["ends"] = _holdings(setting, [_ends(setting, stage) for stage in range(stages)])
    return list(setting.holdings["ends"])


def layers_of(setting: Setting, stage: int, chunk: int | None = None) -> list[int]:
    """The layers of a stage, or of one of its chunks; a stage may have none beside embedding or output."""
    stages = setting.mesh.size("pp")
    parts = parts_of(setting)
    return [
        layer
        for part in (parts[stage::stages] if chunk is None else (parts[chunk * stages + stage],))
        for layer in part
    ]


def layers_of_longest(setting: Setting) -> list[int]:
    """The layers of a stage that has the most of them."""
    return max((layers_of(setting, stage) for stage in range(setting.mesh.size("pp"))), key=len)


def parts_of(setting: Setting) -> tuple[range, ...]:
    """The layers of every virtual stage (:attr:`Setting.parts`)."""
    return setting.parts


def last_of(setting: Setting) -> int:
    """The virtual stage that has the output layer."""
    stage, chunk = setting.last_part
    return chunk * setting.mesh.size("pp") + stage


def shards(setting: Setting, holding: Holding) -> int:
    """Over how many ranks what ZeRO shards of a holding is spread."""
    return setting.mesh.size(*holding.shards) if setting.plan.sharding.shards_state else 1


def _of_stage(setting: Setting, stage: int, kinds: Counter[Layer]) -> Parameters:
    total = _ends(setting, stage)
    for kind, count in kinds.items():
        each = setting.model.of_layer(kind)
        total = total + Parameters(**{part: count * getattr(each, part) for part in Parameters.model_fields})
    return total


def _ends(setting: Setting, stage: int) -> Parameters:
    """Embedding on the first stage, output where the last part is; where they share weights, both have them (Megatron).

    So they do where layers on the last stage predict further tokens: these begin with a token's embedding.
    """
    model, last = setting.model, setting.last_part[0]
    none = Parameters(**dict.fromkeys(Parameters.model_fields, 0))
    found = model.of_input if stage == 0 else none
    if stage == last:
        found = found + model.of_output
        if last and model.at_both_ends:
            found = found + none.model_copy(update={"embedding": model.vocabulary * model.hidden})
    return found


def _holdings(setting: Setting, stages: list[Parameters]) -> list[Holding]:
    """A holding for each part that any of these stages (or one for all) has."""
    mesh, found = setting.mesh, []
    for part in CUT:
        cut = cut_axes(setting, part)
        counts = [getattr(each, part) / mesh.size(*cut) for each in stages]
        if any(counts):
            amount = counts[0] if len(counts) == 1 else mesh.along("pp", counts)
            replicas = tuple(axis for axis in mesh.axes if axis in REPLICAS and axis not in cut)
            found.append(Holding(part, amount, replicas, setting.plan.sharding.axes(replicas)))
    return found
