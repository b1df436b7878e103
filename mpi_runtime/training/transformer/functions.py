"""What the operations of a dense Transformer compute, forward and backward, on plain arrays of any floating format.

Tokens are rows: activations are ``[tokens, width]``; queries, keys and values ``[sequences, tokens, heads, width]``; scores
``[sequences, heads, queries, keys]``. Keys and values may have fewer heads than queries, each for a group of theirs.
Functions of gradients take the gradient of what the forward function returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.int64]

EPSILON = 1e-5
"""Added to a layer norm's variance, as GPT-2 does."""

GELU_SCALE, GELU_CUBE = float(np.sqrt(2 / np.pi)), 0.044715
"""Constants of GELU's approximation by tanh (Hendrycks and Gimpel 2016)."""

# --- layer norm: in two steps each way, since a token's row may be cut over ranks, which add up what the first step gives ------


def norm_sums(rows: Array) -> Array:
    """Sum and sum of squares of each row, ``[tokens, 2]``."""
    return np.stack([rows.sum(axis=1), (rows * rows).sum(axis=1)], axis=1)


def norm(rows: Array, sums: Array, width: int, rms: bool = False) -> tuple[Array, Array]:
    """The normalised rows, and one over their standard deviation ``[tokens, 1]``; ``sums`` are those of whole rows.

    ``rms``: the mean is left as it is, and the rows are divided by the root of their mean square (Zhang and Sennrich 2019).
    """
    mean = np.zeros_like(sums[:, :1]) if rms else sums[:, :1] / width
    inverse = 1 / np.sqrt(sums[:, 1:] / width - mean * mean + EPSILON)
    return (rows - mean) * inverse, inverse


def scaled(normal: Array, parameters: Array) -> Array:
    """A norm's result: normalised rows times the gain, plus the shift; ``parameters[2, width]``, or the gain alone."""
    result: Array = normal * parameters[0]
    return result if len(parameters) == 1 else result + parameters[1]


def norm_wgrad(gradient: Array, normal: Array, parameters: Array) -> Array:
    """Gradient of the parameters."""
    return np.stack([(gradient * normal).sum(axis=0), gradient.sum(axis=0)])[: len(parameters)]


def norm_grad_sums(gradient: Array, normal: Array, parameters: Array) -> Array:
    """What the gradient of a row needs to know of the whole row, ``[tokens, 2]``."""
    scaled_gradient = gradient * parameters[0]
    return np.stack([scaled_gradient.sum(axis=1), (scaled_gradient * normal).sum(axis=1)], axis=1)


def norm_dgrad(gradient: Array, normal: Array, inverse: Array, parameters: Array, sums: Array, width: int) -> Array:
    """Gradient of the rows."""
    of_mean = 0 if len(parameters) == 1 else sums[:, :1]
    result: Array = inverse * (gradient * parameters[0] - (of_mean + normal * sums[:, 1:]) / width)
    return result


# --- attention ----------------------------------------------------------------------------------------------------------------


def heads_of(columns: Array) -> tuple[Array, Array, Array]:
    """Queries, keys and values of ``[sequences, tokens, groups, members, width]``: a group's queries, its key and its value."""
    sequences, tokens, _, _, width = columns.shape
    return columns[:, :, :, :-2].reshape(sequences, tokens, -1, width), columns[:, :, :, -2], columns[:, :, :, -1]


def columns_of(queries: Array, keys: Array, values: Array) -> Array:
    """The way back, as rows ``[tokens, width]``."""
    sequences, tokens, heads, width = keys.shape
    groups = queries.reshape(sequences, tokens, heads, -1, width)
    return np.concatenate([groups, keys[:, :, :, None], values[:, :, :, None]], axis=3).reshape(sequences * tokens, -1)


def scores(queries: Array, keys: Array) -> Array:
    """Scalar products of queries and keys, over the root of a head's width."""
    result: Array = np.matmul(_by_head(queries), _for_group(keys, queries).swapaxes(2, 3)) * _scale(queries)
    return result


def seen_scores(values: Array, queries_at: Index, keys_at: Index) -> Array:
    """Scores of the keys at a query's own position and before; minus infinity for all others."""
    return np.where(keys_at[None, :] <= queries_at[:, None], values, -np.inf)


