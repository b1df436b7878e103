"""A step that no network can beat: every exchange alone on empty links, and the busiest link's bytes of the whole step."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import simpy

from ...workloads.pipelines import Kind
from ...workloads.schedule.schedule import Schedule
from ...workloads.schedule.work import Exchange
from ..messages.exchange_bounds import ExchangeBounds
from ..network.links import Array
from ..network.phases.transfers import Traffic
from .noise import Noise
from .stage_transfers import Handover
from .step_engine import Engine, Exchanged, Played


class BoundEngine(Engine):
    """Runs a schedule once, as :class:`Engine` does, but nothing that is under way at once slows each other.

    A group takes for an exchange what :class:`~athanor.sim.messages.exchange_bounds.ExchangeBounds` says, whatever others do. So
    every clock is a lower bound of what it is where links are shared, and so is the step, which also lasts as long as its
    busiest link needs for all bytes.
    """

    meet = False

    @property
    def bounds(self) -> ExchangeBounds:
        """What exchanges take; blocks of a pipeline have those of the whole."""
        if self._bounds is None:
            self._bounds = ExchangeBounds(self.traffic)
        return self._bounds

    _bounds: ExchangeBounds | None = None

    def played(self) -> Played:
        """Play the step."""
        self._play()
        self._add_up()
        return Played(self.ledger, self.loads, self.env.events, self.made)

    def within(
        self, schedule: Schedule, traffic: Traffic, noise: Noise, observed: Mapping[str, tuple[int, ...]]
    ) -> Engine:
        """An engine for a block, which knows what this one knows."""
        inner = super().within(schedule, traffic, noise, observed)
        if traffic is self.traffic:
            assert isinstance(inner, BoundEngine)
            inner._bounds = self.bounds
        return inner

    def by_itself(self, exchange: Exchange) -> Exchanged:
        """An exchange, on empty links."""
        transfers = self.traffic.transfers(exchange)
        loads = [(each.loads, 1.0 if each.factor is None else each.factor) for each in transfers]
        return Exchanged(loads, [self._seconds(exchange)], [True])

    def handover(self, activations: Exchange, kind: Kind, wraps: bool, sends: Sequence[int] | None = None) -> Handover:
        """Messages between the stages of a pipeline, each alone."""
        return Handover.of(self.traffic, activations, kind, wraps, sends, self.bounds.message)

    def _communicate(
        self, number: int, exchange: Exchange, ready: Array
    ) -> Generator[simpy.Event, Any, tuple[Array, Array, str]]:
        begin = self._joint(exchange, ready)
        yield self._until(begin)
        limit = "none"
        for transfer in self.traffic.transfers(exchange):
            limit = transfer.demand.alone[1]
            self._load(transfer)
        end = begin + self._seconds(exchange)
        yield self._until(end)
        return begin, end, limit

    def _seconds(self, exchange: Exchange) -> Array:
        """Seconds of an exchange, an array over the mesh."""
        seconds = self.bounds.seconds(exchange)
        if (seconds == seconds[0]).all():
            return np.full([1] * len(self.mesh.shape), seconds[0])
        return self.mesh.spread(seconds, exchange.axes)

    def _backlog(self, seconds: float, played: Played) -> float:
        """What the busiest link still has to carry; the wait counts for the last exchange."""
        exchanges = [each for each in self.schedule.outline if isinstance(each.work, Exchange)]
        return self._waited(seconds, played, exchanges)
