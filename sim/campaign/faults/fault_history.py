"""When what breaks: the faults of one seed, drawn before anyone asks how a job goes on after them.

Faults strike nodes whatever a job does, also while it restarts or waits. So all policies, intervals and both ways of playing a
campaign see the very same faults of a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, gamma, log, sqrt

import numpy as np
from numpy.typing import NDArray

from ....hardware.site.faults import Component, Faults

Array = NDArray[np.float64]
Index = NDArray[np.int64]

AT_ONCE = 4096
"""Faults that are drawn at a time, on average."""


@dataclass(frozen=True)
class FaultTimes:
    """Faults in order, an array ``[faults]`` each: seconds from the start, kind, nodes lost; seconds of detection and repair.

    ``restart`` is how many times the median this fault's restart takes.
    """

    time: Array
    kind: Index
    lost: Index
    detection: Array
    repair: Array
    restart: Array

    def before(self, seconds: float) -> FaultTimes:
        """Those that strike before a time."""
        return self.chosen(slice(0, int(np.searchsorted(self.time, seconds))))

    def chosen(self, which: slice | Index | NDArray[np.bool_]) -> FaultTimes:
        """Some of them."""
        return FaultTimes(
            self.time[which],
            self.kind[which],
            self.lost[which],
            self.detection[which],
            self.repair[which],
            self.restart[which],
        )

    @staticmethod
    def joined(parts: Sequence[FaultTimes]) -> FaultTimes:
        """One after the other."""
        names = FaultTimes.__dataclass_fields__
        return FaultTimes(*(np.concatenate([getattr(each, name) for each in parts]) for name in names))


@dataclass(frozen=True)
class InUse:
    """What a job uses, and so what can break: nodes, accelerators, network interfaces, supernodes."""

    nodes: int
    accelerators: int
    interfaces: int
    supernodes: int

    def count(self, component: Component) -> int:
        """How many of a component there are."""
        numbers = {
            "accelerator": self.accelerators,
            "node": self.nodes,
            "interface": self.interfaces,
            "supernode": self.supernodes,
        }
        return numbers.get(component.per, 1)

    def lost(self, component: Component) -> int:
        """Nodes that a fault of it takes along."""
        each = {"nothing": 0, "nodes": component.nodes, "supernode": -(-self.nodes // self.supernodes)}
        return min(self.nodes, each.get(component.takes, self.nodes))


class FaultProcess:
    """The faults of what a job uses, as a law: rates, and a :meth:`history` for each seed.

    Components with exponential times are one Poisson process. Others are renewed one by one, each a component of the job,
    and are as old at the start as such components are on average: their rate is the same at all times.
    """

    def __init__(self, faults: Faults, used: InUse) -> None:
        self.faults, self.used = faults, used
        self.components = faults.component
        self.counts = [used.count(each) for each in self.components]
        self.lost = np.array([used.lost(each) for each in self.components], dtype=np.int64)
        self.detection = np.array([_or(each.detection, faults.detection) for each in self.components])
        self.repair = np.array([_or(each.repair, faults.repair) for each in self.components])

    @cached_property
    def rates(self) -> Array:
        """Faults a second of each component of the job, lemons included."""
        more = np.array([self.lemons_add if self.can_be_lemon(each) else 1.0 for each in self.components])
        mtbfs = np.array([each.mtbf for each in self.components])
        found: Array = np.array(self.counts) / mtbfs * more
        return found

    @property
    def mtbf(self) -> float:
        """Mean seconds between faults of the job."""
        return 1.0 / float(self.rates.sum())

    def mtbf_of(self, kinds: Sequence[int]) -> float:
        """Mean seconds between faults of these components; infinite where there are none."""
        rate = float(self.rates[list(kinds)].sum()) if kinds else 0.0
        return 1.0 / rate if rate else float("inf")

    @property
    def lemons(self) -> int:
        """Nodes that fail more often."""
        return round((self.faults.lemon_share or 0.0) * self.used.nodes)

    @property
    def lemons_add(self) -> float:
        """By how much they multiply the rate of all nodes together."""
        share = self.lemons / self.used.nodes
        return 1.0 - share + share * self.faults.lemon_factor

    def can_be_lemon(self, component: Component) -> bool:
        """Whether it is part of a node, and exponential."""
        return component.per in ("accelerator", "node", "interface") and component.shape == 1.0

    def history(self, seed: int) -> FaultHistory:
        """The faults of a seed."""
        return FaultHistory(self, seed)


class FaultHistory:
    """The faults of one seed, drawn as far as they are asked for; the same however far that is at a time."""

    def __init__(self, process: FaultProcess, seed: int) -> None:
        self.process, self.seed = process, seed
        self.span = AT_ONCE * process.mtbf
        self._windows: list[FaultTimes] = []
        self._renewed = {
            kind: _Renewed(each, process.counts[kind], np.random.default_rng([seed, 7, kind]))
            for kind, each in enumerate(process.components)
            if each.shape != 1.0
        }
        self._struck = np.zeros(process.lemons, dtype=np.int64)

    def until(self, seconds: float) -> FaultTimes:
        """All faults before a time."""
        while len(self._windows) * self.span < seconds:
            self._windows.append(self._window(len(self._windows)))
        return FaultTimes.joined(self._windows).before(seconds)

    def _window(self, number: int) -> FaultTimes:
        process, random = self.process, np.random.default_rng([self.seed, 6, number])
        rates = np.where([each.shape == 1.0 for each in process.components], process.rates, 0.0)
        times, kinds = np.zeros(0), np.zeros(0, dtype=np.int64)
        if rates.sum():
            count = int(random.poisson(rates.sum() * self.span))
            times = (number + np.sort(random.random(count))) * self.span
            kinds = np.searchsorted(np.cumsum(rates) / rates.sum(), random.random(count), side="right")
            kinds = np.minimum(kinds, len(rates) - 1).astype(np.int64)
            kept = self._lemons_removed(kinds, random)
            times, kinds = times[kept], kinds[kept]
        for kind, renewed in self._renewed.items():
            struck = renewed.before((number + 1) * self.span)
            times = np.concatenate([times, struck])
            kinds = np.concatenate([kinds, np.full(len(struck), kind)])
        order = np.argsort(times, kind="stable")
        times, kinds = times[order], kinds[order]
        repair, restart = (
            log_normal(random, len(times), spread)
            for spread in (process.faults.repair_spread, process.faults.restart_spread)
        )
        return FaultTimes(
            times, kinds, process.lost[kinds], process.detection[kinds], process.repair[kinds] * repair, restart
        )

    def _lemons_removed(self, kinds: Index, random: np.random.Generator) -> NDArray[np.bool_]:
        """Which faults are left where lemons leave after some: what takes their place fails as others do."""
        process, faults = self.process, self.process.faults
        kept = np.ones(len(kinds), dtype=bool)
        if not process.lemons or faults.lemon_after is None:
            return kept
        share = process.lemons * faults.lemon_factor / (process.used.nodes * process.lemons_add)
        able = np.array([process.can_be_lemon(each) for each in process.components])[kinds]
        at = np.flatnonzero(able & (random.random(len(kinds)) < share))
        who = random.integers(process.lemons, size=len(at))
        stays = random.random(len(at)) < 1.0 / faults.lemon_factor
        for place, lemon, as_others in zip(at.tolist(), who.tolist(), stays.tolist(), strict=True):
            if self._struck[lemon] >= faults.lemon_after:
                kept[place] = as_others
            else:
                self._struck[lemon] += 1
        return kept


class _Renewed:
    """Components of one kind with Weibull times, each with the time of its next fault."""

    def __init__(self, component: Component, count: int, random: np.random.Generator) -> None:
        self.shape, self.random, self.mean = component.shape, random, component.mtbf
        self.scale = component.mtbf / gamma(1.0 + 1.0 / component.shape)
        # A life that is under way at a random moment is drawn by its length, and the moment lies anywhere in it.
        lives = random.gamma(1.0 + 1.0 / self.shape, size=count) ** (1.0 / self.shape)
        self.next = self.scale * lives * random.random(count)

    def before(self, seconds: float) -> Array:
        """The faults up to a time that nobody has asked for yet."""
        found = []
        while len(due := np.flatnonzero(self.next < seconds)):
            # as many lives for each as most will have until then; those that go on are drawn again
            lives = 1 + ceil(1.2 * (seconds - float(self.next[due].min())) / self.mean)
            ends = self.next[due, None] + np.cumsum(
                self.scale * self.random.weibull(self.shape, (len(due), lives)), axis=1
            )
            times = np.concatenate([self.next[due, None], ends], axis=1)
            found.append(times[times < seconds])
            after = np.argmax(times >= seconds, axis=1)  # 0 where all of them end before
            last = np.where(after > 0, after, lives)
            self.next[due] = times[np.arange(len(due)), last]
            again = after == 0
            found[-1] = np.sort(found[-1]) if not again.any() else _without(found[-1], self.next[due][again])
        return np.concatenate(found) if found else np.zeros(0)


def _without(times: Array, ends: Array) -> Array:
    """The times but for those at which lives end that are drawn on: they come first of what is drawn next."""
    return times[~np.isin(times, ends)]


def log_normal(random: np.random.Generator, count: int, spread: float) -> Array:
    """Numbers with median 1 and mean ``spread``; all 1 where that is 1."""
    if spread == 1.0:
        return np.ones(count)
    drawn: Array = np.exp(sqrt(2.0 * log(spread)) * random.standard_normal(count))
    return drawn


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
