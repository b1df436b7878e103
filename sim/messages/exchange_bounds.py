"""What exchanges of a step take at least, each alone on an empty network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...workloads.schedule.work import Exchange
from ..network.links import Array, Index, LinkLoads
from ..network.phases.phases_by_route import ByRoute
from ..network.phases.transfers import Traffic
from ..network.topology import Graph
from .message_tables import MessageSteps
from .rank_symmetry import RankSymmetry

MOST_MESSAGES = 4e6
"""Messages of an exchange up to which its ranks' chains are looked at; of more, only links and latencies count."""


class ExchangeBounds:
    """Seconds below which exchanges of one layout cannot be; known once where all ranks have the same bytes."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic, self.layout = traffic, traffic.layout
        self.graph = _graph(traffic)
        self.orbits = RankSymmetry.alone(self.graph)
        self._known: dict[tuple[object, ...], Array] = {}

    def seconds(self, exchange: Exchange) -> Array:
        """Seconds of each group along its axes, ``[groups]``."""
        if not isinstance(exchange.nbytes, float) or exchange.received is not None:
            return self._least(exchange)
        key = (exchange.operation, exchange.algorithm, exchange.axes, exchange.nbytes)
        if key not in self._known:
            self._known[key] = self._least(exchange)
        return self._known[key]

    def message(self, source: Index, target: Index, nbytes: Array) -> Array:
        """Seconds in which the bytes of messages pass, each alone."""
        rates = np.append(self.graph.capacity, np.inf)[self.graph.routes(source, target)]
        seconds: Array = nbytes / rates.min(axis=1)
        return seconds

    def _least(self, exchange: Exchange) -> Array:
        groups = self.layout.mesh.ranks // self.layout.mesh.size(*exchange.axes)
        if self.layout.mesh.size(*exchange.axes) == 1:
            return np.zeros(groups)
        steps = MessageSteps.of_exchange(self.graph, replace(exchange, pairs=None), self.orbits)
        if steps.size <= MOST_MESSAGES:
            return steps.least
        transfers = self.traffic.transfers(exchange)
        fixed = sum((np.broadcast_to(each.fixed, groups) for each in transfers), np.zeros(groups))
        if groups > 1:
            return fixed
        total = LinkLoads(self.traffic.phases.kinds)
        for each in transfers:
            total.plus(each.loads, 1.0 if each.factor is None else each.factor)
        return np.maximum(fixed, max((float(busy.max()) for _, busy in total.busy()), default=0.0))


def _graph(traffic: Traffic) -> Graph:
    """The links of a traffic, as fast as its phases take them to be."""
    phases = traffic.phases
    if isinstance(phases, ByRoute):
        return phases.graph
    graph = Graph.of(traffic.machine, traffic.layout)
    rates = {kind.name: kind.capacity for kind in phases.kinds}
    return replace(graph, capacity=np.array([rates[name] for name in graph.names])[graph.kind])
