"""Replicas: popular experts have copies where EPLB places them, by the load of earlier steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import InputError
from .copying import Copying
from .eplb import near_home, placement
from .past import MOST_STEPS_AGO, Past

Index = NDArray[np.int64]


@dataclass(frozen=True)
class ExpertReplicas(Copying):
    """Experts have replicas where EPLB places them, by the load of earlier steps.

    There are ``replicas`` more slots than experts (0: one a rank), and every ``every`` steps another placement, from the load of
    as many steps before. ``groups`` of experts stay on one of ``nodes`` each. In the first step there are none.

    Source: :func:`~.eplb.placement`. There weights are those of inference, and move when the placement does; in training they are
    others after every step.
    """

    replicas: int = 0
    groups: int = 1
    nodes: int = 1
    every: int = 1
    about: ClassVar[str] = "eplb:R, R replicas of popular experts (DeepSeek's EPLB); R = one a rank"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """``eplb``, ``eplb:16`` or ``eplb:16,groups=4,nodes=2,every=8``."""
        values = dict[str, int]()
        for text in filter(None, argument.split(",")):
            key, _, value = text.rpartition("=")
            key = key or "replicas"
            if key not in cls.__dataclass_fields__ or not value.isdigit() or (key != "replicas" and int(value) < 1):
                raise ValueError(
                    "takes a number of replicas, and groups, nodes and every: eplb:16,groups=4,nodes=2,every=8"
                )
            values[key] = int(value)
        if values.get("every", 1) > MOST_STEPS_AGO // 2:
            raise ValueError(f"takes every=N up to {MOST_STEPS_AGO // 2}: so much of the past is kept")
        return cls(**values)

    def slots(self, experts: int, ranks: int) -> int:
        """Experts and replicas of a rank."""
        return (experts + (self.replicas or ranks)) // ranks

    def require(self, experts: int, ranks: int, tokens: int, top_k: int) -> None:
        """Slots have to divide over ranks, groups and nodes over what they cut."""
        if ranks == 1:
            return
        extra = self.replicas or ranks
        whole = not (experts + extra) % ranks and extra <= experts * (ranks - 1)
        if self.groups % self.nodes == 0:
            whole = whole and not experts % self.groups and not ranks % self.nodes
        if not whole:
            raise InputError(
                f"--balancer eplb: {experts:,} experts and {extra:,} replicas on {ranks:,} ranks in {self.groups} groups and"
                f" {self.nodes} nodes do not divide; try eplb:{ranks}"
            )

    def held(self, loads: Index, ranks: int, past: Past) -> Index:
        """As EPLB places them, ranks in the order that copies least."""
        since = past.step % self.every
        known = [past.by_expert(ago) for ago in range(since + 1, min(since + self.every, past.step) + 1)]
        sums = [each.sum(axis=(0, 1)) for each in known if each is not None]
        slots = self.slots(len(loads), ranks)
        if not sums:
            own = np.arange(len(loads)).reshape(ranks, -1)
            return np.pad(own, ((0, 0), (0, slots - own.shape[1])), constant_values=-1)
        before = np.sum(sums, axis=0).astype(np.float64)
        placed = placement(before, slots * ranks, self.groups, self.nodes, ranks).reshape(ranks, slots)
        nodes = self.nodes if self.groups % self.nodes == 0 else 1
        return near_home(placed, len(loads) // ranks, nodes)
