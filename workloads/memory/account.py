"""The account of a setting: every line of what its ranks hold, and what they come to on each stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from ...hardware.precisions import BYTES
from ..loads.loads import Load
from ..lowering.step import TrainingStep
from ..model.precision import POLICIES, Formats
from ..model.precision import Part as ModelPart
from ..optimizers import Adam
from ..plan.setting import Setting
from .activations import Saved, SavedTensor
from .buffers import backbone_weights, exchanges, features, libraries, logits
from .need import PARTS, Array, Keeper, Memory, MemoryLine
from .stages import MemoryStages
from .state import ModelState, all_single
from .working import Pool, Working, settled

FIXED_FP32 = {"parameters": 4, "gradients": 4, "optimizer": 8, "activations": 8}
"""Bytes a parameter of the all-single accounting: 4 + 4 + 8 + 8 TB for 10¹² parameters (BaGuaLu overview)."""


def memory(setting: Setting, loads: list[Load]) -> Memory:
    """Memory of the fullest rank of the fullest stage, at the most demanding precision policy of the plan.

    ``loads`` are those of a step, all micro-batches: activations count the micro-batch and the rank whose experts carry most.
    """
    return account(setting, loads).worst


def account(setting: Setting, loads: list[Load]) -> Account:
    """The account at the plan's most demanding precision policy."""
    schedule = setting.plan.precisions
    each = [Account(setting, loads, schedule.policy(name)) for name in schedule.names]
    return max(each, key=lambda one: one.worst.total)


def sample_loads(setting: Setting) -> list[Load]:
    """The loads of a first step, as lowering it would draw them; none for a model without experts."""
    step = TrainingStep(setting, 0)
    for micro_batch in range(1 if step.alike else setting.batch.micro_batches):
        step.flows(micro_batch)
    return step.seen


def update_state_share(policy: str) -> float:
    """Share of weights, gradients and Adam's state that only the update needs: 12 of 16 bytes, 75 %, under APEX O2."""
    formats = POLICIES[policy]["expert"]
    state = Adam().state_bytes(formats)
    return state / (BYTES[formats.weight] + BYTES[formats.gradient] + state)


