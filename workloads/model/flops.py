"""FLOPs that a model asks for, however it is trained: products with weights, attention, and scores over the vocabulary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .model import Layer, Model

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
    """The part of all pairs that a causal mask leaves where the last ``queries`` of ``keys`` tokens look back, at themselves too.

    The first of them sees ``keys - queries + 1``, the last one all: in the mean ``keys - (queries - 1) / 2``. Of a whole
    sequence that is half of the square and half of its diagonal; of one new token, all.
    """
    return 1.0 - (queries - 1.0) / (2.0 * keys)


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
    return ForwardFlops(layers, 2.0 * tokens * short / seq_len * model.hidden * model.vocabulary)


def _layer(
    model: Model, layer: Layer, sequences: float, lengths: dict[bool, int], experts: float, masked: bool
) -> float:
    length, h, counts = lengths[layer.encoder], float(model.hidden), model.of_layer(layer)
    heads = model.heads * (model.query_size + model.value_size)
    tokens, matrices = sequences * length, float(counts.attention) / (2 if layer.cross else 1)
    if model.biases and not model.latent:
        matrices -= (model.heads + 2 * model.key_value_heads) * model.query_size + h
    share = causal_share(length, length) if masked and model.is_causal(layer) else 1.0
    found = 2.0 * tokens * (matrices + length * share * heads)
    if layer.cross:
        of_keys = h * model.key_value_heads * (model.query_size + model.value_size)
        other = lengths[True]
        found += 2.0 * tokens * (matrices - of_keys + other * heads) + 2.0 * sequences * other * of_keys
    width = 2.0 * tokens * model.matrices * h
    if not layer.moe:
        return found + width * model.ffn_hidden
    return found + width * model.expert_width * (experts + model.shared_experts) + 2.0 * tokens * h * model.experts
