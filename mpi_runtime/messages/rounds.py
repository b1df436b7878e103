"""Collectives as the simulator plays them: the rounds of an algorithm, sent and received with Isend and Irecv.

All functions are generators: they yield the requests that they wait for, so that streams of a rank can run beside each
other (:mod:`~athanor.mpi_runtime.messages.streams`), and return what they made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...workloads.collectives import All, Round
from .groups import Group

if TYPE_CHECKING:
    from mpi4py import MPI

Index = NDArray[np.int64]
Buffer = NDArray[Any]
Requests = list["MPI.Request"]
Playing = Generator[Requests, None, None]
Combine = Callable[[Buffer, Buffer], Buffer]


@dataclass(frozen=True)
class Move:
    """What a rank does at one step of a collective on a vector: cells to receive, from whom, and cells to send, to whom.

    What comes is received ``beside`` the vector where it is added, or where it lies apart or would overwrite what leaves.
    """

    into: slice | Index | None
    source: int
    leaving: tuple[tuple[slice | Index, int], ...]
    adds: bool
    beside: bool


def play(group: Group, operation: str, algorithm: str, cells: Buffer, combine: Combine = np.add) -> Playing:
    """A collective on a vector, in place; reductions ``combine`` two vectors along the last dimension of ``cells``.

    ``cells[cell, …]`` is the vector cut into :meth:`Group.cells`; of a reduce-scatter's result and an all-gather's input
    only the cell :meth:`Group.home` counts. Roots of broadcasts and reduces are at position 0.
    """
    for move in _moves(group, operation, algorithm, len(cells)):
        requests: Requests = []
        beside: Buffer | None = None
        if move.into is not None:
            place = cells[move.into]
            if move.beside or not place.flags.c_contiguous:
                place = beside = np.empty(place.shape, dtype=place.dtype)
            requests.append(group.receive(place, move.source))
        for rows, target in move.leaving:
            requests.append(group.send(np.ascontiguousarray(cells[rows]), target))
        yield requests
        if beside is not None and move.into is not None:
            if move.adds and combine is np.add:
                cells[move.into] += beside
            elif move.adds:
                cells[move.into] = combine(cells[move.into], beside)
            else:
                cells[move.into] = beside


def _moves(group: Group, operation: str, algorithm: str, count: int) -> list[Move]:
    """The steps of a collective on this rank, worked out once for a group."""
    key = (operation, algorithm, count)
    if key not in group.known:
        group.known[key] = list(_worked_out(group, operation, algorithm, count))
    moves: list[Move] = group.known[key]
    return moves


def _worked_out(group: Group, operation: str, algorithm: str, count: int) -> Iterator[Move]:
    for each in group.rounds(operation, algorithm):
        size, position = group.scope(each)
        for step in range(each.steps):
            source = int(each.pattern.sources(np.asarray(position), size, step))
            into = None
            if source >= 0:
                into = _rows(group, each, count, each.blocks(source, position, step, size))
            leaving = tuple(
                (_rows(group, each, count, each.blocks(position, target, step, size)), group.at(each, target))
                for target in each.partners(position, step, size)
            )
            adds = each.action != "gather"
            crosses = into is not None and any(_meet(into, rows, count) for rows, _ in leaving)
            beside = adds or crosses or not isinstance(into, slice)
            yield Move(into, -1 if source < 0 else group.at(each, source), leaving, adds, beside)


def _meet(one: slice | Index, other: slice | Index, count: int) -> bool:
    """Whether two selections of a vector's cells have any in common."""
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[one] = True
    return bool(chosen[other].any())


def _rows(group: Group, each: Round, count: int, blocks: Index) -> slice | Index:
    """The cells that blocks of a round stand for: a slice where they lie in a row."""
    if each.scope == "outer":
        rows = (group.position % group.inner) * group.outer + blocks
    else:
        each_block = count // each.parts(group.size if each.scope == "group" else group.inner)
        rows = (blocks[:, None] * each_block + np.arange(each_block)).reshape(-1)
    if not len(rows):
        return slice(0, 0)
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if (np.diff(rows) == 1).all() else rows


def exchange(
    group: Group, algorithm: str, send: Buffer, out: Index, back: Index, most: int
) -> Generator[Requests, None, Buffer]:
    """An all-to-all-v of rows.

    ``send[row, …]`` holds the rows for every member, in their order, ``out[member]`` of them each; returns what arrived,
    ``back[member]`` rows from each, in their order. A two-level algorithm does not know how much comes to it from its own
    supernode: its messages say so themselves, and no rank sends more than ``most`` rows in all.
    """
    leaving, coming = out.tolist(), back.tolist()
    held = _cut(send, leaving)
    if algorithm == "two-level":
        return (yield from _two_level(group, algorithm, held, send, back, most))
    result = np.empty((sum(coming), *send.shape[1:]), dtype=send.dtype)
    if algorithm == "bruck":
        yield from _bruck(group, held, result)
        return result
    arriving = _cut(result, coming)
    arriving[group.me][...] = held[group.me]
    for sources, targets in _partners(group, algorithm):
        requests: Requests = [group.receive(arriving[member], member) for member in sources if coming[member]]
        requests += [group.send(held[member], member) for member in targets if leaving[member]]
        yield requests
    return result


