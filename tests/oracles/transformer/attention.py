"""Attention of a layer: grouped or latent, whole or as a ring, with its scores in memory or in one kernel; and the way back."""

from dataclasses import replace

import numpy as np
from oracles.transformer.counting import Tensor, recast
from oracles.transformer.rank import KEPT


class Attention:
    """The attention half of a layer; ``source`` are tokens of an encoder, for a decoder that attends to them."""

    def __init__(
        self, rank, name, tokens, source_tokens=None, length=None, source_length=None, causal=True, mixer="attention"
    ):
        model, group = rank.model, rank.group
        self.rank, self.name = rank, name
        self.heads = model.heads // group.width
        self.keyed = max(model.kv_heads or model.heads, group.width) // group.width
        self.size, self.value = model.query_size, model.value_size
        self.cross = source_tokens is not None
        self.queries = (length or rank.length) // group.cp
        self.block = (source_length or length or rank.length) // group.cp
        self.sequences = tokens // self.queries
        whole = self.queries * group.cp
        self.visible = float(self._seen(whole, mixer).mean()) if causal and not self.cross else 1.0
        self.kept = {}

    def _seen(self, length, mixer):
        """Which key each query sees, pair by pair."""
        query, key = np.arange(length)[:, None], np.arange(length)[None]
        seen = key <= query
        if mixer == "window":
            seen &= query - key < self.rank.model.window
        if mixer == "chunk":
            seen &= query // self.rank.model.chunk == key // self.rank.model.chunk
        return seen

    # --- forward ------------------------------------------------------------------------------------------------

    def forward(self, stream, source=None, again=""):
        rank, at = self.rank, again + self.name
        self.kept["stream"] = stream
        x = rank.enter(f"{at}.gather", rank.norm(f"{at}.norm", stream))
        other = rank.enter(f"{at}.source.gather", source) if self.cross else None
        self.kept |= {"x": x, "source": other, **self._inputs(at, x, other)}
        if rank.model.query_key_norm != "none":
            self._norm_both(at)
        made = self._joined(self.core(again))
        if rank.model.gated_attention:
            made = self._gate(at, made)
        self.kept["made"] = made
        out = rank.product(f"{at}.out", made, self._weight("out", made, rank.model.hidden), "attention")
        out = rank.leave(f"{at}.reduce", out)
        return rank.residual(f"{at}.residual", out, stream, self.name)

    def products_again(self, stream):
        """Queries, values and nothing else were kept of the products: keys and the output are made again."""
        rank, at, h = self.rank, "again." + self.name, self.rank.model.hidden
        x = rank.enter(f"{at}.gather", rank.norm(f"{at}.norm", stream))
        keys = Tensor(np.zeros((x.values.shape[1], self.keyed * self.size)), "fp32")
        rank.product(f"{at}.keys", x, keys, "attention")
        made = self.kept["made"]
        out = rank.product(f"{at}.out", made, self._weight("out", made, h), "attention")
        rank.residual(f"{at}.residual", rank.own_tokens(out), stream, self.name)

    def core(self, again=""):
        """Queries meet keys, and values are weighted with what comes of it: [sequences · heads, queries, value]."""
        return self._fused(again) if self.rank.choices.fused else self._apart(again)

    def _inputs(self, at, x, other):
        model = self.rank.model
        if model.latent:
            latent = model.latent
            narrow = x
            if latent.query_rank:
                narrow = self._make(at, "queries.narrow", x, latent.query_rank, cut=False)
                narrow = self._latent_norm(f"{at}.queries.norm", narrow)
            queries = self._make(at, "queries", narrow, self.heads * self.size)
            both = self._make(at, "values.narrow", x, latent.key_value_rank + latent.rotary, cut=False)
            low = self._latent_norm(
                f"{at}.values.norm", recast(both, both.format, both.values[:, : latent.key_value_rank])
            )
            made = self._make(at, "values", low, self.heads * (latent.plain + latent.value)).values
            made = made.reshape(-1, self.heads, latent.plain + latent.value)
            turned = np.repeat(both.values[:, None, latent.key_value_rank :], self.heads, axis=1)
            keys = np.concatenate([made[:, :, : latent.plain], turned], axis=2)
            values = made[:, :, latent.plain :]
            self.kept |= {"narrow": narrow, "low": low}
            return self._split(queries.values, keys.reshape(len(keys), -1), values.reshape(len(values), -1))
        if self.cross:
            queries = self._make(at, "queries", x, self.heads * self.size)
            made = self._make(at, "values", other, self.keyed * (self.size + self.value)).values
            return self._split(queries.values, made[:, : self.keyed * self.size], made[:, self.keyed * self.size :])
        wide = self.heads * self.size
        gates = self.heads * self.value if model.gated_attention else 0
        made = self._make(at, "qkv", x, wide + self.keyed * (self.size + self.value) + gates).values
        if gates:
            self.kept["gate"], made = made[:, -gates:], made[:, :-gates]
        return self._split(
            made[:, :wide], made[:, wide : wide + self.keyed * self.size], made[:, wide + self.keyed * self.size :]
        )

    def _norm_both(self, at):
        """Queries and keys normed, head by head or all heads of a token together; scales are left at one."""
        format = self.rank.formats["norm"].compute
        self.kept["raw"] = q, k = self._norm_rows(self.kept["q"]), self._norm_rows(self.kept["k"])
        sizes = [len(q.values), len(k.values)]

        def run(q, k):
            return tuple(each / np.sqrt(np.square(each).mean(axis=1, keepdims=True) + 1e-5) for each in (q, k))

        reads, writes = [recast(q, format), recast(k, format)], [format, format]
        made = self._as_one(f"{at}.queries.norm", run, reads, writes)
        assert [len(each.values) for each in made] == sizes
        self.kept["q"], self.kept["k"] = (
            self._norm_heads(each, of) for each, of in zip(made, (self.kept["q"], self.kept["k"]), strict=True)
        )

    def _norm_both_grad(self, at, dq, dk):
        format = self.rank.formats["norm"].compute

        def run(q, k, dq, dk):
            found = []
            for x, d in ((q, dq), (k, dk)):
                size = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + 1e-5)
                normal = x / size
                found.append((d - normal * (d * normal).mean(axis=1, keepdims=True)) / size)
            return tuple(found)

        reads = [*self.kept["raw"], self._norm_rows(dq), self._norm_rows(dk)]
        made = self._as_one(f"{at}.queries.norm.grad", run, [recast(each, format) for each in reads], [format, format])
        return tuple(self._norm_heads(each, of) for each, of in zip(made, (dq, dk), strict=True))

    def _as_one(self, name, run, reads, writes):
        """An operator whose tensors are queries with keys: its elements are those of both."""
        made = self.rank.memory.operator(name, run, reads, writes)
        done = self.rank.memory.done
        done[-1] = replace(done[-1], elements=float(sum(each.values.size for each in made)))
        return made

    def _norm_rows(self, tensor):
        """[sequences · heads, length, size] as the rows that are normed."""
        values = tensor.values
        if self.rank.model.query_key_norm == "head":
            return recast(tensor, tensor.format, values.reshape(-1, values.shape[2]))
        return recast(tensor, tensor.format, _flat(values, self.sequences))

    def _norm_heads(self, rows, of):
        """The way back, in the shape of a tensor."""
        format = self.rank.formats["attention"].compute
        if self.rank.model.query_key_norm == "head":
            return Tensor(rows.values.reshape(of.values.shape), format)
        heads = len(of.values) // self.sequences
        return Tensor(_by_head(rows.values, heads, of.values.shape[1]), format)

    def _gate(self, at, made):
        """The context weighted with a sigmoid of each token's gate."""
        format = made.format
        self.kept["plain"], gate = made, Tensor(self.kept["gate"], format)
        return self.rank.memory.operator(
            f"{at}.activation", lambda made, gate: made / (1 + np.exp(-gate)), [made, gate], [format]
        )

    def _gate_grad(self, at, d):
        format, plain, gate = d.format, self.kept["plain"], Tensor(self.kept["gate"], d.format)

        def run(d, plain, gate):
            open_ = 1 / (1 + np.exp(-gate))
            return d * open_, d * plain * open_ * (1 - open_)

        d, d_gate = self.rank.memory.operator(f"{at}.activation.grad", run, [d, plain, gate], [format] * 2)
        self.kept["d_gate"] = [d_gate.values]
        return d

    def _make(self, at, name, x, columns, cut=True):
        columns = columns if cut or self.rank.group.side == 1 else columns // self.rank.group.side
        shape = (x.values.shape[1], columns)
        return self.rank.product(
            f"{at}.{name}", x, self.rank.weight(f"{self.name}.{name}", shape, "attention"), "attention"
        )

    def _weight(self, name, x, columns):
        return self.rank.weight(
            f"{self.name}.{name}", (x.values.shape[1], columns // self.rank.group.side), "attention"
        )

    def _latent_norm(self, name, x):
        """Norms of the narrow layers: athanor charges them to nobody."""
        return self.rank.memory.operator(name, lambda x: 1.0 * x, [x], [x.format], left_out=True)

    def _split(self, queries, keys, values):
        """By sequence and head: a view, no operator."""
        format = self.rank.formats["attention"].compute
        parts = {
            "q": (queries, self.heads, self.queries),
            "k": (keys, self.keyed, self.block),
            "v": (values, self.keyed, self.block),
        }
        if self.rank.model.latent:
            parts = {key: (each[0], self.heads, each[2]) for key, each in parts.items()}
        return {key: Tensor(_by_head(each, heads, length), format) for key, (each, heads, length) in parts.items()}

    def _joined(self, out):
        """Heads side by side again, [tokens, heads · value]."""
        values = out.values.reshape(self.sequences, self.heads, self.queries, self.value)
        return recast(out, out.format, values.transpose(0, 2, 1, 3).reshape(self.sequences * self.queries, -1))

    def _shared(self, tensor):
        """Keys or values for each head of queries: those that heads share are read by each product of theirs."""
        heads = tensor.values.shape[0] // self.sequences
        values = tensor.values.reshape(self.sequences, heads, *tensor.values.shape[1:])
        many = np.repeat(values, self.heads // heads, axis=1)
        return recast(tensor, tensor.format, many.reshape(-1, *tensor.values.shape[1:]))

    def _added(self, d, heads):
        """Gradients of shared keys or values, added up over the heads that share them: charged to nobody."""
        own = self.heads // heads
        if own == 1:
            return d
        at = f"{self.name}.shared.grad"
        summed = self.rank.memory.operator(
            at,
            lambda d: d.reshape(self.sequences, heads, own, *d.shape[1:]).sum(axis=2),
            [d],
            [d.format],
            left_out=True,
        )
        return recast(summed, d.format, summed.values.reshape(-1, *d.values.shape[1:]))

    def _apart(self, again):
        rank, memory, at, cp = self.rank, self.rank.memory, again + self.name, self.rank.group.cp
        format, kept = rank.formats["attention"].compute, self.kept
        keys, values = self._shared(kept["k"]), self._shared(kept["v"])
        turned = recast(keys, format, keys.values.swapaxes(1, 2))
        parts = []
        for step in range(cp):
            self._pass_on(f"{at}.keys.{step}", "k", step)
            parts.append(memory.product(f"{at}.scores{self._at(step)}", kept["q"], turned, format).values)
        root = 1 / np.sqrt(self.size)

        def softmax(scores):
            scores = scores * root
            exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
            return exponents / exponents.sum(axis=-1, keepdims=True)

        scores = Tensor(np.concatenate(parts, axis=2), format)
        weights = memory.operator(f"{at}.softmax", softmax, [scores], [format])
        kept["weights"] = kept["dropped"] = weights
        if rank.model.dropout:
            drawn = rank.mask(f"{self.name}.scores", weights.values.shape)
            kept["dropped"], kept["mask"] = memory.operator(
                f"{at}.softmax+dropout", lambda weights: (weights * (drawn / KEPT), drawn), [weights], [format, "mask"]
            )
        total = 0.0
        for step in range(cp):
            self._pass_on(f"{at}.values.{step}", "v", step)
            part = recast(
                kept["dropped"], format, kept["dropped"].values[:, :, step * self.block : (step + 1) * self.block]
            )
            total = total + memory.product(f"{at}.context{self._at(step)}", part, values, format).values
        return Tensor(total, format)

    # --- backward -----------------------------------------------------------------------------------------------

    def backward(self, d_stream):
        rank, at, kept = self.rank, self.name, self.kept
        d = rank.residual_grad(f"{at}.norm.grad+dropout", d_stream, self.name)
        d = rank.leave_grad(f"{at}.reduce.grad", d)
        d = rank.product_grad(f"{at}.out", d, kept["made"], f"{at}.out", "attention")
        if rank.model.gated_attention:
            d = self._gate_grad(at, d)
        heads = _by_head(d.values, self.heads, self.queries)
        d_heads = Tensor(heads, rank.formats["attention"].compute)
        dq, dk, dv = self._fused_grad(d_heads) if rank.choices.fused else self._apart_grad(d_heads)
        if rank.model.query_key_norm != "none":
            dq, dk = self._norm_both_grad(at, dq, dk)
        x = rank.enter(f"{at}.gather.again", rank.own_tokens(kept["x"])) if rank.group.sequence else kept["x"]
        if self.cross and rank.group.sequence:
            rank.enter(f"{at}.source.gather.again", rank.own_tokens(kept["source"]))
        d, d_source = self._inputs_grad(x, dq, dk, dv)
        d = rank.enter_grad(f"{at}.gather.grad", d)
        if self.cross:
            d_source = rank.enter_grad(f"{at}.source.gather.grad", d_source)
        return rank.norm_grad(f"{at}.norm", kept["stream"], d, d_stream), d_source

    def _inputs_grad(self, x, dq, dk, dv):
        rank, at, latent = self.rank, self.name, self.rank.model.latent
        format = rank.formats["attention"].compute
        flat = [_flat(each.values, self.sequences) for each in (dq, dk, dv)]
        if latent:
            return self._latent_grad(x, flat), None
        if self.cross:
            d = rank.product_grad(f"{at}.queries", Tensor(flat[0], format), x, f"{at}.queries", "attention")
            both = Tensor(np.concatenate(flat[1:], axis=1), format)
            return d, rank.product_grad(f"{at}.values", both, self.kept["source"], f"{at}.values", "attention")
        whole = Tensor(np.concatenate([*flat, *self.kept.pop("d_gate", [])], axis=1), format)
        return rank.product_grad(f"{at}.qkv", whole, x, f"{at}.qkv", "attention"), None

    def _latent_grad(self, x, flat):
        """Through the narrow layers, of whose norms the way back is left out as well; what both give x is added up so too."""
        rank, at, latent, kept = self.rank, self.name, self.rank.model.latent, self.kept
        format = rank.formats["attention"].compute
        d = rank.product_grad(f"{at}.queries", Tensor(flat[0], format), kept["narrow"], f"{at}.queries", "attention")
        first = d
        if latent.query_rank:
            first = rank.product_grad(f"{at}.queries.narrow", d, x, f"{at}.queries.narrow", "attention")
        keys = flat[1].reshape(len(flat[1]), self.heads, self.size)
        values = flat[2].reshape(len(flat[2]), self.heads, self.value)
        made = np.concatenate([keys[:, :, : latent.plain], values], axis=2)
        made = Tensor(made.reshape(len(made), -1), format)
        d = rank.product_grad(f"{at}.values", made, kept["low"], f"{at}.values", "attention")
        turned = keys[:, :, latent.plain :].sum(axis=1)
        both = Tensor(np.concatenate([d.values, turned], axis=1), format)
        second = rank.product_grad(f"{at}.values.narrow", both, x, f"{at}.values.narrow", "attention")
        return rank.memory.operator(f"{at}.latent.sum", lambda a, b: a + b, [first, second], [format], left_out=True)

    def _apart_grad(self, d):
        rank, memory, at, cp, kept = self.rank, self.rank.memory, self.name, self.rank.group.cp, self.kept
        format, block = rank.formats["attention"].compute, self.block
        keys, values = self._shared(kept["k"]), self._shared(kept["v"])
        dv, parts = 0.0, []
        for step in range(cp):
            self._pass_on(f"{at}.values.again.{step}", "v", step)
            part = kept["dropped"].values[:, :, step * block : (step + 1) * block].swapaxes(1, 2)
            dv = dv + memory.product(f"{at}.context.dvalues{self._at(step)}", Tensor(part, format), d, format).values
            turned = recast(values, format, values.values.swapaxes(1, 2))
            parts.append(memory.product(f"{at}.context.dscores{self._at(step)}", d, turned, format).values)
        self._add_up(f"{at}.values.reduce", "v")
        d_weights = Tensor(np.concatenate(parts, axis=2), format)
        if rank.model.dropout:
            d_weights = memory.operator(
                f"{at}.softmax.grad+dropout", lambda d, mask: d * mask / KEPT, [d_weights, kept["mask"]], [format]
            )
        root = 1 / np.sqrt(self.size)
        d_scores = memory.operator(
            f"{at}.softmax.grad",
            lambda d, weights: weights * (d - (d * weights).sum(axis=-1, keepdims=True)) * root,
            [d_weights, kept["weights"]],
            [format],
        )
        dq, dk = 0.0, 0.0
        for step in range(cp):
            self._pass_on(f"{at}.keys.again.{step}", "k", step)
            part = d_scores.values[:, :, step * block : (step + 1) * block]
            dq = dq + memory.product(f"{at}.scores.dqueries{self._at(step)}", Tensor(part, format), keys, format).values
            turned = Tensor(part.swapaxes(1, 2), format)
            dk = dk + memory.product(f"{at}.scores.dkeys{self._at(step)}", turned, kept["q"], format).values
        self._add_up(f"{at}.keys.reduce", "k")
        dk, dv = (self._added(Tensor(each, format), self._kept_heads) for each in (dk, dv))
        return Tensor(dq, format), dk, dv

    # --- one kernel -----------------------------------------------------------------------------------------------

    def _fused(self, again):
        """FlashAttention: scores never reach memory, and dropout's mask is drawn anew from its seed."""
        memory, at, cp, kept = self.rank.memory, again + self.name, self.rank.group.cp, self.kept
        format, total = self.rank.formats["attention"].compute, 0.0
        for step in range(cp):
            if step < cp - 1:
                memory.send(f"{at}.ring.{step}", "shift", ("cp",), self._both())
            made = memory.operator(
                f"{at}.context{self._at(step)}",
                self._kernel,
                [kept["q"], kept["k"], kept["v"]],
                [format],
                kind="attention",
                visible=self.visible,
                shared=(self._spared(), 0.0),
            )
            total = total + made.values / cp
        kept["out"] = Tensor(total, format)
        return kept["out"]

    def _kernel(self, q, k, v):
        weights = self._weights(q, k)
        return weights * self._drawn(weights.shape) @ self._many(v)

    def _weights(self, q, k):
        scores = q @ self._many(k).swapaxes(1, 2) / np.sqrt(self.size)
        exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)

    def _fused_grad(self, d):
        memory, at, cp, kept = self.rank.memory, self.name, self.rank.group.cp, self.kept
        format = self.rank.formats["attention"].compute

        def run(q, k, v, out, d):
            weights, drawn = self._weights(q, k), self._drawn((len(q), q.shape[1], k.shape[1]))
            dv = (weights * drawn).swapaxes(1, 2) @ d
            d_weights = (d @ self._many(v).swapaxes(1, 2)) * drawn
            d_scores = weights * (d_weights - (d * out).sum(axis=-1, keepdims=True)) / np.sqrt(self.size)
            return d_scores @ self._many(k), self._fewer(d_scores.swapaxes(1, 2) @ q), self._fewer(dv)

        for step in range(cp):
            blocks = (step < cp - 1) + (step > 0)
            if blocks:
                memory.send(f"{at}.ring.grad.{step}", "shift", ("cp",), self._both(), blocks)
            found = memory.operator(
                f"{at}.context.grad{self._at(step)}",
                run,
                [kept["q"], kept["k"], kept["v"], kept["out"], d],
                [format] * 3,
                kind="attention",
                visible=self.visible,
                shared=(self._spared(), self._spared()),
            )
        return found

    def _spared(self):
        """Bytes of keys and values that heads would read for themselves, did they not share them."""
        return (self.heads // self._kept_heads - 1) * self._both().nbytes

    def _drawn(self, shape):
        return self.rank.mask(f"{self.name}.scores", shape) / KEPT if self.rank.model.dropout else np.ones(shape)

    def _many(self, values):
        """Shared keys or values for each head, inside the kernel."""
        heads = len(values) // self.sequences
        many = values.reshape(self.sequences, heads, *values.shape[1:])
        return np.repeat(many, self.heads // heads, axis=1).reshape(-1, *values.shape[1:])

    def _fewer(self, d):
        heads = self._kept_heads
        many = d.reshape(self.sequences, heads, self.heads // heads, *d.shape[1:])
        return many.sum(axis=2).reshape(-1, *d.shape[1:]) if heads < self.heads else d

    # --- around a ring ------------------------------------------------------------------------------------------

    @property
    def _kept_heads(self):
        return len(self.kept["k"].values) // self.sequences

    def _pass_on(self, name, which, step):
        if step:
            self.rank.memory.send(name, "shift", ("cp",), self.kept[which])

    def _add_up(self, name, which):
        if self.rank.group.cp > 1:
            self.rank.memory.send(name, "reduce-scatter", ("cp",), self.kept[which], self.rank.group.cp)

    def _both(self):
        return Tensor(
            np.concatenate([self.kept["k"].values.ravel(), self.kept["v"].values.ravel()]), self.kept["k"].format
        )

    def _at(self, step):
        return f".{step}" if self.rank.group.cp > 1 else ""


def _by_head(values, heads, length):
    """[tokens, heads · size] as [sequences · heads, length, size]."""
    each = values.reshape(-1, length, heads, values.shape[1] // heads)
    return each.transpose(0, 2, 1, 3).reshape(-1, length, each.shape[3])


def _flat(values, sequences):
    """The way back."""
    each = values.reshape(sequences, -1, *values.shape[1:])
    return each.transpose(0, 2, 1, 3).reshape(sequences * values.shape[1], -1)
