"""The feed-forward half of a layer, dense or a mixture of experts; and the way back."""

import numpy as np
from oracles.transformer.counting import Tensor, recast


class Inner:
    """First product, activation, second product: of a dense FFN, of shared experts, or of all of a rank's experts at once."""

    def __init__(self, rank, name, width, part="ffn", experts=0):
        self.rank, self.name, self.width, self.part, self.experts = rank, name, width, part, experts
        self.ups = 2 if rank.model.gated else 1
        self.kept = {}

    def forward(self, x, again=""):
        rank, at, h = self.rank, again + self.name, x.values.shape[-1]
        format = rank.formats[self.part].compute
        up = rank.product(f"{at}.up", x, self._weight("up", (h, self.ups * self.width)), self.part)
        self.kept |= {"x": x, "up": up}
        self.kept["inner"] = rank.memory.operator(f"{at}.activation", self._activation, self._parts(up), [format])
        return rank.product(f"{at}.down", self.kept["inner"], self._weight("down", (self.width, h)), self.part)

    def backward(self, d, x=None):
        """``x`` comes once more, where it was not kept."""
        rank, at, kept = self.rank, self.name, self.kept
        format = rank.formats[self.part].compute
        d = rank.product_grad(f"{at}.down", d, kept["inner"], f"{at}.down", self.part)
        reads = [d, *self._parts(kept["up"])]
        made = rank.memory.operator(f"{at}.activation.grad", self._activation_grad, reads, [format] * self.ups)
        made = [made] if self.ups == 1 else made
        whole = Tensor(np.concatenate([each.values for each in made], axis=-1), format)
        return rank.product_grad(f"{at}.up", whole, x() if x else kept["x"], f"{at}.up", self.part)

    def _weight(self, name, shape):
        return self.rank.weight(f"{self.name}.{name}", (self.experts, *shape) if self.experts else shape, self.part)

    def _parts(self, up):
        return [recast(up, up.format, each) for each in np.split(up.values, self.ups, axis=-1)]

    @staticmethod
    def _activation(first, *second):
        """SiLU times the second product where the FFN is gated, GELU by its tanh elsewhere."""
        if second:
            return first / (1 + np.exp(-first)) * second[0]
        return 0.5 * first * (1 + np.tanh(0.79788456 * (first + 0.044715 * first * first * first)))

    @staticmethod
    def _activation_grad(d, first, *second):
        if second:
            gate = 1 / (1 + np.exp(-first))
            smooth = first * gate
            return d * second[0] * (gate + smooth * (1 - gate)), d * smooth
        square = first * first
        bent = np.tanh(0.79788456 * (first + 0.044715 * first * square))
        return d * (0.5 * (1 + bent) + 0.5 * first * (1 - bent * bent) * (0.79788456 + 0.10703222 * square))


