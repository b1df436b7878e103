"""What a layer keeps of a micro-batch for its backward pass, operator by operator.

The rows are those of Korthikanti et al. 2022 ("Reducing Activation Recomputation in Large Transformer Models", section 4):
with dropout, in half precision, on one rank they add up to s·b·h (34 + 5 a s/h) bytes a layer; with tp to
s·b·h (10 + 24/t + 5 a s/(h t)); with sequence parallelism to s·b·h/t (34 + 5 a s/h). Selective recomputation drops the core of
attention, leaving 34 s·b·h/t, and full recomputation all but the layer's input, 2 s·b·h. Without dropout there are no masks,
and one copy of the scores fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ...hardware.frozen_dict import FrozenDict
from ...hardware.precisions import BYTES
from ..loads.loads import LoadModel
from ..lowering.layer.rank_share import Local
from ..mesh.axes import TENSOR
from ..model.layers import Layer
from ..model.model import Target
from ..model.precision import Formats, Part
from ..model.recurrent import Projection, Recurrent
from ..plan.setting import Setting
from ..recomputation import RECOMPUTATIONS
from .need import Cut

MASK = 1
"""Bytes of an element of a dropout's mask."""


@dataclass(frozen=True)
class SavedTensor:
    """What an operator of a layer keeps: ``nbytes`` of a micro-batch, or of each token that a rank's experts carry (``carried``).

    Where it serves gradients of ``weights`` alone, it goes where these are frozen, but beside an adapter (``target``).
    ``entry``, ``core``, ``feed_forward``, ``product`` and ``modules`` say what kinds of recomputation ask
    (:class:`~athanor.workloads.recomputation.SavedRow`).
    """

    operator: str
    what: str
    nbytes: float
    cut: Cut
    core: bool = False
    entry: bool = False
    feed_forward: bool = False
    product: float = 0.0
    carried: bool = False
    weights: Part | None = None
    target: Target | None = None
    modules: tuple[str, ...] = ()

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """Under which kinds of recomputation it is kept until the backward pass, or a share of it."""
        return tuple(name for name, each in RECOMPUTATIONS.items() if not each.of_modules and each.kept(self))

    def size(self, carried: float) -> float:
        """Bytes of a micro-batch on a rank whose experts carry so many tokens."""
        return self.nbytes * carried if self.carried else self.nbytes


def _all(row: SavedTensor) -> float:
    """Everything."""
    return 1.0


