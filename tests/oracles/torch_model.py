"""The Transformers that are trained, written with PyTorch: another forward pass, and gradients by its automatic differentiation."""

import torch
import torch.nn.functional as torch_functions
from athanor.mpi_runtime.training.transformer.functions import EPSILON
from athanor.mpi_runtime.training.transformer.weights.shards import EMBEDDING, OUTPUT_NORM, Weight, of_expert


class TorchModel:
    """A model of the same ``sizes``, from the same weights, in double precision."""

    def __init__(self, sizes, weights):
        self.sizes = sizes
        self.weights = {
            key: torch.tensor(each, dtype=torch.float64, requires_grad=True) for key, each in weights.items()
        }

    def loss(self, words, targets):
        """The mean cross-entropy of all tokens."""
        sizes, w = self.sizes, self.weights
        rows = torch_functions.embedding(torch.as_tensor(words), w[EMBEDDING])
        for layer in range(sizes.layers):
            gain, qkv, out, inner_gain, *matrices = sizes.of_layer(layer)
            rows = rows + self._attention(self._norm(rows, w[gain]) @ w[qkv]) @ w[out]
            inner = self._norm(rows, w[inner_gain])
            rows = rows + (self._experts(layer, inner) if sizes.has_experts(layer) else self._ffn(inner, *matrices))
        logits = self._norm(rows, w[OUTPUT_NORM]) @ w[sizes.table].T
        return torch_functions.cross_entropy(logits.flatten(0, 1), torch.as_tensor(targets).flatten())

    def gradients(self, words, targets):
        """(loss, gradients by weight)."""
        loss = self.loss(words, targets)
        found = torch.autograd.grad(loss, list(self.weights.values()))
        return float(loss.detach()), {key: each.numpy() for key, each in zip(self.weights, found, strict=True)}

    def _norm(self, rows, parameters):
        if self.sizes.rms:
            return torch_functions.rms_norm(rows, rows.shape[-1:], parameters[0], EPSILON)
        return torch_functions.layer_norm(rows, rows.shape[-1:], parameters[0], parameters[1], EPSILON)

    def _attention(self, columns):
        sizes = self.sizes
        groups = columns.unflatten(-1, (sizes.kv_heads, sizes.group + 2, sizes.head))
        queries = groups[..., :-2, :].flatten(-3, -2).transpose(1, 2)
        keys, values = (groups[..., at, :].repeat_interleave(sizes.group, dim=-2).transpose(1, 2) for at in (-2, -1))
        found = torch_functions.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return found.transpose(1, 2).flatten(-2)

    def _ffn(self, rows, up, down):
        inner = rows @ self.weights[up]
        if self.sizes.gated:
            gate, value = inner.chunk(2, dim=-1)
            return (torch_functions.silu(gate) * value) @ self.weights[down]
        return torch_functions.gelu(inner, approximate="tanh") @ self.weights[down]

    def _experts(self, layer, rows):
        """Every expert on every token, of which those count that the token has chosen."""
        chances = torch.softmax(rows @ self.weights[Weight(layer, "moe", "gate")], dim=-1)
        taken, chosen = chances.topk(self.sizes.top_k, dim=-1)
        if self.sizes.top_k > 1:
            taken = taken / taken.sum(dim=-1, keepdim=True)
        counted = torch.zeros_like(chances).scatter(-1, chosen, taken)
        every = [counted[..., n, None] * self._ffn(rows, *of_expert(layer, n)) for n in range(self.sizes.experts)]
        beside = [Weight(layer, "shared experts", kind) for kind in ("up", "down")]
        return sum(every) + (self._ffn(rows, *beside) if self.sizes.hidden_beside else 0.0)
