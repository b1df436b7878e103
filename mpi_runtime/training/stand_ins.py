"""What the operations of a schedule work on, on one rank; and the data that have no meaning, for what is only timed."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...workloads.lowering.unroll import ARRIVALS, DEPARTURES
from ...workloads.mesh.mesh import Mesh
from ...workloads.schedule.operation import Operation
from ...workloads.schedule.work import Exchange, at
from ..messages.groups import Group
from ..messages.rounds import Requests
from ..messages.transport import Transport

if TYPE_CHECKING:
    from .tokens import Tokens

Steps = Generator[Requests, None, None]

TAGS = 30_000
"""Tags of messages between stages: MPI promises 32,767, and no so many are under way between two ranks."""


class Data(Protocol):
    """The data of a rank: made ready for each step, then worked on by operations in the order of the schedule."""

    transport: Transport

    def start_step(self, step: int) -> None:
        """Make ready what a step begins with; none of this belongs to its time."""

    def compute(self, operation: Operation) -> bool:
        """Do what a compute operation does to the data; returns whether that was all of its work, as it would be for real."""

    def exchange(self, operation: Operation) -> Steps:
        """Send and receive what an exchange carries."""

    def tokens(self) -> list[Tokens]:
        """What this rank saw of each layer with experts, micro-batch after micro-batch."""

    def no_numbers(self) -> str:
        """What a step has made on this rank that is no number: ``loss`` or ``gradients``, or nothing."""


class Blank:
    """Data of no meaning: exchanges carry as many bytes as the schedule says, and nothing is computed on them."""

    def __init__(self, transport: Transport, mesh: Mesh, coordinate: tuple[int, ...]) -> None:
        self.transport, self.mesh, self.coordinate = transport, mesh, coordinate

    def start_step(self, step: int) -> None:
        """Nothing is drawn."""

    def compute(self, operation: Operation) -> bool:
        """Nothing is done."""
        return False

    def tokens(self) -> list[Tokens]:
        """None were seen."""
        return []

    def no_numbers(self) -> str:
        """All of them have no meaning."""
        return ""

    def exchange(self, operation: Operation) -> Steps:
        """So many bytes."""
        exchange, stream = operation.work, operation.stream
        assert isinstance(exchange, Exchange)
        group = self.transport.group(stream, exchange)
        if stream in (ARRIVALS, DEPARTURES):
            return self._between_stages(group, operation, exchange)
        if exchange.operation == "all-to-all":
            return self._all_to_all(stream, exchange, group)
        if exchange.operation == "shift":
            return self._shift(stream, exchange, group)
        count, nbytes = self.transport.cells(stream, exchange), at(exchange.nbytes, self.coordinate)
        return self.transport.play(stream, exchange, np.zeros((count, -(-round(nbytes) // count)), dtype=np.uint8))

    def _members(self, group: Group) -> list[tuple[int, ...]]:
        """Coordinates of the members of a group."""
        return [tuple(int(place) for place in np.unravel_index(rank, self.mesh.shape)) for rank in group.ranks]

    def _all_to_all(self, stream: str, exchange: Exchange, group: Group) -> Steps:
        """Every member's bytes for each other, in proportion to what these receive."""
        members = self._members(group)
        received = np.array(
            [at(exchange.nbytes if exchange.received is None else exchange.received, each) for each in members]
        )
        share = received / max(received.sum(), 1e-300)
        between = np.rint([at(exchange.nbytes, each) * share for each in members]).astype(np.int64)
        out, back = between[group.me], between[:, group.me]
        send = np.zeros(int(out.sum()), dtype=np.uint8)
        yield from self.transport.exchange(stream, exchange, send, out, back, int(between.sum()))

    def _shift(self, stream: str, exchange: Exchange, group: Group) -> Steps:
        """Each member's bytes to its neighbour, of which some may have none."""
        members, by = self._members(group), 1 if exchange.algorithm == "next" else -1
        target, source = (int(group.member[(group.position + way) % group.size]) for way in (by, -by))
        leaving, coming = (
            np.zeros(round(at(exchange.nbytes, members[each])), dtype=np.uint8) for each in (group.me, source)
        )
        self.transport.carried[stream] += leaving.nbytes
        yield [group.receive(coming, source), group.send(leaving, target)]

    def _between_stages(self, group: Group, operation: Operation, exchange: Exchange) -> Steps:
        other, tag = stage_message(group, operation)
        arrives = operation.stream == ARRIVALS
        nbytes = at(exchange.nbytes, self._members(group)[other] if arrives else self.coordinate)
        buffer: Any = np.zeros(round(nbytes), dtype=np.uint8)
        self.transport.carried[operation.stream] += buffer.nbytes
        yield [(group.receive if arrives else group.send)(buffer, other, tag)]


def stage_message(group: Group, operation: Operation) -> tuple[int, int]:
    """(the other stage, tag) of a message between stages: micro-batch and layer say which it is, on both sides."""
    exchange, task = operation.work, operation.task
    assert isinstance(exchange, Exchange) and task.layer is not None and task.micro_batch is not None
    onward = 1 if exchange.algorithm == "next" else -1
    other = (group.me + (-onward if operation.stream == ARRIVALS else onward)) % group.size
    return other, (2 * (task.micro_batch * 1009 + task.layer) + (onward < 0)) % TAGS
