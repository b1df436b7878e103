"""Two chunks a stage in the shape of a V: the second goes back from the last stage to the first (ZB-V, DualPipeV)."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

from ...hardware.errors import InputError
from .order import KINDS, Kind, Order, Slot, part_of
from .pipeline import Pipeline
from .stage_seconds import StageSeconds

ALIKE = 0.02
"""By how much passes of parts, and F, B and W, may differ for the closed form."""

CHUNKS = 2


class VShape(Pipeline):
    """Stage s holds parts s and 2p - 1 - s of the model: embedding and output are both on the first stage."""

    chunked: ClassVar[bool] = True
    folded: ClassVar[bool] = True
    splits_backward: ClassVar[bool] = True

    @property
    def searched(self) -> bool:
        """Only if asked: frameworks have them apart from their usual schedules."""
        return False

    def check_chunks(self, stages: int, chunks: int) -> None:
        """Two, one for each way."""
        if chunks != CHUNKS:
            raise InputError(
                f"--chunks {chunks}: --pipeline {self.name} has two chunks a stage, one for each way; use --chunks 2",
                f"--pipeline {self.name} with other than two chunks",
            )

    def synchronous_seconds(self, stages: StageSeconds, micro_batches: int) -> float | None:
        """Every stage's work, and the (p - 1) f of a chunk by which the last one begins later.

        It holds where all passes take equally long, messages nothing, and micro-batches are twice as many as stages.
        """
        passes = [each[:3] for each in stages.parts]
        mean = sum(map(sum, passes)) / (3 * len(passes))
        uneven = max(abs(seconds / mean - 1) for each in passes for seconds in each) if mean else 1.0
        if uneven > ALIKE or stages.send > ALIKE * mean or micro_batches < CHUNKS * stages.stages:
            return None
        return micro_batches * stages.slowest + (stages.stages - 1) * mean


class ZeroBubbleV(VShape):
    """Passes are dealt out as they can begin if F, B and W take equally long: B first, then F as far as there is room, then W.

    With room for 2p half stages, as much as 1F1B's first stage has, stages then hardly wait within their own step (none up to
    four stages), and begin f of a chunk apart (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 6; Qi et al. 2024,
    "Pipeline Parallelism with Controllable Memory").
    """

    name: ClassVar[str] = "zb-v"
    about: ClassVar[str] = (
        "two chunks a stage, there and back; no bubble where F, B and W are equal, with 1F1B's memory"
    )

    def orders(self, stages: int, micro_batches: int, chunks: int = CHUNKS) -> list[Order]:
        """Of passes that all take one turn."""
        return [list(order) for order in _dealt(stages, micro_batches)]


class DualPipeV(VShape):
    """DualPipe cut in half: p stages do what 2p ranks with two copies of the weights do in DualPipe, with half the batch.

    So DualPipe over 2p ranks is this over p, with twice the replicas. Source: DeepSeek-AI, DualPipe (dualpipev.py, 2025);
    DeepSeek-V3 technical report, section 3.2.1. A forward and a backward pass that DualPipe runs beside each other, so that
    exchanges of tokens hide, here follow each other.
    """

    name: ClassVar[str] = "dualpipe-v"
    about: ClassVar[str] = (
        "two chunks a stage, there and back, forward and backward in turn (DeepSeek; half of DualPipe's ranks)"
    )

    def check(self, stages: int, micro_batches: int, chunks: int) -> None:
        """Also for fewer micro-batches than chunks of all stages."""
        super().check(stages, micro_batches, chunks)
        if micro_batches < CHUNKS * stages:
            raise InputError(
                f"--pipeline {self.name}: {micro_batches} micro-batches, must be at least {CHUNKS * stages} = 2 x pp",
                f"--pipeline {self.name}: fewer micro-batches than twice the stages",
            )

    def orders(self, stages: int, micro_batches: int, chunks: int = CHUNKS) -> list[Order]:
        """The eight phases of its source, stage by stage."""
        return [_Dealing(stage, stages, micro_batches).order for stage in range(stages)]


class _Dealing:
    """The order of one stage of DualPipeV: micro-batches of each chunk are counted on, gradients of weights may be put off."""

    def __init__(self, stage: int, stages: int, micro_batches: int) -> None:
        self.order: Order = []
        self._next: dict[tuple[Kind, int], int] = {}
        self._late: list[Slot] = []
        left = stages - stage - 1
        for _ in range(2 * left):
            self._forward(0)
        for _ in range(stage + 1):
            self._forward(0)
            self._forward(1)
        for _ in range(left):
            self._backward(1, late=True)
            self._weights()
            self._forward(1)
        for _ in range(micro_batches - 2 * stages + stage + 1):
            self._forward(0)
            self._backward(1)
            self._forward(1)
            self._backward(0)
        for _ in range(left):
            self._backward(1)
            self._forward(1)
            self._backward(0)
        late, half = False, (stage + 1) // 2
        for turn in range(stage + 1):
            late = late or (turn == half and stage % 2 == 1)
            self._backward(1, late)
            late = late or (turn == half and stage % 2 == 0)
            self._backward(0, late)
        for _ in range(left):
            self._weights()
            self._backward(0, late=True)
        while self._late:
            self._weights()

    def _forward(self, chunk: int) -> None:
        self.order.append(self._slot("F", chunk))

    def _backward(self, chunk: int, late: bool = False) -> None:
        slot = self._slot("B", chunk)
        self.order.append(slot)
        self._late.append(slot._replace(kind="W"))
        if not late:
            self.order.append(self._late.pop())

    def _weights(self) -> None:
        self.order.append(self._late.pop(0))

    def _slot(self, kind: Kind, chunk: int) -> Slot:
        number = self._next.get((kind, chunk), 0)
        self._next[kind, chunk] = number + 1
        return Slot(kind, number, chunk)


@lru_cache(maxsize=256)
def _dealt(stages: int, micro_batches: int) -> tuple[tuple[Slot, ...], ...]:
    """Orders of ZB-V: in each turn every stage takes the first of what can begin, with 2p chunks under way at most."""
    last, room = CHUNKS * stages - 1, CHUNKS * stages
    done: dict[tuple[Kind, int, int], int] = {}
    every: list[tuple[Kind, int]] = [(kind, chunk) for kind in KINDS for chunk in range(CHUNKS)]
    counts = [dict.fromkeys(every, 0) for _ in range(stages)]
    orders: list[list[Slot]] = [[] for _ in range(stages)]
    left, turn = 3 * CHUNKS * stages * micro_batches, 0

    def begins(stage: int, kind: Kind, chunk: int) -> Slot | None:
        """The next pass of a kind, where what it needs is there."""
        number, part = counts[stage][kind, chunk], part_of(stage, chunk, stages, folded=True)
        if number == micro_batches:
            return None
        needs: list[tuple[Kind, int]] = [("B", part)]
        if kind == "F":
            needs = [("F", part - 1)] if part else []
        elif kind == "B":
            needs = [("F", part)]
            if part < last:
                needs.append(("B", part + 1))
        there = all(done.get((what, where, number), turn + 1) <= turn for what, where in needs)
        return Slot(kind, number, chunk) if there else None

    while left:
        chosen: list[tuple[int, Slot]] = []
        for stage, count in enumerate(counts):
            backward = [slot for chunk in (0, 1) if (slot := begins(stage, "B", chunk))]
            first = min(backward, key=lambda slot: slot.micro_batch, default=None)
            if first is None and sum(count["F", chunk] - count["W", chunk] for chunk in (0, 1)) < room:
                first = begins(stage, "F", 1) or begins(stage, "F", 0)
            if first is None:
                first = begins(stage, "W", 0) or begins(stage, "W", 1)
            if first:
                chosen.append((stage, first))
        turn += 1
        for stage, slot in chosen:
            orders[stage].append(slot)
            counts[stage][slot.kind, slot.chunk] += 1
            done[slot.kind, part_of(stage, slot.chunk, stages, folded=True), slot.micro_batch] = turn
            left -= 1
    return tuple(tuple(order) for order in orders)
