"""Memory that counts: arrays live in it in a format, and operators read some of them and write others."""

from dataclasses import dataclass, field

import numpy as np

SIZES = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "mask": 1, "count": 8}
"""Bytes of an element. Written once more here: this is what the project's own table is held to."""


class Counted(np.ndarray):
    """An array whose arithmetic is counted, one FLOP for each element that an operation makes or adds up."""

    products = 0.0
    others = 0.0

    def __array_ufunc__(self, ufunc, method, *inputs, **keys):
        plain = [each.view(np.ndarray) if isinstance(each, Counted) else each for each in inputs]
        if keys.get("out"):
            keys["out"] = tuple(each.view(np.ndarray) for each in keys["out"])
        found = getattr(ufunc, method)(*plain, **keys)
        if ufunc is np.matmul:
            Counted.products += 2.0 * np.size(found) * plain[0].shape[-1]
        elif ufunc in FREE:
            pass
        elif method == "at":
            Counted.others += np.size(plain[2])
        elif method == "reduce":
            Counted.others += np.size(plain[0])
        else:
            Counted.others += np.size(found)
        return np.asarray(found).view(Counted)


FREE = {np.equal, np.not_equal, np.less, np.greater, np.less_equal, np.greater_equal, np.logical_and}
"""Comparisons are no FLOPs."""


@dataclass
class Tensor:
    """Numbers in memory, and the format that they are kept in; the values themselves are double, so that they can be checked."""

    values: np.ndarray
    format: str

    @property
    def nbytes(self):
        return float(self.values.size * SIZES[self.format])


@dataclass(frozen=True)
class Operator:
    """What one operator did. ``few`` are bytes of vectors: a number or a few for each token or each column.

    ``elements`` are those of its largest tensor, ``made`` those of its first result, ``format`` is that of its first operand. A
    product may add ``onto`` what is there. ``shared`` are bytes that it would read and write more, if heads shared no keys.
    ``visible`` is the part of its scores that no mask hides.
    """

    name: str
    kind: str  # product, sweep, attention
    read: float
    written: float
    products: float = 0.0
    others: float = 0.0
    few: float = 0.0
    elements: float = 0.0
    made: float = 0.0
    format: str = ""
    onto: bool = False
    shared: tuple = (0.0, 0.0)
    visible: float = 1.0
    left_out: bool = False


@dataclass(frozen=True)
class Message:
    """A collective: what it is, over which ranks, and the bytes of the whole vector."""

    name: str
    operation: str
    axes: tuple
    nbytes: float


@dataclass
class Memory:
    """What operators read from and write to. An operator sees what it has read and nothing else."""

    done: list = field(default_factory=list)

    def operator(self, name, function, reads, writes, few=(), kind="sweep", again=1, **more):
        """Run ``function`` on the tensors ``reads`` and ``few``; it returns an array for each format in ``writes``.

        ``writes`` are formats; one in parentheses, ``(bf16)``, is of a vector. ``again``: how often it reads the first of its tensors.
        ``more`` are other fields of the :class:`Operator`.
        """
        before = Counted.products, Counted.others
        values = function(*(each.values.view(Counted) for each in (*reads, *few)))
        values = values if isinstance(values, tuple) else (values,)
        made = [
            Tensor(np.asarray(value).view(np.ndarray), format.strip("()"))
            for value, format in zip(values, writes, strict=True)
        ]
        whole = [each for each, format in zip(made, writes, strict=True) if "(" not in format]
        read = sum(each.nbytes for each in reads) + (again - 1) * (reads[0].nbytes if reads else 0.0)
        self.done.append(
            Operator(
                name,
                kind,
                read,
                sum(each.nbytes for each in whole),
                Counted.products - before[0],
                Counted.others - before[1],
                sum(each.nbytes for each in (*few, *made) if not any(each is one for one in whole)),
                float(max(each.values.size for each in (*reads, *whole))),
                float(made[0].values.size),
                reads[0].format,
                **more,
            )
        )
        return made[0] if len(made) == 1 else tuple(made)

    def product(self, name, a, b, made, onto=None, few=()):
        """C = A B (+ ``onto``, in place), a batch of products where they have three dimensions; biases ride along."""
        reads = [a, b] if onto is None else [a, b, onto]

        def run(a, b, *more):
            return a @ b if onto is None else more[0] + a @ b

        return self.operator(name, run, reads, [made], few, "product", onto=onto is not None)

    def send(self, name, operation, axes, tensor, sizes=1):
        """A collective of ``sizes`` such tensors, whose values stay as they are."""
        self.done.append(Message(name, operation, axes, sizes * tensor.nbytes))
        return tensor


def recast(tensor, format, values=None):
    """The same numbers in another format, or others in this one, at no charge."""
    return Tensor(tensor.values if values is None else values, format)


def rows(tensor, start, stop):
    """A part of a tensor: no operator."""
    return Tensor(tensor.values[start:stop], tensor.format)
