"""Adapters of low rank beside frozen matrices, and which gradients of weights a model's training makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ....hardware.precisions import BYTES
from ...model.model import Model, Target
from ...model.precision import Part
from ...schedule.operation import ModelPart, Operand, Role, Task
from ...schedule.work import Exchange
from ..builder import Program
from .rank_share import Local

WEIGHTS: dict[ModelPart | None, Part] = {
    "attention": "attention",
    "cross attention": "attention",
    "ffn": "ffn",
    "shared experts": "ffn",
    "further token": "ffn",
    "moe": "expert",
    "output": "embedding",
    "embedding": "embedding",
    "decoder embedding": "embedding",
}
"""Of which part of a model the weights are that a part of a layer multiplies with."""

MAKERS = (Role.PRODUCT, Role.LOOKUP, Role.BLOCK_OF_INPUT, Role.BLOCK_SUM)


def makes(model: Model) -> Callable[[Task], bool]:
    """Whether an operation is one of a training step: gradients of frozen weights are made by none.

    Inputs that sequence parallelism gathers once more for such gradients stay where adapters need them.
    """

    def wanted(task: Task) -> bool:
        if task.gradient != "weight" or task.part not in WEIGHTS:
            return True
        part: Part = "gate" if task.operand == "gate" else WEIGHTS[task.part]
        if task.role is Role.INPUT_GATHER:
            return model.trains(part) or model.lora is not None
        return task.role not in MAKERS or model.trains(part)

    return (lambda task: True) if model.trained == model.parts else wanted


@dataclass(frozen=True)
class Adapter:
    """Lowers the adapter of one matrix [k, n]: k to the adapter's rank, and from there to n (Hu et al. 2021, section 4.1).

    Beside a frozen product it adds to that product's output; backward it makes gradients of both of its matrices, and of its
    input, added to the other's. Under tensor parallelism both matrices are cut, and ranks tell each other what lies between
    (Megatron-Bridge's ``ParallelLinearAdapter``).
    """

    local: Local
    operand: Target

    def forward(self, program: Program, layer: int | None, n: float, k: float) -> None:
        """Down, and up onto the frozen product's output."""
        at, rank, parts = self._at(layer), self._rank, self.local.width
        program.add(replace(at, step=0), self.local.gemm(self.local.tokens, rank / parts, k, "adapter"))
        self._tell(program, at)
        up = self.local.gemm(self.local.tokens, n / parts, rank, "adapter")
        program.add(replace(at, step=1), replace(up, onto=BYTES[self.local.formats["adapter"].compute]))

    def backward(self, program: Program, layer: int | None, n: float, k: float) -> None:
        """Gradients of what lies between, of both matrices, and of the input, onto the frozen product's."""
        at, rank, parts, local = self._at(layer), self._rank, self.local.width, self.local
        inputs, weights = replace(at, gradient="input"), replace(at, gradient="weight")
        program.add(replace(inputs, step=1), local.gemm(local.tokens, rank, n / parts, "adapter"))
        program.add(replace(weights, step=1), local.weight_gradient(rank, n / parts, local.tokens, "adapter"))
        self._tell(program, inputs)
        down = local.gemm(local.tokens, k, rank / parts, "adapter")
        program.add(replace(inputs, step=0), replace(down, onto=BYTES[local.formats["adapter"].compute]))
        program.add(replace(weights, step=0), local.weight_gradient(k, rank / parts, local.tokens, "adapter"))

    def _tell(self, program: Program, at: Task) -> None:
        if self.local.width > 1:
            element = self.local.formats["adapter"].compute
            exchange = Exchange("all-reduce", "ring", ("tp",), self.local.tokens * self._rank * BYTES[element], element)
            label = f"adapter.{at.operand}.reduce{'.grad' * (at.gradient is not None)}"
            program.add(at.doing(Role.OUTPUT_SUM, at.operand, at.gradient), exchange, "tensor_parallel", label)

    @property
    def _rank(self) -> float:
        assert self.local.model.lora
        return float(self.local.model.lora.rank)

    def _at(self, layer: int | None) -> Task:
        return Task(Role.PRODUCT, "adapter", layer, self.operand)


def adapter(local: Local, operand: Operand | None) -> Adapter | None:
    """The adapter of a matrix, where the model has one there."""
    lora = local.model.lora
    return next((Adapter(local, each) for each in lora.targets if each == operand), None) if lora else None
