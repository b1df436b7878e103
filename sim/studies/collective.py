"""A collective by itself: how long it takes, what holds it back, and how near it is to what any algorithm could do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from ...hardware.errors import AthanorError, DoesNotFit, InputError, suggestion
from ...hardware.machine import Machine, load_machine
from ...workloads.collectives import ALGORITHMS, Round, rounds
from ...workloads.mesh.mesh import Mesh
from ...workloads.mesh.placement import Layout, place, resolve_ranks_per_node
from ..messages.lower_bounds import bus_factor, least_seconds
from ..messages.message_simulation import by_busiest_link, in_turn, play
from ..messages.message_tables import MessageSteps
from ..messages.rank_symmetry import RankSymmetry
from ..network.links import DUST, Index
from ..network.network_models import Sharing, sharing
from ..network.phases.round_bytes import Payload
from ..network.phases.traffic_factors import traffic_factors
from ..network.topology import Graph

Depth = Literal["bound", "links", "fluid", "message"]

DEPTHS = ("auto", "bound", "links", "fluid", "message")

PLACEMENTS = ("block", "scatter")

MOST_PLAYED, MOST_COUNTED = 2e8, 2e9
"""Messages that differ above which a collective is refused: where they are played, and where only bytes are added up."""

MESSAGES_A_SECOND, MESSAGE_BYTES = 5e5, 150.0
"""What the tables of messages take where no two are alike: measured on one core. Playing them takes longer yet."""


@dataclass(frozen=True)
class Result:
    """What was asked, and what the collective took; times in seconds, bandwidths in bytes per second.

    ``nbytes`` is what a rank sends to each other one for an all-to-all, else a rank's vector. ``bottleneck`` is the kind of the
    busiest link, ``messages`` counts those of all ranks, and ``links`` tells the use of each kind of link that carries anything.
    """

    machine: str
    operation: str
    algorithm: str
    ranks: int
    nodes: int
    nodes_per_supernode: int
    nbytes: float
    placement: str
    routing: str
    network_model: str
    seconds: float
    bound_seconds: float
    algorithm_bandwidth: float
    bus_bandwidth: float
    bottleneck: str
    depth: Depth
    messages: float
    links: list[dict[str, Any]]

    @property
    def fraction_of_bound(self) -> float:
        """The share of the speed that the lower bound allows; 1 where nothing takes any time."""
        return self.bound_seconds / self.seconds if self.seconds else 1.0

    def plain(self) -> dict[str, Any]:
        """As plain data, ``nbytes`` as ``bytes``, with the fraction of the bound's speed that was reached."""
        named = {"bytes" if key == "nbytes" else key: value for key, value in vars(self).items()}
        links = named.pop("links")
        return {**named, "fraction_of_bound": self.fraction_of_bound, "links": links}


@dataclass(frozen=True)
class Approach:
    """An algorithm's rounds for groups of ranks ``[group, position]``, and which ranks and links are alike in them."""

    algorithm: str
    groups: Index
    rounds: list[Round]
    inner: int
    orbits: RankSymmetry


