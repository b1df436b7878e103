"""Memory of a rank: parameters, gradients, optimizer state, activations and buffers, against what it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from ..hardware.errors import DoesNotFit
from ..hardware.precisions import BYTES
from .loads import Load
from .plan import Batch
from .precision import POLICIES, Formats, Part
from .setting import Setting
from .sharding import held, shards

FIXED_FP32 = {"parameters": 4, "gradients": 4, "optimizer": 8, "activations": 8}
"""Bytes a parameter of the all-single accounting: 4 + 4 + 8 + 8 TB for 10¹² parameters (BaGuaLu overview)."""

PARTS = ("parameters", "gradients", "optimizer", "activations", "other")


@dataclass(frozen=True)
class Memory:
    """Bytes of the fullest rank, and what a rank has (``capacity``)."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    other: float
    capacity: float

    @property
    def total(self) -> float:
        """All that a rank holds."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.other

    @property
    def fits(self) -> bool:
        """Whether it is no more than the rank has."""
        return bool(self.total <= self.capacity)

    def table(self) -> dict[str, float]:
        """Every part, the total and the capacity."""
        parts = asdict(self)
        capacity = parts.pop("capacity")
        return {**parts, "total": self.total, "capacity": capacity}


def update_state_share(policy: str) -> float:
    """Share of weights, gradients and state that only the update needs: 12 of 16 bytes, 75 %, under APEX O2."""
    formats = POLICIES[policy]["expert"]
    return formats.state_bytes / (BYTES[formats.weight] + BYTES[formats.gradient] + formats.state_bytes)


def memory(setting: Setting, loads: list[Load]) -> Memory:
    """Memory of the fullest rank at the most demanding precision policy of the plan.

    ``loads`` are those of a step, all micro-batches: activations count the micro-batch and the rank whose experts carry most.
    """
    if setting.plan.accounting == "fp32":
        return _fixed(setting)
    needs = [_by_policy(setting, loads, POLICIES[name]) for name in setting.plan.precisions.names]
    return max(needs, key=lambda need: need.total)


def require_fit(setting: Setting, loads: list[Load], need: Memory) -> None:
    """Raise :class:`DoesNotFit` where a plan does not fit: what is needed, what there is, and what would make it fit."""
    if need.fits:
        return
    sizes = sorted(((getattr(need, part), part) for part in PARTS), reverse=True)
    largest = ", ".join(f"{part} {size / 1e9:.1f}" for size, part in sizes if size > 0.005 * need.total)
    raise DoesNotFit(
        f"{setting.model.name} does not fit {setting.machine.name}: {need.total / 1e9:.1f} GB a rank"
        f" of {need.capacity / 1e9:.1f} GB ({largest}); {_remedy(setting, loads)}"
    )


def _fixed(setting: Setting) -> Memory:
    """So many bytes a parameter that the rank holds, whatever the batch; only the optimizer's are sharded."""
    holdings = held(setting)
    count = float(np.max(sum(each.parameters for each in holdings)))
    sharded = float(np.max(sum(each.parameters / shards(setting, each) for each in holdings)))
    bytes_of = FIXED_FP32
    return Memory(
        parameters=count * bytes_of["parameters"],
        gradients=count * bytes_of["gradients"],
        optimizer=sharded * bytes_of["optimizer"],
        activations=count * bytes_of["activations"],
        other=0.0,
        capacity=_capacity(setting),
    )


def _capacity(setting: Setting) -> float:
    return setting.machine.processor(setting.ranks_per_node).memory


def _by_policy(setting: Setting, loads: list[Load], formats: dict[Part, Formats]) -> Memory:
    holdings = held(setting)
    model, tokens = setting.model, setting.batch.micro_tokens
    most = max((float(np.max(load.received)) for load in loads), default=0.0)
    logits = tokens * model.vocabulary * BYTES[formats["embedding"].compute]
    buffers = (tokens * setting.top_k + most) * model.hidden * BYTES[formats["expert"].compute]
    return Memory(
        parameters=sum(np.max(each.parameters) * BYTES[formats[each.part].weight] for each in holdings),
        gradients=sum(np.max(each.parameters) * BYTES[formats[each.part].gradient] for each in holdings),
        optimizer=sum(
            np.max(each.parameters) * formats[each.part].state_bytes / shards(setting, each) for each in holdings
        ),
        activations=_activations(setting, loads, formats),
        other=logits + buffers,
        capacity=_capacity(setting),
    )


def _activations(setting: Setting, loads: list[Load], formats: dict[Part, Formats]) -> float:
    """Bytes kept for the backward pass; with recomputation only the inputs of layers, and one layer in full."""
    layers, tokens = setting.model.layers, setting.batch.micro_tokens
    dense, expert = _saved_bytes(setting, formats)
    if setting.plan.recompute == "full":
        inputs = layers * tokens * setting.model.hidden * BYTES[formats["norm"].compute]
        return inputs + dense * tokens + expert * max((float(np.max(load.received)) for load in loads), default=0.0)
    carried = [sum(load.received for load in loads[at : at + layers]) for at in range(0, len(loads), layers)]
    return layers * dense * tokens + expert * max((float(np.max(each)) for each in carried), default=0.0)


def _saved_bytes(setting: Setting, formats: dict[Part, Formats]) -> tuple[float, float]:
    """Bytes kept in a layer: for each token of the rank, and for each token that its experts carry.

    Kept are the inputs of every operator. In the format of attention: its normed input, q, k, v, the softmax and the context; in
    that of norms: the residual stream before attention and before the experts, and the normed input of the gate; the gate's
    scores; and for each carried token its input, both inner activations, and its output.
    """
    model = setting.model
    h, scores = model.hidden, model.heads * setting.batch.seq_len
    attention, norm = BYTES[formats["attention"].compute], BYTES[formats["norm"].compute]
    dense = (5 * h + scores) * attention + 3 * h * norm + model.experts * BYTES[formats["gate"].compute]
    expert = (2 * h + 2 * model.ffn_hidden) * BYTES[formats["expert"].compute]
    return float(dense), float(expert)


def _remedy(setting: Setting, loads: list[Load]) -> str:
    """The first change of a few usual ones that makes a plan fit."""
    for flags, other, tokens in _changes(setting, loads):
        need = memory(other, tokens)
        if need.fits:
            return f"{flags} needs {need.total / 1e9:.1f} GB"
    return "no change of --zero, --recompute or --micro-batch makes it fit: use more ranks along ep, or fewer experts"


def _changes(setting: Setting, loads: list[Load]) -> Iterator[tuple[str, Setting, list[Load]]]:
    batch = setting.batch
    smallest = Batch(batch.tokens, max(1, batch.tokens // min(batch.seq_len, batch.micro_tokens)), batch.seq_len)
    factor = smallest.micro_tokens / batch.micro_tokens
    fewer = [replace(load, sent=load.sent * factor, received=load.received * factor) for load in loads]
    zero, full = {"zero": "hierarchical"}, {"recompute": "full"}
    for flags, options, micro in (
        ("--zero hierarchical", zero, False),
        ("--micro-batch 1", {}, True),
        ("--recompute full", full, False),
        ("--zero hierarchical --micro-batch 1", zero, True),
        ("--zero hierarchical --recompute full", {**zero, **full}, False),
        ("--zero hierarchical --recompute full --micro-batch 1", {**zero, **full}, True),
    ):
        plan = setting.plan.changed(**options)
        yield flags, replace(setting, plan=plan, batch=smallest if micro else batch), fewer if micro else loads
