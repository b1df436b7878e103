"""Recomputation by a list of modules, as Megatron-LM names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ...hardware.errors import suggestion
from .recomputation import Recomputation, RepeatedLayer, SavedRow

MODULES = {
    "core_attn": "scores and softmax of attention",
    "layernorm": "outputs of the norms before attention and before FFN or experts",
    "mla_up_proj": "queries, keys and values of latent attention, from the narrow ones",
    "mlp": "a dense FFN",
    "moe": "gate, experts and shared experts with their exchanges",
    "moe_act": "the activation of experts, between their products",
    "shared_experts": "shared experts",
}
"""What is dropped and worked out again (Megatron-LM, ``--recompute-modules``)."""


@dataclass(frozen=True)
class Modules(Recomputation):
    """What some modules of a layer keep is dropped; each is run again by itself."""

    about: ClassVar[str] = "modules:NAME+NAME+...: what these modules keep is worked out again (Megatron-LM)"
    searched: ClassVar[bool] = False
    of_modules: ClassVar[bool] = True

    names: frozenset[str]

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Names joined by plus signs; without any the core of attention, as in Megatron-LM."""
        names = argument.split("+") if argument else ["core_attn"]
        for name in names:
            if name not in MODULES:
                raise ValueError(f"takes {', '.join(MODULES)}, joined by +{suggestion(name, MODULES)}")
        return cls(frozenset(names))

    def names_module(self, name: str) -> bool:
        """Whether a module is among those that are named."""
        return name in self.names

    @property
    def runs_parts_again(self) -> bool:
        """All but attention's core and whole halves."""
        return not self.names <= {"core_attn", "mlp", "moe"}

    def kept(self, row: SavedRow) -> float:
        """All but what belongs to one of the modules."""
        return 1.0 if row.entry or self.names.isdisjoint(row.modules) else 0.0

    def run_again(self, layer: RepeatedLayer) -> None:
        """In the order of the forward pass; what is part of a whole half is run with it."""
        half = ("moe" if layer.moe else "mlp") in self.names
        if "layernorm" in self.names:
            layer.norms(second=not half)
        if "mla_up_proj" in self.names:
            layer.latent_products()
        if "core_attn" in self.names:
            layer.attention_core()
        if half:
            layer.feed_forward()
            return
        if "moe_act" in self.names:
            layer.expert_activation()
        if "shared_experts" in self.names:
            layer.shared_experts()
