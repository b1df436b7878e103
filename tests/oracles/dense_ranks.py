"""All ranks of a dense strategy in one process: operations in lock-step, exchanges by plain NumPy, weights joined at the end."""

from dataclasses import replace
from itertools import product

import numpy as np
from athanor.mpi_runtime.training.optimizer_rounds import update_alone
from athanor.mpi_runtime.training.transformer.attention.fused import FusedLocalAttention
from athanor.mpi_runtime.training.transformer.attention.unfused import LocalAttention
from athanor.mpi_runtime.training.transformer.local import MicroBatch
from athanor.mpi_runtime.training.transformer.weights.shards import (
    EMBEDDING,
    OUTPUT_NORM,
    Place,
    cut,
    initial,
    join,
)
from athanor.workloads.model.tensors import Tensor
from athanor.workloads.optimizers import Adam, TensorShare
from athanor.workloads.schedule.operation import Role, Task

DATA = ("dp", "fsdp", "ep")


GATHER, REDUCE = Role.INPUT_GATHER, Role.OUTPUT_SUM
EXCHANGING = {
    Role.NORM_SUM,
    Role.LOSS_SUM,
    GATHER,
    REDUCE,
    Role.BLOCK_OF_INPUT,
    Role.BLOCK_OF_WEIGHT,
    Role.BLOCK_SUM,
    Role.RING_SHIFT,
    Role.RING_SUM,
}


def steps(part, weight, grid, backward=False):
    """The operations of a product and its exchanges on a grid."""
    for gradient in ("input", "weight") if backward else (None,):
        if grid == 1:
            yield Task(Role.PRODUCT, part, operand=weight, gradient=gradient)
            continue
        table = weight == "logits"  # the transposed form, whose columns are words
        of_input, of_weight = Role.BLOCK_OF_INPUT, Role.BLOCK_OF_WEIGHT
        both = (of_input, of_weight)
        blocks = {
            None: (of_weight,) if table else both,
            "input": both if table else (of_weight,),
            "weight": (of_input,),
        }[gradient]
        for step in range(grid):
            for role in (*blocks, Role.PRODUCT):
                yield Task(role, part, operand=weight, gradient=gradient, step=step)
            if gradient == "weight" or (gradient == "input") != table:
                yield Task(Role.BLOCK_SUM, part, operand=weight, gradient=gradient, step=step)


