"""A layer's experts in one process, and how the tokens of all ranks are routed there: what every rank's part is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .....workloads.loads.loads import LoadModel
from .....workloads.loads.token_assignment import decisions
from .....workloads.mesh.axes import DATA
from .....workloads.plan.setting import Setting
from .....workloads.routing.balancers.expert_choice import picked
from .....workloads.routing.balancers.past import BEGINNING
from ...token_routing import Routing, Tells, settle_together
from .. import functions as f
from ..weights.shards import Place, Sizes, Weight, of_expert
from . import gate
from .gate_training import GateTraining
from .token_routes import group_of

Array = NDArray[Any]
Index = NDArray[np.int64]


class TokenRouter(Protocol):
    """Which experts the tokens of a layer go to: ``[tokens, top_k]``, below 0 where none takes them.

    ``picks``: experts have chosen, so that there may be more columns, and answers count their chances alone.
    """

    picks: bool

    def __call__(self, layer: int, wanted: Index, chances: Array) -> Index:
        """From those that they want, and their chances ``[tokens, experts]``."""


class AsWanted:
    """Tokens go where they want."""

    picks = False

    def __call__(self, layer: int, wanted: Index, chances: Array) -> Index:
        """As they are."""
        return wanted


UNTRAINED = GateTraining()
"""Gates that only the loss trains."""


@dataclass
class KeptMixture:
    """What the backward pass needs of a layer's experts; ``answer`` is what they add to the residual stream.

    ``answers[choice]`` are the experts' own, ``inner`` and ``active`` those of each (expert, choice).
    """

    answer: Array
    scores: Array
    chances: Array
    wanted: Index
    expert: Index
    weights: Array
    picked: bool
    answers: list[Array]
    inner: dict[tuple[int, int], Array] = field(default_factory=dict)
    active: dict[tuple[int, int], Array] = field(default_factory=dict)
    beside: tuple[Array, Array] | None = None


def mixture(
    rows: Array,
    layer: int,
    weights: Mapping[Weight, Array],
    sizes: Sizes,
    router: TokenRouter,
    training: GateTraining = UNTRAINED,
) -> KeptMixture:
    """Gate and experts of a layer, on all tokens."""
    scores = rows @ weights[Weight(layer, "moe", "gate")]
    wanted = training.wanted(layer, scores, sizes.top_k)
    chances = gate.chances(scores)
    expert = router(layer, wanted, chances)
    counted = gate.weights(chances, expert, router.picks)
    kept = KeptMixture(np.zeros_like(rows), scores, chances, wanted, expert, counted, router.picks, [])
    for choice in range(expert.shape[1]):
        answers = np.zeros_like(rows)
        for number in range(sizes.experts):
            mine = expert[:, choice] == number
            if mine.any():
                up, down = of_expert(layer, number)
                inner = rows[mine] @ weights[up]
                active = f.activate(inner, sizes.gated)
                answers[mine] = active @ weights[down]
                kept.inner[number, choice], kept.active[number, choice] = inner, active
        kept.answers.append(answers)
        kept.answer = kept.answer + counted[:, choice, None] * answers
    if sizes.hidden_beside:
        inner = rows @ weights[Weight(layer, "shared experts", "up")]
        active = f.activate(inner, sizes.gated)
        kept.answer = kept.answer + active @ weights[Weight(layer, "shared experts", "down")]
        kept.beside = inner, active
    return kept


def mixture_back(
    gradient: Array,
    rows: Array,
    layer: int,
    kept: KeptMixture,
    weights: Mapping[Weight, Array],
    gradients: Mapping[Weight, Array],
    sizes: Sizes,
    training: GateTraining = UNTRAINED,
) -> Array:
    """Gradient of the rows, from that of the answer; gradients of the weights are added up."""
    of_weights = np.stack([(gradient * answers).sum(axis=1) for answers in kept.answers], axis=1)
    scores = gate.weights_grad(kept.chances, kept.expert, of_weights, kept.picked)
    scores = scores + training.gradient(kept.scores, kept.wanted, len(rows))
    key = Weight(layer, "moe", "gate")
    add(gradients[key], rows.T @ scores)
    back = scores @ weights[key].T
    for (number, choice), inner in kept.inner.items():
        mine = kept.expert[:, choice] == number
        up, down = of_expert(layer, number)
        of_answer = gradient[mine] * kept.weights[mine, choice, None]
        add(gradients[down], kept.active[number, choice].T @ of_answer)
        of_inner = f.activate_grad(inner, of_answer @ weights[down].T, sizes.gated)
        add(gradients[up], rows[mine].T @ of_inner)
        back[mine] += of_inner @ weights[up].T
    if kept.beside is not None:
        inner, active = kept.beside
        up, down = Weight(layer, "shared experts", "up"), Weight(layer, "shared experts", "down")
        add(gradients[down], active.T @ gradient)
        of_inner = f.activate_grad(inner, gradient @ weights[down].T, sizes.gated)
        add(gradients[up], rows.T @ of_inner)
        back = back + of_inner @ weights[up].T
    return back


def add(total: Array, part: Array) -> None:
    """Add to a gradient."""
    total += part


class MeshRouter:
    """Routes the tokens of all ranks of a mesh, group by group, as these do together; in the first step of a run."""

    def __init__(self, setting: Setting, learned: bool) -> None:
        self.setting, self.learned, self.loads = setting, learned, LoadModel(setting)
        loads = self.loads
        self.picks = loads.balancer.picks
        self.tells = Tells.of(loads.balancer, loads.ranks, loads.tokens, loads.top_k)
        self._groups: dict[int, dict[int, Place]] = {}  # the members of each group, by number
        for at in np.ndindex(*setting.mesh.shape):
            place = Place.in_mesh(setting, at)
            if not place.me("pp") and place.routes:
                self._groups.setdefault(group_of(setting, place), {})[place.expert_rank] = place

    def __call__(self, layer: int, wanted: Index, chances: Array) -> Index:
        """Experts of all tokens, sequence after sequence."""
        loads = self.loads
        width = loads.experts if self.picks else wanted.shape[1]
        found, micro_batches = np.full((len(wanted), width), -1), self.setting.batch.micro_batches
        for number, members in self._groups.items():
            for micro_batch in range(micro_batches):
                rows = [self._rows(members[at], micro_batch) for at in range(loads.ranks)]
                drawn = None if self.learned else decisions(loads, layer, 0, micro_batch, number)
                every = [wanted[mine] if drawn is None else drawn[at] for at, mine in enumerate(rows)]
                local = loads.experts // loads.ranks
                routings = [Routing(each, loads.ranks, local, at) for at, each in enumerate(every)]
                past = BEGINNING if self.learned else loads.past(layer, 0, micro_batch, number)
                if self.picks:
                    for mine, routing in zip(rows, routings, strict=True):
                        routing.pick(picked(chances[mine], loads.top_k))
                settle_together(routings, loads.balancer, self.tells, past)
                for mine, routing in zip(rows, routings, strict=True):
                    found[mine, : routing.expert.shape[1]] = routing.expert
        return found

    def _rows(self, place: Place, micro_batch: int) -> Index:
        """The numbers of the tokens that a rank routes, among those of all replicas, in its order."""
        setting = self.setting
        mesh, batch = setting.mesh, setting.batch
        replica = 0
        for axis in mesh.axes:
            if axis in DATA:
                replica = replica * place.of(axis) + place.me(axis)
        every = np.arange(mesh.replicas * batch.tokens).reshape(mesh.replicas, batch.micro_batches, -1, batch.seq_len)
        mine = every[replica, micro_batch][:, place.part(batch.seq_len, place.context)].reshape(-1)
        share: Index = mine if place.routes_over is None else mine[place.part(len(mine), place.routes_over)]
        return share
