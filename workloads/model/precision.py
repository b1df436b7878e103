"""Precision policies: in which formats each kind of layer computes and keeps its numbers, iteration by iteration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ...hardware.errors import InputError, suggestion
from ...hardware.frozen_dict import FrozenDict
from ...hardware.precisions import Precision

Part = Literal["expert", "ffn", "attention", "gate", "embedding", "norm", "adapter"]
PARTS: tuple[Part, ...] = ("expert", "ffn", "attention", "gate", "embedding", "norm", "adapter")


@dataclass(frozen=True)
class Formats:
    """Formats of one kind of layer.

    ``compute`` is that of its GEMMs and activations, ``weight`` and ``gradient`` those of stored parameters and their gradients
    (and of both on the network). ``product`` is that of the products with weights, where it is shorter still. Only the
    update needs the ``master`` copy, where weights are kept shorter than they are updated. What an optimizer keeps beside it is
    in the format of ``moments``, unless the optimizer says otherwise.
    """

    compute: Precision
    weight: Precision
    gradient: Precision
    master: Precision | None
    moments: Precision
    product: Precision | None = None

    @property
    def gemm(self) -> Precision:
        """Format in which activations are multiplied with weights."""
        return self.product or self.compute

    @property
    def cast_from(self) -> Precision | None:
        """Format from which activations are brought to that of such products, where these have their own."""
        return self.compute if self.product else None


_SINGLE = Formats("fp32", "fp32", "fp32", master=None, moments="fp32")
_HALF_COMPUTE = Formats("fp16", "fp32", "fp32", master=None, moments="fp32")
_HALF_BUT_UPDATE = Formats("fp16", "fp16", "fp16", master="fp32", moments="fp32")
_HALF = Formats("fp16", "fp16", "fp16", master=None, moments="fp16")

_DOUBLE = Formats("fp64", "fp64", "fp64", master=None, moments="fp64")
_BRAIN = Formats("bf16", "bf16", "fp32", master="fp32", moments="fp32")
_EIGHT = Formats("bf16", "bf16", "fp32", master="fp32", moments="fp32", product="fp8")

_EVERYWHERE = {
    "O0": _SINGLE,
    "O1": _HALF_COMPUTE,
    "O2": _HALF_BUT_UPDATE,
    "O3": _HALF,
    "fp64": _DOUBLE,
    "bf16": _BRAIN,
    "fp8": _EIGHT,
}

POLICIES: Mapping[str, Mapping[Part, Formats]] = FrozenDict(
    {name: FrozenDict(dict.fromkeys(PARTS, formats)) for name, formats in _EVERYWHERE.items()}
    | {
        "layerwise": FrozenDict(
            {part: _HALF_BUT_UPDATE if part in ("expert", "ffn", "attention", "adapter") else _SINGLE for part in PARTS}
        )
    }
)

DESCRIPTIONS: Mapping[str, str] = FrozenDict(
    {
        "O0": "everything in single precision",
        "O1": "GEMMs in half, weights, gradients and update in single",
        "O2": "everything in half but the update",
        "O3": "everything in half",
        "fp64": "everything in double precision, to check results",
        "bf16": "bfloat16 with gradients and update in single (Megatron)",
        "fp8": "the same, products with weights in eight bits (Transformer Engine)",
        "layerwise": "FFN and attention in half with a single update, all else in single (BaGuaLu)",
    }
)
"""Source of O0-O3: NVIDIA APEX, as the BaGuaLu overview sums them up; of layerwise: the same overview."""


@dataclass(frozen=True)
class PrecisionSchedule:
    """Policies by iteration: ``spans`` are (policy, iterations), the last one without end.

    Written ``layerwise`` for one policy, ``O0:100,layerwise`` for O0 in the first hundred iterations. ``gradient`` and
    ``moments`` stand for those of every policy, in all parts, where they are named.
    """

    spans: tuple[tuple[str, int | None], ...]
    gradient: Precision | None = None
    moments: Precision | None = None

    @classmethod
    def parse(cls, text: str, gradient: Precision | None = None, moments: Precision | None = None) -> PrecisionSchedule:
        """The schedule that ``text`` describes; raises :class:`InputError` for unknown policies or a missing count."""
        spans: list[tuple[str, int | None]] = []
        parts = text.split(",")
        for number, part in enumerate(parts):
            name, _, count = part.partition(":")
            if name not in POLICIES:
                raise InputError(f"--precision {part}: no such policy{suggestion(name, POLICIES)}")
            last = number == len(parts) - 1
            if last != (not count) or (count and (not count.isdigit() or int(count) < 1)):
                raise InputError(f"--precision {text}: write POLICY:ITERATIONS,...,POLICY, the last without a number")
            spans.append((name, int(count) if count else None))
        return cls(tuple(spans), gradient, moments)

    @property
    def names(self) -> list[str]:
        """The policies that occur, in order."""
        return [name for name, _ in self.spans]

    def policy(self, name: str) -> Mapping[Part, Formats]:
        """A policy with the formats of gradients and moments that are named beside it."""
        changes = {key: value for key, value in (("gradient", self.gradient), ("moments", self.moments)) if value}
        if not changes:
            return POLICIES[name]
        return FrozenDict({part: replace(formats, **changes) for part, formats in POLICIES[name].items()})

    def at(self, iteration: int) -> Mapping[Part, Formats]:
        """The policy of an iteration, counted from 0."""
        for name, length in self.spans:
            if length is None or iteration < length:
                return self.policy(name)
            iteration -= length
        raise AssertionError("the last span has no end")
