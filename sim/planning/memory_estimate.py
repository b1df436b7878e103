"""Memory of plans: the account of :mod:`athanor.workloads.memory`, put together from parts that many plans share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ...workloads.loads.loads import Load
from ...workloads.memory.account import Account
from ...workloads.memory.activations import Saved, SavedInAll
from ...workloads.memory.need import PARTS, Array, Memory, MemoryLine
from ...workloads.memory.stages import MemoryStages, in_flight
from ...workloads.memory.working import settled
from ...workloads.pipelines import find_pipeline
from ...workloads.plan.setting import Setting
from .pass_times import Key

HOST, COPIES, LIBRARIES = range(len(PARTS), len(PARTS) + 3)


@dataclass(frozen=True)
class MemorySums:
    """Bytes by part and stage, ``[parts + 3, stages]``.

    The last rows are host memory, copies for the update (in no part), and what libraries keep (in ``other`` too).
    """

    nbytes: Array

    @cached_property
    def device(self) -> Array:
        """All on the device, of each stage."""
        total: Array = self.nbytes[:HOST].sum(axis=0)
        return total

    @classmethod
    def of(cls, lines: Iterable[MemoryLine], stages: int) -> MemorySums:
        """What lines of an account come to."""
        found = np.zeros((len(PARTS) + 3, stages))
        for line in lines:
            row = HOST if line.host else COPIES if line.keeper == "update" else PARTS.index(line.part)
            found[row] += line.nbytes
            if line.keeper == "library":
                found[LIBRARIES] += line.nbytes
        return cls(found)


@dataclass
class Rooms:
    """What ranks need, exactly as the account says it: what stays does not depend on micro-batches, what passes not on ZeRO."""

    capacity: float
    host_capacity: float
    _stages: dict[Key, MemoryStages] = field(default_factory=dict)
    _resident: dict[Key, MemorySums] = field(default_factory=dict)
    _passing: dict[Key, MemorySums] = field(default_factory=dict)
    _saved: dict[tuple[Key, str], Saved] = field(default_factory=dict)

    def need(self, setting: Setting, loads: list[Load]) -> Memory:
        """Memory of the fullest rank; ``loads`` are those of its layers with experts."""
        found = [self._at(setting, loads, name) for name in setting.plan.precisions.names]
        return max(found, key=lambda each: each.total)

    def _at(self, setting: Setting, loads: list[Load], policy: str) -> Memory:
        plan, batch, mesh = setting.plan, setting.batch, setting.mesh
        alike, stages = self._stages_of(setting)

        def account() -> Account:
            key = (setting.rank_work, policy)
            formats = plan.precisions.policy(policy)
            if key not in self._saved:
                self._saved[key] = SavedInAll.of(setting, formats)
            return Account(setting, loads, formats, stages, self._saved[key])

        staying: Key = (
            mesh,
            policy,
            find_pipeline(plan.pipeline) if mesh.size("pp") > 1 else None,  # which says how many versions there are
            setting.dealt,
            plan.zero,
            plan.offload,
            plan.optimizer,
            plan.gradients,
            plan.moments,
            plan.framework,
            plan.offload_delay,
            setting.expert_axes,
            setting.expert_cut,
            # gradients that leave layer by layer are never all there
            (plan.overlap, batch.micro_batches > 1) if "optimizer" in plan.offloads else None,
        )
        if (stays := self._resident.get(staying)) is None:
            if len(self._resident) > KEPT:
                self._resident.clear()
            stays = self._resident[staying] = MemorySums.of(account().resident(), stages.count)
        moving: Key = (
            setting.rank_work,
            plan.offload,
            policy,
            alike,
            plan.sharding.shards_weights,
            plan.framework,
            plan.loss,
            plan.activations,
        )
        if (passes := self._passing.get(moving)) is None:
            passes = self._passing[moving] = MemorySums.of(account().passing(), stages.count)
        nbytes = stays.nbytes + passes.nbytes
        if (framework := setting.processor.framework) and account().working:
            kept = stays.nbytes[LIBRARIES]
            sizes = stays.device - kept, passes.device, stays.nbytes[COPIES], kept
            pool = settled(framework, self.capacity, *sizes)
            nbytes[PARTS.index("other")] += pool.copies + pool.idle
            return self._worst(nbytes, pool.used)
        return self._worst(nbytes)

    def _worst(self, nbytes: Array, used: Array | None = None) -> Memory:
        """The fullest stage, of whose pool so much is ``used`` at once; all of it without a framework."""
        total = nbytes[:HOST].sum(axis=0)
        stage = int(np.maximum(total / self.capacity, nbytes[HOST] / self.host_capacity).argmax())
        parts = {part: float(nbytes[row, stage]) for row, part in enumerate(PARTS)}
        return Memory(
            **parts,
            capacity=self.capacity,
            host=float(nbytes[HOST, stage]),
            host_capacity=self.host_capacity,
            stage=stage,
            allocated=float(total[stage] - nbytes[LIBRARIES, stage] if used is None else used[stage]),
            reserved=float(total[stage] - nbytes[LIBRARIES, stage]),
        )

    def _stages_of(self, setting: Setting) -> tuple[Key, MemoryStages]:
        """The stages, and a key to what decides them: all that have as many micro-batches under way share them."""
        plan, count = setting.plan, setting.mesh.size("pp")
        key: Key = (count, plan.recompute_layers)
        if count > 1:
            flight = in_flight(find_pipeline(plan.pipeline), count, setting.batch.micro_batches, plan.chunks)
            key = (*key, setting.folded, plan.chunks, plan.stage_layers, flight.tobytes())
        of_pipeline = (*key, plan.pipeline)  # which also says how many versions of weights there are
        if of_pipeline not in self._stages:
            self._stages[of_pipeline] = MemoryStages(setting)
        return key, self._stages[of_pipeline]


KEPT = 5_000
"""Sums of what stays that are kept at once."""
