"""The placement of EPLB: which experts have replicas, and which rank has which, so that ranks carry about as much."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.int64]


def packed(weights: Array, packs: int) -> tuple[Index, Index]:
    """(pack, place in it) of each item: as many in each, the heaviest first to the lightest pack that has room."""
    count = len(weights) // packs
    if count == 1:
        return np.arange(len(weights)), np.zeros(len(weights), dtype=np.int64)
    pack, place = np.empty((2, len(weights)), dtype=np.int64)
    open_packs = [(0.0, number, 0) for number in range(packs)]
    for item in np.argsort(-weights, kind="stable"):
        weight, number, held = heapq.heappop(open_packs)
        pack[item], place[item] = number, held
        if held + 1 < count:
            heapq.heappush(open_packs, (weight + float(weights[item]), number, held + 1))
    return pack, place


def replicated(loads: Array, slots: int) -> tuple[Index, Index]:
    """(expert of each slot, slots of each expert): one each, and each further slot to the expert with the most a slot."""
    experts = len(loads)
    of_slot, count = np.arange(slots) % experts, np.ones(experts, dtype=np.int64)
    fullest = [(-float(load), expert) for expert, load in enumerate(loads)]
    heapq.heapify(fullest)
    for slot in range(experts, slots):
        expert = fullest[0][1]
        of_slot[slot] = expert
        count[expert] += 1
        heapq.heapreplace(fullest, (-float(loads[expert]) / count[expert], expert))
    return of_slot, count


def placement(loads: Array, slots: int, groups: int, nodes: int, ranks: int) -> Index:
    """The expert of every slot ``[slots]``, those of rank 0 first, from the load of each expert ``[experts]``.

    Groups of experts are packed to nodes, experts replicated inside nodes, and replicas packed to the ranks of a node. Where
    groups do not divide over nodes, all is one node.

    Source: DeepSeek-AI 2025, EPLB (Expert Parallelism Load Balancer), as published with DeepSeek-V3; section 3.4 of its report.
    """
    if groups % nodes:
        groups = nodes = 1
    experts, size = len(loads), len(loads) // groups
    node, place = packed(loads.reshape(groups, size).sum(axis=1), nodes)
    first = (node * (groups // nodes) + place) * size
    number = (first[:, None] + np.arange(size)).reshape(-1)  # of each expert, node after node
    expert = np.argsort(number)
    found = []
    for mine in expert.reshape(nodes, experts // nodes):
        of_slot, count = replicated(loads[mine], slots // nodes)
        rank, at = packed((loads[mine] / count)[of_slot], ranks // nodes)
        order = np.empty_like(of_slot)
        order[rank * (slots // ranks) + at] = of_slot
        found.append(mine[order])
    return np.concatenate(found)


def near_home(placed: Index, local: int, nodes: int) -> Index:
    """The same ``[ranks, slots]`` with ranks of a node in another order, so that many slots are of experts that live there.

    Each rank in its turn takes the set that has most of its own ``local`` experts; loads stay what they are.
    """
    found = np.empty_like(placed)
    homes = (placed // local).tolist()
    for first in range(0, len(placed), len(placed) // nodes):
        node = range(first, first + len(placed) // nodes)
        having: dict[int, Counter[int]] = {}  # of each rank's experts, how many each set has
        for number in node:
            for home in homes[number]:
                having.setdefault(home, Counter())[number] += 1
        left = dict.fromkeys(node)
        for rank in node:
            own = {number: count for number, count in having.get(rank, Counter()).items() if number in left}
            chosen = min(own, key=lambda number: (-own[number], number), default=None)
            if chosen is None:
                chosen = next(iter(left))
            found[rank] = placed[chosen]
            del left[chosen]
    return found
