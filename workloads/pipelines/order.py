"""Orders of work on the stages of a pipeline: what may stand in them, what waits for what, and what they keep in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ...hardware.errors import InputError

Kind = Literal["F", "B", "W"]
KINDS: tuple[Kind, ...] = ("F", "B", "W")


class Slot(NamedTuple):
    """A piece of work of one stage: a micro-batch through the layers of one of its chunks.

    ``F`` is the forward pass. ``B`` is the backward pass; where an order also has ``W``, B makes only the gradients of the
    inputs, which the stage before waits for, and W those of the weights, which nobody does.
    """

    kind: Kind
    micro_batch: int
    chunk: int = 0

    def __str__(self) -> str:
        """As in ``F3`` or, of another chunk than the first, ``B3.1``."""
        return f"{self.kind}{self.micro_batch}" + (f".{self.chunk}" if self.chunk else "")


Order = list[Slot]
"""What a stage does, in the order in which it does it."""


Step = tuple[int, int, int, int]
"""A slot's turn: its stage, its place in the stage's order, the turn that makes its input, and the stage of that turn.

The last two are -1 where the input comes from nowhere, or from the stage's own backward pass.
"""


def forwards(micro_batches: int) -> Order:
    """All forward passes of a stage that holds one chunk, first micro-batch first."""
    return [Slot("F", number) for number in range(micro_batches)]


def backwards(micro_batches: int) -> Order:
    """All backward passes of such a stage, first micro-batch first."""
    return [Slot("B", number) for number in range(micro_batches)]


def alternate(ahead: Order, back: Order, warm_up: int) -> Order:
    """``warm_up`` forward passes, then one forward and one backward in turn, then the backward ones that are left."""
    order = ahead[:warm_up]
    for number, slot in enumerate(back):
        order += [*ahead[warm_up + number : warm_up + number + 1], slot]
    return order


def most_in_flight(order: Order, until: Kind | None = None) -> dict[int, int]:
    """How many micro-batches of each chunk a stage has under way when these are the most, ``{chunk: count}``.

    A micro-batch is under way from its F until its ``until``: by default W in an order that has such slots, else B. The
    values' sum is what the stage's memory for activations has to hold.
    """
    last = until or ("W" if any(slot.kind == "W" for slot in order) else "B")
    now: Counter[int] = Counter()
    most: dict[int, int] = {}
    held = peak = 0
    for slot in order:
        change = (slot.kind == "F") - (slot.kind == last)
        now[slot.chunk] += change
        held += change
        if held > peak:
            peak, most = held, {chunk: count for chunk, count in sorted(now.items()) if count}
    return most


def part_of(stage: int, chunk: int, stages: int, folded: bool = False) -> int:
    """Which part of the model a chunk of a stage is: chunk · stages + stage, or ``folded``, every second chunk the other way."""
    return (chunk + 1) * stages - 1 - stage if folded and chunk % 2 else chunk * stages + stage


def place_of(part: int, stages: int, folded: bool = False) -> tuple[int, int]:
    """(stage, chunk) that a part of the model is."""
    chunk, stage = divmod(part, stages)
    return (stages - 1 - stage if folded and chunk % 2 else stage), chunk


def validate(orders: Sequence[Order], folded: bool = False) -> None:
    """Raise :class:`InputError` unless every stage has each slot once, all have the same, and none waits for ever."""
    splits = any(slot.kind == "W" for order in orders for slot in order)
    chunks, micro_batches = extent(orders)
    expected = {
        Slot(kind, number, chunk)
        for kind in KINDS
        if splits or kind != "W"
        for number in range(micro_batches)
        for chunk in range(chunks)
    }
    for stage, order in enumerate(orders):
        for slot, times in Counter(order).items():
            if times > 1:
                raise InputError(f"pipeline: stage {stage} has {slot} {times} times, must have it once")
        if missing := expected - set(order):
            raise InputError(f"pipeline: stage {stage} has no {min(missing)}, which others have")
    sequence(orders, folded)


def extent(orders: Sequence[Order]) -> tuple[int, int]:
    """(chunks, micro-batches) that orders speak of."""
    chunks = max((slot.chunk for order in orders for slot in order), default=0)
    micro_batches = max((slot.micro_batch for order in orders for slot in order), default=0)
    return chunks + 1, micro_batches + 1


def sequence(orders: Sequence[Order], folded: bool = False) -> list[Step]:
    """The slots of all stages in an order in which each comes after what it needs.

    The layers go through stages and chunks: chunk c of stage s is part c · stages + s of the model, or where they are ``folded``
    as :func:`part_of` says. F needs F of the part
    before; B needs its own F, and B of the part after; W needs its own B. Raises :class:`InputError` where stages wait for
    each other, with the slots at which they do.
    """
    stages, (chunks, micro_batches) = len(orders), extent(orders)
    last = stages * chunks - 1
    # Turns of all slots, numbered by kind, part and micro-batch; -1 where it has not come yet.
    span = (last + 1) * micro_batches
    base = {"F": 0, "B": span, "W": 2 * span}
    turn = [-1] * (3 * span)
    steps: list[Step] = []
    place = [0] * stages
    waiting: dict[int, int] = {}  # for whose turn which stage waits
    ready = list(range(stages))
    while ready:
        stage = ready.pop()
        order = orders[stage]
        for at in range(place[stage], len(order)):
            kind, number, chunk = order[at]
            part = part_of(stage, chunk, stages, folded)
            made = base[kind] + part * micro_batches + number
            if kind != "F" and turn[made - span] < 0:
                waiting[made - span] = stage
                break
            source = sender = -1
            other = part - 1 if kind == "F" else part + 1
            if kind != "W" and 0 <= other <= last:
                needed = base[kind] + other * micro_batches + number
                source, sender = turn[needed], place_of(other, stages, folded)[0]
                if source < 0:
                    waiting[needed] = stage
                    break
            turn[made] = len(steps)
            steps.append((stage, at, source, sender))
            place[stage] = at + 1
            if waiting and made in waiting:
                ready.append(waiting.pop(made))
    if waiting:
        stuck = {stage: divmod(made, micro_batches) for made, stage in waiting.items()}
        raise InputError(f"pipeline: stages wait for each other: {_stuck(orders, place, stuck, folded)}")
    return steps


def _stuck(orders: Sequence[Order], place: list[int], needs: dict[int, tuple[int, int]], folded: bool) -> str:
    """Before which slot stages stand, and what for; ``needs[stage]`` is (part, counted by kinds; micro-batch)."""
    stages, chunks = len(orders), extent(orders)[0]
    told = []
    for stage, (part, number) in sorted(needs.items()):
        kind, part = divmod(part, stages * chunks)
        other, chunk = place_of(part, stages, folded)
        needed = Slot(KINDS[kind], number, chunk)
        told.append(f"stage {stage} before {orders[stage][place[stage]]} for {needed} of stage {other}")
    return "; ".join(told[:4]) + (f"; and {len(told) - 4} more" if len(told) > 4 else "")
