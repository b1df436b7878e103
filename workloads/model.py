"""A mixture-of-experts Transformer: its shape, its parameters part by part, and the plan that its authors ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ..hardware.records import Record, build, catalogue_names, find, read_toml

CATALOGUE = Path(__file__).parent / "catalogue"


class Parameters(Record):
    """Parameters of the whole model, part by part."""

    expert: int
    attention: int
    gate: int
    embedding: int
    norm: int

    @property
    def dense(self) -> int:
        """Parameters that every rank holds: all but the experts'."""
        return self.attention + self.gate + self.embedding + self.norm

    @property
    def total(self) -> int:
        """All parameters."""
        return self.expert + self.dense


class Model(Record):
    """A decoder-only Transformer in which every layer's FFN is a mixture of experts without biases.

    ``experts`` counts those of one layer; each is two matrices, ``hidden`` × ``ffn_hidden`` and back. The output layer
    shares the embedding's weights.
    """

    name: str
    description: str = ""
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    hidden: int = Field(gt=0)
    ffn_hidden: int = Field(gt=0)
    experts: int = Field(gt=0)
    top_k: int = Field(default=1, gt=0)
    vocabulary: int = Field(gt=0)
    seq_len: int = Field(gt=0)
    plan: dict[str, Any] = {}
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.top_k > self.experts:
            raise ValueError(f"top_k = {self.top_k} exceeds the {self.experts} experts of a layer")
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is no multiple of heads = {self.heads}")
        return self

    @property
    def expert_size(self) -> int:
        """Parameters of one expert in one layer: 2 · hidden · ffn_hidden."""
        return 2 * self.hidden * self.ffn_hidden

    @property
    def parameters(self) -> Parameters:
        """Parameters by part: attention 4h², gate h·E and two norms a layer, one final norm, the (shared) embedding."""
        h = self.hidden
        return Parameters(
            expert=self.layers * self.experts * self.expert_size,
            attention=self.layers * 4 * h * h,
            gate=self.layers * h * self.experts,
            embedding=self.vocabulary * h,
            norm=(2 * self.layers + 1) * 2 * h,
        )

    def with_experts(self, experts: int) -> Model:
        """The same model with another number of experts a layer, as weak scaling needs it."""
        return self.model_copy(update={"experts": experts})


def load_model(model: str | Path | Model) -> Model:
    """A model from a catalogue name, a TOML file, or as it is; raises ``InputError`` that says what is wrong."""
    if isinstance(model, Model):
        return model
    return build(Model, read_toml(find("model", CATALOGUE, str(model))), str(model))


def list_models() -> list[Model]:
    """All models of the catalogue."""
    return [load_model(name) for name in catalogue_names(CATALOGUE)]
