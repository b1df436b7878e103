"""1F1B with a flush (PipeDream-Flush, Narayanan et al. 2021b; Megatron-LM's default)."""

from __future__ import annotations

from .order import Order, alternate, backwards, forwards
from .pipeline import CLOSE, Pipeline
from .stage_seconds import Circle, StageSeconds


class OneForwardOneBackward(Pipeline):
    """GPipe's bubble, (p - 1)/m, with no more than p - s micro-batches under way on stage s."""

    name = "1f1b"
    about = "one forward, one backward in turn; at most p - s micro-batches under way on stage s"

    def orders(self, stages: int, micro_batches: int, chunks: int = 1) -> list[Order]:
        """Stage s runs p - s - 1 forward passes ahead."""
        ahead, back = forwards(micro_batches), backwards(micro_batches)
        return [alternate(ahead, back, stages - stage - 1) for stage in range(stages)]

    def synchronous_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """The longest of some ways through the step, where none can be much longer.

        With equal stages and free messages these are the p - 1 + m micro-batches of the source. Bounded from above by one
        micro-batch there and back, and all others at the steady state's pace (:meth:`StageSeconds.pace`).
        """
        others, start = micro_batches - 1, stages.round_trip + stages.parts[0].backward_after
        circle = stages.slowest_circle()
        least = max(
            self._without_circles(stages, micro_batches),
            self._with_circles(stages, micro_batches),
            start + self._with_circle(stages, circle, others),
        )
        most = start + others * circle.pace
        return (least + most) / 2 if most - least <= 2 * CLOSE * least else None

    def _without_circles(self, stages: StageSeconds, micro_batches: int) -> float:
        """Ways that stay on a stage for all micro-batches, or until one micro-batch has gone there and back."""
        others, start = micro_batches - 1, stages.round_trip + stages.parts[0].backward_after
        longest = 0.0
        for stage, busy in enumerate(stages.busy):
            later = stages.parts[stage].backward_after if stage else 0.0
            ahead = max(0, others - (stages.stages - 1 - stage))  # forward passes that are left
            after = others * stages.backward[stage] + ahead * stages.forward[stage]
            longest = max(longest, stages.before[stage] + micro_batches * busy - later, start + after)
        return longest

    def _with_circles(self, stages: StageSeconds, micro_batches: int) -> float:
        """Ways that go there and back as often as they can from a stage, and then stay on one."""
        others, start = micro_batches - 1, stages.round_trip + stages.parts[0].backward_after
        longest, slowest = 0.0, 0.0
        for stage in range(stages.stages - 1, -1, -1):
            slowest = max(slowest, stages.busy[stage])
            circles, left = divmod(others, stages.lead(stage))
            if circles:
                longest = max(longest, start + circles * stages.circle(stage) + left * slowest)
        return longest

    def _with_circle(self, stages: StageSeconds, circle: Circle, others: int) -> float:
        """The slowest circle as often as there are forward passes for it, and backward passes of what is left."""
        times = max(0, (others - stages.lead(circle.first)) // circle.micro_batches + 1)
        left = others - times * circle.micro_batches
        return times * circle.seconds + max(0, left) * max(stages.backward[: circle.first + 1])

    def in_flight(self, stages: int, micro_batches: int, chunks: int = 1) -> list[list[int]]:
        """At most p - s on stage s; of an endless pipeline, always so many."""
        return [[stages - s if self.asynchronous else min(micro_batches, stages - s)] for s in range(stages)]
