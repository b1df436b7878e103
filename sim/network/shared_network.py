"""The network as a shared SimPy resource: phases of communication that are under way at once share its links."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
import simpy

from .distinct import distinct, first_of_each
from .links import Array
from .maxmin import fair_rates
from .phases.flow_classes import SPENT, Demand
from .phases.flow_symmetry import alike


@dataclass(eq=False)
class _Phase:
    """A demand under way: what each flow class has left, and how long it took to end."""

    demand: Demand
    done: simpy.Event
    started: float
    left: Array = field(init=False)
    finish: Array = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.demand.nbytes
        self.finish = np.zeros(len(self.left))


class SharedNetwork:
    """Carries demands.

    A process yields from :meth:`carry` and gets the seconds that each flow class took. A demand that has the network
    to itself takes what it takes alone, which is worked out once. While several are under way, rates are the max-min
    fair ones of all their flows together, and change whenever flows start or end.
    """

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self._phases: list[_Phase] = []
        self._rates: list[Array] = []  # empty while a phase has had the network to itself since it began
        self._updated = 0.0
        self._version = 0
        self.coarse = False  # whether classes of a demand were taken as alike though others set their links apart
        self._joint: tuple[list[Demand], Array, Array] = ([], np.zeros((0, 0)), np.zeros(0))

    def carry(self, demand: Demand) -> Generator[simpy.Event, Array, Array]:
        """Carry a demand; returns the seconds of each flow class from now on."""
        self._advance()
        phase = _Phase(demand, self.env.event(), self.env.now)
        self._phases.append(phase)
        self._plan(alone=len(self._phases) == 1)
        yield phase.done
        return phase.finish

    def _advance(self) -> None:
        """Account for the bytes carried since the last change."""
        elapsed = self.env.now - self._updated
        self._updated = self.env.now
        if self._phases and not self._rates:
            (only,) = self._phases
            only.finish, only.left = only.demand.after(elapsed)
        for phase, rates in zip(self._phases, self._rates, strict=False):
            left = np.where(phase.left > 0, phase.left - rates * elapsed, 0.0)
            over = (phase.left > 0) & (left <= phase.demand.nbytes * SPENT)  # also where another phase comes just now
            phase.finish = np.where(over, self.env.now - phase.started, phase.finish)
            phase.left = np.where(over, 0.0, left)

    def _plan(self, alone: bool = False) -> None:
        """Set the rates from now on, let go what is done, and wake at the next change."""
        self._version += 1
        version = self._version
        if alone:
            self._rates = []
            finish = self._phases[0].demand.alone[0]
            self._wake(float(finish.max(initial=0.0)), lambda: self._end_alone(finish, version))
            return
        for phase in [phase for phase in self._phases if not (phase.left > 0).any()]:
            self._phases.remove(phase)
            phase.done.succeed()
        if self._phases:
            self._rates = self._fair()
            soonest = min(
                float((phase.left[phase.left > 0] / rates[phase.left > 0]).min())
                for phase, rates in zip(self._phases, self._rates, strict=True)
            )
            self._wake(soonest, lambda: self._end_some(soonest, version))

    def _wake(self, delay: float, action: Callable[[], None]) -> None:
        timeout = self.env.timeout(delay)
        assert timeout.callbacks is not None
        timeout.callbacks.append(lambda _: action())

    def _end_alone(self, finish: Array, version: int) -> None:
        """The only phase is done, unless another came in the meantime."""
        if version == self._version:
            phase = self._phases.pop()
            phase.finish = finish
            phase.done.succeed()

    def _end_some(self, delay: float, version: int) -> None:
        """``delay`` has passed: end the flows that are done, unless rates changed before."""
        if version != self._version:
            return
        over = [
            (phase.left > 0) & (phase.left <= rates * delay * (1 + 1e-9))
            for phase, rates in zip(self._phases, self._rates, strict=True)
        ]
        self._advance()
        for phase, ended in zip(self._phases, over, strict=True):
            phase.finish = np.where(ended, self.env.now - phase.started, phase.finish)
            phase.left = np.where(ended, 0.0, phase.left)
        self._plan()

    def _fair(self) -> list[Array]:
        """Rates of all flow classes of each phase."""
        demands = [phase.demand for phase in self._phases]
        before = self._joint[0]
        if len(demands) != len(before) or any(a is not b for a, b in zip(demands, before, strict=True)):
            usage, capacity, coarse = _together(demands)
            self._joint, self.coarse = (demands, usage, capacity), self.coarse or coarse
        _, usage, capacity = self._joint
        left = np.concatenate([phase.left for phase in self._phases])
        weight = np.concatenate([demand.weight for demand in demands])
        rates, active = np.zeros(len(left)), left > 0
        rates[active] = fair_rates(usage[active], capacity, weight[active])
        return np.split(rates, np.cumsum([len(phase.left) for phase in self._phases])[:-1])


def _together(demands: list[Demand]) -> tuple[Array, Array, bool]:
    """Usage and capacity over links that are alike for all demands: those that have the same class in each of them.

    And whether some class of a demand is set apart by others: its flows then are held back by the fullest of its links.
    """
    stacked = np.array([demand.link_class() for demand in demands])
    stacked = stacked[:, (stacked >= 0).any(axis=0)]
    joint = stacked[:, first_of_each(alike(*stacked))]
    capacity = np.zeros(joint.shape[1])
    rows, coarse = [], False
    for demand, classes in zip(demands, joint, strict=True):
        used = classes >= 0
        coarse |= len(distinct(classes[used])) < int(used.sum())
        part = np.zeros((len(demand.nbytes), joint.shape[1]))
        part[:, used] = demand.usage[:, classes[used]]
        capacity[used] = demand.capacity[classes[used]]
        rows.append(part)
    return np.concatenate(rows), capacity, coarse
