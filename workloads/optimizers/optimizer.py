"""What an optimizer is: what it keeps, what an update reads, writes, computes and exchanges, and the update itself in NumPy.

An :class:`Optimizer` has a :class:`UpdateRule` for each tensor, often itself. The same rule is asked by the lowering
(:meth:`Rule.steps`), by the account of memory (:meth:`Rule.slots`, :meth:`Rule.kept`), by the planner through both, and by the
runtime (:meth:`Rule.update`): what it yields there are the exchanges that its steps speak of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import suggestion
from ...hardware.precisions import BYTES, Precision
from ...hardware.registry import Policy
from ..model.number_types import TYPES
from ..model.precision import Formats, Part
from ..model.tensors import Tensor

Array = NDArray[Any]


class StateSlot(NamedTuple):
    """A number kept for every parameter: its name, its format in memory, and its bytes with its share of scales."""

    name: str
    precision: Precision
    nbytes: float


@dataclass(frozen=True)
class UpdatePass:
    """One sweep over the rank's share: bytes read and written and FLOPs, each for a parameter."""

    name: str
    read: float
    written: float
    flops: float


@dataclass(frozen=True)
class Sums:
    """``numbers`` in single precision for the tensor, added up over all ranks that have a part of it."""

    name: str
    numbers: float


@dataclass(frozen=True)
class WholeTensor:
    """The parts of the tensor come together on every rank that has one, in this format."""

    name: str
    element: Precision


@dataclass(frozen=True)
class UpdateProducts:
    """Matrix products on the whole tensor, as (m, n, k, how many), by every rank that has a part of it."""

    name: str
    shapes: tuple[tuple[int, int, int, int], ...]
    precision: Precision


Step = UpdatePass | Sums | WholeTensor | UpdateProducts


class Sum(NamedTuple):
    """What an update asks for: these numbers, added up over all ranks that have a part of the tensor."""

    values: Array


class Gather(NamedTuple):
    """What an update asks for: the whole tensor ``[rows * columns]``, of which these are the elements of the rank's share."""

    values: Array


Request = Sum | Gather
Update = Generator[Request, Array, None]


@dataclass
class TensorShare:
    """A rank's share of one tensor, as flat arrays; it may be empty.

    ``index`` are the elements' places in the whole tensor, row by row. ``gradient`` is the mean over all replicas, in single
    precision or better. ``state`` has an array for each slot, and those that are kept for the whole tensor. ``step`` counts
    from 1.
    """

    tensor: Tensor
    index: NDArray[np.int64]
    weights: Array
    master: Array | None
    gradient: Array
    state: dict[str, Array]
    step: int

    @property
    def exact(self) -> Array:
        """The weights that are updated: the master copy where there is one."""
        return self.weights if self.master is None else self.master

    def settle(self) -> None:
        """Weights are what the master copy says."""
        if self.master is not None:
            self.weights[...] = self.master


class UpdateRule(ABC):
    """How tensors are updated.

    A subclass gives :meth:`slots`, ``flops`` and :meth:`update`. Where an update needs more than one sweep over each parameter,
    it also says its :meth:`steps`, in the order in which :meth:`update` asks for their exchanges.
    """

    name: ClassVar[str]
    flops: ClassVar[float]
    """FLOPs of an update for one parameter."""

    @abstractmethod
    def slots(self, formats: Formats) -> tuple[StateSlot, ...]:
        """What is kept for every parameter beside the weights; ZeRO shards it."""

    def kept(self, tensor: Tensor) -> dict[str, int]:
        """Numbers, single or better, that every rank with a part of the tensor keeps for all of it; nothing shards them."""
        return {}

    def workspace(self, tensor: Tensor, formats: Formats) -> float:
        """Bytes that an update needs for a while, for one tensor after another."""
        return 0.0

    def steps(self, tensor: Tensor, formats: Formats) -> tuple[Step, ...]:
        """What an update does: one sweep over gradients, state and weights, unless a rule says otherwise."""
        return (self.sweep(formats, self.flops),)

    @abstractmethod
    def update(self, share: TensorShare) -> Update:
        """Update a share in place; yields :class:`Sum` and :class:`Gather`, and is sent what they ask for."""

    def sweep(self, formats: Formats, flops: float) -> UpdatePass:
        """One sweep over gradients, state and weights; without a master copy the weights are read too."""
        weight, state = BYTES[formats.weight], self.state_bytes(formats)
        read = BYTES[formats.gradient] + state + (0 if formats.master else weight)
        return UpdatePass("", float(read), float(state + weight), flops)

    def state_bytes(self, formats: Formats) -> float:
        """Bytes a parameter that only the update needs: the master copy and the slots."""
        return master_bytes(formats) + sum(each.nbytes for each in self.slots(formats))

    def host_bytes(self, formats: Formats) -> float:
        """Bytes read and written in host memory for a parameter: what a sweep takes on an accelerator too (ZeRO-Offload)."""
        sweep = self.sweep(formats, self.flops)
        return sweep.read + sweep.written

    def state(self, count: int, tensor: Tensor, formats: Formats) -> dict[str, Array]:
        """State of ``count`` elements of a tensor, before the first step."""
        found: dict[str, Array] = {each.name: np.zeros(count, TYPES[each.precision]) for each in self.slots(formats)}
        kind = TYPES[kept_precision(formats)]
        return found | {name: np.zeros(numbers, kind) for name, numbers in self.kept(tensor).items()}


@dataclass(frozen=True)
class Optimizer(UpdateRule, Policy):
    """A rule that users can name, and the rules of tensors that it does not update itself.

    A subclass is a frozen dataclass; its fields are hyper-parameters, numbers with defaults. ``name`` is what operations are
    called by. ``hosted``: the update can run on the host's cores (``--offload optimizer``), as one that only sweeps can.
    ``source`` is where its formulas stand.
    """

    source: ClassVar[str] = ""
    hosted: ClassVar[bool] = True

    @classmethod
    def parse(cls, argument: str) -> Self:
        """The optimizer with hyper-parameters of a user's own, ``momentum=0.95,learning_rate=0.1``."""
        known, values = [each.name for each in fields(cls)], dict[str, float]()
        for text in filter(None, argument.split(",")):
            key, _, value = text.partition("=")
            if key not in known:
                raise ValueError(f"has no hyper-parameter {key}{suggestion(key, known)}")
            try:
                values[key] = float(value)
            except ValueError:
                values[key] = -1.0
            if not 0 <= values[key] < float("inf"):
                raise ValueError(f"needs a number from 0 on for {key}, such as {key}=0.1")
        return cls(**values)

    def rule(self, part: Part, tensor: Tensor) -> UpdateRule:
        """The rule of a tensor of a part of the model."""
        return self


def single(name: str, formats: Formats) -> StateSlot:
    """A slot in the format of moments."""
    return StateSlot(name, formats.moments, BYTES[formats.moments])


def kept_precision(formats: Formats) -> Precision:
    """The format of what is kept for whole tensors: single, or double where all is."""
    return "fp64" if formats.moments == "fp64" else "fp32"


def master_bytes(formats: Formats) -> int:
    """Bytes a parameter of the master copy."""
    return BYTES[formats.master] if formats.master else 0


def weight_bytes(formats: Formats) -> int:
    """Bytes of a parameter that an update reads as the exact weight: of the master copy where there is one."""
    return master_bytes(formats) or BYTES[formats.weight]


def written_bytes(formats: Formats) -> int:
    """Bytes of a parameter that an update writes as weights: of the master copy too, where there is one."""
    return master_bytes(formats) + BYTES[formats.weight]
