"""The builder of schedules: appends operations in program order, ties streams together, and settles on algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..collectives import find
from ..placement import Layout
from ..schedule import COMPUTE, Exchange, Operation, Schedule, Work

COMMUNICATION, GRADIENTS, WEIGHTS = "communication", "gradients", "weights"
HOST, HOST_IN, HOST_OUT = "host", "host in", "host out"

FLAT = {"all-to-all": "linear", "reduce-scatter": "ring", "all-gather": "ring", "all-reduce": "ring"}
"""What takes the place of an algorithm that needs a grid of supernodes where there is none."""


def settle(exchange: Exchange, layout: Layout) -> tuple[Exchange, str]:
    """The exchange with an algorithm that its groups allow, and a note where that is not the one asked for.

    Two-level algorithms need groups with equal parts in their supernodes; elsewhere the flat one takes their place.
    """
    if not find(exchange.operation, exchange.algorithm).grid or layout.two_level(exchange.axes) is not None:
        return exchange, ""
    flat = FLAT[exchange.operation]
    note = (
        f"{exchange.operation} over {'+'.join(exchange.axes)} runs as {flat} instead of {exchange.algorithm}:"
        " its groups have unequal parts in their supernodes"
    )
    return replace(exchange, algorithm=flat), note


class Program:
    """Collects the operations of a step, or of a block of one.

    Operations appended with :meth:`add` run one after another, whichever stream they are on, as a framework without
    overlap does: exchanges on the communication stream, all else on the compute stream. :meth:`aside` puts an operation
    on another stream, where it runs beside what follows until :meth:`join`, or until :meth:`need` names it. ``prefix`` goes
    before names, so that those of repeated passes differ. Only operations whose names ``wanted`` allows are appended.
    """

    def __init__(self, layout: Layout, wanted: Callable[[str], bool] = lambda name: True) -> None:
        self.layout, self.wanted = layout, wanted
        self.phase, self.prefix = "forward", ""
        self._operations: list[Operation] = []
        self._last: int | None = None
        self._beside: list[int] = []
        self._joined: list[int] = []
        self._notes: dict[str, None] = {}

    def add(self, name: str, work: Work, category: str = "compute") -> None:
        """Append an operation that starts when the one appended before it is done."""
        if not self.wanted(name):
            return
        stream = COMMUNICATION if isinstance(work, Exchange) else COMPUTE
        waits = {*self._joined, *([] if self._last is None else [self._last])}
        self._joined = []
        self._last = self._append(name, work, category, stream, waits)

    def aside(self, name: str, work: Work, category: str, stream: str = GRADIENTS, after: int | None = None) -> int:
        """Append an operation that starts when the one before it (and ``after``) is done; what follows does not await it.

        Returns its number, for :meth:`need` and ``after``.
        """
        waits = {number for number in (self._last, after) if number is not None}
        number = self._append(name, work, category, stream, waits)
        self._beside.append(number)
        return number

    def at_once(self, name: str, work: Work, category: str, stream: str) -> int:
        """The same, for what waits for nothing but its stream."""
        number = self._append(name, work, category, stream, set())
        self._beside.append(number)
        return number

    def need(self, number: int) -> None:
        """Let the next operation wait for one that runs aside."""
        self._joined.append(number)
        if number in self._beside:
            self._beside.remove(number)

    def join(self) -> None:
        """Let the next operation wait for everything that runs aside."""
        self._joined, self._beside = [*self._joined, *self._beside], []

    def schedule(self) -> Schedule:
        """The schedule of all that was appended."""
        return Schedule(self.layout, tuple(self._operations), tuple(self._notes))

    def note(self, text: str) -> None:
        """Say something about the schedule, once."""
        self._notes[text] = None

    def _append(self, name: str, work: Work, category: str, stream: str, waits: set[int]) -> int:
        if isinstance(work, Exchange):
            work, note = settle(work, self.layout)
            if note:
                self.note(note)
        after = tuple(sorted(number for number in waits if self._operations[number].stream != stream))
        self._operations.append(Operation(self.prefix + name, self.phase, category, stream, work, after))
        return len(self._operations) - 1
