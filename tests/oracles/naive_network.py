"""The obviously right network: every flow by itself, progressive filling one link at a time, no symmetry, no classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simpy
from athanor.hardware.machine import Machine
from athanor.workloads.collectives import Round, rounds
from athanor.workloads.collectives.blocks import ForPartner
from athanor.workloads.mesh.placement import Layout


class Tree:
    """Links of a pruned tree by name, and the route of every message."""

    def __init__(self, machine: Machine, layout: Layout) -> None:
        self.machine, self.layout = machine, layout
        fabric = machine.fabric
        self.size = fabric.supernode
        self.cables = fabric.uplinks if fabric.routing == "static" else 1
        self.trunk = fabric.taper * fabric.supernode * machine.injection / self.cables

    def route(self, source: int, target: int) -> list[tuple[str, int, int]]:
        """Names of the links from one rank to another."""
        a, b = int(self.layout.node[source]), int(self.layout.node[target])
        if a == b:
            return self.inside(source, target)
        links = [("nic.out", a, 0), ("nic.in", b, 0)]
        if a // self.size != b // self.size:
            cable = b % self.cables
            links += [("trunk.out", a // self.size, cable), ("trunk.in", b // self.size, cable)]
        return links

    def inside(self, source: int, target: int) -> list[tuple[str, int, int]]:
        """Links between ranks of one node."""
        if self.machine.node.inside == "switch":
            return [("port.out", source, 0), ("port.in", target, 0)]
        return [("ring", int(self.layout.node[source]), 0)]

    def capacity(self, link: tuple[str, int, int]) -> float:
        """Bytes per second of a link."""
        node = self.machine.node
        if link[0] == "ring":
            return node.ring_bandwidth
        if link[0].startswith("port"):
            return node.ring_bandwidth * (node.core_groups // self.layout.ranks_per_node)
        return self.trunk if link[0].startswith("trunk") else self.machine.injection

    def latency(self, source: int, target: int) -> float:
        """Seconds of a message of no bytes."""
        fabric = self.machine.fabric
        a, b = int(self.layout.node[source]), int(self.layout.node[target])
        if a == b:
            return fabric.latency_node
        return fabric.latency_supernode if a // self.size == b // self.size else fabric.latency_top


class Routes(Tree):
    """Links of any fabric, and the route that it gives each message."""

    def __init__(self, machine: Machine, layout: Layout) -> None:
        self.machine, self.layout = machine, layout
        kinds = machine.fabric_links(machine.nodes)
        self.rates = [kind.capacity for kind in kinds for _ in range(kind.count)]

    def route(self, source: int, target: int) -> list[tuple[str, int, int]]:
        """Names of the links from one rank to another."""
        a, b = int(self.layout.node[source]), int(self.layout.node[target])
        if a == b:
            return self.inside(source, target)
        (hops,) = self.machine.fabric.routes(np.array([a]), np.array([b]), self.machine.nodes)
        return [("nic.out", a, 0), *(("fabric", int(hop), 0) for hop in hops if hop >= 0), ("nic.in", b, 0)]

    def capacity(self, link: tuple[str, int, int]) -> float:
        """Bytes per second of a link."""
        return self.rates[link[1]] if link[0] == "fabric" else super().capacity(link)

    def latency(self, source: int, target: int) -> float:
        """Seconds of a message of no bytes."""
        ends = (np.array([int(self.layout.node[rank])]) for rank in (source, target))
        return float(self.machine.fabric.latencies(*ends)[0])


def max_min(routes: list[list[object]], capacity: dict[object, float]) -> list[float]:
    """Max-min fair rates: find the tightest link, freeze its flows, repeat."""
    rates: list[float | None] = [None] * len(routes)
    left = dict(capacity)
    while any(rate is None for rate in rates):
        waiting = {
            link: sum(link in route for route, rate in zip(routes, rates, strict=True) if rate is None) for link in left
        }
        share = min(left[link] / count for link, count in waiting.items() if count)
        tight = {link for link, count in waiting.items() if count and left[link] / count <= share * (1 + 1e-12)}
        frozen = [i for i, route in enumerate(routes) if rates[i] is None and any(link in tight for link in route)]
        for flow in frozen:
            rates[flow] = share
            for link in routes[flow]:
                left[link] -= share
    return [float(rate) for rate in rates if rate is not None]


class NaiveNetwork:
    """Carries single messages; each change recomputes all rates from nothing."""

    def __init__(self, env: simpy.Environment, tree: Tree) -> None:
        self.env, self.tree = env, tree
        self.flows: dict[int, dict] = {}
        self.version = self.count = 0
        self.updated = 0.0

    def send(self, source: int, target: int, nbytes: float) -> simpy.Event:
        """The event of a message's arrival (without latency)."""
        done = self.env.event()
        if nbytes <= 0:
            done.succeed()
            return done
        self._advance()
        self.count += 1
        self.flows[self.count] = {"route": self.tree.route(source, target), "left": nbytes, "done": done, "rate": 0.0}
        self._allocate()
        return done

    def _advance(self) -> None:
        for flow in self.flows.values():
            flow["left"] -= flow["rate"] * (self.env.now - self.updated)
        self.updated = self.env.now

    def _allocate(self) -> None:
        self.version += 1
        if not self.flows:
            return
        links = {link for flow in self.flows.values() for link in flow["route"]}
        rates = max_min(
            [flow["route"] for flow in self.flows.values()], {link: self.tree.capacity(link) for link in links}
        )
        for flow, rate in zip(self.flows.values(), rates, strict=True):
            flow["rate"] = rate
        self.env.process(self._wake(min(flow["left"] / flow["rate"] for flow in self.flows.values()), self.version))

    def _wake(self, delay: float, version: int):
        yield self.env.timeout(delay)
        if version != self.version:
            return
        ended = [key for key, flow in self.flows.items() if flow["left"] <= flow["rate"] * delay * (1 + 1e-9)]
        self._advance()
        for key in ended:
            self.flows.pop(key)["done"].succeed()
        self._allocate()


