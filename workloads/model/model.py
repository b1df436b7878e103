"""A Transformer: its shape, its layers, its parameters part by part, and the plan that its authors ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ...hardware.errors import InputError, nearest, suggestion
from ...hardware.records import Record, build, catalogue_names, find, parsed_toml, put, read_toml, rebuilt
from ...hardware.shown import Shown
from .backbones import BACKBONES, Convolution, convolutions
from .layers import ATTENTION, ATTENTIONS, CHUNK, WINDOW, Layer, Sight, expanded, one_each
from .precision import PARTS, Part
from .recurrent import AnyRecurrent, Recurrent

CATALOGUE = Path(__file__).parent / "catalogue"


class Parameters(Record):
    """Parameters of the whole model, part by part; ``ffn`` holds dense FFNs and shared experts, ``adapter`` those of LoRA."""

    expert: int
    ffn: int
    attention: int
    gate: int
    embedding: int
    norm: int
    adapter: int = 0

    @property
    def dense(self) -> int:
        """Parameters of all but the routed experts."""
        return self.total - self.expert

    @property
    def total(self) -> int:
        """All parameters."""
        return self.expert + self.ffn + self.attention + self.gate + self.embedding + self.norm + self.adapter

    def __add__(self, other: Parameters) -> Parameters:
        """Part by part."""
        return Parameters(**{part: getattr(self, part) + getattr(other, part) for part in type(self).model_fields})


class Latent(Record):
    """Multi-head latent attention: queries, and keys with values, pass through narrow layers (DeepSeek-V2, 2024, section 2.1).

    Without a ``query_rank`` queries come from the stream itself (DeepSeek-V2-Lite). A head's query and key have ``plain``
    elements and ``rotary`` ones, of which keys share theirs; its value has ``value``.
    """

    query_rank: int | None = Field(default=None, gt=0)
    key_value_rank: int = Field(gt=0)
    plain: int = Field(gt=0)
    rotary: int = Field(gt=0)
    value: int = Field(gt=0)

    @property
    def narrow(self) -> tuple[int, ...]:
        """Widths of the narrow layers that have norms: of queries, where these have one, and of keys with values."""
        return (self.key_value_rank,) if self.query_rank is None else (self.query_rank, self.key_value_rank)


Target = Literal["qkv", "out", "up", "down"]
"""Matrices that may have adapters: of attention, and of dense FFNs."""


class Lora(Record):
    """Adapters of so low a ``rank`` beside frozen matrices, the ``targets`` (Hu et al. 2021, section 4)."""

    rank: int = Field(gt=0)
    targets: tuple[Target, ...] = ("qkv", "out")


Biased = Literal["qkv", "out", "ffn", "expert", "gate", "output"]
"""Matrices that may have biases."""


def _named(biases: Any) -> Any:
    """``true`` is all matrices of attention and FFNs, ``false`` none."""
    return (("qkv", "out", "ffn", "expert") if biases else ()) if isinstance(biases, bool) else biases


class Model(Record, Shown):
    """A Transformer: decoder-only, or with ``encoder_layers`` an encoder-decoder; dense, or with ``experts`` a mixture of them.

    ``experts`` counts those of one layer; every ``moe_every``-th layer after the first ``dense_first`` has them, the others a
    dense FFN. An FFN or expert is two matrices, ``hidden`` × ``ffn_hidden`` (``expert_hidden``) and back, three where it is
    ``gated``. ``shared_experts`` see every token. With fewer ``kv_heads`` than heads, heads share keys and values (grouped-query
    attention). Attention is ``causal`` but in an encoder; BERT reads both ways. ``tied``: the output layer shares the embedding's
    weights. ``positions`` are learned position embeddings. Of a sequence of ``seq_len``, ``patches`` are those of an image,
    projected from ``patch_values`` numbers each, and the rest text; a decoder beside an encoder has ``decoder_seq_len``. These
    numbers are read, or made in every step by a ``backbone`` of ``patch_pixels`` x ``patch_pixels`` pixels, which is not trained
    and not counted among the model's parameters.
    ``published_parameters`` is what the authors say that the model has, ``published_active`` how many of them a token passes.

    ``mixers`` are what mixes tokens in layer after layer of the decoder, and again from the start: ``attention`` to all tokens,
    to the last ``window``, within a ``chunk``, or a part that is named under ``recurrent``. Beside experts there may be a dense
    FFN of width ``dense_beside`` with a norm of its own (Arctic). An ``ffn_hidden`` of 0 leaves out the second half of dense
    layers (Mamba). ``further_tokens`` are predicted by as many layers behind the stack, each with a projection (DeepSeek-V3).
    Of ``frozen`` parts no gradients are made: by default of none, or beside adapters (``lora``) of all others.
    """

    name: str
    description: str = ""
    layers: int = Field(gt=0)
    encoder_layers: int = Field(default=0, ge=0)
    heads: int = Field(default=1, gt=0)
    kv_heads: int | None = Field(default=None, gt=0)
    head_size: int | None = Field(default=None, gt=0)
    latent: Latent | None = None
    query_key_norm: Literal["none", "head", "all"] = "none"
    gated_attention: bool = False
    mixers: tuple[str, ...] = (ATTENTION,)
    window: int | None = Field(default=None, gt=0)
    chunk: int | None = Field(default=None, gt=0)
    recurrent: dict[str, AnyRecurrent] = {}
    hidden: int = Field(gt=0)
    ffn_hidden: int = Field(ge=0)
    gated: bool = False
    biases: Annotated[tuple[Biased, ...], BeforeValidator(_named)] = ()
    norm: Literal["layer", "layer-scale", "rms"] = "layer"
    dropout: bool = False
    causal: bool = True
    experts: int = Field(default=0, ge=0)
    expert_hidden: int | None = Field(default=None, gt=0)
    top_k: int = Field(default=1, gt=0)
    moe_every: int = Field(default=1, gt=0)
    dense_first: int = Field(default=0, ge=0)
    shared_experts: int = Field(default=0, ge=0)
    dense_beside: int = Field(default=0, ge=0)
    further_tokens: int = Field(default=0, ge=0)
    frozen: tuple[Part, ...] | None = None
    lora: Lora | None = None
    vocabulary: int = Field(gt=0)
    tied: bool = True
    positions: int = Field(default=0, ge=0)
    seq_len: int = Field(gt=0)
    decoder_seq_len: int | None = Field(default=None, gt=0)
    patches: int = Field(default=0, ge=0)
    patch_values: int = Field(default=0, ge=0)
    backbone: Literal["none", "resnet50", "resnet101", "resnet152"] = "none"
    patch_pixels: int = Field(default=0, ge=0)
    published_parameters: float | None = Field(default=None, gt=0)
    published_active: float | None = Field(default=None, gt=0)
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
        if self.backbone != "none":
            if not self.patches or not self.patch_pixels:
                raise ValueError("a backbone needs patches and patch_pixels, the edge of one in pixels")
            if self.patch_values != (made := BACKBONES[self.backbone].values):
                raise ValueError(f"patch_values = {self.patch_values}: {self.backbone} makes {made} numbers of a patch")
        if self.decoder_seq_len and not self.encoder_layers:
            raise ValueError("decoder_seq_len is for models with encoder_layers")
        self._consistent_mixers()
        if self.dense_beside and not self.experts:
            raise ValueError("dense_beside is for models with experts")
        if self.further_tokens and self.encoder_layers:
            raise ValueError("further_tokens is for decoders without an encoder")
        if self.lora and (self.latent or self.encoder_layers or self.recurrent):
            raise ValueError("lora is for decoders whose attention has queries, keys and values in one matrix")
        if self.lora and self.experts and {"up", "down"} & {*self.lora.targets}:
            raise ValueError("lora.targets up and down are of dense FFNs, and the model has experts")
        if not self.trained:
            raise ValueError("frozen: nothing is left to train")
        return self

    def _consistent_mixers(self) -> None:
        """Every mixer is one that there is, and nothing is described that no layer has."""
        known = (*ATTENTIONS, *self.recurrent)
        for each in self.pattern:
            if each not in known:
                raise ValueError(f'mixers: "{each}" is no mixer{suggestion(each, known)}')
        if not self.pattern or len(self.pattern) > self.layers:
            raise ValueError(f"mixers has {len(self.pattern)} layers, must be 1 to the {self.layers} of the model")
        given = [name for name, tokens in ((WINDOW, self.window), (CHUNK, self.chunk)) if tokens is not None]
        if lacking := [each for each in (WINDOW, CHUNK) if each in self.pattern and each not in given]:
            raise ValueError(f"mixers has layers with a {lacking[0]}; they need {lacking[0]} = tokens")
        if unused := [each for each in (*given, *self.recurrent) if each not in self.pattern]:
            raise ValueError(f"mixers: no layer has the {unused[0]} that is given")
        if taken := [name for name in self.recurrent if name in ATTENTIONS]:
            raise ValueError(f"recurrent.{taken[0]}: the name is that of a kind of attention; choose another")
        if not self.causal and {WINDOW, CHUNK} & {*self.pattern}:
            raise ValueError("window and chunk are for models that are causal")
        if self.query_key_norm != "none" and self.latent:
            raise ValueError("query_key_norm: latent attention has norms of its own")
        if self.gated_attention and (self.latent or self.encoder_layers):
            raise ValueError("gated_attention is for decoders without latent attention")
        if self.attends and "heads" not in self.model_fields_set:
            raise ValueError("heads is missing; needs a whole number above 0")

    @property
    def parts(self) -> frozenset[Part]:
        """Parts whose weights a model has, or could have: adapters with ``lora`` alone."""
        return frozenset(part for part in PARTS if part != "adapter" or self.lora)

    @cached_property
    def trained(self) -> frozenset[Part]:
        """Parts whose weights have gradients and are updated."""
        frozen = self.frozen if self.frozen is not None else (self.parts - {"adapter"} if self.lora else ())
        return self.parts - {*frozen}

    def trains(self, part: Part) -> bool:
        """Whether the weights of a part have gradients."""
        return part in self.trained

    def adapted(self, layer: Layer) -> dict[Target, tuple[int, int]]:
        """(rows, columns) of the matrices of a layer that have adapters."""
        h, ups = self.hidden, (self.matrices - 1) * self.ffn_hidden
        wide = (self.heads + 2 * self.key_value_heads) * self.query_size + self._gates
        shapes: dict[Target, tuple[int, int]] = {"qkv": (h, wide), "out": (self.heads * self.value_size, h)}
        if not layer.moe:
            shapes |= {"up": (h, ups), "down": (self.ffn_hidden, h)}
        return {target: shapes[target] for target in self.lora.targets if target in shapes} if self.lora else {}

    @property
    def _gates(self) -> int:
        """Columns of the gates on attention."""
        return self.heads * self.value_size * self.gated_attention

    @cached_property
    def pattern(self) -> tuple[str, ...]:
        """Mixers of the decoder's first layers, until they come again."""
        return expanded(self.mixers)

    @property
    def attends(self) -> bool:
        """Whether queries meet keys in any layer."""
        return self.encoder_layers > 0 or bool({*ATTENTIONS} & {*self.pattern})

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
    def width_beside(self) -> int:
        """Inner elements, beside the routed experts, that every token passes: of shared experts and of a dense FFN."""
        return self.shared_experts * self.expert_width + self.dense_beside

    @property
    def expert_size(self) -> int:
        """Parameters of one expert in one layer."""
        return self._feed_forward(self.expert_width, "expert")

    @cached_property
    def stack(self) -> tuple[Layer, ...]:
        """All layers: the encoder's first, and those that predict further tokens last, which are like the layer before them."""
        encoder = [Layer(encoder=True, moe=self._is_moe(at)) for at in range(self.encoder_layers)]
        cross, mixers = self.encoder_layers > 0, self.pattern
        layers = [Layer(cross=cross, moe=self._is_moe(at), mixer=mixers[at % len(mixers)]) for at in range(self.layers)]
        return one_each((*encoder, *layers, *(replace(layers[-1], ahead=True) for _ in range(self.further_tokens))))

    @cached_property
    def kinds(self) -> tuple[Layer, ...]:
        """The kinds of its layers, each once, in the order in which they come."""
        return tuple(dict.fromkeys(self.stack))

    def is_causal(self, layer: Layer) -> bool:
        """Whether tokens of a layer see none that come after them: a decoder's, unless the model reads both ways."""
        return self.causal and not layer.encoder

    def sight(self, layer: Layer) -> Sight:
        """Which keys the queries of a layer meet."""
        return Sight(
            self.is_causal(layer),
            self.window if layer.mixer == WINDOW else None,
            self.chunk if layer.mixer == CHUNK else None,
        )

    def recurrent_of(self, layer: Layer) -> Recurrent | None:
        """What mixes the tokens of a layer whose queries meet no keys."""
        return self.recurrent.get(layer.mixer)

    @property
    def depth(self) -> int:
        """Layers that stages of a pipeline share, the encoder's included; those for further tokens are behind the last."""
        return self.encoder_layers + self.layers

    @property
    def at_both_ends(self) -> bool:
        """Whether the last layers need the embedding's words as well as the first: for scores, or for further tokens."""
        return self.tied or self.further_tokens > 0

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return sum(layer.moe for layer in self.stack)

    def of_layer(self, layer: Layer) -> Parameters:
        """Parameters of one layer."""
        h, recurrent = self.hidden, self.recurrent_of(layer)
        widths = [h] * self.halves(layer) + ([h] * 3 if layer.ahead else []) + self.inner_norms(layer)
        attention = recurrent.parameters(h) if recurrent else self._attention * (2 if layer.cross else 1)
        ffn = self.shared_experts * self.expert_size + self._feed_forward(self.dense_beside, "ffn")
        return Parameters(
            expert=self.experts * self.expert_size if layer.moe else 0,
            ffn=(ffn if layer.moe else self._feed_forward(self.ffn_hidden, "ffn")) + 2 * h * h * layer.ahead,
            attention=attention,
            gate=(h + ("gate" in self.biases)) * self.experts if layer.moe else 0,
            embedding=0,
            norm=sum(self._norm(width) for width in widths),
            adapter=sum(self.lora.rank * sum(shape) for shape in self.adapted(layer).values()) if self.lora else 0,
        )

    def halves(self, layer: Layer) -> int:
        """Parts that begin with a norm of the stream: attention, that to an encoder, FFN or experts, an FFN beside these."""
        second = 1 + (self.dense_beside > 0) if layer.moe else int(self.ffn_hidden > 0)
        return 1 + layer.cross + second

    def inner_norms(self, layer: Layer) -> list[int]:
        """Elements of the norms within what mixes tokens: of narrow layers, of queries and keys, of a recurrent part."""
        if recurrent := self.recurrent_of(layer):
            return recurrent.norms(self.hidden)
        if self.latent:
            return list(self.latent.narrow)
        each = self.query_size
        by_head = {"none": [], "head": [each, each], "all": [self.heads * each, self.key_value_heads * each]}
        return by_head[self.query_key_norm] * (2 if layer.cross else 1)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """What the backbone does with one patch; nothing where features are read."""
        return () if self.backbone == "none" else convolutions(self.backbone, self.patch_pixels)

    @property
    def of_input(self) -> Parameters:
        """Parameters of the embedding: words, learned positions, the projection of patches."""
        rows = self.vocabulary + self.positions + self.patch_values * (self.patches > 0)
        return Parameters(expert=0, ffn=0, attention=0, gate=0, embedding=rows * self.hidden, norm=0)

    @property
    def of_output(self) -> Parameters:
        """Parameters of the final norms, and of an output layer of its own."""
        own = (0 if self.tied else self.vocabulary * self.hidden) + self.vocabulary * ("output" in self.biases)
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

    @property
    def active(self) -> int:
        """Parameters that a token passes: of the routed experts those that it goes to."""
        counts = self.parameters
        return counts.dense + (counts.expert * self.top_k // self.experts if self.experts else 0)

    def with_experts(self, experts: int) -> Model:
        """The same model with another number of experts a layer, as weak scaling needs it."""
        return type(self).model_validate({**self.model_dump(), "experts": experts})  # a copy would keep cached counts

    def changed(self, settings: Mapping[str, Any]) -> Model:
        """The same model with other values at dotted keys, such as ``{"hidden": 4096}``.

        Raises :class:`InputError` for a key that no model has, or a value that this one cannot have.
        """
        table = self.model_dump(mode="json")
        for key, value in settings.items():
            if not put(table, key, value):
                raise InputError(f"model.{key}: {self.name} has no such key{nearest(key, type(self).model_fields)}")
        return rebuilt(type(self), table, settings, "model.") if settings else self

    def _is_moe(self, at: int) -> bool:
        return self.experts > 0 and at >= self.dense_first and (at - self.dense_first + 1) % self.moe_every == 0

    def _feed_forward(self, width: int, part: Biased) -> int:
        if not width:
            return 0
        biases = (self.matrices - 1) * width + self.hidden if part in self.biases else 0
        return self.matrices * self.hidden * width + biases

    @property
    def _attention(self) -> int:
        """Query, key, value and output matrices."""
        h, heads = self.hidden, self.heads
        out = heads * self.value_size * h
        if at := self.latent:
            whole = heads * self.query_size
            query = h * whole if at.query_rank is None else at.query_rank * (h + whole)
            return query + h * (at.key_value_rank + at.rotary) + at.key_value_rank * heads * (at.plain + at.value) + out
        wide = heads * self.query_size + 2 * self.key_value_heads * self.query_size
        wide += self._gates
        return h * wide + out + ("qkv" in self.biases) * wide + ("out" in self.biases) * h

    def _norm(self, width: int) -> int:
        """Parameters of a norm: scale and, for a layer norm, shift."""
        return (2 if self.norm == "layer" else 1) * width


def load_model(model: str | Path | Model) -> Model:
    """A model from a catalogue name, a TOML file, or as it is; raises ``InputError`` that says what is wrong."""
    if isinstance(model, Model):
        return model
    return build(Model, read_toml(find("model", CATALOGUE, str(model))), str(model))


def read_model(text: str, source: str) -> Model:
    """The model that ``model_toml`` wrote; raises ``InputError`` that names the ``source`` for anything else."""
    return build(Model, parsed_toml(text, source), source)


def list_models() -> list[Model]:
    """All models of the catalogue."""
    return [load_model(name) for name in catalogue_names(CATALOGUE)]