class Tasks:
    """What operations do, in their order, written down by hand; without the layer and what they may overlap."""

    def __init__(self, place, fused):
        self.fused = fused
        self.grid, self.ring = place.grid, place.of("cp")
        self.tensor, self.tokens_cut = place.of("tp") > 1, place.sequence_parallel
        self.cut = self.tensor or self.grid > 1

    def only(self, condition, role, part, operand=None, gradient=None, step=None):
        if condition:
            yield Task(role, part, operand=operand, gradient=gradient, step=step)

    def embed(self):
        if self.grid == 1:
            yield Task(Role.LOOKUP, "embedding")
            yield from self.only(self.tensor, REDUCE, "embedding")
            return
        for step in range(self.grid):
            yield Task(Role.BLOCK_OF_WEIGHT, "embedding", step=step)
            yield Task(Role.LOOKUP, "embedding", step=step)

    def embed_backward(self):
        if self.grid == 1:
            yield from self.only(self.tokens_cut, REDUCE, "embedding", gradient="input")
            yield Task(Role.LOOKUP, "embedding", gradient="weight")
            return
        for step in range(self.grid):
            yield Task(Role.LOOKUP, "embedding", gradient="weight", step=step)
            yield Task(Role.BLOCK_SUM, "embedding", gradient="weight", step=step)

    def norm(self, half):
        yield Task(Role.NORM, half)
        yield from self.only(self.grid > 1, Role.NORM_SUM, half)
        yield from self.only(self.tokens_cut, GATHER, half)

    def norm_backward(self, half):
        yield from self.only(self.tensor, GATHER, half, gradient="input")
        yield Task(Role.NORM, half, gradient="input")
        yield from self.only(self.grid > 1, Role.NORM_SUM, half, gradient="input")

    def around(self, moving, gradient, *operations):
        for step in range(self.ring):
            yield from self.only(step, Role.RING_SHIFT, "attention", moving, gradient, step)
            for role, operand in operations:
                yield Task(role, "attention", operand=operand, gradient=gradient, step=step if self.ring > 1 else None)

    def kernel(self, gradient):
        for step in range(self.ring):
            moves = self.ring > 1 if gradient else step < self.ring - 1
            yield from self.only(moves, Role.RING_SHIFT, "attention", None, gradient, step)
            yield Task(Role.CONTEXT, "attention", gradient=gradient, step=step if self.ring > 1 else None)

    def attention(self):
        yield from self.norm("attention")
        yield from steps("attention", "qkv", self.grid)
        if self.fused:
            yield from self.kernel(None)
        else:
            yield from self.around("keys", None, (Role.SCORES, None))
            yield Task(Role.SOFTMAX, "attention")
            yield from self.around("values", None, (Role.CONTEXT, None))
        yield from steps("attention", "out", self.grid)
        yield from self.only(self.tensor, REDUCE, "attention")
        yield Task(Role.RESIDUAL, "attention")

    def attention_backward(self):
        yield from self.only(self.tokens_cut, REDUCE, "attention", gradient="input")
        yield from steps("attention", "out", self.grid, backward=True)
        if self.fused:
            yield from self.kernel("input")
        else:
            yield from self.around("values", "input", (Role.CONTEXT, "values"), (Role.CONTEXT, "scores"))
            yield from self.only(self.ring > 1, Role.RING_SUM, "attention", "values", "input")
            yield Task(Role.SOFTMAX, "attention", gradient="input")
            yield from self.around("keys", "input", (Role.SCORES, "queries"), (Role.SCORES, "keys"))
            yield from self.only(self.ring > 1, Role.RING_SUM, "attention", "keys", "input")
        yield from self.only(self.tokens_cut, GATHER, "attention", gradient="weight")
        yield from steps("attention", "qkv", self.grid, backward=True)
        yield from self.norm_backward("attention")

    def ffn(self):
        yield from self.norm("ffn")
        yield from steps("ffn", "up", self.grid)
        yield Task(Role.ACTIVATION, "ffn")
        yield from steps("ffn", "down", self.grid)
        yield from self.only(self.tensor, REDUCE, "ffn")
        yield Task(Role.RESIDUAL, "ffn")

    def ffn_backward(self):
        yield from self.only(self.tokens_cut, REDUCE, "ffn", gradient="input")
        yield from steps("ffn", "down", self.grid, backward=True)
        yield Task(Role.ACTIVATION, "ffn", gradient="input")
        yield from self.only(self.tokens_cut, GATHER, "ffn", gradient="weight")
        yield from steps("ffn", "up", self.grid, backward=True)
        yield from self.norm_backward("ffn")

    def output(self):
        yield from self.norm("output")
        yield from steps("output", "logits", self.grid)
        yield Task(Role.LOSS, "output")
        yield from self.only(self.cut, Role.LOSS_SUM, "output")

    def output_backward(self):
        yield from self.only(self.tokens_cut, GATHER, "output", gradient="weight")
        yield from steps("output", "logits", self.grid, backward=True)
        yield from self.norm_backward("output")