class FeedForward:
    """The dense half of a layer."""

    def __init__(self, rank, name):
        self.rank, self.name = rank, name
        self.inner = Inner(rank, name, rank.model.ffn_hidden // rank.group.width)
        self.kept = {}

    def forward(self, stream, again=""):
        rank, at = self.rank, again + self.name
        self.kept["stream"] = stream
        self.kept["x"] = x = rank.enter(f"{at}.gather", rank.norm(f"{at}.norm", stream))
        out = rank.leave(f"{at}.reduce", self.inner.forward(x, again))
        return rank.residual(f"{at}.residual", out, stream, self.name)

    def products_again(self, stream):
        """Of a gated FFN the second of the first two products was not kept; its activation never is."""
        rank, at = self.rank, "again." + self.name
        x = rank.enter(f"{at}.gather", rank.norm(f"{at}.norm", stream))
        if rank.model.gated:
            second = Tensor(np.zeros((x.values.shape[1], self.inner.width)), "fp32")
            rank.product(f"{at}.up", x, second, "ffn")
        parts = self.inner._parts(self.inner.kept["up"])
        rank.memory.operator(f"{at}.activation", self.inner._activation, parts, [rank.formats["ffn"].compute])

    def backward(self, d_stream):
        rank, at = self.rank, self.name
        d = rank.residual_grad(f"{at}.norm.grad+dropout", d_stream, self.name)
        d = rank.leave_grad(f"{at}.reduce.grad", d)
        x = self.kept["x"]
        d = self.inner.backward(
            d, lambda: rank.enter(f"{at}.gather.again", rank.own_tokens(x)) if rank.group.sequence else x
        )
        d = rank.enter_grad(f"{at}.gather.grad", d)
        return rank.norm_grad(f"{at}.norm", self.kept["stream"], d, d_stream)


class Experts:
    """The half of a layer with a mixture of experts, each of which gets as many tokens as each other one.

    Tokens are dealt to experts in turn, as a balancer would, and weighted with the gate's score of the expert they came to. The
    operator that chooses reads what one that looks for the highest scores has to.
    """

    def __init__(self, rank, name, top_k):
        self.rank, self.name, self.top_k = rank, name, top_k
        model, group = rank.model, rank.group
        self.count, self.held = model.experts, model.experts // (group.ep * (group.tp if group.whole else 1))
        width = (model.expert_hidden or model.ffn_hidden) // (1 if group.whole else group.width)
        self.inner = Inner(rank, name, width, "expert", self.held)
        self.axes = ("ep", "tp") if group.whole and group.ep > 1 else ("tp",) if group.whole else ("ep",)
        self.spread = group.ep > 1 or group.whole
        shared = model.shared_experts * (model.expert_hidden or model.ffn_hidden) + model.dense_beside
        shared //= group.width
        self.shared = Inner(rank, name.replace("moe", "shared"), shared) if shared else None
        self.kept = {}

    def forward(self, stream, again=""):
        rank, at, memory, group = self.rank, again + self.name, self.rank.memory, self.rank.group
        gate, format = rank.formats["gate"].compute, rank.formats["expert"].compute
        self.kept["stream"] = stream
        x = normed = rank.norm(f"{at}.norm", stream)
        if not group.whole:
            x = rank.enter(f"{at}.gather", x)
        elif not group.sequence:  # each rank of tp routes its own share of the tokens
            x = recast(x, x.format, x.values[: len(x.values) // group.tp])
        self.kept["x"] = x
        weight = rank.weight(f"{self.name}.gate", (x.values.shape[1], self.count), "gate")
        scores = memory.product(f"{at}.gate", recast(x, gate), recast(weight, gate), gate)
        tokens = len(x.values)
        choice = (np.arange(tokens)[:, None] * self.top_k + np.arange(self.top_k)) % self.count
        order = np.argsort(choice.ravel(), kind="stable")

        def choose(scores):
            for _ in range(self.top_k):
                scores.max(axis=1)
            return choice.astype(float), np.take_along_axis(scores, choice, axis=1)

        passes = 1 if rank.choices.prototypes else self.top_k
        chosen, weights = memory.operator(f"{at}.top_k", choose, [scores], [gate, gate], again=passes)
        self.kept |= {"choice": chosen, "weights": weights, "order": order, "tokens": tokens}
        copies = self._gather_rows(f"{at}.permute", x, order // self.top_k, format)
        self._to_experts(f"{at}.dispatch", copies)
        held = copies.values.reshape(self.held, -1, copies.values.shape[1])  # those of other ranks are like one's own
        answers = self.inner.forward(recast(copies, format, held), again)
        back = recast(answers, format, answers.values.reshape(copies.values.shape))
        self._to_experts(f"{at}.combine", back)
        self.kept["answers"] = back
        beside = recast(stream, stream.format, stream.values[:tokens])
        out = self._merge(at, back, beside, weights)
        if self.shared:
            if rank.model.dense_beside:
                normed = rank.norm(f"{again}{self.shared.name}.norm", stream)
            own = group.whole or rank.model.dense_beside
            self.kept["normed"] = y = rank.enter(f"{again}{self.shared.name}.gather", normed) if own else x
            more = self.shared.forward(y, again)
            if group.whole:
                more = rank.leave(f"{again}{self.shared.name}.reduce", more)
            more = recast(more, format, more.values[:tokens])
            out = memory.operator(f"{at}.sum", lambda a, b: a + b, [out, more], [format], left_out=True)
        if not group.whole:
            return rank.leave(f"{at}.reduce", out)
        return self._collect(f"{at}.collect", out)

    def backward(self, d_stream):
        rank, at, memory, group, kept = self.rank, self.name, self.rank.memory, self.rank.group, self.kept
        gate, format = rank.formats["gate"].compute, rank.formats["expert"].compute
        d = d_stream
        if not group.whole:
            d = rank.leave_grad(f"{at}.reduce.grad", d)
        d_more = self._shared_backward(d) if self.shared else None
        if rank.model.dense_beside:
            d_stream = rank.norm_grad(f"{self.shared.name}.norm", kept["stream"], d_more, d_stream)
            d_more = None
        d = recast(d, format, d.values[: kept["tokens"]])
        d_answers, d_weights = self._merge_grad(at, d)
        self._to_experts(f"{at}.combine.grad", d_answers)
        held = d_answers.values.reshape(self.held, -1, d_answers.values.shape[1])
        d_copies = self.inner.backward(recast(d_answers, format, held))
        d_copies = recast(d_copies, format, d_copies.values.reshape(d_answers.values.shape))
        self._to_experts(f"{at}.dispatch.grad", d_copies)
        d_x = self._sum_rows(f"{at}.permute.grad", d_copies, format)

        def scatter(choice, d):
            found = np.zeros((len(d), self.count))
            np.put_along_axis(found, choice.view(np.ndarray).astype(int), d.view(np.ndarray), axis=1)
            return found

        d_scores = memory.operator(f"{at}.top_k.grad", scatter, [kept["choice"], recast(d_weights, gate)], [gate])
        weight, x = rank.weights[f"{at}.gate"], kept["x"]
        d_gate = memory.product(f"{at}.gate.dgrad", d_scores, recast(weight, gate, weight.values.T), gate)
        rank.weight_gradient(f"{at}.gate.wgrad", x, d_scores, f"{at}.gate", "gate", gate)
        parts = [d_x, d_gate, *([] if d_more is None else [d_more])]
        d_x = memory.operator(f"{at}.sum.grad", lambda *parts: sum(parts), self._alike(parts), [format], left_out=True)
        name = f"{at}.collect.grad" if group.whole else f"{at}.gather.grad"
        d_x = self._collect(name, d_x) if group.whole else rank.enter_grad(name, d_x)
        return rank.norm_grad(f"{at}.norm", kept["stream"], d_x, d_stream)

    def _alike(self, parts):
        """The rank's own tokens of each."""
        fewest = min(len(each.values) for each in parts)
        return [recast(each, each.format, each.values[:fewest]) for each in parts]

    def _shared_backward(self, d):
        rank, group, name = self.rank, self.rank.group, self.shared.name
        if not group.whole and not rank.model.dense_beside:
            return self.shared.backward(d)
        if group.whole:
            d = rank.leave_grad(f"{name}.reduce.grad", d)
        x = self.kept["normed"]
        d = self.shared.backward(
            d, lambda: rank.enter(f"{name}.gather.again", rank.own_tokens(x)) if group.sequence else x
        )
        return rank.enter_grad(f"{name}.gather.grad", d)

    def _gather_rows(self, name, x, places, format):
        """A copy of its row for each choice of each token: as many rows are read as written."""
        reads = [recast(x, format)]
        return self.rank.memory.operator(name, lambda x: x[places], reads, [format], again=self.top_k)

    def _sum_rows(self, name, d, format):
        """Each token's gradient: that of all its copies."""
        tokens, order = self.kept["tokens"], self.kept["order"]

        def run(d):
            back = np.empty_like(d)
            back[order] = d
            return back.reshape(tokens, self.top_k, -1).sum(axis=1)

        return self.rank.memory.operator(name, run, [d], [format])

    def _merge(self, at, answers, stream, weights):
        """The answers to a token's copies weighted with their scores, and the stream of those tokens that are the rank's own."""
        tokens, order, format = self.kept["tokens"], self.kept["order"], answers.format

        def run(answers, stream, weights):
            back = np.empty_like(answers)
            back[order] = answers
            merged = (back.reshape(tokens, self.top_k, -1) * weights[:, :, None]).sum(axis=1)
            merged[: len(stream)] = merged[: len(stream)] + stream
            return merged

        return self.rank.memory.operator(f"{at}.merge", run, [answers, recast(stream, format)], [format], [weights])

    def _merge_grad(self, at, d):
        """The gradient of each copy's answer, and of its weight."""
        tokens, order, format = self.kept["tokens"], self.kept["order"], d.format
        where = order // self.top_k

        def run(d, answers, weights):
            rows, scale = d[where], weights.reshape(-1)[order]
            d_weights = np.zeros(tokens * self.top_k)
            d_weights[order] = (rows * answers).sum(axis=1)
            return rows * scale[:, None], d_weights.reshape(tokens, self.top_k)

        reads, writes = [d, self.kept["answers"]], [format, f"({format})"]
        return self.rank.memory.operator(
            f"{at}.merge.grad", run, reads, writes, [self.kept["weights"]], again=self.top_k
        )

    def _to_experts(self, name, copies):
        if self.spread:
            self.rank.memory.send(name, "all-to-all", self.axes, copies)

    def _collect(self, name, x):
        """Ranks of tp that routed a share each tell each other what became of it."""
        if self.rank.group.sequence:
            return x
        whole = Tensor(np.concatenate([x.values] * self.rank.group.tp), self.rank.formats["norm"].compute)
        return self.rank.memory.send(name, "all-gather", ("tp",), whole)