class Collective:
    """An operation of ranks on a machine, to be timed with any algorithm and any number of bytes.

    Made once, it has checked all that does not depend on these two, and keeps what an algorithm's symmetry is: asking for
    other sizes costs no more than their messages.

    ``placement`` is ``block`` (ranks fill supernodes one after another) or ``scatter`` (round-robin over as few supernodes as
    hold them). ``nodes_per_supernode`` makes the machine's supernodes that large. ``depth`` is ``message`` (ranks go their own
    ways), ``fluid`` (all wait after each step), ``links`` (the same, a step takes as long as its most loaded link), ``bound``
    (the most loaded link of all steps, or the longest chain of messages: nothing is shorter) or ``auto``: messages where they
    are not too many, else the bound. ``check_symmetry`` also plays every rank by itself and raises
    :class:`AthanorError` where that differs.
    """

    def __init__(
        self,
        machine: str | Machine,
        operation: str,
        ranks: int,
        *,
        placement: str = "block",
        ranks_per_node: int | None = None,
        nodes_per_supernode: int | None = None,
        routing: str | None = None,
        network_model: str = "maxmin",
        depth: str = "auto",
        check_symmetry: bool = False,
    ) -> None:
        _known("--op", operation, "operation", ALGORITHMS)
        _known("--placement", placement, "placement", PLACEMENTS)
        _known("--depth", depth, "depth", DEPTHS)
        self.model: Sharing = sharing(network_model)
        self.machine = load_machine(machine).with_supernodes_of(nodes_per_supernode).with_routing(routing)
        self.operation, self.ranks, self.placement = operation, ranks, placement
        self.depth, self.check_symmetry = depth, check_symmetry
        self.layout = _layout(self.machine, ranks, placement, ranks_per_node)
        self._approaches: dict[str, Approach] = {}

    @cached_property
    def graph(self) -> Graph:
        """The links that the ranks can reach."""
        return Graph.of(self.machine, self.layout)

    def run(self, algorithm: str, nbytes: float) -> Result:
        """Simulate one algorithm.

        Raises :class:`InputError` where it does not exist, does not run on so many ranks or there is nothing to send, and
        :class:`DoesNotFit` where too many of its messages differ.
        """
        if not 1 <= nbytes < float("inf"):
            raise InputError(f"--bytes {nbytes:g}: must be one byte or more, and finite")
        approach = self._approach(algorithm)
        vector = nbytes * self.ranks if self.operation == "all-to-all" else nbytes
        steps = self._steps(approach, vector, approach.orbits)
        depth = _depth(self.depth, steps)
        seconds = _seconds(steps, depth)
        if self.check_symmetry:
            apart = _seconds(self._steps(approach, vector, RankSymmetry.alone(self.graph)), depth)
            if abs(apart - seconds) > 1e-9 * seconds:
                raise AthanorError(
                    f"--check-symmetry: {seconds!r} s by orbits, but {apart!r} s rank by rank: a defect of Athanor"
                )
        links, bottleneck = _use(steps, seconds)
        whole = 0.0 if self.operation == "barrier" else vector
        least = least_seconds(
            self.machine, self.layout, approach.groups, self.operation, whole, self.model.bandwidth_factor
        )
        speed = whole / seconds if seconds else 0.0
        return Result(
            machine=self.machine.name,
            operation=self.operation,
            algorithm=algorithm,
            ranks=self.ranks,
            nodes=self.layout.nodes,
            nodes_per_supernode=self.machine.supernode,
            nbytes=0.0 if self.operation == "barrier" else nbytes,
            placement=self.placement,
            routing=self.machine.fabric.routing,
            network_model=self.model.name,
            seconds=seconds,
            bound_seconds=least,
            algorithm_bandwidth=speed,
            bus_bandwidth=speed * bus_factor(self.operation, self.ranks),
            bottleneck=bottleneck,
            depth=depth,
            messages=steps.totals.messages,
            links=links,
        )

    def _approach(self, algorithm: str) -> Approach:
        """The rounds of an algorithm and their symmetry, made once."""
        if algorithm not in self._approaches:
            _known("--algorithm", algorithm, f"algorithm of {self.operation}", ALGORITHMS[self.operation])
            groups = np.arange(self.ranks)[None, :]
            grid = self.layout.two_level(("ep",))
            outer, inner = (1, self.ranks) if grid is None else grid.shape[1:]
            if not ALGORITHMS[self.operation][algorithm].grid:
                found = rounds(self.operation, algorithm, 1, self.ranks)
            elif grid is None:
                raise InputError(
                    f"--algorithm {algorithm}: {self.ranks:,} ranks are not equally many in each supernode; use another"
                )
            else:
                groups, found = self.layout.groups(("ep",)), rounds(self.operation, algorithm, outer, inner)
            self._approaches[algorithm] = Approach(
                algorithm, groups, found, inner, RankSymmetry.of(self.graph, groups, found, inner, [])
            )
        return self._approaches[algorithm]

    def _steps(self, approach: Approach, vector: float, orbits: RankSymmetry) -> MessageSteps:
        """The steps of an algorithm on vectors of so many bytes."""
        payloads = [Payload(np.full(self.ranks, float(vector)))] * len(approach.rounds)
        overhead = self.machine.calibration.message_overhead
        groups = approach.groups
        weight = traffic_factors(self.machine, self.layout, groups, self.operation, approach.algorithm)
        return MessageSteps(
            self.graph, groups, approach.rounds, approach.inner, payloads, self.model, overhead, orbits, weight
        )


