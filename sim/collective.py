"""A collective by itself: how long it takes, what holds it back, and how near it is to what any algorithm could do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from ..hardware.errors import AthanorError, DoesNotFit, InputError, suggestion
from ..hardware.machine import Machine, load_machine
from ..workloads.collectives import rounds
from ..workloads.mesh import Mesh
from ..workloads.placement import Layout, place, resolve_ranks_per_node
from .graph import Graph
from .messages import in_turn, play
from .orbits import Orbits
from .sharing import Sharing, sharing
from .steps import Payload, Steps
from .volumes import bus_factor, least_seconds

Depth = Literal["bound", "fluid", "message"]

DEPTHS = ("auto", "bound", "fluid", "message")

MOST_MESSAGES = 2e8
"""Messages that differ above which a collective is refused."""

MESSAGES_A_SECOND, MESSAGE_BYTES = 5e6, 150.0
"""What the tables of messages take: measured on one core."""


@dataclass(frozen=True)
class Result:
    """What a collective took; times in seconds, bandwidths in bytes per second.

    ``bottleneck`` is the kind of the busiest link, ``messages`` counts those of all ranks, and ``links`` tells the use of
    each kind of link that carries anything.
    """

    seconds: float
    bound_seconds: float
    algorithm_bandwidth: float
    bus_bandwidth: float
    bottleneck: str
    depth: Depth
    messages: float
    links: list[dict[str, Any]]

    def plain(self) -> dict[str, Any]:
        """As plain data, with the fraction of the bound's speed that was reached."""
        fraction = self.bound_seconds / self.seconds if self.seconds else 1.0
        return {**vars(self), "fraction_of_bound": fraction}


def collective(
    machine: str | Machine,
    operation: str,
    algorithm: str,
    ranks: int,
    nbytes: float,
    *,
    placement: str = "block",
    ranks_per_node: int | None = None,
    nodes_per_supernode: int | None = None,
    routing: str | None = None,
    network_model: str = "maxmin",
    depth: str = "auto",
    check_symmetry: bool = False,
) -> Result:
    """Simulate one collective of ``ranks`` ranks.

    ``nbytes`` is what a rank sends to each other one for an all-to-all, else a rank's whole vector (for gathers the gathered
    one). ``placement`` is ``block`` (ranks fill supernodes one after another) or ``scatter`` (round-robin over as few supernodes
    as hold them). ``depth`` is ``message`` (ranks go their own ways), ``fluid`` (all wait after each step), ``bound`` (the most
    loaded link, or the longest chain of messages) or ``auto``: the first that is not too large. ``check_symmetry`` also plays
    every rank by itself and raises :class:`AthanorError` where that differs.
    """
    hardware = load_machine(machine).with_routing(routing)
    model = sharing(network_model)
    layout = _layout(hardware, ranks, placement, ranks_per_node, nodes_per_supernode)
    vector = nbytes * ranks if operation == "all-to-all" else nbytes
    steps = _steps(hardware, layout, operation, algorithm, vector, model)
    chosen = _depth(depth, steps)
    seconds = _seconds(steps, chosen)
    if check_symmetry:
        apart = _seconds(_steps(hardware, layout, operation, algorithm, vector, model, alone=True), chosen)
        if abs(apart - seconds) > 1e-9 * seconds:
            raise AthanorError(
                f"--check-symmetry: {seconds!r} s by orbits, but {apart!r} s rank by rank: a defect of Athanor"
            )
    links, bottleneck = _use(steps, seconds)
    whole = 0.0 if operation == "barrier" else vector
    least = least_seconds(hardware, layout, steps.groups, operation, whole, model.bandwidth_factor)
    speed = whole / seconds if seconds else 0.0
    return Result(
        seconds, least, speed, speed * bus_factor(operation, ranks), bottleneck, chosen, steps.totals.messages, links
    )


