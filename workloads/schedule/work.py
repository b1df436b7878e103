"""What an operation costs, as plain data: shapes of kernels, collectives, copies; and pipelines of blocks of operations.

Amounts (rows, bytes, FLOPs) are floats where all ranks are alike, else arrays that broadcast over the mesh: the
simulator computes on the whole array, an MPI rank takes the value at its own coordinate.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...hardware.frozen import FrozenArrays
from ...hardware.precisions import Precision
from ...hardware.units import si
from ..collectives import ROOTED

if TYPE_CHECKING:
    from .block_flops import Flops
    from .operation import Block

Amount = float | NDArray[np.float64]

COUNT, COUNT_BYTES = "int64", 8
"""Format of token counts in messages, and its size: FastMoE counts in int64."""


@dataclass(frozen=True)
class Gemm(FrozenArrays):
    """``count`` matrix products C[m, n] += A[m, k] B[k, n] in one precision.

    ``onto``: bytes of an element of the sum in memory to which C is added, as gradients of micro-batches are; 0 where C is new.
    ``cast_from``: the longer format that A comes in, brought to ``precision`` first, by rows and by columns: what A is multiplied
    with next needs it in the other order (Transformer Engine).
    ``launches`` are the kernels that a host starts for them, those of casts apart.
    """

    kind: ClassVar[str] = "gemm"

    m: Amount
    n: float
    k: Amount
    count: float
    precision: Precision
    onto: int = 0
    cast_from: Precision | None = None
    launches: float = 1.0

    @property
    def flops(self) -> Amount:
        """2·m·n·k for each product."""
        return 2.0 * self.n * self.count * self.m * self.k

    def __str__(self) -> str:
        """The shape, as in ``1 x [2048 x 49152 x 4096] fp16``."""
        return f"{self.count:g} x [{_text(self.m)} x {_text(self.n)} x {_text(self.k)}] {self.precision}"


@dataclass(frozen=True)
class FusedAttention(FrozenArrays):
    """``count`` attentions in one kernel that keeps its scores to itself (FlashAttention, Dao et al. 2022).

    ``queries`` meet ``keys``. Both have ``size`` elements, values ``value_size``. ``products`` counts those of queries with
    keys, of scores with values and of the like sizes: 2 forward, 5 backward, where scores are worked out once more. ``share``
    is that of all pairs of a query and a key that the kernel works out: it skips what a mask hides
    (:func:`~athanor.workloads.model.flops.causal_share`). ``kernel`` is its name, empty for the best that the machine has.
    """

    kind: ClassVar[str] = "attention"

    queries: float
    keys: float
    size: float
    value_size: float
    count: Amount
    products: int
    precision: Precision
    share: float = 1.0
    kernel: str = ""

    @property
    def flops(self) -> Amount:
        """2 · queries · keys · share · elements for each product.

        Forward scores have the size of keys, outputs that of values; of the five products backward three have the first
        (scores again, gradients of queries and of keys) and two the second (those of weights and of values).
        """
        of_values = self.products // 2
        elements = (self.products - of_values) * self.size + of_values * self.value_size
        return 2.0 * self.queries * self.keys * self.share * elements * self.count

    @property
    def elements(self) -> Amount:
        """Elements read and written: queries, keys, values and outputs, with their gradients backward."""
        each = self.queries * (self.size + self.value_size) + self.keys * (self.size + self.value_size)
        return each * self.count * (1 if self.products == 2 else 2)

    def __str__(self) -> str:
        """The shape."""
        part = "" if self.share == 1 else f", {self.share:.4g} of it"
        name = f"{self.kernel} " if self.kernel else ""
        return f"{_text(self.count)} x {name}attention of [{_text(self.queries)} x {_text(self.keys)}{part}] {self.precision}"


@dataclass(frozen=True)
class Sweep(FrozenArrays):
    """An operator that passes once over ``size`` elements, bound by memory.

    For each element it reads and writes so many bytes and computes ``each`` FLOPs. ``launches`` are the kernels that a host
    starts for it. It ``streams`` where it passes over whole vectors and all that it reads and writes is counted.
    """

    kind: ClassVar[str] = "sweep"

    size: Amount
    read: float
    written: float
    each: float
    precision: Precision
    launches: float = 1.0
    streams: bool = False

    @property
    def flops(self) -> Amount:
        """``each`` for every element."""
        return self.each * self.size

    def __str__(self) -> str:
        """Elements, and the bytes read and written for each."""
        return f"{_text(self.size)} elements, read {self.read:.3g} B, write {self.written:.3g} B"


@dataclass(frozen=True)
class Loop(FrozenArrays):
    """A serial loop on the management core: ``steps`` of a few instructions each."""

    kind: ClassVar[str] = "loop"

    steps: Amount

    @property
    def flops(self) -> Amount:
        """None that count."""
        return 0.0

    def __str__(self) -> str:
        """The number of steps."""
        return f"{_text(self.steps)} serial steps"


@dataclass(frozen=True)
class Launches(FrozenArrays):
    """The host starts so many ``kernels``, one after another, while the accelerator runs what it has started before."""

    kind: ClassVar[str] = "launches"

    kernels: float

    @property
    def flops(self) -> Amount:
        """None that count."""
        return 0.0

    def __str__(self) -> str:
        """The number of kernels."""
        return f"{self.kernels:,.0f} kernels started"


@dataclass(frozen=True)
class Bookkeeping(FrozenArrays):
    """What a framework does once a step for each parameter that a rank holds: zero, unscale, check, copy into buckets.

    Or for each of ``shards``: a view, a copy and their start for one rank's part of one tensor, gathered or scattered.
    """

    kind: ClassVar[str] = "bookkeeping"

    parameters: Amount
    shards: float = 0.0

    @property
    def flops(self) -> Amount:
        """None that count."""
        return 0.0

    def __str__(self) -> str:
        """The number of parameters, or of shards."""
        return f"{self.shards:,.0f} shards" if self.shards else f"{_text(self.parameters)} parameters held"


@dataclass(frozen=True)
class Exchange(FrozenArrays):
    """A collective over the groups along ``axes``, of numbers in the format ``element``.

    ``nbytes`` is a rank's payload: for an all-to-all what it sends in all, its own part included; for the others the
    whole vector. ``received`` (all-to-all-v) is what each rank receives; senders spread their bytes in that
    proportion. None: evenly. ``pairs[group, sender, receiver]``, where it is known, are the bytes of an all-to-all-v
    between the members of each group, groups and members in row-major order: what only looks at messages one by one
    needs, and what the amounts are the sums of. ``root`` is the position in its group at which a broadcast starts or a
    reduce ends: members in the order of nodes. Phases of a simulated network do not tell roots apart.
    """

    kind: ClassVar[str] = "exchange"

    operation: str
    algorithm: str
    axes: tuple[str, ...]
    nbytes: Amount
    element: str
    received: Amount | None = None
    pairs: NDArray[np.float64] | None = None
    root: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root and (self.operation not in ROOTED or self.root < 0):
            raise ValueError(f"{self.operation} with root {self.root}; {' and '.join(ROOTED)} have one, from 0 on")

    @property
    def even(self) -> bool:
        """Whether all ranks send and receive the same amount."""
        return self.received is None and isinstance(self.nbytes, float)

    @property
    def sends(self) -> Hashable:
        """What exchanges have in common that send the same: amounts by rank are where they are the same object."""
        key = (self.nbytes,) if self.even else (id(self.nbytes), id(self.received))
        return self.operation, self.algorithm, self.axes, *key

    @property
    def flops(self) -> Amount:
        """None that count."""
        return 0.0

    def __str__(self) -> str:
        """The collective, its axes and bytes."""
        more = "" if self.received is None else f", receives {_text(self.received, 'B')}"
        more += f", root {self.root}" if self.root else ""
        return f"{self.operation} {self.algorithm} over {'+'.join(self.axes)}: {_text(self.nbytes, 'B')} {self.element}{more}"


@dataclass(frozen=True)
class HostCopy(FrozenArrays):
    """``nbytes`` over a rank's link to its host, ``in`` to the accelerator or ``out`` of it."""

    kind: ClassVar[str] = "host_copy"

    nbytes: Amount
    direction: Literal["in", "out"]

    @property
    def flops(self) -> Amount:
        """None that count."""
        return 0.0

    def __str__(self) -> str:
        """Bytes and direction."""
        return f"{_text(self.nbytes, 'B')} {self.direction} over the host link"


