"""Linear attention and state spaces in NumPy: token by token as their papers define them, and in chunks, with FLOPs counted.

Arrays are of one sequence: keys and queries ``[tokens, heads, key size]``, values ``[tokens, heads, value size]``, decays and rates
``[tokens, heads]``.
"""

import numpy as np


class Products:
    """Counts what products of matrices take."""

    def __init__(self):
        self.flops = 0.0

    def __call__(self, a, b):
        self.flops += 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def linear(queries, keys, values, decays):
    """S = decay S + k vᵀ, o = Sᵀ q (Mamba-2 with k = B and q = C, Dao and Gu 2024, section 3; Lightning, Qin et al. 2024)."""
    found = np.zeros_like(values)
    for head in range(values.shape[1]):
        state = np.zeros((keys.shape[2], values.shape[2]))
        for at in range(len(values)):
            state = decays[at, head] * state + np.outer(keys[at, head], values[at, head])
            found[at, head] = state.T @ queries[at, head]
    return found


def linear_in_chunks(queries, keys, values, decays, chunk, times, groups=None):
    """The same; heads of a group share keys and queries, whose scores are then worked out once."""
    found, heads = np.zeros_like(values), values.shape[1]
    share = heads // (groups or heads)
    states = [np.zeros((keys.shape[2], values.shape[2])) for _ in range(heads)]
    for start in range(0, len(values), chunk):
        part = slice(start, start + chunk)
        for group in range(heads // share):
            q, k = queries[part, group * share], keys[part, group * share]
            scores = times(q, k.T)
            for head in range(group * share, (group + 1) * share):
                since = np.cumprod(decays[part, head])
                between = np.tril(since[:, None] / since[None])
                v = values[part, head]
                within = times(scores * between, v)
                found[part, head] = within + times(since[:, None] * q, states[head])
                coming = times(((since[-1] / since)[:, None] * k).T, v)
                states[head] = since[-1] * states[head] + coming
    return found


def delta(queries, keys, values, decays, rates):
    """S = decay (1 - rate k kᵀ) S + rate k vᵀ, o = Sᵀ q (Yang et al. 2024, Gated Delta Networks, equation 10)."""
    found = np.zeros_like(values)
    for head in range(values.shape[1]):
        state = np.zeros((keys.shape[2], values.shape[2]))
        for at in range(len(values)):
            k, rate = keys[at, head], rates[at, head]
            state = decays[at, head] * (state - rate * np.outer(k, k @ state)) + rate * np.outer(k, values[at, head])
            found[at, head] = state.T @ queries[at, head]
    return found


def delta_in_chunks(queries, keys, values, decays, rates, chunk, times):
    """The same by the WY representation (same, section 3.3), with the triangle's inverse row by row."""
    found = np.zeros_like(values)
    for head in range(values.shape[1]):
        state = np.zeros((keys.shape[2], values.shape[2]))
        for start in range(0, len(values), chunk):
            part = slice(start, start + chunk)
            q, k, v, rate = queries[part, head], keys[part, head], values[part, head], rates[part, head]
            since = np.cumprod(decays[part, head])
            between = since[:, None] / since[None]
            lower = np.tril(rate[:, None] * between * times(k, k.T), -1)
            inverse = np.eye(chunk)
            for row in range(chunk):
                for before in range(row):
                    inverse[row, : before + 1] -= lower[row, before] * inverse[before, : before + 1]
                    times.flops += 2.0 * (before + 1)
            triangle = inverse * rate[None]
            made, known = times(triangle, v), times(triangle, since[:, None] * k)
            fresh = made - times(known, state)
            within = times(np.tril(between * times(q, k.T)), fresh)
            found[part, head] = within + times(since[:, None] * q, state)
            state = since[-1] * state + times(((since[-1] / since)[:, None] * k).T, fresh)
    return found


def selective(inputs, steps, decays, into, out_of):
    """Mamba's scan (Gu and Dao 2023, algorithm 2): its result, and FLOPs an element of the state.

    ``inputs`` and ``steps`` are ``[tokens, channels]``, ``decays`` ``[channels, states]``, ``into`` and ``out_of`` ``[tokens, states]``.
    """
    state, found, flops = np.zeros(decays.shape), np.zeros_like(inputs), 0
    for at in range(len(inputs)):
        kept = np.exp(steps[at][:, None] * decays)  # 2: product, exponential
        coming = steps[at][:, None] * into[at][None] * inputs[at][:, None]  # 2
        state = kept * state + coming  # 2
        found[at] = (state * out_of[at][None]).sum(axis=1)  # 2
        flops += 8
    return found, flops / len(inputs)