def _layout(machine: Machine, ranks: int, placement: str, per_node: int | None, used: int | None) -> Layout:
    """Where ranks live; raises :class:`InputError` where they exceed the machine."""
    if ranks < 1:
        raise InputError(f"--ranks {ranks}: a collective needs at least one rank")
    mesh, on_node = Mesh.of({"ep": ranks}), resolve_ranks_per_node(machine, "moda", per_node)
    if ranks > machine.nodes * on_node:
        raise InputError(
            f"--ranks {ranks:,}: {machine.name} has {machine.nodes:,} nodes, with room for {machine.nodes * on_node:,} ranks"
        )
    block = place(mesh, machine, "block:ep", on_node, used)
    if placement == "block":
        return block
    if placement != "scatter":
        raise InputError(f"--placement {placement}: no such placement{suggestion(placement, ['block', 'scatter'])}")
    slots, inside = np.divmod(np.arange(ranks), block.supernodes)
    return Layout(
        mesh, inside * block.supernode_size + slots // on_node, on_node, block.nodes_per_supernode, block.supernode_size
    )


def _steps(
    machine: Machine, layout: Layout, operation: str, algorithm: str, vector: float, model: Sharing, alone: bool = False
) -> Steps:
    """The steps of the collective; ``alone`` takes every rank by itself."""
    ranks, graph = layout.mesh.ranks, Graph.of(machine, layout)
    groups = np.arange(ranks)[None, :]
    grid = layout.two_level(("ep",))
    if algorithm == "two-level":
        if grid is None:
            raise InputError(
                f"--algorithm two-level: {ranks:,} ranks are not equally many in each supernode; use another"
            )
        groups = layout.groups(("ep",))
    outer, inner = (1, ranks) if grid is None else grid.shape[1:]
    found = (
        rounds(operation, algorithm, outer, inner)
        if algorithm == "two-level"
        else rounds(operation, algorithm, 1, ranks)
    )
    orbits = Orbits.alone(graph) if alone else Orbits.of(graph, groups, found, inner, [])
    payloads = [Payload(np.full(ranks, float(vector)))] * len(found)
    return Steps(graph, groups, found, inner, payloads, model, machine.calibration.message_overhead, orbits)


def _depth(depth: str, steps: Steps) -> Depth:
    """The depth that was asked for; raises :class:`DoesNotFit` where it is too large, with the one that would do."""
    if depth not in DEPTHS:
        raise InputError(f"--depth {depth}: no such depth{suggestion(depth, DEPTHS)}")
    size = steps.size
    if size > MOST_MESSAGES:
        nbytes = size * MESSAGE_BYTES
        raise DoesNotFit(
            f"--depth {depth}: {size:.2g} messages that differ would take about {nbytes / 1e9:,.0f} GB and"
            f" {size / MESSAGES_A_SECOND / 3600:.1f} hours; fewer --ranks, or ranks that fill whole supernodes, need less"
        )
    return "message" if depth == "auto" else cast(Depth, depth)


def _seconds(steps: Steps, depth: Depth) -> float:
    """Seconds until the last rank is through, at a depth."""
    if depth == "message":
        return float(play([(steps, np.zeros(steps.ranks))])[0].max(initial=0.0))
    if depth == "fluid":
        return in_turn(steps)
    busy = steps.totals.loads / steps.capacity
    return max(float(busy.max(initial=0.0)), steps.totals.chain)


def _use(steps: Steps, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """Bytes and use of each kind of link, and the kind of the link that is busiest."""
    loads, graph, orbits = steps.totals.loads, steps.graph, steps.orbits
    kind, busy = graph.kind[orbits.example], loads / steps.capacity
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(graph.names):
        own = np.flatnonzero((kind == number) & (loads > 0))
        if len(own):
            most = own[busy[own].argmax()]
            rows.append(
                {
                    "kind": name,
                    "links": int(orbits.links[own].sum()),
                    "capacity_bytes_per_second": float(graph.capacity[orbits.example[most]]),
                    "bytes": float((loads[own] * orbits.links[own]).sum()),
                    "mean_utilisation": float(np.average(busy[own], weights=orbits.links[own])) / seconds,
                    "max_utilisation": float(busy[most]) / seconds,
                }
            )
    busiest = max(rows, key=lambda row: row["max_utilisation"], default=None)
    return rows, str(busiest["kind"]) if busiest else "none"
