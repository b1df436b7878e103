"""A Transformer: its shape, its layers, its parameters part by part, and the plan that its authors ran."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ...hardware.records import Record, build, catalogue_names, find, read_toml

CATALOGUE = Path(__file__).parent / "catalogue"


class Parameters(Record):
    """Parameters of the whole model, part by part; ``ffn`` holds dense FFNs and shared experts."""

    expert: int
    ffn: int
    attention: int
    gate: int
    embedding: int
    norm: int

    @property
    def dense(self) -> int:
        """Parameters of all but the routed experts."""
        return self.total - self.expert

    @property
    def total(self) -> int:
        """All parameters."""
        return self.expert + self.ffn + self.attention + self.gate + self.embedding + self.norm

    def __add__(self, other: Parameters) -> Parameters:
        """Part by part."""
        return Parameters(**{part: getattr(self, part) + getattr(other, part) for part in type(self).model_fields})


class Latent(Record):
    """Multi-head latent attention: queries, and keys with values, pass through narrow layers (DeepSeek-V2, 2024, section 2.1).

    A head's query and key have ``plain`` elements and ``rotary`` ones, of which keys share theirs; its value has ``value``.
    """

    query_rank: int = Field(gt=0)
    key_value_rank: int = Field(gt=0)
    plain: int = Field(gt=0)
    rotary: int = Field(gt=0)
    value: int = Field(gt=0)


@dataclass(frozen=True)
class Layer:
    """One layer of the stack: whether it belongs to an encoder, attends to one (``cross``), and is a mixture of experts.

    Of one that is ``kept`` nothing is worked out again, whatever a plan recomputes in others.
    """

    encoder: bool = False
    cross: bool = False
    moe: bool = False
    kept: bool = False


class Model(Record):
    """A Transformer: decoder-only, or with ``encoder_layers`` an encoder-decoder; dense, or with ``experts`` a mixture of them.

    ``experts`` counts those of one layer; every ``moe_every``-th layer after the first ``dense_first`` has them, the others a
    dense FFN. An FFN or expert is two matrices, ``hidden`` × ``ffn_hidden`` (``expert_hidden``) and back, three where it is
    ``gated``. ``shared_experts`` see every token. With fewer ``kv_heads`` than heads, heads share keys and values (grouped-query
    attention). Attention is ``causal`` but in an encoder; BERT reads both ways. ``tied``: the output layer shares the embedding's
    weights. ``positions`` are learned position embeddings. Of a sequence of ``seq_len``, ``patches`` are those of an image,
    projected from ``patch_values`` numbers each, and the rest text; a decoder beside an encoder has ``decoder_seq_len``.
    ``published_parameters`` is what the authors say that the model has.
    """

    name: str
    description: str = ""
    layers: int = Field(gt=0)
    encoder_layers: int = Field(default=0, ge=0)
    heads: int = Field(gt=0)
    kv_heads: int | None = Field(default=None, gt=0)
    head_size: int | None = Field(default=None, gt=0)
    latent: Latent | None = None
    hidden: int = Field(gt=0)
    ffn_hidden: int = Field(gt=0)
    gated: bool = False
    biases: bool = False
    norm: Literal["layer", "rms"] = "layer"
    dropout: bool = False
    causal: bool = True
    experts: int = Field(default=0, ge=0)
    expert_hidden: int | None = Field(default=None, gt=0)
    top_k: int = Field(default=1, gt=0)
    moe_every: int = Field(default=1, gt=0)
    dense_first: int = Field(default=0, ge=0)
    shared_experts: int = Field(default=0, ge=0)
    vocabulary: int = Field(gt=0)
    tied: bool = True
    positions: int = Field(default=0, ge=0)
    seq_len: int = Field(gt=0)
    decoder_seq_len: int | None = Field(default=None, gt=0)
    patches: int = Field(default=0, ge=0)
    patch_values: int = Field(default=0, ge=0)
    published_parameters: float | None = Field(default=None, gt=0)
    plan: dict[str, Any] = {}
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if self.experts and self.top_k > self.experts:
            raise ValueError(f"top_k = {self.top_k} exceeds the {self.experts} experts of a layer")
        if self.head_size is None and self.latent is None and self.hidden % self.heads:
            raise ValueError(
                f"hidden = {self.hidden} is no multiple of heads = {self.heads}, and no head_size is given"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads = {self.heads} is no multiple of kv_heads = {self.kv_heads}")
        if self.patches > self.seq_len:
            raise ValueError(f"patches = {self.patches} exceeds seq_len = {self.seq_len}")
        if self.patches and not self.patch_values:
            raise ValueError("patches need patch_values, the numbers of one patch before its projection")
        if self.decoder_seq_len and not self.encoder_layers:
            raise ValueError("decoder_seq_len is for models with encoder_layers")
        return self

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def query_size(self) -> int:
        """Elements of a head's query, and of its key."""
        return self.latent.plain + self.latent.rotary if self.latent else self.head_size or self.hidden // self.heads

    @property
    def value_size(self) -> int:
        """Elements of a head's value."""
        return self.latent.value if self.latent else self.query_size

    @property
    def matrices(self) -> int:
        """Matrices of an FFN or expert."""
        return 3 if self.gated else 2

    @property
    def expert_width(self) -> int:
        """Inner elements of one expert."""
        return self.expert_hidden or self.ffn_hidden

    @property
    def expert_size(self) -> int:
        """Parameters of one expert in one layer."""
        return self._feed_forward(self.expert_width)

    @cached_property
    def stack(self) -> tuple[Layer, ...]:
        """All layers, the encoder's first."""
        encoder = [Layer(encoder=True, moe=self._is_moe(at)) for at in range(self.encoder_layers)]
        cross = self.encoder_layers > 0
        return (*encoder, *(Layer(cross=cross, moe=self._is_moe(at)) for at in range(self.layers)))

    @cached_property
    def kinds(self) -> tuple[Layer, ...]:
        """The kinds of its layers, each once, in the order in which they come."""
        return tuple(dict.fromkeys(self.stack))

    def is_causal(self, layer: Layer) -> bool:
        """Whether tokens of a layer see none that come after them: a decoder's, unless the model reads both ways."""
        return self.causal and not layer.encoder

    @property
    def depth(self) -> int:
        """Layers in all, the encoder's included."""
        return self.encoder_layers + self.layers

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return sum(layer.moe for layer in self.stack)

    def of_layer(self, layer: Layer) -> Parameters:
        """Parameters of one layer."""
        h, norms = self.hidden, 3 if layer.cross else 2
        return Parameters(
            expert=self.experts * self.expert_size if layer.moe else 0,
            ffn=self.shared_experts * self.expert_size if layer.moe else self._feed_forward(self.ffn_hidden),
            attention=self._attention * (2 if layer.cross else 1),
            gate=h * self.experts if layer.moe else 0,
            embedding=0,
            norm=norms * self._norm(h) + (self._latent_norms if self.latent else 0),
        )

    @property
    def of_input(self) -> Parameters:
        """Parameters of the embedding: words, learned positions, the projection of patches."""
        rows = self.vocabulary + self.positions + self.patch_values * (self.patches > 0)
        return Parameters(expert=0, ffn=0, attention=0, gate=0, embedding=rows * self.hidden, norm=0)

    @property
    def of_output(self) -> Parameters:
        """Parameters of the final norms, and of an output layer of its own."""
        own = 0 if self.tied else self.vocabulary * self.hidden
        finals = (2 if self.encoder_layers else 1) * self._norm(self.hidden)
        return Parameters(expert=0, ffn=0, attention=0, gate=0, embedding=own, norm=finals)

    @cached_property
    def parameters(self) -> Parameters:
        """Parameters by part: all layers, embedding and output."""
        kinds = Counter(self.stack)
        total = self.of_input + self.of_output
        for layer, count in kinds.items():
            each = self.of_layer(layer)
            total = total + Parameters(**{part: count * getattr(each, part) for part in Parameters.model_fields})
        return total

    def with_experts(self, experts: int) -> Model:
        """The same model with another number of experts a layer, as weak scaling needs it."""
        return type(self).model_validate({**self.model_dump(), "experts": experts})  # a copy would keep cached counts

    def _is_moe(self, at: int) -> bool:
        return self.experts > 0 and at >= self.dense_first and (at - self.dense_first + 1) % self.moe_every == 0

    def _feed_forward(self, width: int) -> int:
        return self.matrices * self.hidden * width + self.biases * ((self.matrices - 1) * width + self.hidden)

    @property
    def _attention(self) -> int:
        """Query, key, value and output matrices."""
        h, heads = self.hidden, self.heads
        out = heads * self.value_size * h
        if self.latent:
            at = self.latent
            query = at.query_rank * (h + heads * self.query_size)
            return query + h * (at.key_value_rank + at.rotary) + at.key_value_rank * heads * (at.plain + at.value) + out
        wide = heads * self.query_size + 2 * self.key_value_heads * self.query_size
        return h * wide + out + self.biases * (wide + h)

    @property
    def _latent_norms(self) -> int:
        assert self.latent is not None
        return self._norm(self.latent.query_rank) + self._norm(self.latent.key_value_rank)

    def _norm(self, width: int) -> int:
        """Parameters of a norm: scale and, for a layer norm, shift."""
        return (2 if self.norm == "layer" else 1) * width


def load_model(model: str | Path | Model) -> Model:
    """A model from a catalogue name, a TOML file, or as it is; raises ``InputError`` that says what is wrong."""
    if isinstance(model, Model):
        return model
    return build(Model, read_toml(find("model", CATALOGUE, str(model))), str(model))


def list_models() -> list[Model]:
    """All models of the catalogue."""
    return [load_model(name) for name in catalogue_names(CATALOGUE)]
