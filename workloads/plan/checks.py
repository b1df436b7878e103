"""Whether a plan can be: no rule is broken, all sizes divide, and the machine has what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ...hardware.errors import InputError
from ...hardware.machine import Machine
from ..mesh.axes import CONTEXT, TENSOR
from ..mesh.mesh import Mesh
from ..model.model import Model
from ..pipelines import PIPELINES, find_pipeline
from ..pipelines.stage_layers import layers_by_part
from .batch import Batch
from .compatibility import CUT, RULES, Combination, dealt_over
from .expert_axes import expert_axes, expert_cut
from .plan import Plan


@dataclass(frozen=True)
class Given:
    """All that is looked at: choices, and a batch."""

    model: Model
    plan: Plan
    mesh: Mesh
    batch: Batch
    machine: Machine


def check(given: Given) -> None:
    """Raise :class:`InputError` for the first rule that is broken or size that does not divide, with the numbers."""
    Checks(Combination(given.model, given.plan, given.mesh, given.machine), given.batch.seq_len).of(given.batch)


@dataclass(frozen=True)
class Checks:
    """All checks of some choices: what does not depend on the batch is looked at once for all that have sequences of a length."""

    chosen: Combination
    seq_len: int

    def of(self, batch: Batch) -> None:
        """Raise :class:`InputError` for the first that fails, in one order whatever is known already."""
        _raise(self._rule)
        _pipeline(self.chosen, batch)
        _raise(self._size)
        _require_whole(self.chosen, _of_tokens(self.chosen, batch))
        _raise(self._rest)

    @cached_property
    def _rule(self) -> InputError | None:
        for rule in RULES:
            if rule.broken(self.chosen):
                return InputError(f"{rule}: {rule.why}", str(rule))
        return None

    @cached_property
    def _size(self) -> InputError | None:
        return _wrong(lambda: _require_whole(self.chosen, _of_model(self.chosen)))

    @cached_property
    def _rest(self) -> InputError | None:
        def every() -> None:
            _documents(self.chosen, self.seq_len)
            _offload(self.chosen)
            _kernel(self.chosen)

        return _wrong(every)


def _wrong(look: Callable[[], None]) -> InputError | None:
    try:
        look()
    except InputError as wrong:
        return wrong
    return None


def _raise(wrong: InputError | None) -> None:
    if wrong is not None:
        raise wrong.with_traceback(None)


Division = tuple[str, int, str, int]
"""(what is cut, its size, by what, into how many parts)."""


def _require_whole(chosen: Combination, divisions: Iterator[Division]) -> None:
    for what, size, by, parts in divisions:
        if size % parts:
            raise InputError(
                f"--mesh {Mesh.of(chosen.plan.mesh)}: {by}={parts} does not divide the {size:,} {what} of {chosen.model.name}",
                f"{by} does not divide the {what}",
            )


def _of_model(chosen: Combination) -> Iterator[Division]:
    """Everything of the model that has to divide."""
    model, mesh, plan = chosen.model, chosen.mesh, chosen.plan
    if plan.prototypes and model.experts % plan.prototypes:
        raise InputError(
            f"--prototypes {plan.prototypes}: does not divide the {model.experts:,} experts of {model.name}",
            "--prototypes does not divide the experts",
        )
    by, width = _grid(mesh), mesh.size("tp", "col")
    if model.attends:
        yield "heads", model.heads, by, width
    for each in model.recurrent.values():
        yield from ((what, size, by, width) for what, size in each.divided(model.hidden))
    yield "hidden elements", model.hidden, by, width
    yield "inner elements of the FFN", model.ffn_hidden, by, width
    if model.attends and model.key_value_heads >= width:
        yield "key-value heads", model.key_value_heads, by, width
    if model.experts:
        parts = width if model.shared_experts else mesh.size(*expert_cut(plan, mesh))
        yield "inner elements of an expert", model.expert_width, by if parts == width else "etp", parts
        yield "inner elements of the FFN beside experts", model.dense_beside, by, width
        over = expert_axes(plan, mesh)
        yield "experts", model.experts, "*".join(over), mesh.size(*over)


def _of_tokens(chosen: Combination, batch: Batch) -> Iterator[Division]:
    """Everything of a batch that has to divide."""
    model, mesh, plan, tokens = chosen.model, chosen.mesh, chosen.plan, batch.micro_tokens
    context = mesh.size(*CONTEXT)
    if context > 1:
        yield "tokens of a micro-batch", tokens, CUT, context
        yield "tokens of a sequence", batch.seq_len, CUT, context
    over = ("tp",) if plan.sequence_parallel else dealt_over(chosen, TENSOR) if model.experts else ()
    for axis in over:
        yield "tokens that a rank has of a micro-batch", tokens // context, axis, mesh.size(axis)
    if (grid := mesh.size("row")) > 1:
        yield "sequences of a micro-batch", max(1, tokens // batch.seq_len), _grid(mesh), grid


def _grid(mesh: Mesh) -> str:
    """What cuts matrices: tp, or the side of a grid."""
    return "q" if mesh.size("row") > 1 else "tp"


def _pipeline(chosen: Combination, batch: Batch) -> None:
    """Micro-batches and layers divide as the pipeline schedule needs it."""
    plan, stages = chosen.plan, chosen.mesh.size("pp")
    schedule = find_pipeline(plan.pipeline)
    if stages > 1:
        schedule.check(stages, batch.micro_batches, plan.chunks)
        if plan.pipeline not in PIPELINES:  # those that come with Athanor are checked by its tests
            schedule.check_orders(stages, batch.micro_batches, plan.chunks)
        layers_by_part(plan.stage_layers, chosen.model.depth, stages, plan.chunks)
    elif plan.chunks > 1:
        raise InputError(
            f"--chunks {plan.chunks}: the mesh has no pp; chunks are parts of a pipeline stage", "--chunks without pp"
        )
    elif plan.stage_layers != "even":
        raise InputError(
            f"--stage-layers {plan.stage_layers}: the mesh has no pp, all layers are on one stage",
            "--stage-layers without pp",
        )


def _documents(chosen: Combination, seq_len: int) -> None:
    """Documents fill sequences to the end."""
    length = sum(chosen.plan.documents)
    if length and seq_len % length:
        raise InputError(
            f"--document-lengths {chosen.plan.document_lengths}: their {length:,} tokens do not divide the {seq_len:,} of a"
            " sequence (--seq-len)",
            "--document-lengths do not divide the sequence",
        )


def _offload(chosen: Combination) -> None:
    """Offloading needs a host."""
    if chosen.plan.offloads and (chosen.machine.node.host_link is None or chosen.machine.node.host_memory is None):
        raise InputError(
            f"--offload {chosen.plan.offload}: {chosen.machine.name} has no host link (node.host_link, node.host_memory,"
            " node.host_memory_bandwidth)",
            "--offload without a host link",
        )


def _kernel(chosen: Combination) -> None:
    """A kernel that is named is one whose rates the machine gives."""
    name, known = chosen.plan.kernel.name, chosen.machine.core_group.attention
    if name and name not in known:
        more = f"it has {', '.join(known)}, and fused for the fastest of these" if known else "use fused or unfused"
        raise InputError(
            f"--attention {name}: {chosen.machine.name} does not say what it reaches (core_group.attention); {more}",
            "--attention of another machine",
        )
