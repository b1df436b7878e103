"""The serial model: what one process computes of a whole step, which every strategy is held to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....workloads.model.precision import POLICIES
from ....workloads.optimizers import Adam, Optimizer, TensorShare, UpdateRule
from ..optimizer_rounds import mean_of, update_alone
from . import functions as f
from .shards import Sizes, initial
from .tensors import WeightTensor, part_of, tensors_of

Array = NDArray[Any]
Index = NDArray[np.int64]
Weights = dict[str, Array]


class Reference:
    """A whole model, its gradients and the optimizer's state; numbers are of the format ``kind``.

    :meth:`step` trains it on a batch: words ``[sequences, seq_len]``, and the words that should follow each of them.
    """

    def __init__(
        self,
        sizes: Sizes,
        seed: int,
        kind: type[np.floating[Any]] = np.float64,
        optimizer: Optimizer | None = None,
    ) -> None:
        self.sizes = sizes
        self.weights: Weights = {name: initial(name, sizes, seed).astype(kind) for name in sizes.names()}
        self.gradients: Weights = {}
        self.optimizer = optimizer or Adam()
        self._formats = POLICIES["fp64" if kind is np.float64 else "O0"]
        self._states = {
            (name, weight): self._rule(name, weight).state(
                weight.tensor.size, weight.tensor, self._formats[part_of(name)]
            )
            for name in self.weights
            for weight in tensors_of(name, sizes)
        }
        self._steps = 0

    def step(self, words: Index, targets: Index) -> float:
        """Forward, backward and the optimizer; returns the mean loss of all tokens before the update."""
        loss = self.differentiate(words, targets)
        self._steps += 1
        for name, weights in self.weights.items():
            for weight in tensors_of(name, self.sizes):
                state, index = self._states[name, weight], np.arange(weight.tensor.size)
                gradient = mean_of(weight.of(self.gradients[name]), 1)
                share = TensorShare(weight.tensor, index, weight.of(weights), None, gradient, state, self._steps)
                update_alone(self.optimizer, part_of(name), share)
        return loss

    def _rule(self, name: str, weight: WeightTensor) -> UpdateRule:
        return self.optimizer.rule(part_of(name), weight.tensor)

    def loss(self, words: Index, targets: Index) -> float:
        """The mean loss of all tokens."""
        return float(f.losses(self._forward(words, targets)[-1]["parts"]).mean())

    def differentiate(self, words: Index, targets: Index) -> float:
        """The mean loss of all tokens; afterwards :attr:`gradients` are its gradients."""
        kept = self._forward(words, targets)
        self.gradients = {name: np.zeros_like(each) for name, each in self.weights.items()}
        loss = float(f.losses(kept[-1]["parts"]).mean())
        self._backward(words, targets, kept)
        return loss

    def _forward(self, words: Index, targets: Index) -> list[dict[str, Array]]:
        """What the backward pass needs: of each layer, then of the output layer."""
        weights, sizes = self.weights, self.sizes
        rows, kept = f.lookup(weights["embedding"], words.reshape(-1)), []
        at = np.arange(words.shape[1])
        for layer in range(sizes.layers):
            of, k = f"l{layer}.", self._norm(rows, f"l{layer}.attention.norm", "attention.")
            qkv = k["attention.rows"] @ weights[of + "attention.qkv"]
            k["q"], k["k"], k["v"] = f.heads_of(qkv.reshape(*words.shape, sizes.kv_heads, -1, sizes.head))
            k["attention"] = f.softmax(f.scores(k["q"], k["k"]), at, at)
            k["context"] = f.context(k["attention"], k["v"]).reshape(len(rows), -1)
            rows = rows + k["context"] @ weights[of + "attention.out"]
            k |= self._norm(rows, of + "ffn.norm", "ffn.")
            k["inner"] = k["ffn.rows"] @ weights[of + "ffn.up"]
            k["active"] = f.activate(k["inner"], sizes.gated)
            rows = rows + k["active"] @ weights[of + "ffn.down"]
            kept.append(k)
        last = self._norm(rows, "output.norm", "output.")
        last["logits"] = last["output.rows"] @ weights[sizes.table].T
        last["parts"] = f.loss_parts(last["logits"], targets.reshape(-1))
        return [*kept, last]

    def _backward(self, words: Index, targets: Index, kept: list[dict[str, Array]]) -> None:
        weights, gradients, k = self.weights, self.gradients, kept.pop()
        back = f.loss_grad(k["logits"], k["parts"], targets.reshape(-1), words.size)
        gradients[self.sizes.table] += back.T @ k["output.rows"]
        gradient = self._norm_back(back @ weights[self.sizes.table], "output.norm", "output.", k)
        for layer in reversed(range(self.sizes.layers)):
            of, k = f"l{layer}.", kept[layer]
            gradients[of + "ffn.down"] += k["active"].T @ gradient
            back = f.activate_grad(k["inner"], gradient @ weights[of + "ffn.down"].T, self.sizes.gated)
            gradients[of + "ffn.up"] += k["ffn.rows"].T @ back
            gradient = gradient + self._norm_back(back @ weights[of + "ffn.up"].T, of + "ffn.norm", "ffn.", k)
            gradients[of + "attention.out"] += k["context"].T @ gradient
            back = self._attention_back((gradient @ weights[of + "attention.out"].T).reshape(k["q"].shape), k)
            gradients[of + "attention.qkv"] += k["attention.rows"].T @ back
            back = back @ weights[of + "attention.qkv"].T
            gradient = gradient + self._norm_back(back, of + "attention.norm", "attention.", k)
        f.lookup_grad(gradients["embedding"], words.reshape(-1), gradient)

    def _norm(self, rows: Array, name: str, at: str) -> dict[str, Array]:
        normal, inverse = f.norm(rows, f.norm_sums(rows), self.sizes.hidden, self.sizes.rms)
        return {at + "normal": normal, at + "inverse": inverse, at + "rows": f.scaled(normal, self.weights[name])}

    def _norm_back(self, gradient: Array, name: str, at: str, k: dict[str, Array]) -> Array:
        normal, parameters = k[at + "normal"], self.weights[name]
        self.gradients[name] += f.norm_wgrad(gradient, normal, parameters)
        sums = f.norm_grad_sums(gradient, normal, parameters)
        return f.norm_dgrad(gradient, normal, k[at + "inverse"], parameters, sums, self.sizes.hidden)

    def _attention_back(self, gradient: Array, k: dict[str, Array]) -> Array:
        """Gradient of queries, keys and values as rows, from that of the context."""
        back = f.softmax_grad(k["attention"], f.dattention(gradient, k["v"]))
        heads = self.sizes.kv_heads
        parts = f.dqueries(back, k["k"]), f.dkeys(back, k["q"], heads), f.dvalues(k["attention"], gradient, heads)
        return f.columns_of(*parts)