def softmax(values: Array, queries_at: Index, keys_at: Index) -> Array:
    """Each query's attention to the keys at its own position and before."""
    seen = seen_scores(values, queries_at, keys_at)
    powers = np.exp(seen - seen.max(axis=3, keepdims=True))
    result: Array = (powers / powers.sum(axis=3, keepdims=True)).astype(values.dtype)
    return result


def context(attention: Array, values: Array) -> Array:
    """Values weighted by attention."""
    group = attention.shape[1] // values.shape[2]
    result: Array = np.matmul(attention, np.repeat(_by_head(values), group, axis=1)).swapaxes(1, 2)
    return result


@dataclass(frozen=True)
class Running:
    """Attention to some blocks of keys, of which others are to come (online softmax, Milakov and Gimelshein 2018).

    ``context`` ``[sequences, tokens, heads, width]`` are values weighted with powers relative to each query's ``largest`` score
    so far, whose sum is ``total`` (both ``[sequences, heads, tokens]``).
    """

    context: Array
    largest: Array
    total: Array

    def joined(self, seen: Array, values: Array) -> Running:
        """With a block more, of these scores ``[sequences, heads, tokens, keys]``; the first has to hold a key for each query."""
        largest = np.maximum(self.largest, seen.max(axis=3))
        powers, shrunk = np.exp(seen - largest[..., None]), np.exp(self.largest - largest)
        total = shrunk * self.total + powers.sum(axis=3)
        return Running(_by_head(shrunk)[..., None] * self.context + context(powers, values), largest, total)

    @classmethod
    def none(cls, queries: Array) -> Running:
        """Of no block yet."""
        rows = _by_head(queries)[..., 0]
        return cls(np.zeros_like(queries), np.full_like(rows, -np.inf), np.zeros_like(rows))

    @property
    def done(self) -> tuple[Array, Array]:
        """The context, and the logarithm of each query's sum of powers, from which its attention can be had again."""
        return self.context / _by_head(self.total)[..., None], self.largest + np.log(self.total)


def row_products(gradient: Array, result: Array) -> Array:
    """Sums over a head's width of a result times its gradient, ``[sequences, heads, tokens]``."""
    sums: Array = _by_head((gradient * result).sum(axis=3))
    return sums


def dvalues(attention: Array, gradient: Array, heads: int) -> Array:
    """Gradient of the values, which have so many heads."""
    return _summed(np.matmul(attention.swapaxes(2, 3), _by_head(gradient)), heads)


def dattention(gradient: Array, values: Array) -> Array:
    """Gradient of the attention."""
    result: Array = np.matmul(_by_head(gradient), _for_group(values, gradient).swapaxes(2, 3))
    return result


def softmax_grad(attention: Array, gradient: Array) -> Array:
    """Gradient of the scores, from that of the attention."""
    result: Array = attention * (gradient - (attention * gradient).sum(axis=3, keepdims=True))
    return result


def dqueries(gradient: Array, keys: Array) -> Array:
    """Gradient of the queries, from that of the scores."""
    group = gradient.shape[1] // keys.shape[2]
    result: Array = np.matmul(gradient, np.repeat(_by_head(keys), group, axis=1)).swapaxes(1, 2) * _scale(keys)
    return result


def dkeys(gradient: Array, queries: Array, heads: int) -> Array:
    """Gradient of the keys, which have so many heads, from that of the scores."""
    return _summed(np.matmul(gradient.swapaxes(2, 3), _by_head(queries)), heads) * _scale(queries)


def _by_head(rows: Array) -> Array:
    return rows.swapaxes(1, 2)


