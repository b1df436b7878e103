"""The obviously right engine: one SimPy process for each rank and stream, every message a flow, nothing shared or guessed."""

from __future__ import annotations

import numpy as np
import simpy
from athanor.hardware.machine import Machine
from athanor.workloads.mesh.placement import Layout
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, Loop
from oracles.naive_network import NaiveNetwork, Routes, Tree, plan


class NaiveEngine:
    """Runs schedules of loops (whose steps are seconds) and exchanges; gives begin and end of every operation on every rank."""

    def __init__(self, machine: Machine, layout: Layout) -> None:
        self.machine, self.layout = machine, layout
        self.tree = (Tree if machine.fabric.kind == "pruned-fat-tree" else Routes)(machine, layout)

    def run(self, schedule: Schedule) -> dict[tuple[int, int], tuple[float, float]]:
        """``{(operation, rank): (begin, end)}``."""
        self.env = simpy.Environment()
        self.network = NaiveNetwork(self.env, self.tree)
        self.times: dict[tuple[int, int], tuple[float, float]] = {}
        ranks = range(schedule.mesh.ranks)
        self.done = {(n, rank): self.env.event() for n in range(len(schedule.operations)) for rank in ranks}
        self.barriers: dict[tuple[int, int], list] = {}
        for rank in ranks:
            for stream in schedule.streams:
                mine = [(n, each) for n, each in enumerate(schedule.operations) if each.stream == stream]
                self.env.process(self._rank(rank, mine))
        self.env.run()
        return self.times

    def _rank(self, rank: int, operations):
        for number, operation in operations:
            for other in operation.after:
                yield self.done[other, rank]
            if isinstance(operation.work, Loop):
                begin = self.env.now
                yield self.env.timeout(self._full(operation.work.steps, rank))
            else:
                begin = yield self.env.process(self._collective(number, operation.work, rank))
            self.times[number, rank] = (begin, self.env.now)
            self.done[number, rank].succeed()

    def _collective(self, number: int, exchange: Exchange, rank: int):
        """Wait for the group, then let its first member drive all messages of the group."""
        groups = self.layout.groups(exchange.axes)
        place = int(np.flatnonzero((groups == rank).any(axis=1))[0])
        group = [int(member) for member in groups[place]]
        arrived = self.barriers.setdefault((number, place), [0, self.env.event(), self.env.event()])
        arrived[0] += 1
        if arrived[0] == len(group):
            arrived[1].succeed()
            self.env.process(self._drive(exchange, group, arrived[2]))
        yield arrived[1]
        begin = self.env.now
        yield arrived[2]
        return begin

    def _drive(self, exchange: Exchange, group: list[int], finished: simpy.Event):
        overhead = self.machine.calibration.message_overhead
        stages = plan(self.layout, exchange, group, self._full) if len(group) > 1 else []
        for stage in stages:
            begin, times = self.env.now, stage.times
            sent = [message for part in stage.messages for message in part]
            latencies = [self.tree.latency(source, target) for source, target, _ in sent]
            arrivals = [self.network.send(*message) for message in sent]
            waits = [times * (latency + overhead) for latency in latencies]
            yield self.env.all_of([self.env.process(self._late(*each)) for each in zip(arrivals, waits, strict=True)])
            posted = begin + max(waits) + max(0, stage.round.messages(stage.size) - 1) * overhead * times
            yield self.env.timeout(max(0.0, posted - self.env.now))
        finished.succeed()

    def _late(self, arrival: simpy.Event, wait: float):
        yield arrival
        yield self.env.timeout(wait)

    def _full(self, amount, rank: int) -> float:
        return float(self.layout.mesh.full(np.asarray(amount, dtype=float))[rank])