@dataclass(frozen=True)
class Saved:
    """Rows of a setting's layers in the formats of one precision policy."""

    setting: Setting
    formats: Mapping[Part, Formats]
    stacks: Mapping[bool, Local]  # of the encoder (True) and of all else
    loads: LoadModel | None
    _rows: dict[Layer, list[SavedTensor]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, setting: Setting, formats: Mapping[Part, Formats]) -> Saved:
        """What the layers of a setting keep."""
        here = Local.of(setting, formats, decoder=True)
        encoder = Local.of(setting, formats) if setting.model.encoder_layers else here
        loads = LoadModel(setting) if setting.model.experts else None
        return cls(setting, formats, FrozenDict({True: encoder, False: here}), loads)

    def layer(self, kind: Layer) -> list[SavedTensor]:
        """The rows of a layer, in the order of its forward pass."""
        if kind not in self._rows:
            local = self.stacks[kind.encoder]
            recurrent = self.setting.model.recurrent_of(kind)
            rows = list(self._recurrent(recurrent, local) if recurrent else self._attention("attention", local, local))
            if kind.ahead:
                rows = [*self._further(local), *(replace(row, entry=False) for row in rows)]
            if kind.cross:
                rows += self._attention("cross", local, self.stacks[True])
            second = list(self._experts(local) if kind.moe else self._ffn(local))
            rows += [
                *second[:1],
                *(replace(each, feed_forward=True) for each in second[1:]),
                *self._adapters(kind, local),
            ]
            self._rows[kind] = [row for row in rows if self._needed(row)]
        return self._rows[kind]

    def _needed(self, row: SavedTensor) -> bool:
        """Whether there are gradients of weights for which it is kept: those of its part, or of an adapter beside."""
        model = self.setting.model
        beside = model.lora is not None and row.target in model.lora.targets
        return row.weights is None or model.trains(row.weights) or beside

    def _adapters(self, kind: Layer, local: Local) -> Iterator[SavedTensor]:
        """Of each adapter what lies between its matrices."""
        lora = self.setting.model.lora
        for target in self.setting.model.adapted(kind):
            size = local.tokens * (lora.rank if lora else 0) * self.size("adapter")
            yield SavedTensor(f"adapter.{target}", "numbers of its rank", size, "whole")

    def kept(self, kind: Layer) -> Callable[[SavedTensor], float]:
        """Which share of its rows a layer keeps until the backward pass."""
        return _all if kind.kept else self.setting.plan.recomputation.kept

    def stays(self, kind: Layer) -> list[tuple[SavedTensor, float]]:
        """The rows of which a layer keeps something until the backward pass, with its bytes (of each token, where carried)."""
        kept = self.kept(kind)
        return [(row, share * row.nbytes) for row in self.layer(kind) if (share := kept(row))]

    def goes(self, kind: Layer) -> tuple[float, float]:
        """Bytes of a layer that are worked out again: of a micro-batch, and of each token that a rank's experts carry."""
        kept, found = self.kept(kind), [0.0, 0.0]
        for row in self.layer(kind):
            found[row.carried] += (1 - kept(row)) * row.nbytes
        return found[0], found[1]

    def size(self, part: Part) -> int:
        """Bytes of an activation of a part."""
        return BYTES[self.formats[part].compute]

    def product(self, part: Part) -> int:
        """Bytes of an input of a product with weights, where nothing else asks for it: what is cast is kept as it was cast.

        Transformer Engine keeps inputs in eight bits for the gradients of weights.
        """
        return BYTES[self.formats[part].gemm]

    def waiting(self, part: Part) -> int:
        """Bytes of an input of an activation function as it waits for the backward pass."""
        chosen = self.setting.plan.activations
        return min(self.size(part), BYTES[chosen]) if chosen else self.size(part)

    def mask(self, at: str, local: Local) -> Iterator[SavedTensor]:
        """Of the dropout before a residual."""
        if self.setting.model.dropout:
            yield SavedTensor(f"{at}.residual", "mask of the dropout", local.stream * MASK, "tokens")

    def _attention(self, at: str, local: Local, source: Local) -> Iterator[SavedTensor]:
        """``source`` is where keys and values come from: the same tokens, or the encoder's."""
        model, size = local.model, self.size("attention")
        heads, values = model.heads / local.width, max(1.0, model.key_value_heads / local.width)
        yield SavedTensor(
            f"{at}.norm", "its input", local.stream * self.size("norm"), "tokens", entry=at == "attention"
        )
        normal = local.stream * self.product("attention")
        yield SavedTensor(
            f"{at}.qkv", "its input", normal, "tokens", modules=("layernorm",), weights="attention", target="qkv"
        )
        if model.latent:
            narrow = sum(model.latent.narrow)
            each = narrow * (size + self.product("attention")) + model.latent.rotary * size
            yield SavedTensor(f"{at}.narrow", "narrow queries, keys and values", local.tokens * each, "whole")
            values = heads
        wide, up = model.query_size, ("mla_up_proj",) if model.latent else ()
        for what, elements, product in (
            ("queries", local.tokens * heads * wide, 1),
            ("keys", source.tokens * values * wide, 0),
            ("values", source.tokens * values * model.value_size, 1),
        ):
            yield SavedTensor(f"{at}.{what}", what, elements * size, "tp", product=product, modules=up)
        if model.query_key_norm != "none":
            normed = (local.tokens * heads + source.tokens * values) * model.query_size
            yield SavedTensor(f"{at}.queries.norm", "its input", normed * self.size("norm"), "tp")
        yield from self._core(at, local, local.tokens * heads, source.keys)
        if model.gated_attention:
            gated = 2 * local.tokens * heads * model.value_size * size
            yield SavedTensor(f"{at}.activation", "gate, and what it weights", gated, "tp", product=0.5)
        yield SavedTensor(f"{at}.out", "its input", local.tokens * heads * model.value_size * size, "tp", product=1)
        if (cast := self.product("attention")) < size:
            yield SavedTensor(f"{at}.out", "its input, cast", local.tokens * heads * model.value_size * cast, "tp")
        yield from self._reduced(at, local)
        yield from self.mask(at, local)

    def _recurrent(self, recurrent: Recurrent, local: Local) -> Iterator[SavedTensor]:
        """What its steps say that they keep; what comes from the stream is whole, what lies between is cut."""
        size, hidden = self.size("attention"), self.setting.model.hidden
        yield SavedTensor("attention.norm", "its input", local.stream * self.size("norm"), "tokens", entry=True)
        for step in recurrent.steps(hidden):
            if not step.keeps:
                continue
            if isinstance(step, Projection) and step.rows == hidden and step.cut == "column":
                normal = local.stream * self.product("attention")
                yield SavedTensor("attention.in", "its input", normal, "tokens", modules=("layernorm",))
            else:
                nbytes = local.tokens * step.keeps / local.width * size
                yield SavedTensor(f"attention.{step.operand}", "its input", nbytes, "tp")
        yield from self.mask("attention", local)

    def _further(self, local: Local) -> Iterator[SavedTensor]:
        """Before a layer that predicts a further token: inputs of both norms, and of the projection."""
        yield SavedTensor("further.norm", "its input", 2 * local.stream * self.size("norm"), "tokens", entry=True)
        normal = 2 * local.stream * self.product("ffn")
        yield SavedTensor("further.in", "its input", normal, "tokens", modules=("layernorm",))

    def _core(self, at: str, local: Local, rows: float, keys: float) -> Iterator[SavedTensor]:
        """What the kernel keeps of ``rows`` queries (of all heads), each of which meets so many keys."""
        kernel, dropout = self.setting.plan.kernel, local.model.dropout
        for each in kernel.kept(rows, keys, self.size("attention"), dropout):
            where, core = f"{at}.{each.operator}", ("core_attn",) if each.core else ()
            yield SavedTensor(where, each.what, each.nbytes, "tp", each.core, product=each.product, modules=core)

    def _ffn(self, local: Local) -> Iterator[SavedTensor]:
        """The network's input first; nothing where layers have no FFN."""
        if not local.model.ffn_hidden:
            return
        yield SavedTensor("ffn.norm", "its input", local.stream * self.size("norm"), "tokens")
        normal = local.stream * self.product("ffn")
        yield SavedTensor(
            "ffn.up", "its input", normal, "tokens", modules=("layernorm", "mlp"), weights="ffn", target="up"
        )
        yield from self._inner("ffn", local.tokens * local.model.ffn_hidden / local.width, ("mlp",))
        if self.setting.plan.recomputation.keeps_products:
            yield SavedTensor(
                "ffn.reduce", "output of its second product", local.stream * self.size("ffn"), "tokens", product=1
            )
        yield from self.mask("ffn", local)

    def _reduced(self, at: str, local: Local) -> Iterator[SavedTensor]:
        """With every second product worked out again, what is sent over tp is kept instead."""
        if self.setting.plan.recomputation.keeps_products and local.width > 1:
            yield SavedTensor(f"{at}.reduce", "its output", local.stream * self.size("attention"), "tokens", product=1)

    def _inner(self, at: str, elements: float, modules: tuple[str, ...]) -> Iterator[SavedTensor]:
        """Of the activation's inputs, two where an FFN is gated, and its output."""
        ups = self.setting.model.matrices - 1
        coming, leaving = ups * elements * self.waiting("ffn"), elements * self.product("ffn")
        yield SavedTensor(f"{at}.activation", "its input", coming, "tp", product=1 / ups, modules=modules)
        target: Target | None = "down" if at == "ffn" else None
        yield SavedTensor(f"{at}.down", "its input", leaving, "tp", modules=modules, weights="ffn", target=target)

    def _experts(self, local: Local) -> Iterator[SavedTensor]:
        """Their input first. Norm and gate for the tokens that the rank routes, the rest for those that its experts carry."""
        assert self.loads is not None
        model, size, ups = local.model, self.size("expert"), local.model.matrices - 1
        across = self.setting.expert_cut
        width = model.expert_width / self.setting.mesh.size(*across)
        apart = [axis for axis in self.loads.axes if axis in TENSOR]
        cut: Cut = ("tp" if not across else "tep") if apart else "whole"
        routed = float(self.loads.tokens)
        yield SavedTensor("moe.norm", "its input", local.stream * self.size("norm"), "tokens")
        normal, scores = routed * model.hidden * self.size("norm"), routed * model.experts * self.size("gate")
        yield SavedTensor("moe.gate", "its input", normal, cut, modules=("layernorm",))
        yield SavedTensor("moe.top_k", "scores of all experts", scores, cut, modules=("moe",))
        inner: Cut = ("tp" if not apart else "etp") if across else "whole"
        cast, framework = self.product("expert"), self.setting.framework
        experts: Part = "expert"
        rows: list[tuple[str, str, float, Cut, tuple[str, ...], Part | None]] = [
            ("moe.up", "its input", model.hidden * cast, "whole", ("moe",), experts),
            ("moe.activation", "its input", ups * width * self.waiting("expert"), inner, ("moe",), None),
            ("moe.down", "its input", width * cast, inner, ("moe", "moe_act"), experts),
        ]
        if not (framework and framework.weighs_inside):
            rows.append(("moe.merge", "outputs of experts", model.hidden * size, "whole", ("moe",), None))
        for at, what, nbytes, over, modules, of in rows:
            yield SavedTensor(at, what, float(nbytes), over, carried=True, modules=modules, weights=of)
        if model.dense_beside:
            yield SavedTensor("shared.norm", "its input", local.stream * self.size("norm"), "tokens", modules=("moe",))
        if model.width_beside:
            beside = local.tokens * model.width_beside / local.width
            yield from self._inner("shared", beside, ("moe", "shared_experts"))
        yield from self.mask("moe", local)


@dataclass(frozen=True)
class SavedInAll(Saved):
    """The same where only sums matter: all rows that go the same way are one."""

    _stays: dict[Layer, list[tuple[SavedTensor, float]]] = field(default_factory=dict, compare=False, repr=False)
    _goes: dict[Layer, tuple[float, float]] = field(default_factory=dict, compare=False, repr=False)

    def stays(self, kind: Layer) -> list[tuple[SavedTensor, float]]:
        """At most a row for inputs of layers, which may lie in host memory, for other activations, and for carried ones."""
        if kind not in self._stays:
            found = dict[tuple[bool, bool], float]()
            for row, nbytes in super().stays(kind):
                way = (row.entry, row.carried)
                found[way] = found.get(way, 0.0) + nbytes
            self._stays[kind] = [
                (
                    SavedTensor(f"layer {entry}", f"carried {carried}", nbytes, "whole", entry=entry, carried=carried),
                    nbytes,
                )
                for (entry, carried), nbytes in found.items()
            ]
        return self._stays[kind]

    def goes(self, kind: Layer) -> tuple[float, float]:
        """Worked out once."""
        if kind not in self._goes:
            self._goes[kind] = super().goes(kind)
        return self._goes[kind]
