"""The builder of schedules: appends operations in program order, ties streams together, and settles on algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..collectives import find
from ..mesh.placement import Layout
from ..schedule.labels import spelled
from ..schedule.operation import COMPUTE, LAUNCH, Category, Operation, Phase, Role, Task
from ..schedule.schedule import Schedule
from ..schedule.work import Exchange, Gemm, Launches, Work, kernels

COMMUNICATION, GRADIENTS, WEIGHTS = "communication", "gradients", "weights"
TENSOR = "tensor"
"""The stream of exchanges over tp that run beside the products around them."""

HOST, HOST_IN, HOST_OUT = "host", "host in", "host out"


class Mark(NamedTuple):
    """A place in a program: how many operations there are, and which the next one waits for."""

    number: int
    waits: frozenset[int]


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
    on another stream, where it runs beside what follows until :meth:`join`, or until :meth:`need` names it. ``phase``,
    ``micro_batch`` and ``recomputed`` are those of what is appended next. Only operations whose tasks ``wanted`` allows are
    appended by :meth:`add`, and only what the model's training ``makes``. A ``label`` is made from the task where none is given.

    With ``beside_products`` exchanges over tp run beside the product that needs what they bring, or that makes what they add up,
    part by part, as Transformer Engine's user buffers do: both begin together, and what follows waits for the longer one.

    With ``beside_weights`` only those of inputs' gradients run beside the products with weights that do not need them: an input
    is gathered again while its gradient is worked out, and that is added up while the weight's is.
    """

    def __init__(
        self,
        layout: Layout,
        wanted: Callable[[Task], bool] = lambda task: True,
        beside_products: bool = False,
        beside_weights: bool = False,
        makes: Callable[[Task], bool] = lambda task: True,
    ) -> None:
        self.layout, self.beside_products, self.beside_weights = layout, beside_products, beside_weights
        self.wanted: Callable[[Task], bool] = lambda task: wanted(task) and makes(task)
        self._began: set[int] = set()  # what the last operation waited for
        self._coming: int | None = None  # what the next product runs beside
        self.phase: Phase = "forward"
        self.micro_batch: int | None = None
        self.recomputed = False
        self._operations: list[Operation] = []
        self._last: int | None = None
        self._beside: dict[int, None] = {}  # what runs aside and nobody waits for yet, in order
        self._joined: list[int] = []
        self._host: int | None = None  # what a host has to have started before anything goes on
        self._notes: dict[str, None] = {}

    def add(self, task: Task, work: Work, category: Category = "compute", label: str = "") -> None:
        """Append an operation that starts when the one appended before it is done."""
        if not self.wanted(task):
            return
        beside = self.beside_products or (self.beside_weights and _of_inputs(task))
        if task.overlaps and beside and self._beside_product(task, work, category, label):
            return
        stream = COMMUNICATION if isinstance(work, Exchange) else COMPUTE
        if self._coming is not None and not isinstance(work, Gemm):
            self._settle()
        waits = {*self._joined, *_some(self._last)}
        self._joined, self._host = [], None
        self._began, self._last = waits, self._append(task, work, category, stream, waits, label)
        self._settle()

    def _beside_product(self, task: Task, work: Work, category: Category, label: str) -> bool:
        """Append an exchange that runs beside the product before it, or after it; returns whether there is one."""
        if task.overlaps == "next product":
            self._settle()
            waits = {*self._joined, *_some(self._last)}
            self._coming = self._append(task, work, category, TENSOR, waits, label)
            return True
        last = None if self._last is None else self._operations[self._last]
        if last is not None and isinstance(last.work, Gemm) and (self.beside_products or last.task.of_weights):
            waits = {*self._joined, *self._began}
            self._joined.append(self._append(task, work, category, TENSOR, waits, label))
            return True
        return False

    def _settle(self) -> None:
        """Let the next operation wait for the exchange that the last product ran beside."""
        if self._coming is not None:
            self._joined.append(self._coming)
            self._coming = None

    def aside(
        self,
        task: Task,
        work: Work,
        category: Category,
        stream: str = GRADIENTS,
        after: int | None = None,
        label: str = "",
    ) -> int:
        """Append an operation that starts when the one before it (and ``after``) is done; what follows does not await it.

        Returns its number, for :meth:`need` and ``after``.
        """
        waits = {*_some(self._last), *_some(after), *_some(self._host)}
        number = self._append(task, work, category, stream, waits, label)
        self._beside[number] = None
        return number

    def at_once(self, task: Task, work: Work, category: Category, stream: str, label: str = "") -> int:
        """The same, for what waits for nothing but its stream."""
        number = self._append(task, work, category, stream, set(), label)
        self._beside[number] = None
        return number

    def need(self, number: int) -> None:
        """Let the next operation wait for one that runs aside."""
        self._joined.append(number)
        self._beside.pop(number, None)

    def join(self) -> None:
        """Let the next operation wait for everything that runs aside."""
        self._joined, self._beside = [*self._joined, *self._beside], {}

    def mark(self) -> Mark:
        """Where the program stands: from here on a host starts what :meth:`launched` counts."""
        return Mark(len(self._operations), frozenset({*self._joined, *_some(self._last)}))

    def launched(self, since: Mark, task: Task, others: float = 0.0) -> None:
        """Let the next operation wait until a host has started the kernels of all since a mark, and ``others`` beside them.

        It begins with the first of them and runs beside them: together they take as long as the longer of both.
        """
        mine = self._operations[since.number :]
        if not mine:
            return
        started = Launches(others + sum(kernels(each.work) for each in mine))
        gradient = "weight" if task.gradient and all(each.task.of_weights for each in mine) else task.gradient
        task = task.doing(Role.LAUNCHES, gradient=gradient)
        self._host = self._append(task, started, "launch", LAUNCH, set(since.waits), "")
        self._joined.append(self._host)

    def schedule(self) -> Schedule:
        """The schedule of all that was appended."""
        return Schedule(self.layout, tuple(self._operations), tuple(self._notes))

    def note(self, text: str) -> None:
        """Say something about the schedule, once."""
        self._notes[text] = None

    def _append(self, task: Task, work: Work, category: Category, stream: str, waits: set[int], label: str) -> int:
        if isinstance(work, Exchange):
            work, note = settle(work, self.layout)
            if note:
                self.note(note)
        after = tuple(sorted(number for number in waits if self._operations[number].stream != stream))
        here = task
        if (task.micro_batch, task.recomputed) != (self.micro_batch, self.recomputed):
            here = task.at(self.micro_batch, self.recomputed)
        label = label or spelled(task)
        self._operations.append(Operation(label, self.phase, category, stream, work, after, here))
        return len(self._operations) - 1


def _of_inputs(task: Task) -> bool:
    """Whether an exchange gathers an input again for its weight's gradient, or adds up the input's own; not that of a gate."""
    return task.role is Role.INPUT_GATHER and task.gradient is not None and task.part != "moe"


def _some(number: int | None) -> set[int]:
    return set() if number is None else {number}