def _partners(group: Group, algorithm: str) -> list[tuple[list[int], list[int]]]:
    """(members to receive from, members to send to) at each step of a direct all-to-all, worked out once for a group."""
    key = ("all-to-all", algorithm, 0)
    if key not in group.known:
        size, position = group.size, group.position
        group.known[key] = [
            (
                [group.at(each, source) for source in _sources(each, position, step, size)],
                [group.at(each, target) for target in _onwards(each.partners(position, step, size), position)],
            )
            for each in group.rounds("all-to-all", algorithm)
            for step in range(each.steps)
        ]
    partners: list[tuple[list[int], list[int]]] = group.known[key]
    return partners


def _sources(each: Round, position: int, step: int, size: int) -> list[int]:
    """Positions that a position receives from at a step."""
    if isinstance(each.pattern, All):
        return _onwards([other for other in range(size) if other != position], position)
    source = int(each.pattern.sources(np.asarray(position), size, step))
    return [source] if source >= 0 else []


def _onwards(positions: list[int], position: int) -> list[int]:
    """The positions from one's own on, around the end: so that not all begin with the same one."""
    return [each for each in positions if each > position] + [each for each in positions if each < position]


def _cut(rows: Buffer, counts: list[int]) -> list[Buffer]:
    """Views of so many rows each, one after another."""
    return [rows[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True)]


def _bruck(group: Group, held: list[Buffer], result: Buffer) -> Playing:
    """Blocks of one size by their offset from origin to destination; what comes takes the places of what went."""
    size, position = group.size, group.position
    slots = np.stack([held[group.member[(position + offset) % size]] for offset in range(size)])
    for each in group.rounds("all-to-all", "bruck"):
        (target,) = each.partners(position, 0, size)
        source = int(each.pattern.sources(np.asarray(position), size, 0))
        offsets = each.blocks(position, target, 0, size)
        leaving, arriving = np.ascontiguousarray(slots[offsets]), np.empty_like(slots[offsets])
        yield [
            group.receive(arriving, group.at(each, source)),
            group.send(leaving, group.at(each, target)),
        ]
        slots[offsets] = arriving
    arrived = result.reshape(size, *slots.shape[1:])
    for offset in range(size):  # the block that came over this offset began so many positions back
        arrived[group.member[(position - offset) % size]] = slots[offset]


def _two_level(
    group: Group, algorithm: str, held: list[Buffer], send: Buffer, back: Index, most: int
) -> Generator[Requests, None, Buffer]:
    """Blocks (origin, destination), by position, go to the rank of their inner number, then across to their supernode."""
    inner, outer = group.inner, group.outer
    home = divmod(group.position, inner)
    blocks = {(group.position, int(at)): held[member] for member, at in enumerate(group.position_of)}
    for each in group.rounds("all-to-all", algorithm):
        size, position = group.scope(each)
        place = 1 if each.scope == "inner" else 0  # of the coordinate that the round settles in (outer, inner)
        others = [other for other in range(size) if other != position]
        rows, count = (most, outer) if each.scope == "inner" else (most * inner, inner)
        arriving = {other: np.empty(8 * count + rows * _row_bytes(send), dtype=np.uint8) for other in others}
        leaving = {}
        for other in others:
            keys = sorted(key for key in blocks if divmod(key[1], inner)[place] == other)
            leaving[other] = _packed([blocks.pop(key) for key in keys])
        requests: Requests = [group.receive(arriving[other], group.at(each, other)) for other in others]
        requests += [group.send(leaving[other], group.at(each, other)) for other in others]
        yield requests
        for other in others:
            if each.scope == "inner":  # from (own supernode, other): for every supernode, at my inner number
                origin = home[0] * inner + other
                keys = [(origin, at * inner + home[1]) for at in range(outer)]
            else:  # from (other, my inner number): what its whole supernode has for me
                keys = [(other * inner + at, group.position) for at in range(inner)]
            blocks.update(zip(keys, _unpacked(arriving[other], len(keys), send), strict=True))
    arrived = [blocks[int(at), group.position] for at in group.position_of]
    assert [len(each) for each in arrived] == back.tolist(), "what arrived is not what the counts announced"
    return np.concatenate(arrived)


def _packed(blocks: list[Buffer]) -> Buffer:
    """Blocks as one message: how many rows each has, then the rows."""
    header = np.array([len(block) for block in blocks], dtype=np.int64)
    body = [np.ascontiguousarray(block).reshape(-1).view(np.uint8) for block in blocks]
    return np.concatenate([header.view(np.uint8), *body])


def _unpacked(message: Buffer, blocks: int, like: Buffer) -> Iterator[Buffer]:
    """The blocks of a message, as views of it."""
    counts = message[: 8 * blocks].view(np.int64)
    start, width = 8 * blocks, _row_bytes(like)
    for count in counts.tolist():
        end = start + count * width
        yield message[start:end].view(like.dtype).reshape(count, *like.shape[1:])
        start = end


def _row_bytes(rows: Buffer) -> int:
    """Bytes of one row."""
    return int(rows.dtype.itemsize * np.prod(rows.shape[1:], dtype=np.int64))
