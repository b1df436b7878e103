"""How many tokens each expert-parallel rank carries in a layer: popularity, then what tokens choose, then a balancer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...hardware.frozen import FrozenArrays
from ...hardware.precisions import BYTES
from ..mesh.axes import CONTEXT, REPLICAS, TENSOR
from ..plan.setting import Setting
from ..routing.balancers import Padded
from ..routing.balancers.balancer import Carried, Copies, carried_by
from ..routing.balancers.past import MOST_STEPS_AGO, Past
from ..routing.choices import choices
from ..routing.drift import walk
from ..routing.routers import popularity, popularity_of
from ..routing.token_counts import by_expert, many_token_counts, scaled_counts, token_counts
from ..routing.trace import Trace

Array = NDArray[np.float64]

MOST_DRAWN = 48 << 20
"""Bytes of counts that are kept where drift may leave a step's draw to the next."""

AHEAD = 1 << 24
"""Bytes of drawn counts of all layers up to which micro-batches are drawn together."""


@dataclass(frozen=True)
class Load(FrozenArrays):
    """Tokens (counting each of the top-k copies) of one layer and micro-batch.

    ``sent`` is what each rank sends to experts and ``received`` what each rank's experts carry, empty places that are padded
    among them; both broadcast over the mesh, and a float means that all ranks are alike. ``counted`` is the second as it is
    kept: where ranks differ in the smallest integers that hold it, since a step has many layers. The shares are of all the
    layer's tokens,
    ``wanted_max_over_mean`` is before balancing, and of all groups.
    """

    sent: float | Array
    counted: float | NDArray[np.unsignedinteger[Any]] | Array
    wanted: NDArray[np.int64]  # [ranks of a group]: tokens of the first group before balancing
    carried: NDArray[np.int64]  # [ranks of a group]: after it
    micro_batch: int
    wanted_max_over_mean: float
    max_over_mean: float
    moved_fraction: float
    dropped_fraction: float
    copies_sent: float | Array = 0.0  # of experts, by each rank
    copies_held: float | Array = 0.0
    kept: float | Array = 0.0  # own tokens that ranks carry for copies, which are not sent
    pairs: NDArray[np.int64] | None = None  # [groups, senders, receivers] of a group, where every message is looked at

    @property
    def received(self) -> float | Array:
        """What each rank's experts carry."""
        return self.counted.astype(np.float64) if isinstance(self.counted, np.ndarray) else self.counted

    @property
    def mean(self) -> Load:
        """What ranks send and carry in the mean."""
        return self.of(np.mean, pairs=None)

    def of(self, one: Callable[[Any], Any], **others: Any) -> Load:
        """What all ranks would send and carry, were each as one is of them: the mean, or the fullest."""
        return replace(
            self,
            sent=float(one(self.sent)),
            counted=float(one(self.received)),
            copies_sent=float(one(self.copies_sent)),
            copies_held=float(one(self.copies_held)),
            kept=float(one(self.kept)),
            **others,
        )

    def of_tokens(self, factor: float) -> Load:
        """What ranks send and carry of so many times the tokens, spread in the same way."""
        return replace(
            self, sent=self.sent * factor, counted=self.received * factor, kept=self.kept * factor, pairs=None
        )


def _bytes(load: Load) -> float:
    """Bytes of a load's arrays."""
    return float(sum(each.nbytes for each in vars(load).values() if isinstance(each, np.ndarray)) + 512)


