"""Carries the messages of dense strategies by the transports of the runtime, whatever algorithm the schedule names."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from math import prod

import numpy as np

from ....workloads.model.number_types import TYPES
from ....workloads.schedule.work import Exchange
from ...messages.rounds import Requests
from ...messages.transport import Transport
from .messages import Array, Message

Steps = Generator[Requests, None, None]


def carry(transport: Transport, stream: str, exchange: Exchange, message: Message) -> Steps:
    """Send and receive a rank's side of an exchange, in the schedule's format, and let it take the result.

    The schedule and the message have to speak of the same collective: all else would be a trace of something that did not
    happen. Members of messages are numbered along the axes; positions of algorithms, among them those of roots, by nodes.
    """
    assert (message.operation, message.axes) == (exchange.operation, exchange.axes), f"{exchange} carries {message}"
    group, payload = transport.group(stream, exchange), message.payload
    kept, travelling = payload.dtype, payload.astype(TYPES[exchange.element], copy=False)
    if exchange.operation in ("broadcast", "reduce"):
        exchange = replace(exchange, root=int(group.position_of[message.root]))
    if exchange.operation in ("all-gather", "reduce-scatter"):
        result = yield from _parts(transport, stream, exchange, travelling)
    else:
        result = yield from _whole(transport, stream, exchange, travelling, message)
    if exchange.operation != "reduce" or group.me == message.root:
        message.take(result.astype(kept, copy=False))


def _whole(
    transport: Transport, stream: str, exchange: Exchange, payload: Array, message: Message
) -> Generator[Requests, None, Array]:
    """An exchange whose result is like its payload; what is reduced as a whole along the last dimension stays together."""
    width = 1 if message.combine is np.add else payload.shape[-1]
    count, size = transport.cells(stream, exchange), payload.size // width
    cells = np.zeros((count, -(-size // count), width), dtype=payload.dtype)
    cells.reshape(-1, width)[:size] = payload.reshape(-1, width)
    yield from transport.play(stream, exchange, cells, message.combine)
    return cells.reshape(-1)[: payload.size].reshape(payload.shape)


def _parts(transport: Transport, stream: str, exchange: Exchange, payload: Array) -> Generator[Requests, None, Array]:
    """An all-gather, or a reduce-scatter: parts of members lie in the cells that the algorithm gives them."""
    group = transport.group(stream, exchange)
    homes = transport.homes(stream, exchange)
    shape = payload.shape if exchange.operation == "all-gather" else payload.shape[1:]
    cells = np.zeros((group.size, prod(shape)), dtype=payload.dtype)
    if exchange.operation == "all-gather":
        cells[homes[group.me]] = payload.reshape(-1)
        yield from transport.play(stream, exchange, cells)
        return cells[homes].reshape(group.size, *shape)
    cells[homes] = payload.reshape(group.size, -1)
    yield from transport.play(stream, exchange, cells)
    mine: Array = cells[homes[group.me]].reshape(shape)
    return mine
