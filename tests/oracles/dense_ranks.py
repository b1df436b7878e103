"""All ranks of a dense strategy in one process: operations in lock-step, exchanges by plain NumPy, weights joined at the end."""

from itertools import product

import numpy as np
from athanor.mpi_runtime.training.dense.local import MicroBatch
from athanor.mpi_runtime.training.dense.shards import Place, cut, initial, join, kind, layer_names
from athanor.mpi_runtime.training.optimizer_rounds import update_alone
from athanor.workloads.model.tensors import Tensor
from athanor.workloads.optimizers import Adam, TensorShare

DATA = ("dp", "fsdp", "ep")


def steps(product_name, grid, backward=False):
    """The operations of a product and its exchanges on a grid, as the names of a trace have them."""
    for way in ("dgrad", "wgrad") if backward else ("",):
        at = f"{product_name}.{way}" if way else product_name
        if grid == 1:
            yield at
            continue
        table = product_name == "output.logits"  # the transposed form, whose columns are words
        blocks = {"": "b" if table else "ab", "dgrad": "ab" if table else "b", "wgrad": "a"}[way]
        for step in range(grid):
            for block in blocks:
                yield f"@{at}.{block}.{step}"
            yield f"{at}.{step}"
            if way == "wgrad" or (way == "dgrad") != table:
                yield f"@{at}.reduce.{step}"


