"""Where the tokens of a rank go in every layer and micro-batch of a step: who chooses, which policy balances, what was seen."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .....workloads.loads.loads import LoadModel
from .....workloads.loads.token_assignment import decisions
from .....workloads.mesh.axes import REPLICAS
from .....workloads.plan.setting import Setting
from .....workloads.routing.balancers.past import MOST_STEPS_AGO, Past
from ....messages.transport import Transport
from ...token_routing import Routing, Tells
from ...tokens import Tokens
from ..messages import Array
from ..weights.shards import Place
from . import gate
from .gate_training import GateTraining
from .mixture import LocalMixture, Routes

Index = gate.Index


def group_of(setting: Setting, place: Place) -> int:
    """The number of a rank's expert-parallel group among all that route tokens of their own, as the load model counts them."""
    found = 0
    for axis in setting.mesh.axes:
        if axis in REPLICAS and axis not in place.experts_over:
            found = found * place.of(axis) + place.me(axis)
    return found


class TokenRoutes:
    """Makes the :class:`~.mixture.Routes` of micro-batches.

    ``learned``: tokens choose by the scores of the gate. Else they choose what the plan's router draws, as the simulator has it,
    and the gate only weights the answers. By layer and micro-batch, ``told`` are loads of the last steps, and ``states`` what the
    policy remembers; ``looks_back``: it has asked for loads of earlier steps.
    """

    def __init__(
        self, setting: Setting, transport: Transport, place: Place, learned: bool, training: GateTraining | None = None
    ) -> None:
        self.training = training or GateTraining()
        self.setting, self.transport, self.place, self.learned = setting, transport, place, learned
        self.loads = LoadModel(setting)
        self.tells = Tells.of(self.loads.balancer, self.loads.ranks, self.loads.tokens, self.loads.top_k)
        self.seen: list[Tokens] = []
        self._step = 0
        self._group = group_of(setting, place)
        self.looks_back = False
        self.states: dict[tuple[int, int], dict[str, Any]] = {}
        self.told: dict[tuple[int, int], deque[tuple[int, Index, Index, Index | None]]] = {}

    def start_step(self, step: int) -> None:
        """Nothing is seen yet."""
        self._step = step
        self.seen = []

    def of_micro_batch(self, number: int) -> Routes:
        """The routes of a micro-batch of this step."""
        return Routes(
            self.transport,
            self.loads.balancer,
            self.tells,
            partial(self._choose, number),
            partial(self._past, number),
            partial(self._tell, number),
            partial(self._known, number),
            self.training,
        )

    def see(self, mixture: LocalMixture, micro_batch: int) -> None:
        """Note what became of the tokens of a layer."""
        if mixture.tokens is not None:
            self.seen.append(Tokens.of(mixture.tokens, micro_batch, mixture.number))

    def _choose(self, micro_batch: int, layer: int, scores: Array) -> Index:
        if self.learned:
            return self.training.wanted(layer, scores, self.loads.top_k)
        mine: Index = self._drawn(layer, micro_batch)[self.place.expert_rank]
        return mine

    def _drawn(self, layer: int, micro_batch: int) -> Index:
        """Experts ``[ranks, tokens, top_k]`` that the tokens of this rank's group want by the plan's router."""
        return decisions(self.loads, layer, self._step, micro_batch, self._group)

    def _known(self, micro_batch: int, layer: int) -> Index | None:
        """What every rank knows from the seed that others want; a gate's choices only each rank itself."""
        if self.learned:
            return None
        ranks, local = self.loads.ranks, self.loads.experts // self.loads.ranks
        drawn = [Routing(each, ranks, local, at) for at, each in enumerate(self._drawn(layer, micro_batch))]
        return np.stack([each.by_choice() for each in drawn], axis=1)

    def _past(self, micro_batch: int, layer: int) -> Past:
        if not self.learned:
            return replace(self.loads.past(layer, self._step, micro_batch, self._group), rank=self.place.expert_rank)
        kept = {step: loads for step, *loads in self.told.get((layer, micro_batch), ())}
        wanted, carried, experts = ({step: loads[each] for step, loads in kept.items()} for each in range(3))
        return Past(
            self._step if kept else 0,
            layer,
            micro_batch,
            loads=lambda earlier: _of_one_group(self._asked(wanted, earlier)),
            results=lambda earlier: _of_one_group(self._asked(carried, earlier), axis=0),
            experts=lambda earlier: _of_one_group(self._asked(experts, earlier)),
            rank=self.place.expert_rank,
            state=self.states.setdefault((layer, micro_batch), {}),
        )

    def _asked(self, kept: dict[int, Any], step: int) -> Index | None:
        self.looks_back = self.looks_back or step < self._step
        return kept.get(step)

    def _tell(self, micro_batch: int, layer: int, wanted: Index, carried: Index, experts: Index | None = None) -> None:
        """Keep what a policy may look back at: a gate that learns cannot be asked for it again."""
        kept = self.told.setdefault((layer, micro_batch), deque(maxlen=MOST_STEPS_AGO))
        kept.append((self._step, wanted, carried, experts))


def _of_one_group(loads: Index | None, axis: int = 1) -> Index | None:
    """Loads as those of an only group, which is counted along an axis."""
    return None if loads is None else np.expand_dims(loads, axis)
