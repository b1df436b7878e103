"""Both ends of a model, the layers between them, and the update."""

import numpy as np
from oracles.transformer.attention import Attention
from oracles.transformer.counting import Tensor, recast
from oracles.transformer.ffn import Experts, FeedForward
from oracles.transformer.rank import LOSS_NUMBERS


class Transformer:
    """A micro-batch forward and backward on one rank: :meth:`forward` gives the loss, :meth:`backward` all gradients."""

    def __init__(self, rank, top_k=None):
        self.rank, self.model = rank, rank.model
        model, group = rank.model, rank.group
        self.grid = group.side > 1
        self.cut = group.cp * group.side
        self.top_k = top_k or model.top_k
        short = model.decoder_seq_len or rank.length
        self.lengths = {True: rank.length, False: short}
        self.tokens = {True: rank.tokens // self.cut, False: rank.tokens * short // rank.length // self.cut}
        parts = group.width
        self.words = -(-model.vocabulary // parts) * parts // parts
        self.h = model.hidden // group.side
        self.layers = [self._layer(number, each) for number, each in enumerate(model.stack)]

    def _layer(self, number, layer):
        rank, tokens, length = self.rank, self.tokens[layer.encoder], self.lengths[layer.encoder]
        found = [Attention(rank, f"l{number}.attention", tokens, length=length, causal=not layer.encoder)]
        if layer.cross:
            more = {"source_tokens": self.tokens[True], "length": length, "source_length": self.lengths[True]}
            found.append(Attention(rank, f"l{number}.cross", tokens, **more))
        found.append(Experts(rank, f"l{number}.moe", self.top_k) if layer.moe else FeedForward(rank, f"l{number}.ffn"))
        return found

    # --- passes -------------------------------------------------------------------------------------------------

    def forward(self):
        """The loss, a mean over the tokens."""
        source, stream = None, self.embed("embedding", encoder=self.model.encoder_layers > 0)
        self.inputs = []
        for number, layer in enumerate(self.layers):
            if number == self.model.encoder_layers and number:
                self.ended = stream
                source = self.rank.norm("encoder.norm", stream)
                stream = self.embed("embedding.decoder", encoder=False)
            self.inputs.append((stream, source))
            stream = self.through(layer, stream, source)
        return self.output(stream)

    def through(self, layer, stream, source, again=""):
        """A layer forward."""
        for half in layer:
            stream = (
                half.forward(stream, source, again)
                if getattr(half, "cross", False)
                else half.forward(stream, again=again)
            )
        return stream

    def backward(self):
        """All gradients, layer by layer from the last."""
        d, d_source = self.output_grad(), None
        for number in reversed(range(len(self.layers))):
            self.again(number)
            for half in reversed(self.layers[number]):
                if isinstance(half, Attention):
                    d, more = half.backward(d)
                    d_source = self.add_source(d_source, more)
                else:
                    d = half.backward(d)
            if number == self.model.encoder_layers and number:
                self.embed_grad("embedding.decoder", d, encoder=False)
                d = self.rank.norm_grad("encoder.norm", self.ended, d_source)
        self.embed_grad("embedding", d, encoder=self.model.encoder_layers > 0)

    def again(self, number):
        """What of a layer was not kept."""
        which, layer, (stream, source) = self.rank.choices.recompute, self.layers[number], self.inputs[number]
        if which == "full":
            self.through(layer, stream, source, "again.")
        elif which == "products":
            for half in layer:
                half.products_again(half.kept["stream"])
        elif which == "selective" and not self.rank.choices.fused:
            for half in layer:
                if isinstance(half, Attention):
                    half.core("again.")

    def add_source(self, before, more):
        """What all cross-attentions say to the encoder is added up: charged to nobody."""
        if before is None or more is None:
            return more if before is None else before
        format = self.rank.formats["attention"].compute
        return self.rank.memory.operator("source.sum", lambda a, b: a + b, [before, more], [format], left_out=True)

    # --- the ends -----------------------------------------------------------------------------------------------

    def embed(self, name, encoder):
        """A row of the embedding for each token; of a cut vocabulary ranks look up what they have, and add up."""
        rank, format = self.rank, self.rank.formats["embedding"].compute
        rows = rank.weight("embedding", (self.words, self.h), "embedding")
        self.ids = {**getattr(self, "ids", {}), name: self._ids(encoder)}
        for step in range(rank.group.side):
            if self.grid:
                self._block(f"{name}.b.{step}", "broadcast")
            found = Tensor(rows.values[self.ids[name]], format)
            at = f"{name}.lookup.{step}" if self.grid else f"{name}.lookup"
            stream = rank.memory.operator(at, lambda rows: rows.view(np.ndarray), [found], [format])
        stream = rank.leave(f"{name}.reduce", stream)
        if self.model.patches and name == "embedding":
            stream = self._project(stream)
        return stream

    def embed_grad(self, name, d, encoder):
        """Each token's gradient is added to its row's: one that is there is read, and written."""
        rank, format, ids = self.rank, self.rank.formats["embedding"], self.ids[name]
        if self.model.patches and name == "embedding":
            patches = recast(d, format.compute, d.values[self.seen])
            rank.weight_gradient("embedding.patches.wgrad", self.pixels, patches, "embedding.patches", "embedding")
            d = recast(d, d.format, np.where(self.seen[:, None], 0.0, d.values))
        d = rank.leave_grad(f"{name}.reduce.grad", d)
        before = rank.gradients.get("embedding")
        table = np.zeros((self.words, self.h)) if before is None else before.values.copy()
        for step in range(rank.group.side):
            at = f"{name}.grad.{step}" if self.grid else f"{name}.grad"
            reads = [recast(d, format.compute), Tensor(table[ids], format.gradient)]
            rank.memory.operator(at, lambda d, rows: d + rows, reads, [format.gradient])
            if self.grid:
                self._block(f"{name}.grad.reduce.{step}", "reduce")
        np.add.at(table, ids, d.values)
        rank.gradients["embedding"] = Tensor(table, format.gradient)

    def output(self, stream):
        """Scores over the vocabulary, and the loss; gradients of the scores take their place."""
        rank, format = self.rank, self.rank.formats["embedding"].compute
        self.last = stream
        self.x = rank.enter("output.gather", rank.norm("output.norm", stream))
        self.name = "embedding" if self.model.tied else "output"
        weight = rank.weight(self.name, (self.words, self.h), "embedding")
        if self.grid:
            scores = self._grid_logits(weight)
        else:
            scores = rank.product("output.logits", self.x, recast(weight, weight.format, weight.values.T), "embedding")
        targets = rank.random.integers(0, min(self.words, self.model.vocabulary), len(scores.values))
        count = len(scores.values)

        def run(scores):
            lifted = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares = lifted / lifted.sum(axis=1, keepdims=True)
            loss = -np.log(shares[np.arange(count), targets].view(np.ndarray)).mean()
            found = shares.view(np.ndarray).copy()
            found[np.arange(count), targets] -= 1
            return found / count, np.array([loss])

        self.targets = targets
        self.d_scores, loss = rank.memory.operator("output.loss", run, [scores], [format, "(fp32)"])
        if rank.group.width > 1:
            rank.few_numbers("output.loss.reduce", LOSS_NUMBERS, count, "col" if self.grid else "tp")
        return float(loss.values[0])

    def output_grad(self):
        """Back through the scores and the last norm, behind which there is no stream."""
        rank, d, name = self.rank, self.d_scores, self.name
        x = rank.enter("output.gather.again", rank.own_tokens(self.x)) if rank.group.sequence else self.x
        if self.grid:
            d = self._grid_logits_grad(d)
        else:
            weight = rank.weights[name]
            made = rank._multiply("output.logits.dgrad", d, weight, "embedding")
            before = rank.gradients.pop(name, None)
            rank.weight_gradient("output.logits.wgrad", x, d, name, "embedding")
            turned = rank.gradients[name].values.T + (0.0 if before is None else before.values)
            rank.gradients[name], d = Tensor(turned, rank.formats["embedding"].gradient), made
        d = rank.enter_grad("output.gather.grad", d)
        return rank.norm_grad("output.norm", self.last, d)

    def _ids(self, encoder):
        return self.rank.random.integers(0, min(self.words, self.model.vocabulary), self.tokens[encoder])

    def _project(self, stream):
        """Patches of images, which take the place of some tokens' embeddings."""
        rank, model = self.rank, self.model
        self.seen = np.arange(len(stream.values)) % model.seq_len < model.patches
        format = rank.formats["embedding"].compute
        self.pixels = Tensor(rank.random.standard_normal((int(self.seen.sum()), model.patch_values)), format)
        weight = rank.weight("embedding.patches", (model.patch_values, self.h), "embedding")
        made = rank.product("embedding.patches", self.pixels, weight, "embedding")
        values = stream.values.copy()
        values[self.seen] = made.values
        return recast(stream, stream.format, values)

    # --- the ends on a grid -------------------------------------------------------------------------------------------

    def _block(self, name, operation):
        """A block of the embedding, along the columns."""
        format = self.rank.formats["embedding"].compute
        self.rank.memory.send(name, operation, ("row",), Tensor(np.zeros((self.words, self.h)), format))

    def _grid_logits(self, weight):
        rank, total = self.rank, 0.0
        for step in range(rank.group.side):
            self._block(f"output.logits.b.{step}", "broadcast")
            turned = recast(weight, weight.format, weight.values.T)
            made = rank._multiply(f"output.logits.{step}", self.x, turned, "embedding")
            rank.memory.send(f"output.logits.reduce.{step}", "reduce", ("col",), made)
            total = total + made.values
        return Tensor(total, made.format)

    def _grid_logits_grad(self, d):
        rank, weight, memory = self.rank, self.rank.weights[self.name], self.rank.memory
        for step in range(rank.group.side):
            memory.send(f"output.logits.dgrad.a.{step}", "broadcast", ("col",), d)
            self._block(f"output.logits.dgrad.b.{step}", "broadcast")
            found = rank._multiply(f"output.logits.dgrad.{step}", d, weight, "embedding")
        for step in range(rank.group.side):
            memory.send(f"output.logits.wgrad.a.{step}", "broadcast", ("col",), d)
            turned = recast(d, d.format, d.values.T)
            rank._multiply(f"output.logits.wgrad.{step}", turned, self.x, "embedding")
            self._block(f"output.logits.wgrad.reduce.{step}", "reduce")
        return found


def adam(memory, count, format, name="adam"):
    """Adam (Kingma and Ba 2015, algorithm 1) on so many parameters: weights in double precision, or a master copy of them."""
    random = np.random.default_rng(1)

    def run(gradient, first, second, weight):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient * gradient
        weight = weight - 1e-3 * (first / 0.1) / (np.sqrt(second / 0.001) + 1e-8)
        return (first, second, weight, weight) if format.master else (first, second, weight)

    def kept(which):
        return Tensor(np.abs(random.standard_normal(count)), which)

    reads = [kept(format.gradient), kept(format.moments), kept(format.moments), kept(format.master or format.weight)]
    writes = [format.moments, format.moments, *([format.master] if format.master else []), format.weight]
    return memory.operator(name, run, reads, writes)