@dataclass(frozen=True)
class HostSweep(FrozenArrays):
    """Work on the host's cores that passes once over ``size`` elements in its memory, ``nbytes`` read and written for each."""

    kind: ClassVar[str] = "host_sweep"

    size: Amount
    nbytes: float

    @property
    def flops(self) -> Amount:
        """None that count: the host's are not the accelerator's."""
        return 0.0

    def __str__(self) -> str:
        """Elements, and bytes for each."""
        return f"{_text(self.size)} elements on the host, {self.nbytes:.3g} B each"


@dataclass(frozen=True)
class PipelineWork:
    """Micro-batches through stages: every block of operations once, and who does which of them in which order.

    ``name`` and the three sizes give the order of each stage (:mod:`athanor.workloads.pipelines`). Virtual stage
    ``chunk * stages + stage`` holds the layers from ``first_layer[virtual]`` on. ``uses[virtual][pass]`` are the numbers of the
    blocks that its micro-batches take for each pass (F, B, W as far as the order has them), one number where all take the same.
    In a block operations count layers from 0 and know no micro-batch; :func:`~.pipeline_blocks.placed` says where one stands in
    the step, and ``after`` are numbers within the block. ``activations`` is what a stage passes on to the next
    (backward, gradients of the same size take the way back). With one stage nothing is passed on. ``along`` is the mesh's
    shape with 1 for every axis but pp. An asynchronous pipeline has no end: its step is what one lasts when many follow each
    other.
    """

    kind: ClassVar[str] = "pipeline"

    name: str
    stages: int
    micro_batches: int
    chunks: int
    blocks: tuple[Block, ...]
    uses: tuple[tuple[tuple[int, ...], ...], ...]
    first_layer: tuple[int, ...]
    activations: Exchange | None
    along: tuple[int, ...]

    def block(self, virtual: int, which: int, micro_batch: int) -> int:
        """The number of the block for a pass (0 F, 1 B, 2 W) of a micro-batch through a virtual stage."""
        numbers = self.uses[virtual][which]
        return numbers[micro_batch if len(numbers) > 1 else 0]

    @property
    def runs(self) -> list[float]:
        """How often each block runs in a step, on all stages together."""
        found = [0.0] * len(self.blocks)
        for passes in self.uses:
            for numbers in passes:
                for number in numbers:
                    found[number] += self.micro_batches / len(numbers)
        return found

    @cached_property
    def block_flops(self) -> list[Flops]:
        """FLOPs of each block, in the mean over ranks, by the format of products."""
        from .block_flops import flops_of_blocks

        return flops_of_blocks(self.blocks)

    @cached_property
    def flops(self) -> Amount:
        """FLOPs of each stage's ranks."""
        each = [sum(block.values()) for block in self.block_flops]
        of_stage = [0.0] * self.stages
        for virtual, passes in enumerate(self.uses):
            for numbers in passes:
                times = self.micro_batches / len(numbers)
                of_stage[virtual % self.stages] += times * sum(each[number] for number in numbers)
        return of_stage[0] if len(set(of_stage)) == 1 else np.array(of_stage).reshape(self.along)

    def __str__(self) -> str:
        """The order and its sizes."""
        return (
            f"{self.name}: {self.micro_batches} micro-batches through {self.stages} stages of {self.chunks} chunks,"
            f" {len(self.blocks)} blocks of {sum(map(len, self.blocks))} operations"
        )