class Account:
    """What the ranks of a setting hold: :attr:`lines`, and their sums by stage."""

    def __init__(
        self,
        setting: Setting,
        loads: list[Load],
        formats: Mapping[ModelPart, Formats],
        stages: MemoryStages | None = None,
        saved: Saved | None = None,
    ) -> None:
        self.setting, self.loads, self.formats = setting, loads, formats
        self.stages, self._saved = stages or MemoryStages(setting), saved

    @cached_property
    def lines(self) -> list[MemoryLine]:
        """Everything that is counted."""
        stays, passes = self._counted
        return [*self._settled(stays), *passes]

    @cached_property
    def _counted(self) -> tuple[list[MemoryLine], list[MemoryLine]]:
        """What stays and what passes, on each stage."""
        shape = (self.stages.count,)
        stays, passes = (
            [replace(line, nbytes=np.broadcast_to(line.nbytes, shape)) for line in lines]
            for lines in (self.resident(), self.passing())
        )
        return stays, passes

    def resident(self) -> Iterator[MemoryLine]:
        """What is there whatever the micro-batches are: weights, gradients, optimizer state, layers that are fetched."""
        if self.setting.plan.accounting == "fp32":
            yield from all_single(self.setting, self.stages, FIXED_FP32)
            return
        state = ModelState(self.setting, self.formats, self.stages)
        yield from state.lines()
        yield from state.whole_layers()
        if self.working:
            yield from self.working.resident()
        yield from backbone_weights(self.setting.model, BYTES[self.formats["embedding"].compute], self.stages)
        yield from libraries(self.setting)

    def passing(self) -> Iterator[MemoryLine]:
        """What micro-batches bring: activations and buffers."""
        if self.setting.plan.accounting == "fp32":
            return
        saved = self._saved or Saved.of(self.setting, self.formats)
        yield from self._kept(saved)
        yield from self._fetched(saved)
        yield from self._at_ends(saved)
        yield from exchanges(saved, self._most, self._copies)
        yield from features(saved, self.stages)
        if self.working:
            yield from self.working.sent_on(saved)
            yield from self.working.moment(saved, self._most)
        else:
            yield from self._again(saved)
            yield logits(saved, self.stages)

    @cached_property
    def working(self) -> Working | None:
        """What the machine's framework has in work, where it has one."""
        framework = self.setting.framework
        if not (framework and self.setting.processor.framework) or self.setting.plan.accounting == "fp32":
            return None
        return Working(self.setting, framework, self.formats, self.stages)

    def _settled(self, stays: list[MemoryLine]) -> Iterator[MemoryLine]:
        """What stays, with what the framework's pool has beside what is in use."""
        if self._pool is None:
            yield from stays
            return
        for line in stays:
            yield replace(line, nbytes=self._pool.copies) if line.keeper == "update" else line
        yield MemoryLine("other", "fragments", "idle blocks of the pool", self._pool.idle)

    @cached_property
    def _pool(self) -> Pool | None:
        """The pool of the framework, where there is one."""
        pool = self.setting.processor.framework
        if not self.working or not pool:
            return None
        stays, passes = self._counted
        sizes = self._size(stays), self._size(passes), self._size(stays, "update"), self._size(stays, "library")
        return settled(pool, self.setting.processor.memory, *sizes)

    def _size(self, lines: list[MemoryLine], keeper: Keeper = "pool") -> Array:
        """What a keeper has on each stage."""
        found = [line.nbytes for line in lines if line.keeper == keeper and not line.host]
        total: Array = np.sum([np.zeros(self.stages.count), *found], axis=0)
        return total

    @cached_property
    def by_stage(self) -> list[Memory]:
        """What a rank of each stage needs."""
        sums = {part: np.zeros(self.stages.count) for part in PARTS}
        host = np.zeros(self.stages.count)
        for line in self.lines:
            if line.host:
                host = host + line.nbytes
            else:
                sums[line.part] = sums[line.part] + line.nbytes
        processor = self.setting.processor
        room = float("inf") if processor.host_memory is None else processor.host_memory
        total: Array = np.sum(list(sums.values()), axis=0)
        reserved = total - self._size(self._counted[0], "library")
        allocated = self._pool.used if self._pool else reserved
        return [
            Memory(
                **{part: float(sums[part][stage]) for part in PARTS},
                capacity=processor.memory,
                host=float(host[stage]),
                host_capacity=room,
                stage=stage,
                allocated=float(allocated[stage]),
                reserved=float(reserved[stage]),
            )
            for stage in range(self.stages.count)
        ]

    @cached_property
    def worst(self) -> Memory:
        """What a rank of the fullest stage needs."""
        return max(self.by_stage, key=lambda need: (need.pressure, need.total))

    @cached_property
    def _most(self) -> float:
        """Tokens that the fullest rank's experts carry in one layer of a micro-batch."""
        return max((float(np.max(load.received)) for load in _each(self.loads)), default=0.0)

    @cached_property
    def _copies(self) -> float:
        """Copies of experts that a rank has in one layer of a micro-batch at most."""
        return max((float(np.max(load.copies_held)) for load in _each(self.loads)), default=0.0)

    def _kept(self, saved: Saved) -> Iterator[MemoryLine]:
        """What layers keep until their backward pass."""
        found = dict[tuple[str, str], tuple[SavedTensor, Array]]()
        away = self.setting.plan.offload_shares.get("activations", 0.0)
        for kind in self.stages.kinds:
            carried = self.stages.carried(self.loads, kind) if kind.moe else np.zeros(1)
            copies = self.stages.copies(kind)
            for row, nbytes in saved.stays(kind):
                key = (row.operator, row.what)
                before = found[key][1] if key in found else np.zeros(1)
                found[key] = (row, before + nbytes * (carried if row.carried else copies))
        for row, size in found.values():
            line = MemoryLine("activations", row.operator, row.what, size, cut=row.cut, kept=row.kept)
            yield from line.divided(away if row.entry else 0.0)

    def _again(self, saved: Saved) -> Iterator[MemoryLine]:
        """What is worked out again, for one layer at a time."""
        recomputation, again = self.setting.plan.recomputation, np.zeros(self.stages.count)
        for kind in self.stages.kinds:
            own, carried = saved.goes(kind)
            size = own + carried * self._most
            again = np.maximum(again, self.stages.has(kind) * size)
        if recomputation.repeats:
            yield MemoryLine("activations", "again", "one layer, worked out again", again)

    def _fetched(self, saved: Saved) -> Iterator[MemoryLine]:
        """Inputs of layers on their way from the host."""
        share, entry = self.setting.plan.offload_shares.get("activations", 0.0), np.zeros(self.stages.count)
        if share:
            for kind in self.stages.kinds:
                size = sum(row.nbytes for row in saved.layer(kind) if row.entry)
                entry = np.maximum(entry, self.stages.has(kind) * size)
            yield MemoryLine("activations", "inputs", "of the layer at hand and of the next", 2 * share * entry)

    def _at_ends(self, saved: Saved) -> Iterator[MemoryLine]:
        """Embedding and output layer (Korthikanti et al. 2022, section 4.3).

        BaGuaLu's accounting leaves inputs of the output layer out: half a percent.
        """
        model, first, last = self.setting.model, saved.stacks[True], saved.stacks[False]
        if model.dropout:
            yield MemoryLine("activations", "embedding", "mask of the dropout", self.stages.at_first * first.stream)
        if self.setting.plan.accounting == "bagualu":
            return
        answers = 1 + model.further_tokens
        norm, out = answers * last.stream * saved.size("norm"), answers * last.stream * saved.size("embedding")
        yield MemoryLine("activations", "output.norm", "its input", self.stages.at_last * norm)
        yield MemoryLine("activations", "output.logits", "its input", self.stages.at_last * out)
        if model.encoder_layers:
            norm, out = first.stream * saved.size("norm"), first.stream * saved.size("attention")
            yield MemoryLine("activations", "encoder.norm", "its input", self.stages.at_first * norm)
            yield MemoryLine("activations", "cross.qkv", "output of the encoder", self.stages.at_first * out)


def _each(loads: list[Load]) -> Iterable[Load]:
    """Every load once: equal layers may have the very same."""
    return {id(load): load for load in loads}.values()