class LoadStatistics:
    """What is kept of many layers' loads: worst and mean figures, and one layer in full.

    The worst are those of each step's first micro-batch: of others a policy that levels loads may see none, and what is wanted
    does not depend on the policy. ``add`` takes the loads of a step; nothing of them is kept but the
    first layer's tokens by rank.
    """

    def __init__(self) -> None:
        self.first: Load | None = None
        self.received: float | Array = 0.0  # tokens that each rank's experts carried in all
        self._worst = {"max_over_mean": 0.0, "wanted_max_over_mean": 0.0}
        self._sums = {"moved_fraction": 0.0, "dropped_fraction": 0.0}
        self._count = 0

    def add(self, loads: list[Load]) -> None:
        """Take the loads of a step into account."""
        self.first = self.first or (loads[0] if loads else None)
        for load in loads:
            self.received = self.received + load.received
            if not load.micro_batch:
                self._worst = {key: max(value, getattr(load, key)) for key, value in self._worst.items()}
            self._sums = {key: value + getattr(load, key) for key, value in self._sums.items()}
        self._count += len(loads)

    def summary(self) -> dict[str, float]:
        """Worst load over mean, wanted and carried, and mean fractions moved and dropped; even where there are no experts."""
        if not self._count:
            return {**dict.fromkeys(self._worst, 1.0), **self._sums}
        return {**self._worst, **{key: value / self._count for key, value in self._sums.items()}}

    def by_rank(self) -> dict[str, list[float]]:
        """Load of one group's ranks in the first layer, over the mean and falling, before and after balancing."""
        if self.first is None:
            return {}
        mean = max(self.first.wanted.mean(), 1e-300)
        return {
            "wanted": _thinned(np.sort(self.first.wanted)[::-1] / mean),
            "carried": _thinned(np.sort(self.first.carried)[::-1] / mean),
        }


def _thinned(values: Array, most: int = 512) -> list[float]:
    """At most so many of the values, evenly spaced, the first and the last among them."""
    places = dict.fromkeys(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int).tolist())
    return [float(values[place]) for place in places]


def _prices(setting: Setting) -> tuple[float, float]:
    """Seconds that a copy of an expert takes, its weights there and its gradients back, and those of a token that a rank carries.

    A token costs three times its FLOPs forward, and four messages (He et al. 2022, FasterMoE, section 4.1).
    """
    model, formats = setting.model, setting.plan.precisions.at(0)["expert"]
    numbers = float(model.matrices * model.hidden * model.expert_width)
    rate = setting.machine.node.injection / setting.ranks_per_node
    bytes_of = BYTES[formats.compute]
    copy = numbers * (bytes_of + BYTES[formats.gradient]) / rate
    peaks = setting.processor.core_group.peak  # a machine that has no such format is refused where products are timed
    peak = peaks.get(formats.gemm, max(peaks.values())) * setting.processor.groups
    return copy, 3 * 2 * numbers / peak + 4 * model.hidden * bytes_of / rate


class _Draw(NamedTuple):
    """Tokens ``[1, groups, experts]`` drawn with these chances, and the step since which they are as they are."""

    drawn: int
    chances: Array
    tokens: NDArray[np.unsignedinteger[Any]]


