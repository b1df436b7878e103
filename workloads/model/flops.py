"""FLOPs that a model asks for, however it is trained: products with weights, attention, and scores over the vocabulary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .layers import Layer, Sight
from .model import Model
from .tensors import tensors_of_attention

BACKWARD = 2
"""Backward passes cost two products for each of the forward pass."""


@dataclass(frozen=True)
class ForwardFlops:
    """FLOPs of a forward pass: through all ``layers``, and of the ``output`` layer."""

    layers: float
    output: float

    @property
    def trained(self) -> float:
        """FLOPs of a training step: forward and backward once, nothing worked out again."""
        return (1 + BACKWARD) * (self.layers + self.output)


def causal_share(queries: float, keys: float) -> float:
    """The part of all pairs that a causal mask leaves (:meth:`~.layers.Sight.share`)."""
    return Sight().share(queries, keys)


def forward_flops(
    model: Model, tokens: float, seq_len: int, top_k: int | None = None, masked: bool = True, carried: float = 1.0
) -> ForwardFlops:
    """FLOPs of a forward pass of ``tokens`` in sequences of ``seq_len`` (those of an encoder, where the model has one).

    ``top_k`` experts see each token (None: the model's own), if they are not dropped: routed experts carry the share ``carried``.
    ``masked``: of attention only what a causal mask leaves, else all. Two FLOPs for each element of a matrix and token
    (Narayanan et al. 2021, section 5.1); biases, norms and lookups are not counted.
    """
    short = (model.decoder_seq_len or seq_len) if model.encoder_layers else seq_len
    experts = (model.top_k if top_k is None else top_k) * carried
    lengths = {True: seq_len, False: short}
    layers = sum(
        count * _layer(model, layer, tokens / seq_len, lengths, experts, masked)
        for layer, count in Counter(model.stack).items()
    )
    answers = 1 + model.further_tokens
    return ForwardFlops(layers, answers * 2.0 * tokens * short / seq_len * model.hidden * model.vocabulary)


def _layer(
    model: Model, layer: Layer, sequences: float, lengths: dict[bool, int], experts: float, masked: bool
) -> float:
    """Of one layer; a recurrent part counts as in its authors' kernels (:meth:`~.recurrent.Recurrent.flops`)."""
    length, h = lengths[layer.encoder], float(model.hidden)
    tokens, recurrent = sequences * length, model.recurrent_of(layer)
    found = (
        tokens * recurrent.flops(model.hidden) if recurrent else _self_attention(model, layer, tokens, length, masked)
    )
    if layer.cross:
        matrices, of_keys = _projections(model), h * model.key_value_heads * (model.query_size + model.value_size)
        heads, other = model.heads * (model.query_size + model.value_size), lengths[True]
        found += 2.0 * tokens * (matrices - of_keys + other * heads) + 2.0 * sequences * other * of_keys
    if layer.ahead:
        found += 4.0 * tokens * h * h
    width = 2.0 * tokens * model.matrices * h
    if not layer.moe:
        return found + width * model.ffn_hidden
    return found + width * (model.expert_width * experts + model.width_beside) + 2.0 * tokens * h * model.experts


def _self_attention(model: Model, layer: Layer, tokens: float, length: int, masked: bool) -> float:
    share = model.sight(layer).share(length, length) if masked else 1.0
    scores = length * share * model.heads * (model.query_size + model.value_size)
    return 2.0 * tokens * (_projections(model) + scores)


def _projections(model: Model) -> float:
    """Elements of the matrices of one attention, without biases."""
    return float(sum(shape.size * count for shape, count in tensors_of_attention(model).items() if shape.matrix))
