"""What one rank does with tokens and weights: norms, products cut in one or two dimensions, and what is sent for them."""

import numpy as np
from oracles.transformer.counting import SIZES, Memory, Tensor, recast
from oracles.transformer.shapes import FORMATS

EPSILON, KEPT = 1e-5, 0.9
NORM_NUMBERS, LOSS_NUMBERS = 2, 3
"""Sum and sum of squares; maximum, sum of exponentials and the target's score."""


class Rank:
    """One rank: its memory, its weights by name, and the gradients that it has made of them."""

    def __init__(self, model, group, choices, tokens, length, seed=0):
        self.model, self.group, self.choices = model, group, choices
        self.formats, self.memory = FORMATS[choices.precision], Memory()
        self.random = np.random.default_rng(seed)
        self.weights, self.gradients = {}, {}
        self.tokens, self.length = tokens, length

    def weight(self, name, shape, part):
        """The weight of a name, made when it is first asked for."""
        if name not in self.weights:
            values = self.random.standard_normal(shape) / np.sqrt(shape[-2] if len(shape) > 1 else 1)
            self.weights[name] = Tensor(values, self.formats[part].weight)
        assert self.weights[name].values.shape == tuple(shape), name
        return self.weights[name]

    def add_gradient(self, name, values, part):
        """Gradients of a weight that is used more than once add up."""
        before = self.gradients.get(name)
        total = values if before is None else before.values + values
        self.gradients[name] = Tensor(total, self.formats[part].gradient)

    # --- what is done to the stream ---------------------------------------------------------------------------

    def norm(self, name, x):
        """Layer norm (or RMS norm) of each token; statistics and scales are few."""
        format, layer = self.formats["norm"].compute, self.model.norm == "layer"
        scale = self.weight(f"{_base(name)}.scale", (x.values.shape[1],), "norm")

        def run(x, scale):
            centred = x - x.mean(axis=1, keepdims=True) if layer else x
            return centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON) * scale

        found = self.memory.operator(name, run, [recast(x, format)], [format], [scale])
        self._norm_reduce(name, x)
        return found

    def norm_grad(self, name, x, dy, stream=None):
        """The gradient of a norm's input, added to that of the stream beside it, where there is one."""
        format, layer = self.formats["norm"].compute, self.model.norm == "layer"
        scale = self.weights[f"{_base(name)}.scale"]
        reads = [recast(each, format) for each in (x, dy, *([] if stream is None else [stream]))]

        def run(x, dy, *more):
            stream, scale = more[:-1], more[-1]
            centred = x - x.mean(axis=1, keepdims=True) if layer else x
            size = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + EPSILON)
            normal, inner = centred / size, dy * scale
            back = inner - normal * (inner * normal).mean(axis=1, keepdims=True)
            if layer:
                back = back - inner.mean(axis=1, keepdims=True)
            found = back / size
            return (found + stream[0] if stream else found), (dy * normal).sum(axis=0)

        found, gradient = self.memory.operator(f"{name}.grad", run, reads, [format, "(fp32)"], [scale])
        self.add_gradient(f"{_base(name)}.scale", gradient.values, "norm")
        self._norm_reduce(f"{name}.grad", x)
        return found

    def residual(self, name, half, stream, mask_name):
        """The stream with a half's output added, of which dropout leaves some; the mask is kept for the way back."""
        format = self.formats["norm"].compute
        reads = [recast(half, format), recast(stream, format)]
        if not self.model.dropout:
            return self.memory.operator(name, lambda half, stream: half + stream, reads, [format])
        drawn = self.mask(mask_name, half.values.shape)

        def run(half, stream):
            return half * (drawn / KEPT) + stream, drawn

        found, self.weights[f"mask {mask_name}"] = self.memory.operator(name, run, reads, [format, "mask"])
        return found

    def residual_grad(self, name, d, mask_name):
        """The gradient of a half's output: that of the stream, as far as dropout left it."""
        if not self.model.dropout:
            return d
        format = self.formats["norm"].compute
        reads = [recast(d, format), self.weights[f"mask {mask_name}"]]
        return self.memory.operator(name, lambda d, mask: d * mask / KEPT, reads, [format])

    def mask(self, name, shape):
        """The same mask whenever a pass is run again."""
        seed = [7, *name.encode()]
        return (np.random.default_rng(seed).random(shape) < KEPT).astype(float)

    # --- products with weights ----------------------------------------------------------------------------------

    def product(self, name, x, weight, part):
        """Activations [tokens, k] times a weight [k, n] of the rank's part of it."""
        if self.group.side > 1:
            return self._grid_product(name, x, weight, part)
        return self._multiply(name, x, weight, part)

    def product_grad(self, name, d, x, weight_name, part):
        """The gradient of its input; that of its weight is kept."""
        weight = self.weights[weight_name]
        if self.group.side > 1:
            return self._grid_product_grad(name, d, x, weight_name, part)
        found = self._multiply(f"{name}.dgrad", d, recast(weight, weight.format, _turned(weight.values)), part)
        self.weight_gradient(f"{name}.wgrad", x, d, weight_name, part)
        return found

    def weight_gradient(self, name, x, d, weight_name, part, format=None):
        """Xᵀ D, onto what earlier micro-batches have left. Both operands are there in the product's format, cast before."""
        format = format or self.formats[part].product
        turned, other = Tensor(_turned(x.values), format), Tensor(d.values, format)
        onto = None
        if self.choices.accumulates:
            shape = (*turned.values.shape[:-1], other.values.shape[-1])
            onto = Tensor(np.zeros(shape), self.formats[part].gradient)
        found = self.memory.product(name, turned, other, self.formats[part].gradient, onto)
        self.add_gradient(weight_name, found.values, part)

    def _multiply(self, name, x, weight, part):
        format = self.formats[part]
        a = recast(x, format.compute)
        if format.product != format.compute:  # by rows for this product, by columns for the gradient of the weight
            a, _ = self.memory.operator(f"{name}+cast", lambda a: (a, a), [a], [format.product] * 2)
        return self.memory.product(name, a, recast(weight, format.product), format.compute)

    def _grid_product(self, name, x, weight, part):
        """SUMMA: in each step a block of A comes along the row, one of B along the column."""
        format, total = self.formats[part], 0.0
        for step in range(self.group.side):
            self.memory.send(f"{name}.a.{step}", "broadcast", ("col",), recast(x, format.compute))
            self.memory.send(f"{name}.b.{step}", "broadcast", ("row",), recast(weight, format.compute))
            total = total + self._multiply(f"{name}.{step}", x, weight, part).values
        return Tensor(total, format.compute)

    def _grid_product_grad(self, name, d, x, weight_name, part):
        format, weight = self.formats[part], self.weights[weight_name]
        turned, total = recast(weight, weight.format, weight.values.T), 0.0
        for step in range(self.group.side):
            self.memory.send(f"{name}.dgrad.b.{step}", "broadcast", ("row",), recast(weight, format.compute))
            made = self._multiply(f"{name}.dgrad.{step}", d, turned, part)
            self.memory.send(f"{name}.dgrad.reduce.{step}", "reduce", ("col",), made)
            total = total + made.values
        for step in range(self.group.side):
            self.memory.send(f"{name}.wgrad.a.{step}", "broadcast", ("col",), recast(x, format.compute))
            made = self._multiply(f"{name}.wgrad.{step}", recast(x, format.compute, x.values.T), d, part)
            self.memory.send(f"{name}.wgrad.reduce.{step}", "reduce", ("row",), made)
            self.add_gradient(weight_name, made.values, part)
        return Tensor(total, format.compute)

    # --- what ranks of tp tell each other ---------------------------------------------------------------------------

    def enter(self, name, x):
        """Before the first product of a pair: with sequence parallelism all tokens come together."""
        return self._together(name, x) if self.group.sequence and self.group.tp > 1 else x

    def leave(self, name, x):
        """After the second: partial sums are added up, for all tokens or each rank's own."""
        return self._sums(name, x) if self.group.tp > 1 else x

    def leave_grad(self, name, d):
        """The way back of :meth:`leave`: each rank's gradients come together, where tokens were cut."""
        return self.enter(name, d)

    def enter_grad(self, name, d):
        """The way back of :meth:`enter`: partial gradients are added up."""
        return self.leave(name, d)

    def own_tokens(self, x):
        """The tokens that the rank keeps of the stream under sequence parallelism."""
        if self.group.sequence and self.group.tp > 1:
            return recast(x, x.format, x.values[: len(x.values) // self.group.tp])
        return x

    def _together(self, name, x):
        whole = Tensor(np.concatenate([x.values] * self.group.tp), self.formats["norm"].compute)
        return self.memory.send(name, "all-gather", ("tp",), whole)

    def _sums(self, name, x):
        whole = recast(x, self.formats["norm"].compute)
        self.memory.send(name, "reduce-scatter" if self.group.sequence else "all-reduce", ("tp",), whole)
        return self.own_tokens(whole)

    def few_numbers(self, name, count, tokens, axis):
        """A few numbers for each token, added up in single precision at least."""
        format = "fp64" if self.formats["norm"].compute == "fp64" else "fp32"
        self.memory.send(name, "all-reduce", (axis,), Tensor(np.zeros(count * tokens), format))

    def _norm_reduce(self, name, x):
        """On a grid a token's elements lie on all ranks of a row."""
        if self.group.side > 1:
            self.few_numbers(f"{name}.reduce", NORM_NUMBERS, len(x.values), "col")

    def size(self, part):
        """Bytes of an activation of a part."""
        return SIZES[self.formats[part].compute]


def _turned(values):
    return np.swapaxes(values, -1, -2)


def _base(name):
    """Without what says that a pass is run again."""
    return name.removeprefix("again.")
