"""What a pipeline schedule is: in which order each stage does its work, how long that takes, and what it keeps in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import ClassVar

from ...hardware.errors import InputError
from .order import Order, Slot, extent, most_in_flight, validate
from .stage_seconds import StageSeconds

CLOSE = 0.02
"""How far apart two bounds of a step may be for a closed form to answer."""

SETTLED = 2
"""Micro-batches a stage from which on none of the schedules that keep a bound has more under way."""


class Pipeline(ABC):
    """A schedule of micro-batches over stages that hold consecutive layers of a model.

    ``asynchronous``: no flush between steps, so that weights change while micro-batches are under way and a stage keeps
    several versions of them; with ``updates_each_micro_batch`` after each micro-batch, else once a step. ``splits_backward``:
    gradients of inputs (B) and of weights (W) are slots of their own. ``chunked``: stages
    hold several chunks of layers; ``folded``: every second one of them in the reverse order of stages, so that what the last
    stage has done goes on there (:func:`~.order.part_of`).

    A schedule is its :meth:`orders`; the rest follows from them. It may say in closed form what would otherwise be found by
    playing the orders: :meth:`synchronous_seconds` (or, where it never flushes, nothing) and :meth:`in_flight`.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    asynchronous: ClassVar[bool] = False
    splits_backward: ClassVar[bool] = False
    updates_each_micro_batch: ClassVar[bool] = False
    chunked: ClassVar[bool] = False
    folded: ClassVar[bool] = False

    @property
    def searched(self) -> bool:
        """Whether ``athanor plan`` tries it unasked: not what changes the result of training."""
        return not self.asynchronous

    @abstractmethod
    def orders(self, stages: int, micro_batches: int, chunks: int = 1) -> list[Order]:
        """The order of each stage, first stage first; asks for what :meth:`check` has let pass."""

    def step_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """Seconds of a step in closed form, within some per cent of the orders played; None where only playing them tells.

        That is where a schedule has no closed form, or where its bounds lie more than :data:`CLOSE` apart.
        """
        if self.asynchronous:
            return self._endless_seconds(stages, micro_batches)
        seconds = self.synchronous_seconds(stages, micro_batches)
        if seconds is None:
            return None
        sooner, later = self._tails(stages)
        return seconds + (sooner + later) / 2 if later - sooner <= CLOSE * seconds else None

    def synchronous_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """Seconds until the last stage is through, without tails; None where there is no closed form."""
        return None

    def least_seconds(self, stages: StageSeconds, micro_batches: int) -> float:
        """Seconds that a step takes at least, however its slots fall; of an endless one the work of the busiest stage."""
        return micro_batches * stages.slowest if self.asynchronous else stages.least(micro_batches)

    def in_flight(self, stages: int, micro_batches: int, chunks: int = 1) -> list[list[int]]:
        """Micro-batches under way at the fullest moment of each stage, ``[stages][chunks]``.

        Found by playing the orders. A schedule without an end is looked at far from its beginning. Few micro-batches show what
        many do: either all that there are, or as many as the schedule allows.
        """
        few = SETTLED * stages if self.asynchronous else min(micro_batches, SETTLED * stages)
        found = _most(self, stages, few, chunks)
        grows = all(count == few for each in found for count in each)
        return [[micro_batches] * chunks for _ in range(stages)] if grows else [list(each) for each in found]

    def weight_versions(self, stage: int, stages: int) -> int:
        """How many versions of its weights a stage keeps at once."""
        return 1

    def check(self, stages: int, micro_batches: int, chunks: int) -> None:
        """Raise :class:`InputError` where the schedule cannot run so many micro-batches or chunks."""
        if micro_batches < 1:
            raise InputError(
                f"--pipeline {self.name}: {micro_batches} micro-batches, must be at least 1", "no micro-batches"
            )
        self.check_chunks(stages, chunks)

    def check_orders(self, stages: int, micro_batches: int, chunks: int) -> None:
        """Raise :class:`InputError` where the orders are not those of so many stages, micro-batches and chunks."""
        orders = self.orders(stages, micro_batches, chunks)
        what = f"--pipeline {self.name}: orders({stages}, {micro_batches}, {chunks})"
        if not isinstance(orders, list) or not all(isinstance(slot, Slot) for order in orders for slot in order):
            raise InputError(f"{what} must give a list of Slots for each stage")
        found = (len(orders), *reversed(extent(orders)))
        if found != (stages, micro_batches, chunks):
            raise InputError(f"{what} gives {found[0]} stages, {found[1]} micro-batches, {found[2]} chunks")
        try:
            validate(orders, self.folded)
        except InputError as wrong:
            raise InputError(f"{what}: {wrong}") from None

    def check_chunks(self, stages: int, chunks: int) -> None:
        """Raise :class:`InputError` where a stage cannot hold so many chunks."""
        if chunks != 1:
            raise InputError(
                f"--chunks {chunks}: --pipeline {self.name} has one chunk a stage; --pipeline interleaved takes more",
                f"--chunks with --pipeline {self.name}",
            )

    def _endless_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """A step among many: as long as the slowest stage, or the slowest circle, takes for its micro-batches.

        Where circles are slowest, which of them meet the tail of a step's last micro-batch is told by playing them only.
        """
        least = max(micro_batches * busy + tail for busy, tail in zip(stages.busy, stages.tails, strict=True))
        most = max(least, micro_batches * stages.pace() + max(stages.tails))
        if not any(stages.tails):
            return most
        return (least + most) / 2 if most - least <= 2 * CLOSE * least else None

    def _tails(self, stages: StageSeconds) -> tuple[float, float]:
        """By how much tails make the step longer: at least and at most.

        Stages end one after another, the first one last, so that the others' tails have some time; where gradients of weights
        are put off they end together. Every chunk of a stage has a tail.
        """
        most = max(stages.tails)
        if not most:
            return 0.0, 0.0
        sooner, since = 0.0, 0.0
        for stage, tail in enumerate(stages.tails):
            sooner = max(sooner, tail - since)
            since += stages.parts[stage].backward - stages.parts[stage].backward_after + stages.send
        return (0.0 if self.splits_backward else sooner), stages.chunks * most


@lru_cache(maxsize=4096)
def _most(pipeline: Pipeline, stages: int, micro_batches: int, chunks: int) -> tuple[tuple[int, ...], ...]:
    """What :func:`most_in_flight` finds in each stage's order."""
    orders = (most_in_flight(order) for order in pipeline.orders(stages, micro_batches, chunks))
    return tuple(tuple(each.get(chunk, 0) for chunk in range(chunks)) for each in orders)
