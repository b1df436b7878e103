"""One operation of a schedule: its work, when it may begin, and what it is for.

What it is for is a :class:`Task` of typed fields. Simulator, planner, runtime and reports go by these; names are labels for
people, made from the same fields (:mod:`.labels`), and may be changed to anything without changing a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, get_args

from .work import Work

if TYPE_CHECKING:
    from .block_flops import Flops

Category = Literal[
    "compute",
    "all_to_all",
    "gradient_sync",
    "tensor_parallel",
    "pipeline_bubble",
    "pipeline_transfer",
    "optimizer",
    "balancing",
    "offload",
    "launch",
    "imbalance",
    "other",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)
EXCHANGED: frozenset[Category] = frozenset({"all_to_all", "gradient_sync", "tensor_parallel", "pipeline_transfer"})
"""Communication between ranks."""
Phase = Literal["forward", "backward", "update"]
PHASES: tuple[Phase, ...] = get_args(Phase)
COMPUTE = "compute"
"""The stream of what ranks compute; other streams run beside it, and the time that it waits for them is exposed."""


RING = "ring"
"""The stream of keys and values that go around beside fused attention."""

LAUNCH = "launches"
"""The stream of the host that starts kernels."""


class Role(StrEnum):
    """What an operation does."""

    OTHER = "other"
    # operators of a layer and of both ends of the model
    NORM = "norm"
    PRODUCT = "product"  # of activations with a weight
    SCORES = "scores"  # queries times keys
    SOFTMAX = "softmax"
    CONTEXT = "context"  # scores times values, or a fused kernel of scores, softmax and this
    ACTIVATION = "activation"
    RESIDUAL = "residual"
    RECURRENCE = "recurrence"  # of linear attention or a state space: what is no product with weights
    LOOKUP = "lookup"  # of the embedding
    LOSS = "loss"
    # the way of tokens to experts
    GATE_CHOICE = "gate choice"  # of the best experts by the gate's scores
    BALANCING = "balancing"  # any other step of a balancing policy
    TOKENS_WANTED = "tokens wanted"  # ranks tell each other how many tokens each would send
    TOKENS_ACCEPTED = "tokens accepted"  # and how many of these are taken
    TOKENS_REFUSED = "tokens refused"  # how many are left over anywhere
    ROOM_LEFT = "room left"  # how many more each rank would take
    TOKENS_DEALT = "tokens dealt"  # what is left over goes where there is room
    TOKENS_DROPPED = "tokens dropped"  # what is above a rank's capacity
    TOKEN_COUNTS = "token counts"
    EXPERT_LOADS = "expert loads"  # ranks tell each other how many of their tokens want each expert
    EXPERT_COPIES = "expert copies"  # weights of experts to ranks that take tokens of them; backward, their gradients
    PERMUTE = "permute"
    EXPERT_SORT = "expert sort"  # tokens that have come are brought together by expert; before they go back, by sender
    DISPATCH = "dispatch"
    COMBINE = "combine"
    MERGE = "merge"
    TOKEN_COLLECT = "token collect"  # ranks of tp tell each other their share of the tokens
    # tensor and context parallelism
    NORM_SUM = "norm sum"  # of rows that lie on several ranks
    LOSS_SUM = "loss sum"
    INPUT_GATHER = "input gather"  # before the first of two products; backward, its gradient is added up
    OUTPUT_SUM = "output sum"  # after the second of two products; backward, its gradient is gathered
    BLOCK_OF_INPUT = "block of input"  # of a product on a grid (SUMMA): A's block
    BLOCK_OF_WEIGHT = "block of weight"  # B's block
    BLOCK_SUM = "block sum"  # partial blocks of a result
    RING_SHIFT = "ring shift"  # keys and values to the next rank
    RING_SUM = "ring sum"  # every rank's share of the gradients of all keys or values
    LAUNCHES = "launches"  # the host starts the kernels of a pass through a layer
    # weights, gradients and the update
    WEIGHT_GATHER = "weight gather"
    DEQUANTISE = "dequantise"
    SHARD_BOOKKEEPING = "shard bookkeeping"
    GRADIENT_SUM = "gradient sum"
    GRADIENT_SUM_OVER_TOKENS = "gradient sum over tokens"  # of what a model-parallel group has whole
    TIED_GRADIENT_TO_FIRST = "tied gradient to first"  # of an embedding that the output layer shares
    TIED_GRADIENT_TO_LAST = "tied gradient to last"
    BOOKKEEPING = "bookkeeping"
    UPDATE_SCALING = "update scaling"  # norm, clipping, scale of the loss and copies around the update; zeros behind it
    OPTIMIZER = "optimizer"
    HOST_OPTIMIZER = "host optimizer"
    # host memory
    WEIGHT_FETCH = "weight fetch"
    WEIGHT_RETURN = "weight return"
    GRADIENT_OFFLOAD = "gradient offload"
    ACTIVATION_OFFLOAD = "activation offload"
    ACTIVATION_FETCH = "activation fetch"
    # pipelines
    MICRO_BATCHES = "micro-batches"  # all of them, as blocks and their order
    STAGE_GATHER = "stage gather"  # ranks of tp put together what each has received a part of
    STAGE_RECEIVE = "stage receive"
    STAGE_SEND = "stage send"


ModelPart = Literal[
    "embedding",
    "decoder embedding",
    "encoder",  # the norm after its last layer
    "attention",
    "cross attention",
    "ffn",
    "moe",  # gate, experts and the way of tokens
    "shared experts",
    "further token",  # what leads to a layer that predicts one more
    "output",
    "stage",  # what stages hand to each other
    "ends",  # the parameters of embedding and output
    "adapter",  # of low rank beside frozen matrices, and its parameters
    "expert",  # the parameters of experts
    "gate",  # those of gates
    "norm",  # those of norms
]
"""What of the model an operation works on: a half of a layer, an end, or a part of the parameters."""

Operand = Literal[
    "qkv",
    "queries",
    "queries.narrow",
    "keys",
    "values",
    "values.narrow",
    "scores",
    "out",
    "up",
    "down",
    "gate",
    "logits",
    "patches",
    "features",
    "source",
    "in",  # from here on of linear attention and state spaces
    "gates",
    "convolution",
    "inner",
    "steps",
    "scan",
    "chunks",
    "states",
]
"""Which of several an operation is about: the weight of a product, what goes around a ring, what a gradient is of."""

Gradient = Literal["input", "weight"]
"""A gradient of activations, or one of weights; what only serves a gradient of weights counts with it."""

Overlap = Literal["next product", "last product"]
"""The product that an exchange can run beside, part by part: the one that needs what it brings, or that makes what it adds up."""


Does = tuple[Role, Operand | None, Gradient | None]
"""What a rank's data have a method for: the role, of which operand, for which gradient."""