class LoadModel:
    """Samples the loads of a plan's layers, step by step.

    Only counts are drawn (:mod:`..routing.token_counts`): for each expert-parallel group, how many of its tokens want each
    expert first, second, …, never which token wants which expert. Only the carried loads of a policy that levels them are
    those of one group for all. ``decoder``: of a decoder's layers, beside an encoder. ``carried_only``: nobody asks what was
    wanted, so that where loads are level one group is drawn for all.
    """

    def __init__(self, setting: Setting, decoder: bool = False, carried_only: bool = False) -> None:
        self.plan, self.mesh = setting.plan, setting.mesh
        self.axes = setting.expert_axes
        over_tp = [axis for axis in self.axes if axis in TENSOR]
        self.tokens = setting.micro_tokens(decoder) // self.mesh.size(*CONTEXT, *over_tp)
        self.experts, self.top_k = setting.model.experts, setting.top_k
        self.ranks = self.mesh.size(*self.axes)
        self.router, self.balancer = self.plan.router_policy, self.plan.balancing.priced(*_prices(setting))
        self.balancer.require(self.experts, self.ranks, self.tokens, self.top_k)
        self._others = tuple(
            1
            if axis in self.axes or axis not in REPLICAS or (carried_only and setting.plan.balancing.level)
            else length
            for axis, length in zip(self.mesh.axes, self.mesh.shape, strict=True)
        )
        self.groups = prod(self._others)
        self._micro_batches, self._layers = setting.batch.micro_batches, setting.model.depth
        self._of_points = setting.kept
        self._known = dict[tuple[int, int], Array]()
        self._drawn = dict[tuple[int, int, int, bool], NDArray[np.int64]]()
        self._chance: dict[tuple[int, int], _Draw] = setting.drawn_loads.setdefault((decoder, carried_only), {})
        self._states: dict[tuple[int, int, int], tuple[int, dict[str, Any]]] = setting.past_loads.setdefault(
            ("states", decoder, self._others), {}
        )
        self._looked: dict[tuple[int, int, int], NDArray[np.int64]] = {}  # by expert, of earlier steps
        self._kept: dict[tuple[int, int], deque[tuple[int, NDArray[np.int64]]]] = setting.past_loads.setdefault(
            decoder, {}
        )

    def chances(self, layer: int, step: int) -> Array:
        """Probability ``[top_k, experts]`` of each expert to be a token's first, second, … choice."""
        if isinstance(self.router, Trace):
            return self._replayed(self.router, layer, step) / float(self.ranks * self.tokens)
        first = self._popularity(layer, step)
        return self._of_prototypes(first) if self.plan.prototypes else self._choices(layer, step)

    def _choices(self, layer: int, step: int) -> Array:
        """Chances of all choices; those of a step are kept where several micro-batches ask for them."""
        if (layer, step) not in self._known:
            if any(at != step for _, at in self._known) or self._micro_batches == 1:
                self._known.clear()
            self._known[layer, step] = choices(self._popularity(layer, step), self.top_k)
        return self._known[layer, step]

    def of_experts(self, layer: int, step: int, micro_batch: int, sums: bool = False) -> NDArray[np.int64]:
        """Tokens ``[top_k, groups, experts]`` of each expert-parallel group that want each expert; none wants one twice.

        With ``sums``, all choices may stand together, ``[1, groups, experts]``.
        """
        if isinstance(self.router, Trace):
            return np.repeat(self._replayed(self.router, layer, step)[:, None], self.groups, axis=1)
        random = self.random(3, layer, step, micro_batch)
        total, first = self.ranks * self.tokens, self._popularity(layer, step)
        if self.plan.prototypes:
            return np.array([random.multinomial(total, row, size=self.groups) for row in self._of_prototypes(first)])
        if self.top_k == 1:
            return self._in_places(layer, step, micro_batch)
        return token_counts(first, self.top_k, total, self.groups, random, partial(self._choices, layer, step), sums)

    def _in_places(self, layer: int, step: int, micro_batch: int) -> NDArray[np.int64]:
        """Tokens ``[1, groups, experts]`` of an only choice: drawn for the places that experts had at first.

        Experts that have traded places have what was drawn for these, so that a draw serves as many steps as drift keeps it.
        """
        trading = walk(self.experts, layer, self.plan.drift, self.plan.seed)
        places, drawn = trading.at(step)
        chances, key = popularity_of(self.router, step, trading.first), (layer, micro_batch)
        kept = self._chance.get(key)
        if kept is not None and kept.drawn == drawn and np.array_equal(kept.chances, chances):
            found = kept.tokens.astype(np.int64)
        else:
            random = self.random(3, layer, step, micro_batch)
            found = token_counts(chances, 1, self.ranks * self.tokens, self.groups, random)
            if self.plan.drift:
                few = found.astype(np.min_scalar_type(int(found.max())))
                if kept is not None or few.nbytes * (len(self._chance) + 1) <= MOST_DRAWN:
                    self._chance[key] = _Draw(drawn, chances, few)
        if trading.step and (chances != chances[0]).any():
            found = found[..., np.argsort(trading.first)[places]]
        return found

    def random(self, purpose: int, layer: int, step: int, *others: int) -> np.random.Generator:
        """What draws a layer's tokens in a step: the same as in the step before where drift has kept these."""
        drawn = walk(self.experts, layer, self.plan.drift, self.plan.seed).at(step)[1]
        return np.random.default_rng([self.plan.seed, purpose, drawn, *others, layer])

    def wanted(self, layer: int, step: int, micro_batch: int, sums: bool = False) -> NDArray[np.int64]:
        """Tokens ``[top_k, groups, ranks]`` of each expert-parallel group that want experts of each rank; ``sums`` as above."""
        choices = 1 if sums else self.top_k
        ahead = min(self._micro_batches, AHEAD // (8 * choices * self.groups * self.ranks * self._layers))
        drawn_by_expert = by_expert(self.experts, self.top_k, self.groups)
        drawn_by_expert = drawn_by_expert and self.balancer.copies is None  # which asks for the same tokens by expert
        if ahead > 1 and drawn_by_expert and not self.plan.prototypes and not isinstance(self.router, Trace):
            drawn = self._ahead(layer, step, micro_batch - micro_batch % ahead, ahead, sums)
            found: NDArray[np.int64] = drawn[micro_batch % ahead]
            return found
        return self._by_rank(self.of_experts(layer, step, micro_batch, sums))

    def _ahead(self, layer: int, step: int, first: int, count: int, sums: bool) -> NDArray[np.int64]:
        """What so many micro-batches want, drawn together; those that will be asked for next are kept."""
        key = (layer, step, first, sums)
        if key not in self._drawn:
            randoms = [self.random(3, layer, step, first + number) for number in range(count)]
            rows = self._choices(layer, step)
            drawn = many_token_counts(rows, self.ranks * self.tokens, self.groups, randoms, sums)
            self._drawn[key] = self._by_rank(drawn)
            while len(self._drawn) > 4 * self._layers:
                del self._drawn[next(iter(self._drawn))]
        return self._drawn[key]

    def _by_rank(self, of_experts: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = of_experts.reshape(*of_experts.shape[:-1], self.ranks, -1).sum(axis=-1)
        return found

    def _replayed(self, trace: Trace, layer: int, step: int) -> NDArray[np.int64]:
        """Tokens ``[top_k, experts]`` of a group in the proportions of a trace; each group and micro-batch has the same."""
        recorded, total = trace.at(layer, step), self.ranks * self.tokens
        if not self.plan.prototypes:
            return scaled_counts(recorded, self.top_k, total)
        return np.array([scaled_counts(row, 1, total)[0] for row in self._of_prototypes(recorded.astype(np.float64))])

    def _popularity(self, layer: int, step: int) -> Array:
        return popularity(self.router, self.experts, layer, step, self.plan.drift, self.plan.seed)

    def _of_prototypes(self, first: Array) -> Array:
        """Chances where each choice is among the experts of a group of its own (M6-T)."""
        count = self.plan.prototypes or 1
        groups = np.arange(self.experts) * count // self.experts
        rows = np.where(groups == np.arange(count)[:, None], first, 0.0)
        shares: Array = rows / rows.sum(axis=1, keepdims=True)
        return shares

    def past(self, layer: int, step: int, micro_batch: int, group: int | None = None) -> Past:
        """What a balancing policy may know of a layer's earlier steps, in all groups or in one."""
        return Past(
            step,
            layer,
            micro_batch,
            group,
            loads=lambda earlier: self.wanted(layer, earlier, micro_batch),
            results=lambda earlier: self._carried(layer, earlier, micro_batch),
            experts=lambda earlier: self._looked_at(layer, earlier, micro_batch),
            state=self._state(layer, step, micro_batch, group or 0) if self.balancer.remembers else {},
        )

    def _looked_at(self, layer: int, step: int, micro_batch: int) -> NDArray[np.int64]:
        """Loads by expert, kept for the next group of which a policy asks for the same."""
        key = layer, step, micro_batch
        if key not in self._looked:
            while len(self._looked) > MOST_STEPS_AGO:
                del self._looked[next(iter(self._looked))]
            self._looked[key] = self.of_experts(*key)
        return self._looked[key]

    def _state(self, layer: int, step: int, micro_batch: int, group: int) -> dict[str, Any]:
        """What a policy has remembered of a group before a step: it is asked about all steps before, in their order."""
        key = layer, micro_batch, group
        done, state = self._states.get(key, (0, {}))
        if done > step:
            done, state = 0, {}
        for at in range(done, step):
            self._states[key] = at, state
            wanted, past = self.wanted(layer, at, micro_batch), self.past(layer, at, micro_batch, group)
            carried_by(self.balancer, wanted[:, group : group + 1], self.tokens, past)
            state = past.state
        self._states[key] = step, state
        return deepcopy(state)

    def _asked(self, wanted: NDArray[np.int64], layer: int, step: int, micro_batch: int) -> Carried:
        """What the policy carries of ``wanted[choice, groups, ranks]``; one that remembers is asked group by group."""
        if not self.balancer.remembers:
            past = self.past(layer, step, micro_batch, 0 if wanted.shape[1] == 1 else None)
            return carried_by(self.balancer, wanted, self.tokens, past)
        found = [
            carried_by(
                self.balancer, wanted[:, group : group + 1], self.tokens, self.past(layer, step, micro_batch, group)
            )
            for group in range(wanted.shape[1])
        ]
        tokens, moved, dropped = (
            np.concatenate([getattr(each, name) for each in found]) for name in ("tokens", "moved", "dropped")
        )
        copies = [each.copies for each in found if each.copies is not None]
        joined = Copies(*(np.concatenate(each) for each in zip(*copies, strict=True))) if copies else None
        return Carried(tokens, moved, dropped, joined)

    def _carried(self, layer: int, step: int, micro_batch: int) -> NDArray[np.int64]:
        """Tokens ``[groups, ranks]`` carried in an earlier step, from the first on: each may follow from those before."""
        kept = self._kept.setdefault((layer, micro_batch), deque(maxlen=MOST_STEPS_AGO))
        if kept and step < kept[0][0]:
            kept.clear()
        for at in range(kept[-1][0] + 1 if kept else 0, step + 1):
            wanted = self.wanted(layer, at, micro_batch)
            kept.append((at, self._asked(wanted, layer, at, micro_batch).tokens))
        return next(tokens for at, tokens in kept if at == step)

    def sample(self, layer: int, step: int, micro_batch: int) -> Load:
        """The load of a layer in a micro-batch of a step; the same arguments and seed give the same load."""
        if self._of_points is None:
            return self._sampled(layer, step, micro_batch)
        key = (*self.form, layer, step, micro_batch)
        return self._of_points.of("loads", key, lambda: self._sampled(layer, step, micro_batch), _bytes)

    @property
    def form(self) -> tuple[Hashable, ...]:
        """What decides the loads of a layer, a step and a micro-batch: of a machine what its policy weighs, if it does."""
        plan = self.plan
        priced = () if self.balancer is plan.balancing else (repr(self.balancer),)
        drawn = (plan.router, plan.balancer, plan.prototypes, plan.drift, plan.seed)
        places = (self.mesh.axes, self.mesh.shape, self.axes, self._others)
        return (*drawn, *places, *priced, self.tokens, self.experts, self.top_k, self._micro_batches, self._layers)

    def _sampled(self, layer: int, step: int, micro_batch: int) -> Load:
        wanted = self.wanted(layer, step, micro_batch, sums=not self.balancer.by_choice)
        most = float(wanted.sum(axis=0).max() / (self.tokens * self.top_k))
        if self.balancer.level:
            wanted = wanted[:, :1]
        carried = self._asked(wanted, layer, step, micro_batch)
        copies = self.ranks * self.tokens * self.top_k * wanted.shape[1]
        sent, received = self._per_group(carried.tokens.mean(axis=-1)), self._per_rank(carried.tokens)
        if isinstance(self.balancer, Padded):
            sent = received = float(self.balancer.places(self.tokens, self.top_k))
        found = Load(
            sent=sent,
            counted=received,
            wanted=wanted[:, 0].sum(axis=0),
            carried=carried.tokens[0].copy(),
            micro_batch=micro_batch,
            wanted_max_over_mean=most,
            max_over_mean=float((carried.tokens.max(axis=-1) / np.maximum(carried.tokens.mean(axis=-1), 1e-300)).max()),
            moved_fraction=float(carried.moved.sum() / copies),
            dropped_fraction=float(carried.dropped.sum() / copies),
        )
        if carried.copies is None:
            return found
        copied_out, copied_in, kept = map(self._numbers, carried.copies)
        return replace(found, copies_sent=copied_out, copies_held=copied_in, kept=kept)

    def _numbers(self, counts: NDArray[np.int64]) -> float | Array:
        """Counts ``[groups, ranks]`` over the mesh, as numbers to compute with."""
        found = self._per_rank(counts)
        return found if isinstance(found, float) else found.astype(np.float64)

    def _per_group(self, values: Array) -> float | Array:
        if (values == values[0]).all():
            return float(values[0])
        return values.reshape(self._others)

    def _per_rank(self, tokens: NDArray[np.int64]) -> float | NDArray[np.unsignedinteger[Any]]:
        """``[groups, ranks]`` as an array over the mesh: groups along axes with own tokens, ranks along those of experts."""
        if (tokens == tokens[0, 0]).all():
            return float(tokens[0, 0])
        places = self.mesh.positions(self.axes)
        spread = [self.mesh.shape[place] for place in places]
        kept = [length for place, length in enumerate(self._others) if place not in places]
        values = tokens.astype(np.min_scalar_type(int(tokens.max()))).reshape([*kept, *spread])
        return np.moveaxis(values, range(len(kept), len(kept) + len(spread)), places)
