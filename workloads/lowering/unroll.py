"""What one rank does in a step, written out flat: the blocks of a pipeline in the order of its stage, with what it hands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..pipelines import PIPELINES, Kind, Slot, part_of, place_of
from ..schedule.operation import Block, Operation, Phase, Role, Task
from ..schedule.schedule import Schedule
from ..schedule.work import PipelineWork
from .pipeline_blocks import hands_on, placed

ARRIVALS, DEPARTURES = "pipeline", "pipeline out"
"""Streams of what comes from other stages and of what goes to them."""

PASS = {"F": 0, "B": 1, "W": 2}
PHASE: dict[Kind, Phase] = {"F": "forward", "B": "backward", "W": "backward"}


def unrolled(schedule: Schedule, coordinate: tuple[int, ...]) -> tuple[Operation, ...]:
    """The operations of the rank at ``coordinate``, in an order in which each of its streams can do its own.

    A schedule without a pipeline is given back as it is. Else the slots of the rank's stage follow each other, each operation
    under its full name (``m3.l5.attention.qkv``); ``after`` are numbers in the list that is returned, and all operations of a
    slot wait for the whole slot before it. Amounts stay arrays over the mesh.

    Where another stage makes a slot's input, ``m{K}.l{N}.activations`` receives it: a ``shift`` over pp on the stream
    ``pipeline``, into the virtual stage whose layers begin with N, before its forward pass; and ``m{K}.l{N}.activations.grad``
    before its backward pass. Of the ranks in the same place of all stages, the sender is that of the stage before, forward
    (``next``), or after, backward (``previous``), the first after the last. The sender has the same operation, with ``.send``
    behind its name, on the stream ``pipeline out``, after what its slot computed, but not after updates or what runs beside it.
    Each is one message of the rank's ``nbytes``; those from one stage to another of one direction come in the order in which
    they were sent. Sends have a stream of their own since nothing waits for them: where one waits for its receiver, as
    large messages do, a stage must still be able to receive.

    Endless pipelines are written out as one step that fills and drains.
    """
    flat: list[Operation] = []
    numbers: dict[int, tuple[int, ...]] = {}  # what stands for each operation of the schedule
    latest: dict[str, tuple[int, ...]] = {}  # the same for the last one of each stream
    for number, operation in enumerate(schedule.operations):
        after = {last for other in operation.after for last in numbers[other]} | set(latest.get(operation.stream, ()))
        if isinstance(operation.work, PipelineWork):
            numbers[number] = _slots(flat, schedule, operation.work, coordinate, after)
        else:
            flat.append(replace(operation, after=_others(flat, operation.stream, after)))
            numbers[number] = (len(flat) - 1,)
        latest[operation.stream] = numbers[number]
    return tuple(flat)


def _slots(
    flat: list[Operation], schedule: Schedule, work: PipelineWork, coordinate: tuple[int, ...], start: set[int]
) -> tuple[int, ...]:
    """Append the slots of the rank's stage; returns the last operations of the last one."""
    places = schedule.mesh.positions(("pp",))
    stage = coordinate[places[0]] if places else 0
    before = tuple(sorted(start))
    for slot in PIPELINES.find(work.name).orders(work.stages, work.micro_batches, work.chunks)[stage]:
        virtual = slot.chunk * work.stages + stage
        came = _message(work, slot, virtual, arrives=True)
        if came is not None:
            flat.append(came)
            before = (*before, len(flat) - 1)
        block = work.blocks[work.block(virtual, PASS[slot.kind], slot.micro_batch)]
        made, last = _block(flat, block, work.first_layer[virtual], slot.micro_batch, before)
        gone = _message(work, slot, virtual, arrives=False)
        if gone is not None:
            flat.append(replace(gone, after=_others(flat, gone.stream, set(made or before))))
        before = last or before
    return before


def _block(
    flat: list[Operation], block: Block, first_layer: int, micro_batch: int, before: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Append a block whose streams wait for all of ``before``; returns what its result rests on, and the last of each stream."""
    offset = len(flat)
    last: dict[str, int] = {}
    made: dict[str, int] = {}
    for operation in block:
        after = {number + offset for number in operation.after}
        if operation.stream not in last:
            after |= set(before)
        last[operation.stream] = len(flat)
        if hands_on(operation):
            made[operation.stream] = len(flat)
        task = placed(operation.task, first_layer, micro_batch)
        flat.append(replace(operation, task=task, after=_others(flat, operation.stream, after)))
    return tuple(made.values()), tuple(last.values())


def _others(flat: Sequence[Operation], stream: str, after: set[int]) -> tuple[int, ...]:
    """Those of ``after`` that are on other streams: on its own one an operation waits anyway."""
    return tuple(sorted(number for number in after if flat[number].stream != stream))


def _message(work: PipelineWork, slot: Slot, virtual: int, arrives: bool) -> Operation | None:
    """What brings a slot its input from another stage, or takes its result to one; None where no other stage is concerned."""
    if work.activations is None or slot.kind == "W":
        return None
    onward, folded = 1 if slot.kind == "F" else -1, PIPELINES.find(work.name).folded
    chunk, stage = divmod(virtual, work.stages)
    receiver = part_of(stage, chunk, work.stages, folded) + (0 if arrives else onward)
    if not (0 <= receiver < len(work.uses) and 0 <= receiver - onward < len(work.uses)):
        return None
    (here, chunk), (sender, _) = (place_of(part, work.stages, folded) for part in (receiver, receiver - onward))
    if here == sender:
        return None
    exchange, phase = work.activations, PHASE[slot.kind]
    task, label = handed_on(slot, work.first_layer[chunk * work.stages + here])
    if (here < sender) if folded else slot.kind == "B":
        exchange = replace(exchange, algorithm="previous")
    if arrives:
        return Operation(label, phase, "pipeline_transfer", ARRIVALS, exchange, task=task)
    task = replace(task, role=Role.STAGE_SEND)
    return Operation(f"{label}.send", phase, "pipeline_transfer", DEPARTURES, exchange, task=task)


def handed_on(slot: Slot, layer: int) -> tuple[Task, str]:
    """(task, label) of what comes to the stage whose layers begin with ``layer``, for a slot of it."""
    task = Task(Role.STAGE_RECEIVE, "stage", layer=layer, micro_batch=slot.micro_batch)
    return (task, "activations") if slot.kind == "F" else (replace(task, gradient="input"), "activations.grad")
