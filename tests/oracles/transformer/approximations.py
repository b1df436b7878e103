"""Where athanor charges something else than the reference counts, on purpose: one function each, and what it costs is measured.

Beside these, nobody is charged for:

* vectors: scales and statistics of norms, biases, gates' weights of copies (``few`` of an operator, never a whole activation);
* what is marked ``left_out``: norms within latent attention, gradients of keys that heads share, sums of what two products
  give one gradient (kernels add onto what is there), and a shared expert's answer added to the others';
* bringing activations from one part's format to another's, and weights to that of products, but for eight bits;
* turning queries and keys by their positions, and learned positions, which kernels beside them do on the way.
"""

from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

from oracles.transformer.counting import SIZES, Operator


class Charge(NamedTuple):
    """Bytes read and written by an operator of a name, and its FLOPs."""

    read: float
    written: float
    flops: float


NOMINAL = {
    "norm": 8,
    "norm.grad": 8,
    "softmax": 5,
    "softmax.grad": 5,
    "residual": 1,
    "activation": 8,
    "activation.grad": 8,
    "lookup": 0,
    "grad": 1,
    "loss": 5,
    "top_k": 1,
    "top_k.grad": 1,
    "permute": 0,
    "merge": 2,
    "merge.grad": 2,
    "permute.grad": 1,
    "adam": 12,
}
"""FLOPs an element of an operator's largest tensor, where it is bound by memory; whatever their exact number is."""


def left_out(operators):
    """Operators that nobody is charged for."""
    return [each for each in operators if not each.left_out]


def single_format_of_the_embedding(operators, formats):
    """The embedding's gradient is taken to be kept in the format of its activations."""
    ratio = SIZES[formats["embedding"].compute] / SIZES[formats["embedding"].gradient]

    def change(each):
        if not _is_embedding_gradient(each.name):
            return each
        rows = each.written
        return replace(each, read=each.read - rows + ratio * rows, written=ratio * rows)

    return [change(each) for each in operators]


def products_write_the_format_that_they_read(operators):
    """C is written in the format of the operands, unless it is a gradient that is added to what is there."""
    return [
        replace(each, written=each.made * SIZES[each.format]) if each.kind == "product" and not each.onto else each
        for each in operators
    ]


def fused_attention_reads_as_much_as_it_writes(operators):
    """A kernel's bytes are halved between reading and writing, which matters where one is slower than the other."""

    def change(each):
        half = (each.read + each.written) / 2
        return replace(each, read=half, written=half) if each.kind == "attention" else each

    return [change(each) for each in operators]


def heads_that_share_keys_read_them_each(operators):
    """A fused kernel reads and writes keys and values once for each head of queries; caches may spare most of it."""
    return [replace(each, read=each.read + each.shared[0], written=each.written + each.shared[1]) for each in operators]


def merging_reads_the_stream_of_all_tokens(operators, group):
    """Where tokens are cut between layers, partial answers are merged for all of them, but the stream is there for some."""
    ranks = group.tp if group.sequence and not group.whole else 1
    return [
        replace(each, read=each.read + (ranks - 1) / ranks * each.written) if each.name.endswith("moe.merge") else each
        for each in operators
    ]


def merged(operators):
    """Kernels of their own that are charged with another, so that their start is not: names say with which, before a plus."""
    found = defaultdict(list)
    for each in operators:
        found[each.name.split("+")[0]].append(each)
    return {name: _sum(parts) for name, parts in found.items()}


def _sum(parts):
    one = next(each for each in parts if "+" not in each.name)
    more = [each for each in parts if each is not one]
    return replace(one, read=one.read + sum(m.read for m in more), written=one.written + sum(m.written for m in more))


def _is_embedding_gradient(name):
    return "embedding" in name.split(".")[:2] and ".grad" in name and "reduce" not in name


def nominal_flops(name, operator):
    """FLOPs as athanor states them: exact ones of products, nominal ones of what is bound by memory.

    The reference works out all scores of a fused kernel; of those that a mask hides a kernel spares the products.
    """
    return (
        operator.products * operator.visible if operator.kind != "sweep" else NOMINAL[kind_of(name)] * operator.elements
    )


def kind_of(name):
    """What an operator of the reference does, as :data:`NOMINAL` calls it."""
    words = [word for word in name.split(".") if not word.isdigit()]
    if "embedding" in words[:2] and words[-1] == "grad":
        return "grad"
    return ".".join(words[-2:]) if words[-1] == "grad" else words[-1]


def charges(operators, rank):
    """What athanor is to charge for the reference's operators: {name: Charge}."""
    found = left_out([each for each in operators if isinstance(each, Operator)])
    found = single_format_of_the_embedding(found, rank.formats)
    found = products_write_the_format_that_they_read(found)
    found = heads_that_share_keys_read_them_each(found)
    found = merging_reads_the_stream_of_all_tokens(found, rank.group)
    found = fused_attention_reads_as_much_as_it_writes(found)
    return {name: Charge(each.read, each.written, nominal_flops(name, each)) for name, each in merged(found).items()}
