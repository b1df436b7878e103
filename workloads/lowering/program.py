"""The builder of schedules: appends operations in program order and ties streams together."""

from __future__ import annotations

from ..mesh import Mesh
from ..schedule import Exchange, Operation, Schedule, Work

COMPUTE, COMMUNICATION, GRADIENTS = "compute", "communication", "gradients"


class Program:
    """Collects the operations of a step.

    Operations appended with :meth:`add` run one after another, whichever stream they are on, as a framework without
    overlap does: exchanges on the communication stream, all else on the compute stream. :meth:`aside` puts an
    operation on the stream for gradients, where it runs beside what follows until :meth:`join`.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.phase = "forward"
        self._operations: list[Operation] = []
        self._last: int | None = None
        self._beside: list[int] = []
        self._joined: list[int] = []

    def add(self, name: str, work: Work, category: str = "compute") -> None:
        """Append an operation that starts when the one appended before it is done."""
        stream = COMMUNICATION if isinstance(work, Exchange) else COMPUTE
        waits = {*self._joined, *([] if self._last is None else [self._last])}
        self._joined = []
        self._last = self._append(name, work, category, stream, waits)

    def aside(self, name: str, work: Work, category: str) -> None:
        """Append an operation that starts when the one before it is done, but which what follows does not wait for."""
        waits = set() if self._last is None else {self._last}
        self._beside.append(self._append(name, work, category, GRADIENTS, waits))

    def join(self) -> None:
        """Let the next operation wait for everything that runs aside."""
        self._joined, self._beside = [*self._joined, *self._beside], []

    def schedule(self) -> Schedule:
        """The schedule of all that was appended."""
        return Schedule(self.mesh, tuple(self._operations))

    def _append(self, name: str, work: Work, category: str, stream: str, waits: set[int]) -> int:
        after = tuple(sorted(number for number in waits if self._operations[number].stream != stream))
        self._operations.append(Operation(name, self.phase, category, stream, work, after))
        return len(self._operations) - 1