class Names:
    """Names of operations in their order, written down by hand; those that exchange begin with @."""

    def __init__(self, place, fused):
        self.fused = fused
        self.grid, self.ring = place.grid, place.of("cp")
        self.tensor, self.tokens_cut = place.of("tp") > 1, place.sequence_parallel
        self.cut = self.tensor or self.grid > 1

    def only(self, condition, name):
        if condition:
            yield f"@{name}"

    def embed(self):
        if self.grid == 1:
            yield "embedding.lookup"
            yield from self.only(self.tensor, "embedding.reduce")
            return
        for step in range(self.grid):
            yield f"@embedding.b.{step}"
            yield f"embedding.lookup.{step}"

    def embed_backward(self):
        if self.grid == 1:
            yield from self.only(self.tokens_cut, "embedding.reduce.grad")
            yield "embedding.grad"
            return
        for step in range(self.grid):
            yield f"embedding.grad.{step}"
            yield f"@embedding.grad.reduce.{step}"

    def norm(self, half):
        yield f"{half}.norm"
        yield from self.only(self.grid > 1, f"{half}.norm.reduce")
        yield from self.only(self.tokens_cut, f"{half}.gather")

    def norm_backward(self, half):
        yield from self.only(self.tensor, f"{half}.gather.grad")
        yield f"{half}.norm.grad"
        yield from self.only(self.grid > 1, f"{half}.norm.grad.reduce")

    def around(self, exchange, *operations):
        for step in range(self.ring):
            if step:
                yield f"@attention.{exchange}.{step}"
            for each in operations:
                yield f"attention.{each}.{step}" if self.ring > 1 else f"attention.{each}"

    def attention(self):
        yield from self.norm("attention")
        yield from steps("attention.qkv", self.grid)
        if self.fused:
            for step in range(self.ring):
                yield from self.only(step < self.ring - 1, f"attention.ring.{step}")
                yield f"attention.context.{step}" if self.ring > 1 else "attention.context"
        else:
            yield from self.around("keys", "scores")
            yield "attention.softmax"
            yield from self.around("values", "context")
        yield from steps("attention.out", self.grid)
        yield from self.only(self.tensor, "attention.reduce")
        yield "attention.residual"

    def attention_backward(self):
        yield from self.only(self.tokens_cut, "attention.reduce.grad")
        yield from steps("attention.out", self.grid, backward=True)
        if self.fused:
            for step in range(self.ring):
                yield from self.only(self.ring > 1, f"attention.ring.grad.{step}")
                yield f"attention.context.grad.{step}" if self.ring > 1 else "attention.context.grad"
        else:
            yield from self.around("values.again", "context.dvalues", "context.dscores")
            yield from self.only(self.ring > 1, "attention.values.reduce")
            yield "attention.softmax.grad"
            yield from self.around("keys.again", "scores.dqueries", "scores.dkeys")
            yield from self.only(self.ring > 1, "attention.keys.reduce")
        yield from self.only(self.tokens_cut, "attention.gather.again")
        yield from steps("attention.qkv", self.grid, backward=True)
        yield from self.norm_backward("attention")

    def ffn(self):
        yield from self.norm("ffn")
        yield from steps("ffn.up", self.grid)
        yield "ffn.activation"
        yield from steps("ffn.down", self.grid)
        yield from self.only(self.tensor, "ffn.reduce")
        yield "ffn.residual"

    def ffn_backward(self):
        yield from self.only(self.tokens_cut, "ffn.reduce.grad")
        yield from steps("ffn.down", self.grid, backward=True)
        yield "ffn.activation.grad"
        yield from self.only(self.tokens_cut, "ffn.gather.again")
        yield from steps("ffn.up", self.grid, backward=True)
        yield from self.norm_backward("ffn")

    def output(self):
        yield from self.norm("output")
        yield from steps("output.logits", self.grid)
        yield "output.loss"
        yield from self.only(self.cut, "output.loss.reduce")

    def output_backward(self):
        yield from self.only(self.tokens_cut, "output.gather.again")
        yield from steps("output.logits", self.grid, backward=True)
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
            {name: cut(initial(name, sizes, seed).astype(kind), name, sizes, place) for name in self.held(place)}
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
        """Names of the weights of a rank's stage."""
        stage, last = place.me("pp"), place.of("pp") - 1
        for chunk in range(self.chunks):
            for layer in self.layers(stage, chunk):
                yield from layer_names(layer)
        if stage == 0 or (stage == last and self.sizes.tied):
            yield "embedding"
        if stage == last:
            yield "output.norm"
            if not self.sizes.tied:
                yield "output.logits"

    def step(self, words, targets, micro_batches=1):
        """Train on a batch; returns the loss."""
        self.gradients = [{name: np.zeros_like(each) for name, each in held.items()} for held in self.weights]
        self.loss = 0.0
        for micro_batch in range(micro_batches):
            self.pass_through(words, targets, micro_batch, micro_batches)
        self.synchronise()
        self.count += 1
        for at, weights in enumerate(self.weights):
            for name, each in weights.items():
                tensor, flat = Tensor(1, each.size), self.gradients[at][name].reshape(-1)
                index, moments = np.arange(each.size), self.moments[at][name]
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
                self.fused,
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
        (chunk, stage), names = now, Names(self.places[0], self.fused)
        here, layers = self.of_stage(ranks, stage), self.layers(stage, chunk)
        if before is None:
            self.play(here, names.embed(), None)
        else:
            for (_, sender), (_, receiver) in zip(self.of_stage(ranks, before[1]), here, strict=True):
                receiver.enter(layers.start, sender.leave(layers.start))
        for layer in layers:
            self.play(here, [*names.attention(), *names.ffn()], layer)
        if now == (self.chunks - 1, self.mesh.get("pp", 1) - 1):
            self.play(here, names.output(), None)

    def backward(self, ranks, now, before):
        (chunk, stage), names = now, Names(self.places[0], self.fused)
        here, layers = self.of_stage(ranks, stage), self.layers(stage, chunk)
        if before is None:
            self.play(here, names.output_backward(), None)
        else:
            for (_, sender), (_, receiver) in zip(self.of_stage(ranks, before[1]), here, strict=True):
                receiver.gradient = sender.gradient
        for layer in reversed(layers):
            if self.recompute:
                self.play(here, [*names.attention(), *names.ffn()], layer)
            self.play(here, [*names.ffn_backward(), *names.attention_backward()], layer)
        if now == (0, 0):
            self.play(here, names.embed_backward(), None)

    def play(self, ranks, names, layer):
        for name in names:
            if name.startswith("@"):
                messages = [(place, rank.message(name[1:], layer)) for place, rank in ranks]
                self.exchange(messages, to_previous=".ring.grad." in name)
            else:
                for _, rank in ranks:
                    rank.compute(name, layer)

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
        for name in self.sizes.names():
            groups = {}
            for place, gradients in zip(self.places, self.gradients, strict=True):
                if name in gradients:
                    axes = {*DATA, *summed_over(name, self.sizes, place)}
                    others = tuple(place.me(axis) for axis in self.mesh if axis not in axes)
                    groups.setdefault(others, []).append(gradients)
            for members in groups.values():
                total = sum(each[name] for each in members)
                for each in members:
                    each[name][...] = total

    def joined(self, values, name):
        """A whole weight or gradient; parts that several ranks hold have to be the same."""
        parts = [(place, held[name]) for place, held in zip(self.places, values, strict=True) if name in held]
        whole = join(parts, name, self.sizes)
        for place, part in parts:
            np.testing.assert_allclose(cut(whole, name, self.sizes, place), part, rtol=1e-12, atol=1e-15)
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


def summed_over(name, sizes, place):
    """Axes beside those of data parallelism over which a weight's gradients have to be added up.

    ``cp``: ranks see other tokens; so do those of a norm where tokens are cut over ``tp`` or ``row``. An embedding that the
    output layer shares is used by the first and the last pipeline stage.
    """
    axes = ["cp"]
    if kind(name) == "norm":
        axes += ["row", "tp"] if place.sequence_parallel else ["row"]
    if name == "embedding" and sizes.tied:
        axes += ["pp"]
    return axes