Work = Gemm | FusedAttention | Sweep | Loop | Launches | Bookkeeping | Exchange | HostCopy | HostSweep | PipelineWork

CASTS = 3
"""Kernels that bring an operand to eight bits: its greatest element, the scale, and the cast by rows and by columns."""

OF_ATTENTION = {2: 1, 5: 3}
"""Kernels of fused attention by its products: backward sums over rows come first, and a cast of gradients last (Dao 2023)."""

OF_EXCHANGE = 2
"""What a collective costs a host, in kernels: it also records and awaits events of other streams."""


def kernels(work: Work) -> float:
    """Kernels that a host starts for an operation."""
    match work:
        case Gemm():
            return work.launches * (1 + (CASTS if work.cast_from else 0))
        case Sweep():
            return work.launches
        case FusedAttention():
            return OF_ATTENTION.get(work.products, 1)
        case Exchange():
            return OF_EXCHANGE
    return 0.0


def at(amount: Amount, coordinate: tuple[int, ...]) -> float:
    """The value of an amount at a rank's coordinate in the mesh."""
    if not isinstance(amount, np.ndarray) or amount.size == 1:
        return float(amount if not isinstance(amount, np.ndarray) else amount.item())
    return float(amount.item(_place(coordinate, amount.shape)))


@lru_cache(maxsize=4096)
def _place(coordinate: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where an array that broadcasts over the mesh has the value at a coordinate."""
    return tuple(min(at, length - 1) for at, length in zip(coordinate, shape, strict=True))


def _text(amount: Amount, unit: str = "") -> str:
    """An amount as text; an array as its range."""
    if isinstance(amount, np.ndarray):
        low, high = _text(float(amount.min()), unit), _text(float(amount.max()), unit)
        return f"{low} ... {high}" if low != high else low
    return si(amount, unit) if unit else f"{amount:,.6g}"
