"""What any algorithm must move: the least bytes out of and into a part of a group, and the time that this takes at least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...hardware.machine import Machine
from ...workloads.mesh.node_cards import node_injection
from ...workloads.mesh.node_links import NodeLinks
from ...workloads.mesh.placement import Layout
from ..network.links import Array, Index


def least_bytes(
    operation: str, inside: Array, ranks: int, root: NDArray[np.bool_], nbytes: float
) -> tuple[Array, Array]:
    """(bytes out, bytes in) of parts that hold ``inside[part]`` of a group's ``ranks``, with vectors of ``nbytes``.

    ``root`` marks the part with rank 0. What the rest needs of a part must leave it once, and what a part needs of the rest must
    enter it once; sums count as one vector, whatever they add up (Chan et al. 2007, section 4). Of a shift, one rank at least
    has its neighbour elsewhere.
    """
    own, rest = inside / ranks * nbytes, (ranks - inside) / ranks * nbytes
    whole = np.where(inside < ranks, nbytes, 0.0)
    alone = np.where(inside < ranks, 1.0, 0.0)
    match operation:
        case "all-to-all":
            return inside * rest, inside * rest
        case "all-gather":
            return own * alone, rest
        case "reduce-scatter":
            return rest, own * alone
        case "all-reduce" | "shift":
            return whole, whole
        case "broadcast":
            return whole * root, whole * ~root
        case "reduce":
            return whole * ~root, whole * root
        case _:
            return 0.0 * inside, 0.0 * inside


def least_seconds(
    machine: Machine, layout: Layout, groups: Index, operation: str, nbytes: float, factor: float
) -> float:
    """Seconds below which no algorithm can be, from injection, ejection and what crosses the parts of a tree.

    ``factor`` is the share of the links' bandwidth that is there. A rank's port to a switch in its node counts with the
    node's interfaces beside it, where there are other nodes. Rings inside nodes count as endless, and so do the links of a
    fabric that is no tree. Where switches add up, sums need not pass ranks, and only what leaves and enters a part counts.
    """
    node, inside_node = layout.node, NodeLinks.of(machine, layout)
    nodes = int(node.max()) + 1
    trunks = (machine.fabric.levels(nodes, machine.injection) or [])[1:]
    reduced = operation == "all-reduce" and bool(machine.node.inside_reduction or machine.node.network_reduction)
    sends = node_injection(machine, layout)
    parts: list[tuple[Index, Array]] = [(node, sends)]
    parts += [(level.domain[node], np.full(level.domains, level.capacity * level.cables)) for level in trunks]
    if machine.node.ports:
        beside = sends[node] if layout.nodes > 1 else np.zeros(len(node))
        faster = max(1.0, (machine.node.inside_reduction or 0.0) / machine.node.ring_bandwidth) if reduced else 1.0
        parts.append((inside_node.link, inside_node.kinds[0].capacity * faster + beside))
    seconds = 0.0
    for part, capacity in parts:
        count = int(part.max()) + 1
        out, into = np.zeros(count), np.zeros(count)
        total = 0.0
        for group in groups:
            inside = np.bincount(part[group], minlength=count).astype(np.float64)
            root = np.arange(count) == part[group[0]]
            leaves, enters = least_bytes(operation, inside, len(group), root, nbytes)
            out, into = out + np.where(inside > 0, leaves, 0.0), into + np.where(inside > 0, enters, 0.0)
            if operation == "all-reduce" and not reduced:
                total += 2 * (int((inside > 0).sum()) - 1) * nbytes
        busy = (out + into) > 0
        seconds = max(seconds, float((np.maximum(out, into) / capacity).max()) / factor)
        if busy.any():
            seconds = max(seconds, total / (float(capacity[busy].sum()) * factor))
    return seconds


def bus_factor(operation: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth, as nccl-tests define them (its doc/PERFORMANCE.md)."""
    if operation == "all-reduce":
        return 2 * (ranks - 1) / ranks
    return (ranks - 1) / ranks if operation in ("all-gather", "reduce-scatter", "all-to-all") else 1.0
