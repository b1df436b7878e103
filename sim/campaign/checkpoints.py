"""What checkpoints cost a job: of one kind, or on several levels, from their size and the ways that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from ...hardware.site.faults import Component
from ...hardware.site.storage import Storage
from ...workloads.memory.checkpoint import checkpoint_bytes
from ...workloads.plan.setting import Setting
from .fault_history import FaultProcess
from .file_system import FileTransfer, copy_seconds, neighbour_seconds, transfer
from .intervals import level_intervals, level_overhead
from .job import CheckpointLevel, Job

MEMORY, NEIGHBOUR, FILES = "memory", "neighbour", "file system"
SELDOM = 1e3
"""Faults of a kind that is not there are taken to be so many times as seldom as all others: intervals stay finite."""

LEVELS = (MEMORY, NEIGHBOUR, FILES)
"""Where a checkpoint lies, by what it outlives."""


def outlived_by(component: Component) -> str:
    """The first level that outlives a fault.

    Programs that end leave the nodes' memory as it is; what is lost with single nodes, neighbours have. A supernode takes
    neighbours along, and what was corrupted silently has been copied over everything in memory before that is noticed.
    """
    if component.silent or component.takes not in ("nothing", "nodes") or component.nodes > 1:
        return FILES
    return MEMORY if component.takes == "nothing" else NEIGHBOUR


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of one ``kind``: bytes, seconds that steps wait for one, until it counts beside them, and to load one.

    ``mtbf`` is that of the faults that intervals are about: all that strike unannounced, or with levels those that need just the
    first.
    """

    kind: str
    nbytes: float
    written: FileTransfer
    save: float
    commit: float
    load: float
    mtbf: float
    levels: tuple[CheckpointLevel, ...] = ()
    survives: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, kind: str, setting: Setting, storage: Storage, nbytes: float | None, process: FaultProcess
    ) -> Checkpoints:
        """Of a setting's job under some faults; ``nbytes`` in place of what the memory account says."""
        size, machine = nbytes or checkpoint_bytes(setting), setting.machine
        nodes, ranks = process.used.nodes, setting.mesh.ranks
        written = transfer(machine, storage, nodes, size, ranks)
        load = transfer(machine, storage, nodes, size, ranks, reading=True).seconds
        copied = copy_seconds(setting, nodes, size)
        kinds = [at for at, each in enumerate(process.components) if not each.planned and not each.degrades]
        mtbf = min(process.mtbf_of(kinds), SELDOM * process.mtbf)
        if kind == "asynchronous":
            return cls(kind, size, written, copied, written.seconds, load, mtbf)
        if kind == "blocking":
            return cls(kind, size, written, written.seconds, 0.0, load, mtbf)
        sent = copied + neighbour_seconds(machine, nodes, size)
        saves = {MEMORY: copied, NEIGHBOUR: sent, FILES: copied + written.seconds}
        loads = {MEMORY: copied, NEIGHBOUR: sent, FILES: load}
        levels, survives = _levels(process, kinds, saves, loads)
        return cls(kind, size, written, levels[0].save, 0.0, load, levels[0].mtbf, levels, survives)

    def table(self, job: Job) -> dict[str, Any]:
        """As plain data."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "bytes": self.nbytes,
            "write_seconds": self.written.seconds,
            "write_limit": self.written.limit,
            "save_seconds": self.save,
            "load_seconds": self.load,
        }
        if self.levels:
            found["levels"] = [
                {
                    "name": each.name,
                    "interval_seconds": each.every * job.interval,
                    "save_seconds": each.save,
                    "load_seconds": each.load,
                    "mtbf_seconds": each.mtbf,
                }
                for each in self.levels
            ]
            found["overhead_first_order"] = level_overhead(
                [each.save for each in self.levels], [each.mtbf for each in self.levels]
            )
        return found


def _levels(
    process: FaultProcess, kinds: list[int], saves: Mapping[str, float], loads: Mapping[str, float]
) -> tuple[tuple[CheckpointLevel, ...], tuple[int, ...]]:
    """Levels whose faults there are, each as often as its own faults and cost say; and the level of each component.

    A level's interval is a multiple of the one before. The file system is always among them: it is where a training ends.
    """
    needs = [outlived_by(each) for each in process.components]
    mtbfs = {name: process.mtbf_of([kind for kind in kinds if needs[kind] == name]) for name in LEVELS}
    names = [name for name in LEVELS if mtbfs[name] < inf or name == FILES]
    known = {name: min(mtbfs[name], SELDOM * process.mtbf) for name in names}
    asked = level_intervals([saves[name] for name in names], [known[name] for name in names])
    found: list[CheckpointLevel] = []
    every = 1
    for name, interval in zip(names, asked, strict=True):
        every *= max(1, round(interval / (every * asked[0])))
        found.append(CheckpointLevel(name, every, saves[name], loads[name], known[name]))
    order = [LEVELS.index(name) for name in names]
    survives = tuple(next(at for at, each in enumerate(order) if each >= LEVELS.index(need)) for need in needs)
    return tuple(found), survives