def scopes(layout: Layout, group: list[int], scope: str) -> list[list[int]]:
    """The groups of a round's scope within one group, whose members of a supernode stand next to each other."""
    if scope == "group":
        return [group]
    by_supernode: dict[int, list[int]] = {}
    for rank in group:
        by_supernode.setdefault(int(layout.node[rank]) // layout.supernode_size, []).append(rank)
    parts = list(by_supernode.values())
    return parts if scope == "inner" else [list(members) for members in zip(*parts, strict=True)]


def shape(layout: Layout, group: list[int]) -> tuple[int, int] | None:
    """(supernodes, ranks in each) of a group, None where they are unequal."""
    parts = scopes(layout, group, "inner")
    return (len(parts), len(parts[0])) if len({len(part) for part in parts}) == 1 else None


def messages(
    each: Round, step: int, times: int, members: list[int], held: dict[int, float], wanted: dict[int, float]
) -> list[tuple[int, int, float]]:
    """(source, target, bytes) of a step, or of so many equal ones, in one scope of a round."""
    total = sum(wanted[rank] for rank in members)
    found = []
    for position, rank in enumerate(members):
        for partner in each.partners(position, step, len(members)):
            target, part = members[partner], each.share
            if each.action == "exchange" and (each.everyone or each.content == ForPartner()):
                part = wanted[target] / total if total else 1 / len(members)
            found.append((rank, target, held[rank] * part * times))
    return found


@dataclass
class Stage:
    """Equal steps of a round: how many, the scopes' size, and the messages in each scope."""

    round: Round
    times: int
    size: int
    messages: list[list[tuple[int, int, float]]]


def plan(layout: Layout, exchange, group: list[int], full) -> list[Stage]:
    """The stages of a collective within ``group``, one after another."""
    outer, inner = shape(layout, group) or (1, len(group))
    held = {rank: full(exchange.nbytes, rank) for rank in group}
    wanted = {rank: 1.0 if exchange.received is None else full(exchange.received, rank) for rank in group}
    stages = []
    for each in rounds(exchange.operation, exchange.algorithm, outer, inner):
        weights = dict(wanted)
        if each.scope == "inner" and each.everyone:
            for members in scopes(layout, group, "outer"):
                for rank in members:
                    weights[rank] = sum(wanted[other] for other in members)
        parts = scopes(layout, group, each.scope)
        for step, times in each.distinct():
            sent = [messages(each, step, times, members, held, weights) for members in parts]
            stages.append(Stage(each, times, len(parts[0]), sent))
        if each.everyone:
            after = {}
            for members in parts:
                total = sum(weights[rank] for rank in members)
                everything = sum(held[rank] for rank in members)
                for rank in members:
                    after[rank] = everything * (weights[rank] / total if total else 1 / len(members))
            held = after
    return stages
