"""What a pipeline's closed form is made from: the seconds of each part of a model, and the sums that all formulas share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

LAST = 1.0
"""By how much more the last part may take than others, and count as even."""


class PartSeconds(NamedTuple):
    """Seconds of one micro-batch through a part of a model: what one chunk of one stage holds.

    ``forward``, ``backward`` and ``weights`` keep the stage busy; where a pipeline splits its backward passes, ``backward`` makes
    the gradients of inputs and ``weights`` those of weights, elsewhere ``backward`` makes both. ``forward_after`` and
    ``backward_after`` are seconds at the end of these that the next stage need not wait for (gradients that leave beside a
    pass). ``tail`` are those that the last micro-batch's gradients take longer.
    """

    forward: float
    backward: float
    weights: float = 0.0
    forward_after: float = 0.0
    backward_after: float = 0.0
    tail: float = 0.0


class Circle(NamedTuple):
    """From a forward pass on a stage to a later stage, which turns round, and back: so many seconds for so many micro-batches."""

    first: int
    last: int
    seconds: float
    micro_batches: int

    @property
    def pace(self) -> float:
        """Seconds a micro-batch."""
        return self.seconds / self.micro_batches


@dataclass(frozen=True)
class StageSeconds:
    """The parts of a pipeline, chunk · stages + stage, and ``send`` seconds for a message between two of them.

    For ``wire`` of these a message keeps cards busy, which then send nothing else. Sums are over the chunks of a stage, a list
    with an item for each stage.
    """

    parts: Sequence[PartSeconds]
    stages: int
    send: float
    wire: float = 0.0

    @property
    def crowded(self) -> bool:
        """Whether messages may come faster than a card sends them: no formula knows how they queue."""
        return self.stages > 1 and self.wire > min(min(each.forward, each.backward) for each in self.parts)

    @property
    def chunks(self) -> int:
        """Parts of a stage."""
        return len(self.parts) // self.stages

    @cached_property
    def forward(self) -> list[float]:
        """Forward passes of one micro-batch."""
        return self._summed([each.forward for each in self.parts])

    @cached_property
    def backward(self) -> list[float]:
        """Backward passes, or their first halves."""
        return self._summed([each.backward for each in self.parts])

    @cached_property
    def weights(self) -> list[float]:
        """Gradients of weights that are slots of their own."""
        return self._summed([each.weights for each in self.parts])

    @cached_property
    def busy(self) -> list[float]:
        """All that a stage does for a micro-batch."""
        return [sum(each) for each in zip(self.forward, self.backward, self.weights, strict=True)]

    @cached_property
    def way(self) -> list[float]:
        """Seconds by which a stage holds a micro-batch up on its way there and back."""
        return self._summed(
            [each.forward - each.forward_after + each.backward - each.backward_after for each in self.parts]
        )

    @cached_property
    def before(self) -> list[float]:
        """Seconds of a micro-batch, there and back, on the stages before each and on the links to it (of one chunk a stage)."""
        return list(accumulate((each + 2 * self.send for each in self.way[:-1]), initial=0.0))

    @property
    def round_trip(self) -> float:
        """One micro-batch through all parts, there and back; the last one turns it round itself."""
        return sum(self.way) + self.parts[-1].forward_after + 2 * (len(self.parts) - 1) * self.send

    @property
    def slowest(self) -> float:
        """What the busiest stage does for a micro-batch."""
        return max(self.busy)

    @cached_property
    def tails(self) -> list[float]:
        """What gradients of each stage's last micro-batch take longer, in the chunk where this is most."""
        return [max(each.tail for each in self.parts[stage :: self.stages]) for stage in range(self.stages)]

    @property
    def uneven(self) -> float:
        """By how much a part's passes differ from the mean at most, the last part aside, which only has more (the output)."""
        most = 0.0
        for column in list(zip(*self.parts, strict=True))[:3]:
            before = column[:-1]
            if mean := sum(before) / len(before):
                most = max(most, max(before) / mean - 1, 1 - min(column) / mean, column[-1] / mean - 1 - LAST)
        return most

    def least(self, micro_batches: int) -> float:
        """Seconds that no order of so many micro-batches takes less than.

        Every stage waits for the first micro-batch, and has its work; what it does backward then still has the way back.
        """
        there, back, most = 0.0, 0.0, 0.0
        last = min(each.weights for each in self.parts[:: self.stages])  # what the first stage then still does
        for stage, busy in enumerate(self.busy):
            chunks = self.parts[stage :: self.stages]
            beside = max(each.backward_after for each in chunks) if stage else 0.0
            returned = micro_batches * (busy - self.weights[stage]) - beside + back + last
            most = max(most, there + max(micro_batches * busy, returned))
            there += chunks[0].forward - chunks[0].forward_after + self.send
            back += min(each.backward - each.backward_after for each in chunks) + self.send
        return most

    def pace(self, ahead: int = 1) -> float:
        """Seconds a micro-batch in the steady state of one chunk a stage: those of the slowest :class:`Circle`."""
        return self.slowest_circle(ahead).pace

    def slowest_circle(self, ahead: int = 1) -> Circle:
        """The circle that holds the steady state up.

        A stage that may run ``ahead`` micro-batches further ahead than the next one waits for the gradients of what it has sent;
        what turns round at a later stage comes back with as many micro-batches more as lie between them. One stage alone is a
        circle as well.
        """
        way, link, slowest = self.way, 2 * self.send, Circle(0, 0, self.slowest, 1)
        for first in range(self.stages):
            there = self.parts[first].backward_after
            for last in range(first, self.stages):
                there += way[last] + (link if last > first else 0.0)
                seconds, more = there + self.parts[last].forward_after, ahead * (last - first) + 1
                if seconds > slowest.pace * more * (1 + 1e-12):
                    slowest = Circle(first, last, seconds, more)
        return slowest

    def circle(self, stage: int) -> float:
        """Seconds from the begin of a stage's forward pass to the end of its backward pass of the same micro-batch."""
        return self.round_trip - self.before[stage] + self.parts[stage].backward_after

    def lead(self, stage: int) -> int:
        """Micro-batches that a stage has under way where each runs one further ahead than the next."""
        return self.stages - stage

    def _summed(self, values: Sequence[float]) -> list[float]:
        return [sum(values[stage :: self.stages]) for stage in range(self.stages)]
