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
        self.ends = {}

    def _layer(self, number, layer):
        rank, tokens, length = self.rank, self.tokens[layer.encoder], self.lengths[layer.encoder]
        own = {"length": length, "causal": not layer.encoder, "mixer": layer.mixer}
        found = [Attention(rank, f"l{number}.attention", tokens, **own)]
        if layer.cross:
            more = {"source_tokens": self.tokens[True], "length": length, "source_length": self.lengths[True]}
            found.append(Attention(rank, f"l{number}.cross", tokens, **more))
        found.append(Experts(rank, f"l{number}.moe", self.top_k) if layer.moe else FeedForward(rank, f"l{number}.ffn"))
        return found

    # --- passes -------------------------------------------------------------------------------------------------

    def forward(self):
        """The loss, a mean over the tokens."""
        source, stream = None, self.embed("embedding", encoder=self.model.encoder_layers > 0)
        self.inputs, loss = [], 0.0
        for number, layer in enumerate(self.layers):
            if number == self.model.encoder_layers and number:
                self.ended = stream
                source = self.rank.norm("encoder.norm", stream)
                stream = self.embed("embedding.decoder", encoder=False)
            ahead = self.model.stack[number].ahead
            if ahead:
                loss = loss + self.output(stream, "" if number == self.model.depth else f"l{number - 1}.")
                stream = self.further(number, stream)
            self.inputs.append((stream, source))
            stream = self.through(layer, stream, source)
        last = len(self.layers) - 1
        return loss + self.output(stream, f"l{last}." if self.model.stack[last].ahead else "")

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
        d, d_source = None, None
        for number in reversed(range(len(self.layers))):
            if number == self.model.depth - 1 or self.model.stack[number].ahead:
                made = self.output_grad("" if number < self.model.depth else f"l{number}.")
                d = made if d is None else self.both(d, made)
            self.again(number)
            for half in reversed(self.layers[number]):
                if isinstance(half, Attention):
                    d, more = half.backward(d)
                    d_source = self.add_source(d_source, more)
                else:
                    d = half.backward(d)
            if self.model.stack[number].ahead:
                d = self.further_grad(number, d)
            if number == self.model.encoder_layers and number:
                self.embed_grad("embedding.decoder", d, encoder=False)
                d = self.rank.norm_grad("encoder.norm", self.ended, d_source)
        self.embed_grad("embedding", d, encoder=self.model.encoder_layers > 0)

    def again(self, number):
        """What of a layer was not kept."""
        which, layer, (stream, source) = self.rank.choices.recompute, self.layers[number], self.inputs[number]
        if which == "full":
            if self.model.stack[number].ahead:
                self.further(number, None, "again.")
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

    # --- further tokens ---------------------------------------------------------------------------------------------

    def further(self, number, stream, again=""):
        """The stream and the embedding of the next token, both normed, and projected together to the stream's width."""
        rank, at, kept = self.rank, f"{again}l{number}.further", self.ends.setdefault(number, {})
        if not again:
            token = self.embed(f"l{number}.embedding.decoder", encoder=False)
            kept["both"] = Tensor(np.concatenate([stream.values, token.values]), rank.formats["norm"].compute)
        x = self._beside(rank.enter(f"{at}.gather", rank.norm(f"{at}.norm", kept["both"])))
        if rank.group.tp > 1:  # the rank's rows of the weight meet its part of each token
            x = recast(x, x.format, x.values[:, : x.values.shape[1] // rank.group.tp])
        kept["x"] = x
        weight = rank.weight(f"l{number}.further.in", (x.values.shape[1], self.h), "ffn")
        return rank.leave(f"{at}.reduce", rank.product(f"{at}.in", x, weight, "ffn"))

    def further_grad(self, number, d):
        """The gradient of the stream; that of the embedding goes to its rows."""
        rank, at, kept = self.rank, f"l{number}.further", self.ends[number]
        d = rank.leave_grad(f"{at}.reduce.grad", d)
        if rank.group.sequence:
            rank.enter(f"{at}.gather.again", kept["both"])
        d = rank.product_grad(f"{at}.in", d, kept["x"], f"{at}.in", "ffn")
        if rank.group.tp > 1:
            d = recast(d, d.format, np.concatenate([d.values] * rank.group.tp, axis=1))
        halves = np.concatenate(np.split(d.values, 2, axis=1))
        d = rank.enter_grad(f"{at}.gather.grad", recast(d, d.format, halves))
        d = rank.norm_grad(f"{at}.norm", kept["both"], d)
        stream, token = (recast(d, d.format, each) for each in np.split(d.values, 2))
        self.embed_grad(f"l{number}.embedding.decoder", token, encoder=False)
        return stream

    @staticmethod
    def _beside(both):
        """A token's two vectors in one row."""
        return recast(both, both.format, np.concatenate(np.split(both.values, 2), axis=1))

    def both(self, first, second):
        """What two of its uses say to a stream is added up: charged to nobody."""
        run, format = lambda a, b: a + b, self.rank.formats["norm"].compute
        reads = [recast(first, format), recast(second, format)]
        return self.rank.memory.operator("stream.sum", run, reads, [format], left_out=True)

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

    def output(self, stream, at=""):
        """Scores over the vocabulary, and the loss; gradients of the scores take their place."""
        rank, format = self.rank, self.rank.formats["embedding"].compute
        x = rank.enter(f"{at}output.gather", rank.norm(f"{at}output.norm", stream))
        self.name = "embedding" if self.model.tied else "output"
        weight = rank.weight(self.name, (self.words, self.h), "embedding")
        if self.grid:
            scores = self._grid_logits(weight, x)
        else:
            scores = rank.product(f"{at}output.logits", x, recast(weight, weight.format, weight.values.T), "embedding")
        targets = rank.random.integers(0, min(self.words, self.model.vocabulary), len(scores.values))
        count = len(scores.values)

        def run(scores):
            lifted = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares = lifted / lifted.sum(axis=1, keepdims=True)
            loss = -np.log(shares[np.arange(count), targets].view(np.ndarray)).mean()
            found = shares.view(np.ndarray).copy()
            found[np.arange(count), targets] -= 1
            return found / count, np.array([loss])

        d_scores, loss = rank.memory.operator(f"{at}output.loss", run, [scores], [format, "(fp32)"])
        self.ends[f"{at}output"] = {"stream": stream, "x": x, "d": d_scores}
        if rank.group.width > 1:
            rank.few_numbers(f"{at}output.loss.reduce", LOSS_NUMBERS, count, "col" if self.grid else "tp")
        return float(loss.values[0])

    def output_grad(self, at=""):
        """Back through the scores and the last norm, behind which there is no stream."""
        rank, name, kept = self.rank, self.name, self.ends[f"{at}output"]
        d, x = kept["d"], kept["x"]
        x = rank.enter(f"{at}output.gather.again", rank.own_tokens(x)) if rank.group.sequence else x
        if self.grid:
            d = self._grid_logits_grad(d, x)
        else:
            weight = rank.weights[name]
            made = rank._multiply(f"{at}output.logits.dgrad", d, weight, "embedding")
            before = rank.gradients.pop(name, None)
            rank.weight_gradient(f"{at}output.logits.wgrad", x, d, name, "embedding")
            turned = rank.gradients[name].values.T + (0.0 if before is None else before.values)
            rank.gradients[name], d = Tensor(turned, rank.formats["embedding"].gradient), made
        d = rank.enter_grad(f"{at}output.gather.grad", d)
        return rank.norm_grad(f"{at}output.norm", kept["stream"], d)

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

    def _grid_logits(self, weight, x):
        rank, total = self.rank, 0.0
        for step in range(rank.group.side):
            self._block(f"output.logits.b.{step}", "broadcast")
            turned = recast(weight, weight.format, weight.values.T)
            made = rank._multiply(f"output.logits.{step}", x, turned, "embedding")
            rank.memory.send(f"output.logits.reduce.{step}", "reduce", ("col",), made)
            total = total + made.values
        return Tensor(total, made.format)

    def _grid_logits_grad(self, d, x):
        rank, weight, memory = self.rank, self.rank.weights[self.name], self.rank.memory
        for step in range(rank.group.side):
            memory.send(f"output.logits.dgrad.a.{step}", "broadcast", ("col",), d)
            self._block(f"output.logits.dgrad.b.{step}", "broadcast")
            found = rank._multiply(f"output.logits.dgrad.{step}", d, weight, "embedding")
        for step in range(rank.group.side):
            memory.send(f"output.logits.wgrad.a.{step}", "broadcast", ("col",), d)
            turned = recast(d, d.format, d.values.T)
            rank._multiply(f"output.logits.wgrad.{step}", turned, x, "embedding")
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