@dataclass(frozen=True)
class Task:
    """What an operation is for.

    ``part`` and ``layer`` say where in the model, ``operand`` about which matrix; ``gradient`` which gradient it computes or
    carries, None forward (``kind`` of a norm's gradients, which come together: that of its input). ``step`` counts repetitions:
    of a ring, of a product on a grid, of a balancing policy's choices. ``overlaps`` is the product that an exchange may run
    beside. ``recomputed``: it works out anew in the backward pass what was not kept. ``micro_batch`` is None where it belongs to
    none, or where the step has only one; in a pipeline's blocks, where ``layer`` counts from the first one of the stage.
    """

    role: Role = Role.OTHER
    part: ModelPart | None = None
    layer: int | None = None
    operand: Operand | None = None
    gradient: Gradient | None = None
    step: int | None = None
    overlaps: Overlap | None = None
    recomputed: bool = False
    micro_batch: int | None = None

    def doing(
        self,
        role: Role,
        operand: Operand | None = None,
        gradient: Gradient | None = None,
        step: int | None = None,
        overlaps: Overlap | None = None,
    ) -> Task:
        """A task at the same place."""
        return Task(role, self.part, self.layer, operand, gradient, step, overlaps, self.recomputed, self.micro_batch)

    def at(self, micro_batch: int | None, recomputed: bool) -> Task:
        """The task in a micro-batch, or worked out anew."""
        return Task(
            self.role,
            self.part,
            self.layer,
            self.operand,
            self.gradient,
            self.step,
            self.overlaps,
            recomputed,
            micro_batch,
        )

    @property
    def does(self) -> Does:
        """What a rank's data have a method for: the role, of which operand, for which gradient."""
        return self.role, self.operand, self.gradient

    @property
    def of_weights(self) -> bool:
        """Whether it makes or carries a gradient of weights, or serves one alone: what a split backward pass puts off."""
        return self.gradient == "weight"

    @property
    def place(self) -> str:
        """Micro-batch and layer as names begin with: ``m1.again.l3.``."""
        return (
            ("" if self.micro_batch is None else f"m{self.micro_batch}.")
            + ("again." if self.recomputed else "")
            + ("" if self.layer is None else f"l{self.layer}.")
        )


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of every rank. It starts when its stream is free and the operations numbered in ``after`` are done.

    ``label`` is for people: no code goes by it.
    """

    label: str
    phase: Phase
    category: Category
    stream: str
    work: Work
    after: tuple[int, ...] = ()
    task: Task = Task()

    def __eq__(self, other: object) -> bool:
        """The same in everything; what sets operations of a schedule apart is looked at first, before amounts."""
        if not isinstance(other, Operation):
            return NotImplemented
        if (self.task, self.label, self.phase, self.after) != (other.task, other.label, other.phase, other.after):
            return False
        return (self.category, self.stream, self.work) == (other.category, other.stream, other.work)

    def __hash__(self) -> int:
        """By name."""
        return hash(self.name)

    @property
    def name(self) -> str:
        """The label with its micro-batch and layer before it, as in ``m1.l3.moe.dispatch``; unique in a schedule."""
        return self.task.place + self.label

    @property
    def kind(self) -> str:
        """gemm, attention, sweep, loop, bookkeeping, exchange, host_copy, host_sweep or pipeline."""
        return self.work.kind

    @property
    def runs_in(self) -> str:
        """The pass: forward, backward, recomputed (in the backward pass) or update."""
        return "recomputed" if self.task.recomputed else self.phase


Block = tuple[Operation, ...]
"""What the ranks of a stage do in one pass of a micro-batch."""


class FilledBlock(tuple[Operation, ...]):
    """A :data:`Block` that is another one, its ``template``, but for the amounts of some of its operations.

    What does not depend on amounts need not be looked at block by block; ``flops`` are known without a look at them.
    """

    template: Block
    flops: Flops

    @classmethod
    def of(cls, template: Block, filled: Mapping[int, Operation], flops: Flops) -> FilledBlock:
        """A template with these operations in place of its own."""
        operations = list(template)
        for number, operation in filled.items():
            operations[number] = operation
        found = cls(operations)
        found.template, found.flops = template, flops
        return found
