"""What every report ends with: machine, model and plan, every number with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...hardware.machine import Machine
from ...hardware.records import Record
from ...workloads.model.model import Model
from .sections import Section
from .words import shown

NO_SHAPE = {"name", "description", "plan", "sources"}
"""Keys of a model file that hold no number of the model."""

PARTS = {
    "expert": "routed experts: experts x matrices x hidden x expert_hidden in each layer that has them",
    "ffn": "dense FFNs, and experts that see every token",
    "attention": "matrices of queries, keys, values and outputs; in a decoder beside an encoder twice",
    "gate": "hidden x experts in each layer that has them",
    "embedding": "words, positions, the projection of patches, and an output layer of its own where it is not tied",
    "norm": "scales of the norms, and shifts of layer norms",
    "adapter": "adapters of low rank: rank x (rows + columns) of each matrix that has one",
    "total": "sum",
}
"""What the parts of a model's parameters hold."""


def model_rows(model: Model) -> list[tuple[str, str, str]]:
    """(key, value, source) of a model's shape and its recommended plan, and the parameters that follow."""
    shape = [key for key in type(model).model_fields if key in model.model_fields_set - NO_SHAPE]
    rows = [(key, _shown(getattr(model, key)), _source(model, key)) for key in shape]
    parts = {part: text for part, text in PARTS.items() if part != "adapter" or model.lora}
    rows += [(f"parameters.{part}", f"{getattr(model.parameters, part):,}", text) for part, text in parts.items()]
    return rows + [(f"plan.{key}", shown(value), _source(model, f"plan.{key}")) for key, value in model.plan.items()]


def _shown(value: Any) -> str:
    """A value of a model file as text."""
    if isinstance(value, bool | str):
        return shown(value)
    if isinstance(value, Record):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value if part is not None)
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_shown(part)}" for name, part in value.items())
    if isinstance(value, tuple):
        return ", ".join(_shown(part) for part in value)
    return f"{value:,.0f}"


def _source(model: Model, key: str) -> str:
    """The source of a key; "same" means that of the key before."""
    last = ""
    for name, text in model.sources.items():
        last = last if text == "same" else text.replace("same:", f"{last}:")
        if name == key:
            return last
    return model.sources.get(key.split(".")[0], "")


def machine_section(machine: Machine) -> Section:
    """A machine, every number with its source."""
    numbers = [(key, value, source or "no source given") for key, value, source in machine.numbers()]
    return Section(f"Machine: {machine.name}", machine.description, ("key", "value", "source"), numbers, 3)


def plan_section(plan: Mapping[str, Any]) -> Section:
    """The choices of a plan, those that are left open put aside."""
    about = "The user's choices; what is not named comes from the model's recommended plan."
    return Section("Plan", about, ("option", "value"), [(k, shown(v)) for k, v in plan.items() if v is not None], 2)


def inputs(machine: Machine, model: Model, plan: dict[str, Any]) -> list[Section]:
    """Machine, model and plan, every number with its source."""
    return [
        machine_section(machine),
        Section(f"Model: {model.name}", model.description, ("key", "value", "source"), model_rows(model), 3),
        plan_section(plan),
    ]