def _for_group(rows: Array, queries: Array) -> Array:
    """Keys or values by head, once for each head of the queries."""
    return np.repeat(_by_head(rows), queries.shape[2] // rows.shape[2], axis=1)


def _summed(by_head: Array, heads: int) -> Array:
    """The sum over each group of heads, as rows again."""
    sequences, _, tokens, width = by_head.shape
    result: Array = by_head.reshape(sequences, heads, -1, tokens, width).sum(axis=2).swapaxes(1, 2)
    return result


def _scale(rows: Array) -> float:
    """One over the root of a head's width, as a Python number, which leaves the format of arrays alone."""
    return float(rows.shape[3] ** -0.5)


# --- feed-forward network -----------------------------------------------------------------------------------------------------


def activate(inner: Array, gated: bool) -> Array:
    """GELU; or, gated, SiLU of the first half of the columns times the second half (SwiGLU, Shazeer 2020)."""
    if gated:
        gate, value = np.split(inner, 2, axis=1)
        result: Array = gate * _sigmoid(gate) * value
    else:
        result = 0.5 * inner * (1 + _gelu_tanh(inner))
    return result


def activate_grad(inner: Array, gradient: Array, gated: bool) -> Array:
    """Gradient of the inner activations."""
    if gated:
        gate, value = np.split(inner, 2, axis=1)
        chance = _sigmoid(gate)
        of_gate = gradient * value * chance * (1 + gate * (1 - chance))
        joined: Array = np.concatenate([of_gate, gradient * gate * chance], axis=1)
        return joined
    bend = _gelu_tanh(inner)
    slope = GELU_SCALE * (1 + 3 * GELU_CUBE * inner * inner)
    result: Array = gradient * 0.5 * (1 + bend + inner * (1 - bend * bend) * slope)
    return result


def _gelu_tanh(inner: Array) -> Array:
    result: Array = np.tanh(GELU_SCALE * (inner + GELU_CUBE * inner * inner * inner))
    return result


def _sigmoid(values: Array) -> Array:
    result: Array = 0.5 * (1 + np.tanh(0.5 * values))
    return result


# --- embedding and loss: of the part of the vocabulary that begins with the word ``first`` ------------------------------------


def lookup(table: Array, words: Index, first: int = 0) -> Array:
    """The row of ``table[vocabulary, hidden]`` of each word; zeros for words that it does not hold."""
    mine = (words >= first) & (words < first + len(table))
    return np.where(mine[:, None], table[np.where(mine, words - first, 0)], table.dtype.type(0))


def lookup_grad(total: Array, words: Index, gradient: Array, first: int = 0) -> None:
    """Add every word's gradient to its row of ``total``."""
    mine = (words >= first) & (words < first + len(total))
    np.add.at(total, words[mine] - first, gradient[mine])


def loss_parts(logits: Array, targets: Index, first: int = 0) -> Array:
    """A token's largest logit, the sum of exponentials relative to it, and the target's logit, ``[tokens, 3]``.

    A target that is not among these words counts 0, so that :func:`join_losses` of all parts of a vocabulary is right.
    """
    mine = (targets >= first) & (targets < first + logits.shape[1])
    largest = logits.max(axis=1)
    found = np.take_along_axis(logits, np.where(mine, targets - first, 0)[:, None], axis=1)[:, 0]
    powers = np.exp(logits - largest[:, None]).sum(axis=1)
    return np.stack([largest, powers, np.where(mine, found, 0)], axis=1).astype(logits.dtype)


def join_losses(one: Array, other: Array) -> Array:
    """What :func:`loss_parts` gives for two parts of the vocabulary together; associative, as a reduction needs it."""
    largest = np.maximum(one[..., 0], other[..., 0])
    powers = one[..., 1] * np.exp(one[..., 0] - largest) + other[..., 1] * np.exp(other[..., 0] - largest)
    return np.stack([largest, powers, one[..., 2] + other[..., 2]], axis=-1)


def losses(parts: Array) -> Array:
    """The cross-entropy of each token."""
    result: Array = parts[:, 0] + np.log(parts[:, 1]) - parts[:, 2]
    return result


def loss_grad(logits: Array, parts: Array, targets: Index, tokens: float, first: int = 0) -> Array:
    """Gradient of the logits of the mean loss over ``tokens`` tokens."""
    gradient: Array = np.exp(logits - parts[:, :1]) / parts[:, 1:2]
    mine = np.flatnonzero((targets >= first) & (targets < first + logits.shape[1]))
    gradient[mine, targets[mine] - first] -= 1
    gradient /= tokens
    return gradient
