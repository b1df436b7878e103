"""A recurrent half of a layer (linear attention, a state space) with its norm and residual, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....hardware.precisions import BYTES
from ...model.recurrent import ChunkProducts, Projection, Recurrent, Step, TokenPass
from ...schedule.operation import Gradient, Role, Task
from ...schedule.work import Exchange, Gemm, Sweep
from ..builder import Program
from ..tensor_parallel.none import NoTensorParallel
from .rank_share import NORM_FLOPS, Local


@dataclass(frozen=True)
class RecurrentLayer:
    """Lowers the steps that a recurrent part says it has.

    Each is a kernel of its own. What is marked to be run again is, before its gradient. A product of chunks has the gradients of
    both its sides, a pass over tokens reads all that it read and wrote and writes gradients of what it read.
    """

    local: Local
    tensor: NoTensorParallel
    recurrent: Recurrent

    def forward(self, program: Program, layer: int) -> None:
        """Norm, steps, residual."""
        local, at = self.local, self._at(layer)
        self.norm_again(program, layer)
        self.tensor.gather(program, local, at)
        for step in self._steps:
            self._run(program, at, step)
        self.tensor.reduce(program, local, at)
        program.add(at.doing(Role.RESIDUAL), local.residual())

    def norm_again(self, program: Program, layer: int) -> None:
        """The norm before it."""
        at = self._at(layer)
        program.add(at.doing(Role.NORM), self.local.sweep("norm", self.local.stream, flops=NORM_FLOPS))
        self.tensor.norm(program, self.local, at.doing(Role.NORM))

    def core(self, program: Program, layer: int) -> None:
        """No scores that would have been dropped."""

    def products_again(self, program: Program, layer: int) -> None:
        """All of it: what of it would be kept is not modelled, and plans that ask for it are refused."""
        self.forward(program, layer)

    def backward(self, program: Program, layer: int) -> None:
        """The same in reverse."""
        local, at = self.local, self._at(layer)
        self.tensor.reduce_backward(program, local, at)
        for step in self._steps:
            if step.again:
                self._run(program, at, step, again=True)
        gathered = False
        for step in reversed(self._steps):
            if not gathered and self._of_stream(step):
                self.tensor.gather_again(program, local, at)
                gathered = True
            self._run_backward(program, at, step)
        self.tensor.gather_backward(program, local, at)
        program.add(at.doing(Role.NORM, gradient="input"), local.norm_gradient())
        self.tensor.norm(program, local, at.doing(Role.NORM, gradient="input"))

    def _run(self, program: Program, at: Task, step: Step, again: bool = False) -> None:
        gradient: Gradient | None = "input" if again else None
        number = 0 if again else None
        match step:
            case Projection():
                if again:
                    n, k = self.tensor.shape(self.local, float(step.columns), float(step.rows), step.cut)
                    product = self.local.gemm(self.local.tokens, n, k, "attention")
                    program.add(at.doing(Role.PRODUCT, step.operand, gradient, number), product)
                    return
                here, columns = replace(at, operand=step.operand), float(step.columns)
                self.tensor.product(program, self.local, here, columns, float(step.rows), "attention", step.cut)
                self._sum(program, at, step, gradient)
            case TokenPass():
                task = at.doing(Role.RECURRENCE, step.operand, gradient, number)
                program.add(task, self._sweep(step, step.reads, step.writes, step.each))
            case ChunkProducts():
                task = at.doing(Role.RECURRENCE, step.operand, gradient, number)
                program.add(task, self._products(step, step.m, step.n, step.k))

    def _run_backward(self, program: Program, at: Task, step: Step) -> None:
        match step:
            case Projection():
                here, columns = replace(at, operand=step.operand), float(step.columns)
                self._sum(program, at, step, "input")
                self.tensor.product_backward(
                    program, self.local, here, columns, float(step.rows), "attention", step.cut
                )
            case TokenPass():
                sweep = self._sweep(step, step.reads + step.writes, step.reads, 2 * step.each)
                program.add(at.doing(Role.RECURRENCE, step.operand, "input", 1), sweep)
            case ChunkProducts():
                for number, shape in enumerate(((step.m, step.k, step.n), (step.k, step.n, step.m)), 1):
                    task = at.doing(Role.RECURRENCE, step.operand, "input", number)
                    program.add(task, self._products(step, *shape))

    def _sum(self, program: Program, at: Task, step: Projection, gradient: Gradient | None) -> None:
        """What ranks of tp have in parts, where the next step needs all of it; backward, its gradient."""
        if step.summed and self.local.width > 1:
            element = self.local.formats["attention"].compute
            nbytes = self.local.tokens * step.columns * BYTES[element]
            task = at.doing(Role.OUTPUT_SUM, step.operand, gradient)
            exchange = Exchange("all-reduce", "ring", ("tp",), nbytes, element)
            program.add(task, exchange, "tensor_parallel", f"{at.part}.{step.operand}.reduce{'.grad' * bool(gradient)}")

    def _sweep(self, step: TokenPass, reads: float, writes: float, each: float) -> Sweep:
        """FLOPs are done in single precision, as the kernels do."""
        size = BYTES[self.local.formats["attention"].compute]
        elements = self.local.tokens * step.elements / self.local.width
        return Sweep(elements, reads * size, writes * size, each, self.local.exact)

    def _products(self, step: ChunkProducts, m: float, n: float, k: float) -> Gemm:
        """Of all chunks and heads of the rank; a sequence's last chunk is filled up."""
        chunks = self.local.sequences * -(-self.local.queries // step.chunk)
        count = max(1.0, step.count / self.local.width) * chunks
        return Gemm(float(m), float(n), float(k), count, self.local.formats["attention"].compute)

    def _of_stream(self, step: Step) -> bool:
        """Whether a step's input is the layer's, which comes once more under sequence parallelism."""
        return isinstance(step, Projection) and step.cut == "column" and step.rows == self.local.model.hidden

    @property
    def _steps(self) -> tuple[Step, ...]:
        return self.recurrent.steps(self.local.model.hidden)

    def _at(self, layer: int) -> Task:
        return Task(part="attention", layer=layer)
