"""Messages: what ping-pong, full links, many small messages and collectives do on a rank."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...workloads.collectives import rounds
from ..job.world import World
from ..messages.groups import Group
from ..messages.rounds import Requests, exchange, play
from ..messages.streams import After, Stream, Streams
from .points import COMPUTED, SMALLEST, BenchPoint
from .samples import Action
from .topology import Topology

if TYPE_CHECKING:
    from mpi4py import MPI


class NetworkBench:
    """Makes the actions of one rank for points about messages; all ranks ask for the same points in the same order.

    But for the library's own ping-pong, messages take the way of the runtime's collectives: so that what is measured is what an
    executed step pays.
    """

    def __init__(self, world: World, topology: Topology) -> None:
        self.world, self.topology = world, topology
        self._comms: dict[tuple[int, ...], MPI.Intracomm | None] = {}

    def action(self, point: BenchPoint) -> Action | None:
        """What this rank does for a point; None where it takes no part."""
        match point.kind:
            case "ping-pong":
                return self._ping_pong(point.detail["pair"], point.size)
            case "handover":
                return self._handover(point.detail["pair"], point.size)
            case "library ping-pong":
                return self._library_ping_pong(point.detail["pair"], point.size)
            case "links":
                return self._links(point.detail["links"], point.size)
            case "messages":
                return self._messages(point.size)
        return self._collective(point)

    def _group(self, ranks: Sequence[int], outer: int, inner: int) -> Group | None:
        """A group of ranks, by position; None on the others. A collective call where these ranks are new."""
        key = tuple(ranks)
        if key not in self._comms:
            from mpi4py import MPI

            inside = self.world.rank in key
            made: Any = self.world.comm.Split(
                0 if inside else MPI.UNDEFINED, key.index(self.world.rank) if inside else 0
            )
            self._comms[key] = made if inside else None
        comm = self._comms[key]
        if comm is None:
            return None
        members = np.arange(len(key))
        return Group(comm, members, members, outer, inner, np.zeros(len(key)))

    def _ping_pong(self, pair: Sequence[int], size: int) -> Action | None:
        """There and back in turn, each a broadcast between the two: one run is one way."""
        there, back = self._group(pair, 1, 2), self._group(pair[::-1], 1, 2)
        if there is None or back is None:
            return None
        cells = np.full((1, size), 1, dtype=np.uint8)

        def run(repeats: int) -> None:
            for turn in range(repeats):
                finish(play(back if turn % 2 else there, "broadcast", "binomial", cells))

        return run

    def _handover(self, pair: Sequence[int], size: int) -> Action | None:
        """Stages of a pipeline: each waits for what comes, computes for :data:`COMPUTED` seconds, and hands on what it has.

        One run is a message and what is computed before it. As in an executed step what comes, what is computed and what goes
        have streams of their own.
        """
        group = self._group(pair, 1, 2)
        if group is None:
            return None
        first, buffers = group.me, np.full((2, size), 1, dtype=np.uint8)

        def run(repeats: int) -> None:
            ended: list[float | None] = [None] * (2 * repeats)  # message, then what is computed before it, of each turn
            mine, others = range(first, repeats, 2), range(1 - first, repeats, 2)

            def arrivals() -> Stream:
                for turn in others:
                    yield [group.receive(buffers[0], 1 - first)]
                    ended[2 * turn] = time.perf_counter()

            def computing() -> Stream:
                for turn in mine:
                    if turn:
                        yield After(2 * turn - 2)
                    ended[2 * turn + 1] = time.perf_counter() + COMPUTED

            def departures() -> Stream:
                for turn in mine:
                    yield After(2 * turn + 1)
                    yield [group.send(buffers[1], 1 - first)]

            streams = {"pipeline": arrivals(), "compute": computing(), "pipeline out": departures()}
            Streams(ended.__getitem__).run(streams)

        return run

    def _library_ping_pong(self, pair: Sequence[int], size: int) -> Action | None:
        """The same with blocking messages of the MPI library alone."""
        comm, buffer = self.world.comm, np.full(size, 1, dtype=np.uint8)
        if self.world.rank not in pair:
            return None
        first = pair.index(self.world.rank)
        partner = pair[1 - first]

        def run(repeats: int) -> None:
            for turn in range(repeats):
                if turn % 2 == first:
                    comm.Send(buffer, partner)
                else:
                    comm.Recv(buffer, partner)

        return run

    def _links(self, links: str, size: int) -> Action | None:
        """A message to the next rank and one from the rank before, on all ranks of a class of links.

        What has come is what goes next: data that no one writes anew would wait in the receiver's cache.
        """
        partners = self.topology.partners(links, self.world.rank)
        if partners is None:
            return None
        (target, source), comm = partners, self.world.comm
        buffers = np.full((2, size), 1, dtype=np.uint8)

        def run(repeats: int) -> None:
            from mpi4py import MPI

            for turn in range(repeats):
                arriving, leaving = buffers[turn % 2], buffers[1 - turn % 2]
                MPI.Request.Waitall([comm.Irecv(arriving, source), comm.Isend(leaving, target)])

        return run

    def _messages(self, count: int) -> Action | None:
        """``count`` small messages to the next rank and as many from the rank before, all posted at once."""
        order = self.topology.order
        group = self._group(order, 1, len(order))
        assert group is not None
        (step,) = rounds("all-to-all", "linear", 1, group.size)
        target, source = ((group.position + way) % group.size for way in (1, -1))
        buffers = np.full((2, count, SMALLEST), 1, dtype=np.uint8)

        def run(repeats: int) -> None:
            from mpi4py import MPI

            for _ in range(repeats):
                requests = [group.receive(buffer, group.at(step, source)) for buffer in buffers[0]]
                requests += [group.send(buffer, group.at(step, target)) for buffer in buffers[1]]
                MPI.Request.Waitall(requests)

        return run

    def _collective(self, point: BenchPoint) -> Action | None:
        """An algorithm on the first so many positions; what an all-to-all has brought is what goes next."""
        detail: dict[str, Any] = point.detail
        operation, algorithm, ranks = detail["operation"], detail["algorithm"], detail["ranks"]
        group = self._group(self.topology.order[:ranks], detail["outer"], detail["inner"])
        if group is None:
            return None
        if operation == "all-to-all":
            each, first = np.ones(ranks, dtype=np.int64), np.full((ranks, point.size), 1, dtype=np.uint8)

            def run(repeats: int) -> None:
                send = first
                for _ in range(repeats):
                    send = finish(exchange(group, algorithm, send, each, each, ranks))

            return run
        parts = group.cells(operation, algorithm)
        cells = np.full((parts, point.size // (4 * parts)), 0.0, dtype=np.float32)

        def run_vector(repeats: int) -> None:
            for _ in range(repeats):
                finish(play(group, operation, algorithm, cells))

        return run_vector


def finish(playing: Generator[Requests, None, Any]) -> Any:
    """Play a collective to its end, as a stream of an executed step; returns what it has brought."""
    brought: list[Any] = []

    def stream() -> Stream:
        brought.append((yield from playing))

    Streams(_never).run({"network": stream()})
    return brought[0]


def _never(number: int) -> float | None:
    """No operation of a schedule is waited for."""
    return None
