"""FLOPs that a model asks for, however it is trained: products with weights, attention, and scores over the vocabulary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from .layers import Layer, Sight
from .model import Model
from .precision import Part
from .recurrent import Projection
from .tensors import tensors_of_attention

BACKWARD = 2
"""Backward passes cost two products for each of the forward pass."""


@dataclass(frozen=True)
class ForwardFlops:
    """FLOPs of a forward pass: through all ``layers``, and of the ``output`` layer.

    Of these, so many are products with ``frozen`` weights, of which no gradients are made.
    """

    layers: float
    output: float
    frozen: float = 0.0

    @property
    def trained(self) -> float:
        """FLOPs of a training step: forward and backward once, nothing worked out again."""
        return (1 + BACKWARD) * (self.layers + self.output) - self.frozen


def causal_share(queries: float, keys: float) -> float:
    """The part of all pairs that a causal mask leaves (:meth:`~.layers.Sight.share`)."""
    return Sight().share(queries, keys)


def forward_flops(
    model: Model,
    tokens: float,
    seq_len: int,
    top_k: int | None = None,
    masked: bool = True,
    carried: float = 1.0,
    documents: tuple[int, ...] = (),
) -> ForwardFlops:
    """FLOPs of a forward pass of ``tokens`` in sequences of ``seq_len`` (those of an encoder, where the model has one).

    ``top_k`` experts see each token (None: the model's own), if they are not dropped: routed experts carry the share ``carried``.
    ``masked``: of attention only what masks leave (a causal one, and that of ``documents`` of such lengths), else all. Two FLOPs
    for each element of a matrix and token (Narayanan et al. 2021, section 5.1); biases, norms and lookups are not counted. The
    convolutions of a backbone are, once a patch.
    """
    short = (model.decoder_seq_len or seq_len) if model.encoder_layers else seq_len
    experts = (model.top_k if top_k is None else top_k) * carried
    lengths = {True: seq_len, False: short}
    layers, frozen = 0.0, 0.0
    for layer, count in Counter(model.stack).items():
        products = _products(model, layer, tokens / seq_len, lengths, experts)
        layers += count * (sum(products.values()) + _mixing(model, layer, tokens / seq_len, lengths, masked, documents))
        frozen += count * sum(flops for part, flops in products.items() if not model.trains(part))
    # of a backbone there is a forward pass alone: neither gradients of weights nor of inputs
    features = tokens * model.patches / model.seq_len * sum(each.flops for each in model.convolutions)
    layers, frozen = layers + features, frozen + BACKWARD * features
    answers = 1 + model.further_tokens
    output = answers * 2.0 * tokens * short / seq_len * model.hidden * model.vocabulary
    return ForwardFlops(layers, output, frozen + (0.0 if model.trains("embedding") else output))


def _products(
    model: Model, layer: Layer, sequences: float, lengths: dict[bool, int], experts: float
) -> dict[Part, float]:
    """Of products with weights in one layer, by part."""
    h, tokens, recurrent = float(model.hidden), sequences * lengths[layer.encoder], model.recurrent_of(layer)
    if recurrent:
        of_attention = sum(each.flops for each in recurrent.steps(model.hidden) if isinstance(each, Projection))
    else:
        of_attention = 2.0 * _projections(model)
    attention = tokens * of_attention
    if layer.cross:
        matrices, of_keys = _projections(model), h * model.key_value_heads * (model.query_size + model.value_size)
        attention += 2.0 * tokens * (matrices - of_keys) + 2.0 * sequences * lengths[True] * of_keys
    width = 2.0 * tokens * model.matrices * h
    ffn = width * (model.width_beside if layer.moe else model.ffn_hidden) + 4.0 * tokens * h * h * layer.ahead
    found: dict[Part, float] = {"attention": attention, "ffn": ffn}
    if layer.moe:
        found |= {"expert": width * model.expert_width * experts, "gate": 2.0 * tokens * h * model.experts}
    if model.lora:
        found["adapter"] = 2.0 * tokens * model.of_layer(layer).adapter
    return found


def _mixing(
    model: Model, layer: Layer, sequences: float, lengths: dict[bool, int], masked: bool, documents: tuple[int, ...]
) -> float:
    """Of what mixes tokens in one layer: scores and their products with values, or what a recurrent part does beside products.

    The latter counts as in its authors' kernels (:meth:`~.recurrent.Recurrent.flops`).
    """
    length, heads = lengths[layer.encoder], model.heads * (model.query_size + model.value_size)
    if recurrent := model.recurrent_of(layer):
        steps = (each.flops for each in recurrent.steps(model.hidden) if not isinstance(each, Projection))
        found = sequences * length * sum(steps)
    else:
        share = replace(model.sight(layer), documents=documents).share(length, length) if masked else 1.0
        found = 2.0 * sequences * length * length * share * heads
    return found + 2.0 * sequences * length * lengths[True] * heads * layer.cross


def _projections(model: Model) -> float:
    """Elements of the matrices of one attention, without biases."""
    return float(sum(shape.size * count for shape, count in tensors_of_attention(model).items() if shape.matrix))
