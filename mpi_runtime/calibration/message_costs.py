"""The table of what messages cost beside their links, and what links that were idle let pass at once.

A message of n bytes takes ``start + max(n / rate, wire - hidden)`` seconds: processors at both ends need ``start`` and hand on
``rate`` bytes per second, its bytes need ``wire`` seconds on links, and of these ``hidden`` cost nothing. One way is told by
ping-pong of two ranks; both ways by the steps of a ring all-reduce of all ranks, each of which sends, receives and adds.

Links behind a token bucket carry what comes in the first moments for nothing. So large messages of ping-pong, where a link is
idle every other time, are by so many seconds faster than their start and their bytes at the rate of links that are always busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...hardware.message_costs import LEVELS, Level, MessageCost, Way
from .fits import EVIDENCE, SCALE, criterion
from .points import LARGE
from .samples import SampleSeries
from .steps import LinkRates, StepCounts, payload_of, shape_of, told
from .topology import Topology

Array = NDArray[np.float64]

FEWEST = 3
"""Points from which costs are fitted, of each side of a switch of protocols."""

LIGHT = 0.7
"""Share of a message's seconds that its bytes need on links at most, where it tells what starting it takes."""

BURST = 0.05
"""Share of a message of :data:`~.points.LARGE` bytes below which what links let pass at once is taken for noise."""

SLOPES = np.concatenate([[0.0], np.geomspace(1e-12, 1e-5, 141)])
"""Seconds a byte that processors are tried with; steps of 12 %."""


@dataclass(frozen=True)
class MessageSamples:
    """Seconds of messages by size, those of their bytes on links, and how far and which way they go.

    ``burst`` seconds of links' bytes pass at once where links were idle; they are while messages start, and in ping-pong
    (``pause``) also while the other one's message is under way.
    """

    level: Level
    way: Way
    sizes: Array
    seconds: Array
    wire: Array
    burst: float = 0.0
    pause: bool = False

    def entries(self, switch: float | None = None) -> list[MessageCost]:
        """The entries of the table: one, or two where there is evidence of a switch of protocols; none for too few points.

        Where a ``switch`` is known, only there. Of two sizes between which one is, it is taken to be at the larger one.
        """
        count = len(self.sizes)
        if count < FEWEST:
            return []
        start, slope, loss = self._fit(slice(None))
        best, score = [(0.0, start, slope)], criterion(loss, count, 2) - EVIDENCE
        known = range(FEWEST, count - FEWEST + 2) if switch is None else [int(np.searchsorted(self.sizes, switch))]
        for place in known:
            if not FEWEST <= place < count - 1:
                continue
            low, high = self._fit(slice(place)), self._fit(slice(place, None))
            if (found := criterion(low[2] + high[2], count, 5)) < score:
                best = [(0.0, *low[:2]), (float(self.sizes[place]) if switch is None else switch, *high[:2])]
                score = found
        return [
            MessageCost(
                level=self.level,
                way=self.way,
                least=float(f"{least:.4g}"),
                start=float(f"{first:.4g}"),
                rate=float(f"{1 / a_byte:.4g}") if a_byte else None,
            )
            for least, first, a_byte in best
        ]

    @property
    def _light(self) -> NDArray[np.bool_]:
        return self.wire - (self._hidden(np.inf) if self.pause else 0.0) < LIGHT * self.seconds

    def _hidden(self, start: Array | float) -> Array | float:
        return np.minimum(self.burst, start + (self.seconds if self.pause else 0.0))

    def _fit(self, which: slice) -> tuple[float, float, float]:
        """(start, seconds a byte, loss) of some of the points, with as few seconds a byte as meet them."""
        size, seconds, wire = self.sizes[which], self.seconds[which], self.wire[which]
        mine = MessageSamples(self.level, self.way, size, seconds, wire, self.burst, self.pause)
        tell = mine._light if mine._light.sum() >= FEWEST else np.arange(len(size)) < FEWEST
        best = (0.0, 0.0, np.inf)
        for slope in SLOPES.tolist():
            bytes_alone = np.maximum(slope * size, wire - mine._hidden(np.inf))
            every = np.maximum(seconds - bytes_alone, 0.0)
            hiding = np.maximum(seconds - slope * size, 0.0)
            every = np.where(hiding <= self.burst, hiding, every)  # the start itself hides less than links could
            start = float(np.median(every[tell]))
            made = start + np.maximum(slope * size, wire - mine._hidden(start))
            squared = ((made / seconds - 1) / SCALE) ** 2
            loss = float(SCALE**2 * np.sum(2 * (np.sqrt(1 + squared) - 1)))
            if loss < best[2] * (1 - 1e-9) - 1e-12:
                best = (start, slope, loss)
        return best


def _ordered(sizes: Sequence[float], seconds: Sequence[float], wire: Sequence[float]) -> tuple[Array, Array, Array]:
    order = np.argsort(sizes)
    one, two, three = (np.asarray(each, dtype=np.float64)[order] for each in (sizes, seconds, wire))
    return one, two, three


def one_way(
    series: Sequence[SampleSeries], level: Level, rate: float, burst: float, way: Way = "one", computed: float = 0.0
) -> MessageSamples:
    """Ping-pong at a level whose links carry ``rate`` bytes per second, each message after so many seconds ``computed``."""
    sizes = [float(each.point.size) for each in series]
    seconds = [max(each.median - computed, 1e-7) for each in series]
    found = _ordered(sizes, seconds, [size / rate for size in sizes])
    return MessageSamples(level, way, *found, burst=burst, pause=True)


def both_ways(
    series: Sequence[SampleSeries], topology: Topology, rates: LinkRates, burst: float
) -> MessageSamples | None:
    """Steps of a ring all-reduce of all ranks; None where none was measured."""
    ring = [
        each
        for each in series
        if told(each)
        and (each.point.detail["operation"], each.point.detail["algorithm"]) == ("all-reduce", "ring")
        and each.point.detail["ranks"] == topology.ranks
    ]
    if len(ring) < FEWEST:
        return None
    counts = StepCounts.of(topology, *shape_of(ring[0]))
    steps = sum(counts.steps)
    level = LEVELS[max(number for number, count in enumerate(counts.steps) if count)]
    payloads = [payload_of(each) for each in ring]
    found = _ordered(
        [nbytes / topology.ranks for nbytes in payloads],
        [each.median / steps for each in ring],
        [counts.bytes_seconds(nbytes, rates) / steps for nbytes in payloads],
    )
    return MessageSamples(level, "both", *found, burst=0.0 if level == "node" else burst)


def link_burst(series: Sequence[SampleSeries], rate: float) -> float:
    """Seconds for which idle links of a ``rate`` send without being held back, by ping-pong between hosts; or 0.

    By how much messages of some size are faster than their start and their bytes on links; most where links are idle for long
    enough between them, and processors fast enough. The two largest show a rate as well: of both the faster one counts, since
    what a rate lacks would be taken for a burst.
    """
    times = sorted((float(each.point.size), each.median) for each in series)
    if len(times) >= FEWEST and times[-1][1] > times[-2][1]:
        rate = max(rate, (times[-1][0] - times[-2][0]) / (times[-1][1] - times[-2][1]))
    light = [time for size, time in times if size / rate < LIGHT * time]
    start = float(np.median(light[-FEWEST:])) if light else 0.0
    found = max((start + size / rate - time for size, time in times if LARGE <= size <= 2 * LARGE), default=0.0)
    return found if found > BURST * LARGE / rate else 0.0
