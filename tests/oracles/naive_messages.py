"""The obviously right collective: one SimPy process for each rank, each message a flow, rates from nothing at each change."""

from __future__ import annotations

import numpy as np
import simpy


def weighted_max_min(flows, capacity):
    """Rates of flows (``uses``: {link: part of the rate}, ``weight``): raise all levels together, freeze at full links, repeat."""
    rates = {}
    left = dict(capacity)
    while len(rates) < len(flows):
        claimed = dict.fromkeys(left, 0.0)
        for number, flow in enumerate(flows):
            if number not in rates:
                for link, part in flow["uses"].items():
                    claimed[link] += part * flow["weight"]
        level, tight = min((left[link] / claim, link) for link, claim in claimed.items() if claim > 0)
        for number, flow in enumerate(flows):
            if number not in rates and tight in flow["uses"]:
                rates[number] = max(level, 0.0) * flow["weight"]
                for link, part in flow["uses"].items():
                    left[link] -= rates[number] * part
        left.pop(tight)
        for number, flow in enumerate(flows):
            flow["uses"] = {link: part for link, part in flow["uses"].items() if number in rates or link in left}
    return [rates[number] for number in range(len(flows))]


class NaiveShared:
    """Links of any names; flows that start and end at any time."""

    def __init__(self, env, capacity):
        self.env, self.capacity = env, capacity
        self.flows, self.version, self.updated = [], 0, 0.0

    def send(self, uses, nbytes, weight):
        """The event of a flow's end."""
        done = self.env.event()
        if nbytes <= 0:
            done.succeed()
            return done
        self._advance()
        self.flows.append({"uses": uses, "weight": weight, "left": nbytes, "rate": 0.0, "done": done})
        self._allocate()
        return done

    def _advance(self):
        for flow in self.flows:
            flow["left"] -= flow["rate"] * (self.env.now - self.updated)
        self.updated = self.env.now

    def _allocate(self):
        self.version += 1
        if self.flows:
            links = {link for flow in self.flows for link in flow["uses"]}
            copies = [{"uses": dict(flow["uses"]), "weight": flow["weight"]} for flow in self.flows]
            for flow, rate in zip(
                self.flows, weighted_max_min(copies, {link: self.capacity[link] for link in links}), strict=True
            ):
                flow["rate"] = rate
            soonest = min(flow["left"] / flow["rate"] for flow in self.flows)
            self.env.process(self._wake(soonest, self.version))

    def _wake(self, delay, version):
        yield self.env.timeout(max(delay, 0.0))
        if version != self.version:
            return
        ended = [flow for flow in self.flows if flow["left"] <= flow["rate"] * max(delay, 0.0) * (1 + 1e-9) + 1e-12]
        self._advance()
        self.flows = [flow for flow in self.flows if all(flow is not other for other in ended)]
        for flow in ended:
            flow["done"].succeed()
        self._allocate()


class Platform:
    """A pruned tree: links by name, and what a message of a network model uses, waits and weighs."""

    def __init__(self, machine, layout, model):
        self.machine, self.node, self.model = machine, [int(each) for each in layout.node], model
        self.inside = machine.node.ring_bandwidth
        if machine.node.inside == "switch":
            self.inside *= machine.node.core_groups / layout.ranks_per_node
        self.size, fabric = machine.fabric.supernode, machine.fabric
        self.cables = fabric.uplinks if fabric.routing == "static" else 1
        self.trunk = fabric.taper * fabric.supernode * machine.injection / self.cables

    def links(self, source, target):
        a, b = self.node[source], self.node[target]
        if a == b and self.machine.node.inside == "switch":
            return [("port out", source), ("port in", target)]
        if a == b:
            return [("ring", a)]
        found = [("out", a), ("in", b)]
        if a // self.size != b // self.size:
            cable = b % self.cables
            found[1:1] = [("trunk out", a // self.size, cable), ("trunk in", b // self.size, cable)]
        return found

    @property
    def capacity(self):
        nodes, factor = max(self.node) + 1, self.model.bandwidth_factor
        own = {(way, node): self.machine.injection * factor for way in ("out", "in") for node in range(nodes)}
        groups = range((nodes - 1) // self.size + 1)
        trunks = {
            (f"trunk {way}", group, cable): self.trunk * factor
            for way in ("out", "in")
            for group in groups
            for cable in range(self.cables)
        }
        ranks = range(len(self.node))
        ports = {(f"port {way}", rank): self.inside * factor for way in ("out", "in") for rank in ranks}
        return own | trunks | ports | {("ring", node): self.inside * factor for node in range(nodes)}

    def uses(self, source, target):
        parts = dict.fromkeys(self.links(source, target), 1.0)
        for link in self.links(target, source) if self.model.reverse else ():
            parts[link] = parts.get(link, 0.0) + self.model.reverse
        return parts

    def latency(self, source, target):
        fabric, (a, b) = self.machine.fabric, (self.node[source], self.node[target])
        if a == b:
            return fabric.latency_node
        return fabric.latency_supernode if a // self.size == b // self.size else fabric.latency_top

    def wait(self, source, target):
        return self.machine.calibration.message_overhead + self.latency(source, target) * self.model.latency_factor

    def weight(self, source, target):
        if not self.model.by_latency:
            return 1.0
        a_byte = sum(self.model.bandwidth_factor / self.capacity[link] for link in self.links(source, target))
        penalty = self.latency(source, target) + self.model.by_bandwidth * a_byte
        return 1 / penalty if penalty else 1.0


def play_naively(platform, collectives):
    """When each rank of each collective is through: collectives are (steps, starts); a step is a list of (from, to, bytes)."""
    env = simpy.Environment()
    network = NaiveShared(env, platform.capacity)
    through = [np.zeros(len(starts)) for _, starts in collectives]

    def message(here, there, source, target, nbytes, done):
        yield env.all_of([here, there])
        yield env.timeout(platform.wait(source, target))
        yield network.send(platform.uses(source, target), nbytes, platform.weight(source, target))
        done.succeed()

    def rank(number, me, steps, start, came, ended):
        yield env.timeout(start)
        for step, messages in enumerate(steps):
            came[step, me].succeed()
            mine = [at for at, (source, target, _) in enumerate(messages) if me in (source, target)]
            yield env.all_of([ended[step, at] for at in mine])
        through[number][me] = env.now

    for number, (steps, starts) in enumerate(collectives):
        came = {(step, me): env.event() for step in range(len(steps)) for me in range(len(starts))}
        ended = {(step, at): env.event() for step, messages in enumerate(steps) for at in range(len(messages))}
        for step, messages in enumerate(steps):
            for at, (source, target, nbytes) in enumerate(messages):
                env.process(message(came[step, source], came[step, target], source, target, nbytes, ended[step, at]))
        for me, start in enumerate(starts):
            env.process(rank(number, me, steps, start, came, ended))
    env.run()
    return through
