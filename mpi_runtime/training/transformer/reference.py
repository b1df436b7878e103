"""The serial model: what one process computes of a whole step, which every strategy is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....workloads.model.precision import POLICIES
from ....workloads.optimizers import Adam, Optimizer, TensorShare, UpdateRule
from ..optimizer_rounds import mean_of, update_alone
from . import functions as f
from .experts.gate_training import GateTraining
from .experts.serial import UNTRAINED, AsWanted, KeptMixture, TokenRouter, mixture, mixture_back
from .weights.shards import EMBEDDING, OUTPUT_NORM, Sizes, Weight, initial
from .weights.tensors import WeightTensor, part_of, tensors_of

Array = NDArray[Any]
Index = NDArray[np.int64]
Weights = dict[Weight, Array]


@dataclass
class KeptNorm:
    """What the backward pass needs of a norm, all of it as rows of tokens; ``rows`` are its results."""

    normal: Array
    inverse: Array
    rows: Array


@dataclass
class KeptLayer:
    """What it needs of a layer; queries, keys and values are ``[sequences, tokens, heads, width]``."""

    attention_norm: KeptNorm
    queries: Array
    keys: Array
    values: Array
    attention: Array
    context: Array
    ffn_norm: KeptNorm
    inner: Array
    active: Array
    mixture: KeptMixture | None = None


@dataclass
class KeptOutput:
    """What it needs of the output layer."""

    norm: KeptNorm
    logits: Array
    parts: Array


class Reference:
    """A whole model, its gradients and the optimizer's state; numbers are of the format ``kind``.

    :meth:`step` trains it on a batch: words ``[sequences, seq_len]``, and the words that should follow each of them. Tokens go to
    the experts that ``router`` gives, by default those that they want; ``gates`` says what trains gates beside the loss.
    ``loads`` are the tokens that wanted each expert of a layer in the last step, ``largest`` the largest of its gate's scores.
    """

    def __init__(
        self,
        sizes: Sizes,
        seed: int,
        kind: type[np.floating[Any]] = np.float64,
        optimizer: Optimizer | None = None,
        router: TokenRouter | None = None,
        gates: GateTraining = UNTRAINED,
    ) -> None:
        self.sizes = sizes
        self.gates, self.loads = gates, dict[int, Index]()
        self.largest: dict[int, float] = {}
        self.weights: Weights = {weight: initial(weight, sizes, seed).astype(kind) for weight in sizes.weights()}
        self.gradients: Weights = {}
        self.optimizer, self.router = optimizer or Adam(), router or AsWanted()
        self._formats = POLICIES["fp64" if kind is np.float64 else "O0"]
        self._states = {
            (weight, each): self._rule(weight, each).state(
                each.tensor.size, each.tensor, self._formats[part_of(weight)]
            )
            for weight in self.weights
            for each in tensors_of(weight, sizes)
        }
        self._steps = 0

    def step(self, words: Index, targets: Index) -> float:
        """Forward, backward and the optimizer; returns the mean loss of all tokens before the update."""
        loss = self.differentiate(words, targets)
        self.gates.adjust(self.loads)
        self._steps += 1
        for weight, values in self.weights.items():
            for each in tensors_of(weight, self.sizes):
                state, index = self._states[weight, each], np.arange(each.tensor.size)
                gradient = mean_of(each.of(self.gradients[weight]), 1)
                share = TensorShare(each.tensor, index, each.of(values), None, gradient, state, self._steps)
                update_alone(self.optimizer, part_of(weight), share)
        return loss

    def _rule(self, weight: Weight, of: WeightTensor) -> UpdateRule:
        return self.optimizer.rule(part_of(weight), of.tensor)

    def loss(self, words: Index, targets: Index) -> float:
        """The mean loss of all tokens."""
        return float(f.losses(self._forward(words, targets)[1].parts).mean())

    def differentiate(self, words: Index, targets: Index) -> float:
        """The mean loss of all tokens; afterwards :attr:`gradients` are its gradients."""
        layers, output = self._forward(words, targets)
        self.gradients = {weight: np.zeros_like(each) for weight, each in self.weights.items()}
        self._backward(words, targets, layers, output)
        return float(f.losses(output.parts).mean())

    def _forward(self, words: Index, targets: Index) -> tuple[list[KeptLayer], KeptOutput]:
        """What the backward pass needs of each layer and of the output layer."""
        weights, sizes = self.weights, self.sizes
        rows, kept = f.lookup(weights[EMBEDDING], words.reshape(-1)), []
        at = np.arange(words.shape[1])
        for layer in range(sizes.layers):
            attention_gain, qkv, out, ffn_gain, *matrices = sizes.of_layer(layer)
            attention_norm = self._norm(rows, attention_gain)
            columns = (attention_norm.rows @ weights[qkv]).reshape(*words.shape, sizes.kv_heads, -1, sizes.head)
            queries, keys, values = f.heads_of(columns)
            attention = f.softmax(f.scores(queries, keys), at, at)
            context = f.context(attention, values).reshape(len(rows), -1)
            rows = rows + context @ weights[out]
            ffn_norm = self._norm(rows, ffn_gain)
            inner = active = rows[:0]
            experts = None
            if sizes.has_experts(layer):
                experts = mixture(ffn_norm.rows, layer, weights, sizes, self.router, self.gates)
                self.largest[layer] = float(np.abs(experts.scores).max())
                self.loads[layer] = np.bincount(experts.wanted.reshape(-1), minlength=sizes.experts)
                rows = rows + experts.answer
            else:
                up, down = matrices
                inner = ffn_norm.rows @ weights[up]
                active = f.activate(inner, sizes.gated)
                rows = rows + active @ weights[down]
            kept.append(
                KeptLayer(attention_norm, queries, keys, values, attention, context, ffn_norm, inner, active, experts)
            )
        norm = self._norm(rows, OUTPUT_NORM)
        logits = norm.rows @ weights[sizes.table].T
        return kept, KeptOutput(norm, logits, f.loss_parts(logits, targets.reshape(-1)))

    def _backward(self, words: Index, targets: Index, layers: list[KeptLayer], output: KeptOutput) -> None:
        weights, gradients = self.weights, self.gradients
        back = f.loss_grad(output.logits, output.parts, targets.reshape(-1), words.size)
        gradients[self.sizes.table] += back.T @ output.norm.rows
        gradient = self._norm_back(back @ weights[self.sizes.table], OUTPUT_NORM, output.norm)
        for layer in reversed(range(self.sizes.layers)):
            attention_gain, qkv, out, ffn_gain, *matrices = self.sizes.of_layer(layer)
            k = layers[layer]
            if k.mixture is not None:
                back = mixture_back(
                    gradient, k.ffn_norm.rows, layer, k.mixture, weights, gradients, self.sizes, self.gates
                )
            else:
                up, down = matrices
                gradients[down] += k.active.T @ gradient
                inner = f.activate_grad(k.inner, gradient @ weights[down].T, self.sizes.gated)
                gradients[up] += k.ffn_norm.rows.T @ inner
                back = inner @ weights[up].T
            gradient = gradient + self._norm_back(back, ffn_gain, k.ffn_norm)
            gradients[out] += k.context.T @ gradient
            back = self._attention_back((gradient @ weights[out].T).reshape(k.queries.shape), k)
            gradients[qkv] += k.attention_norm.rows.T @ back
            gradient = gradient + self._norm_back(back @ weights[qkv].T, attention_gain, k.attention_norm)
        f.lookup_grad(gradients[EMBEDDING], words.reshape(-1), gradient)

    def _norm(self, rows: Array, gain: Weight) -> KeptNorm:
        normal, inverse = f.norm(rows, f.norm_sums(rows), self.sizes.hidden, self.sizes.rms)
        return KeptNorm(normal, inverse, f.scaled(normal, self.weights[gain]))

    def _norm_back(self, gradient: Array, gain: Weight, kept: KeptNorm) -> Array:
        parameters = self.weights[gain]
        self.gradients[gain] += f.norm_wgrad(gradient, kept.normal, parameters)
        sums = f.norm_grad_sums(gradient, kept.normal, parameters)
        return f.norm_dgrad(gradient, kept.normal, kept.inverse, parameters, sums, self.sizes.hidden)

    def _attention_back(self, gradient: Array, k: KeptLayer) -> Array:
        """Gradient of queries, keys and values as rows, from that of the context."""
        back = f.softmax_grad(k.attention, f.dattention(gradient, k.values))
        heads = self.sizes.kv_heads
        parts = f.dqueries(back, k.keys), f.dkeys(back, k.queries, heads), f.dvalues(k.attention, gradient, heads)
        return f.columns_of(*parts)