def collective(
    machine: str | Machine, operation: str, algorithm: str, ranks: int, nbytes: float, **options: Any
) -> Result:
    """Simulate one collective of ``ranks`` ranks; ``options`` are those of :class:`Collective`.

    ``nbytes`` is what a rank sends to each other one for an all-to-all, else a rank's whole vector (for gathers the gathered
    one).
    """
    return Collective(machine, operation, ranks, **options).run(algorithm, nbytes)


def _known(flag: str, found: str, what: str, allowed: Any) -> None:
    """Raise :class:`InputError`, with the nearest name, for one that is not allowed."""
    if found not in allowed:
        raise InputError(f"{flag} {found}: no such {what}{suggestion(found, allowed)}")


def _layout(machine: Machine, ranks: int, placement: str, per_node: int | None) -> Layout:
    """Where ranks live; raises :class:`InputError` where they exceed the machine."""
    if ranks < 1:
        raise InputError(f"--ranks {ranks}: a collective needs at least one rank")
    on_node = resolve_ranks_per_node(machine, "moda", per_node)
    if ranks > machine.nodes * on_node:
        raise InputError(
            f"--ranks {ranks:,}: {machine.name} has {machine.nodes:,} nodes, with room for {machine.nodes * on_node:,} ranks"
        )
    mesh = Mesh.of({"ep": ranks})
    block = place(mesh, machine, "block:ep", on_node)
    if placement == "block":
        return block
    slots, inside = np.divmod(np.arange(ranks), block.supernodes)
    node = inside * block.supernode_size + slots // on_node
    if (last := int(node.max())) >= machine.nodes:
        raise InputError(
            f"--placement scatter: {ranks:,} ranks, dealt out evenly over {block.supernodes:,} supernodes, need node"
            f" {last + 1:,} of the {machine.nodes:,} of {machine.name}; fewer --ranks, or block, fit"
        )
    return Layout(mesh, node, on_node, block.nodes_per_supernode, block.supernode_size)


def _depth(depth: str, steps: MessageSteps) -> Depth:
    """The depth that was asked for; raises :class:`DoesNotFit` where it is too large, with the one that would do."""
    size = steps.size
    # Where every rank sends to every other at once, all these messages are one table, whatever the depth.
    counted = size <= (MOST_PLAYED if any(each.everyone for each in steps.rounds) else MOST_COUNTED)
    if size <= MOST_PLAYED:
        return "message" if depth == "auto" else cast(Depth, depth)
    if counted and depth in ("auto", "bound"):
        return "bound"
    # Steps of one message a rank are looked at window by window and need no such memory.
    memory = f"about {size * MESSAGE_BYTES / 1e9:,.0f} GB and " if any(each.everyone for each in steps.rounds) else ""
    needs = f"{memory}at least {size / MESSAGES_A_SECOND / 3600:.1f} hours"
    less = (
        "--depth bound only adds up their bytes and takes less"
        if counted
        else ("no depth takes so many; fewer --ranks, or --routing adaptive, have less")
    )
    raise DoesNotFit(f"--depth {depth}: {size:.2g} messages that differ would take {needs}; {less}")


def _seconds(steps: MessageSteps, depth: Depth) -> float:
    """Seconds until the last rank is through, at a depth."""
    if depth == "message":
        return float(play([(steps, np.zeros(steps.ranks))])[0].max(initial=0.0))
    if depth == "fluid":
        return in_turn(steps)
    return by_busiest_link(steps) if depth == "links" else float(steps.least.max())


def _use(steps: MessageSteps, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """Bytes and use of each kind of link, and the kind of the link that is busiest."""
    loads, graph, orbits = steps.totals.loads, steps.graph, steps.orbits
    kind, busy = graph.kind[orbits.example], loads / steps.capacity
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(graph.names):
        own = np.flatnonzero((kind == number) & (busy > DUST * busy.max(initial=0.0)))
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