class Ranks:
    """Ranks of a mesh such as ``{"pp": 2, "tp": 2}``, each with its parts of the weights."""

    def __init__(
        self,
        sizes,
        mesh,
        seed,
        sequence_parallel=False,
        chunks=1,
        recompute=False,
        fused=False,
        kind=np.float64,
        layers=None,
    ):
        self.fused = fused
        parts = mesh.get("pp", 1) * chunks
        self.of_part = layers or [sizes.layers // parts] * parts
        self.sizes, self.mesh, self.chunks, self.recompute = sizes, mesh, chunks, recompute
        numbers = product(*(range(size) for size in mesh.values()))
        self.places = [Place(dict(zip(mesh, each, strict=True)), mesh, sequence_parallel) for each in numbers]
        self.weights = [
            {each: cut(initial(each, sizes, seed).astype(kind), each, sizes, place) for each in self.held(place)}
            for place in self.places
        ]
        self.moments = [
            {n: {"first": np.zeros(w.size), "second": np.zeros(w.size)} for n, w in each.items()}
            for each in self.weights
        ]
        self.count = 0

    def layers(self, stage, chunk):
        part = chunk * self.mesh.get("pp", 1) + stage
        first = sum(self.of_part[:part])
        return range(first, first + self.of_part[part])

    def held(self, place):
        """The weights of a rank's stage."""
        stage, last = place.me("pp"), place.of("pp") - 1
        for chunk in range(self.chunks):
            for layer in self.layers(stage, chunk):
                yield from self.sizes.of_layer(layer)
        if stage == 0 or (stage == last and self.sizes.tied):
            yield EMBEDDING
        if stage == last:
            yield OUTPUT_NORM
            if not self.sizes.tied:
                yield self.sizes.table

    def step(self, words, targets, micro_batches=1):
        """Train on a batch; returns the loss."""
        self.gradients = [{weight: np.zeros_like(each) for weight, each in held.items()} for held in self.weights]
        self.loss = 0.0
        for micro_batch in range(micro_batches):
            self.pass_through(words, targets, micro_batch, micro_batches)
        self.synchronise()
        self.count += 1
        for at, weights in enumerate(self.weights):
            for weight, each in weights.items():
                tensor, flat = Tensor(1, each.size), self.gradients[at][weight].reshape(-1)
                index, moments = np.arange(each.size), self.moments[at][weight]
                share = TensorShare(tensor, index, each.reshape(-1), None, flat, moments, self.count)
                update_alone(Adam(), "ffn", share)
        return self.loss

    def batch_of(self, place, values, micro_batch, micro_batches):
        """A rank's sequences of a micro-batch, or its parts of them."""
        sequences = values.reshape(*(self.mesh.get(axis, 1) for axis in DATA), micro_batches, -1, values.shape[1])
        mine = sequences[(*(place.me(axis) for axis in DATA), micro_batch)]
        return mine[:, place.part(values.shape[1], "cp")]

    def pass_through(self, words, targets, micro_batch, micro_batches):
        def batch(place, values):
            return self.batch_of(place, values, micro_batch, micro_batches)

        ranks = [
            MicroBatch(
                self.sizes,
                place,
                weights,
                gradients,
                batch(place, words),
                batch(place, targets),
                words.size,
                FusedLocalAttention if self.fused else LocalAttention,
            )
            for place, weights, gradients in zip(self.places, self.weights, self.gradients, strict=True)
        ]
        stages = self.mesh.get("pp", 1)
        route = [(chunk, stage) for chunk in range(self.chunks) for stage in range(stages)]
        for before, now in zip([None, *route[:-1]], route, strict=True):
            self.forward(ranks, now, before)
        for before, now in zip([None, *route[:0:-1]], route[::-1], strict=True):
            self.backward(ranks, now, before)
        for place, rank in zip(self.places, ranks, strict=True):
            if place.me("pp") == stages - 1 and place.me("tp") == place.me("col") == 0:
                self.loss += rank.loss

    def of_stage(self, ranks, stage):
        return [(place, rank) for place, rank in zip(self.places, ranks, strict=True) if place.me("pp") == stage]

    def forward(self, ranks, now, before):
        (chunk, stage), tasks = now, Tasks(self.places[0], self.fused)
        here, layers = self.of_stage(ranks, stage), self.layers(stage, chunk)
        if before is None:
            self.play(here, tasks.embed(), None)
        else:
            for (_, sender), (_, receiver) in zip(self.of_stage(ranks, before[1]), here, strict=True):
                receiver.enter(layers.start, sender.leave(layers.start))
        for layer in layers:
            self.play(here, [*tasks.attention(), *tasks.ffn()], layer)
        if now == (self.chunks - 1, self.mesh.get("pp", 1) - 1):
            self.play(here, tasks.output(), None)

    def backward(self, ranks, now, before):
        (chunk, stage), tasks = now, Tasks(self.places[0], self.fused)
        here, layers = self.of_stage(ranks, stage), self.layers(stage, chunk)
        if before is None:
            self.play(here, tasks.output_backward(), None)
        else:
            for (_, sender), (_, receiver) in zip(self.of_stage(ranks, before[1]), here, strict=True):
                receiver.gradient = sender.gradient
        for layer in reversed(layers):
            if self.recompute:
                self.play(here, [*tasks.attention(), *tasks.ffn()], layer)
            self.play(here, [*tasks.ffn_backward(), *tasks.attention_backward()], layer)
        if now == (0, 0):
            self.play(here, tasks.embed_backward(), None)

    def play(self, ranks, tasks, layer):
        for each in tasks:
            task = replace(each, layer=layer)
            if task.role in EXCHANGING:
                messages = [(place, rank.message(task)) for place, rank in ranks]
                back = task.role is Role.RING_SHIFT and task.operand is None and task.gradient == "input"
                self.exchange(messages, to_previous=back)
            else:
                for _, rank in ranks:
                    rank.compute(task)

    def exchange(self, messages, to_previous=False):
        """Carry an exchange: members of a group agree in everything but the axes of the group."""
        groups = {}
        for place, message in messages:
            others = tuple(place.me(axis) for axis in self.mesh if axis not in message.axes)
            groups.setdefault((message.axes, others), []).append((place, message))
        for (axes, _), members in groups.items():
            members.sort(key=lambda each: [each[0].me(axis) for axis in axes])
            carry([message for _, message in members], to_previous)

    def synchronise(self):
        """Add up gradients over all ranks that saw other tokens, or use the same weight elsewhere."""
        for weight in self.sizes.weights():
            groups = {}
            for place, gradients in zip(self.places, self.gradients, strict=True):
                if weight in gradients:
                    axes = {*DATA, *summed_over(weight, self.sizes, place)}
                    others = tuple(place.me(axis) for axis in self.mesh if axis not in axes)
                    groups.setdefault(others, []).append(gradients)
            for members in groups.values():
                total = sum(each[weight] for each in members)
                for each in members:
                    each[weight][...] = total

    def joined(self, values, weight):
        """A whole weight or gradient; parts that several ranks hold have to be the same."""
        parts = [(place, held[weight]) for place, held in zip(self.places, values, strict=True) if weight in held]
        whole = join(parts, weight, self.sizes)
        for place, part in parts:
            np.testing.assert_allclose(cut(whole, weight, self.sizes, place), part, rtol=1e-12, atol=1e-15)
        return whole


def carry(messages, to_previous=False):
    """One exchange of one group, members in order."""
    first = messages[0]
    payloads = [each.payload.copy() for each in messages]
    assert all((each.operation, each.root) == (first.operation, first.root) for each in messages)
    assert all(each.payload.shape == first.payload.shape for each in messages), first.operation
    total = payloads[0]
    if first.operation in ("all-reduce", "reduce", "reduce-scatter"):
        for other in payloads[1:]:
            total = first.combine(total, other)
    for me, each in enumerate(messages):
        match each.operation:
            case "all-reduce":
                each.take(total.copy())
            case "reduce":
                if me == each.root:
                    each.take(total.copy())
            case "reduce-scatter":
                each.take(total[me].copy())
            case "all-gather":
                each.take(np.stack(payloads))
            case "broadcast":
                each.take(payloads[each.root].copy())
            case "shift":
                each.take(payloads[(me + 1) % len(payloads) if to_previous else me - 1])
            case _:
                raise AssertionError(each.operation)


def summed_over(weight, sizes, place):
    """Axes beside those of data parallelism over which a weight's gradients have to be added up.

    ``cp``: ranks see other tokens; so do those of a norm where tokens are cut over ``tp`` or ``row``. An embedding that the
    output layer shares is used by the first and the last pipeline stage.
    """
    axes = ["cp"]
    if weight.kind == "norm":
        axes += ["row", "tp"] if place.sequence_parallel else ["row"]
    if weight == EMBEDDING and sizes.tied:
        axes += ["pp"]
    return axes
