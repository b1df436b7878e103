"""Checkpoints: every rank writes its shard, one manifest says that they are whole, and any mesh can read them.

A shard is an ``.npz`` file. Of each tensor that the rank updates it has the elements' places in the whole tensor, their weights,
master copies and optimizer's state. What several ranks have is written by one of them. Beside it lies what the rank's balancing
policy has seen (:mod:`.balancing_memory`). Files go into a folder that has another
name until the manifest, which has a checksum of every shard, is in it: so a checkpoint is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...hardware.records import parsed_json
from ...workloads.mesh.mesh_text import mesh_text
from ...workloads.plan.setting import Setting
from ..job.world import World
from ..training.transformer.training import ModelTraining
from .balancing_memory import memory_of, remember
from .whole_tensors import WholeTensors, shard_of

Array = NDArray[Any]

Told = tuple[str, dict[str, Any] | None]
"""A file's name, and what the manifest says of it; None where it was not written."""

FORMAT = "athanor-checkpoint/1"
MANIFEST = "manifest.json"
PARTIAL = ".partial"


def kind_of_run(setting: Setting, data: str) -> dict[str, Any]:
    """What has to be the same in a run and in the one that it goes on with, whatever their meshes."""
    plan = setting.plan
    return {
        "model": setting.model.model_dump(mode="json", exclude={"plan", "sources", "description"}),
        "data": data,
        "precision": plan.precision,
        "optimizer": plan.optimizer,
    }


def routed(setting: Setting) -> dict[str, Any]:
    """What has to be the same for a balancing policy to go on with what it has seen."""
    return {
        "mesh": mesh_text(dict(zip(setting.mesh.axes, setting.mesh.shape, strict=True))),
        "balancer": setting.plan.balancer,
        "micro_batches": setting.batch.micro_batches,
    }


def folder_of(out: Path, step: int) -> Path:
    """The folder of the checkpoint after so many steps."""
    return out / f"step-{step:08d}"


def latest(path: Path) -> Path:
    """The checkpoint that a path names: its own folder, or the last whole one in it; raises :class:`InputError` where none is."""
    if (path / MANIFEST).is_file():
        return path
    found = sorted(each.parent for each in path.glob(f"step-*/{MANIFEST}") if not each.parent.name.endswith(PARTIAL))
    if not found:
        raise InputError(f"--resume {path}: has no whole checkpoint (a folder step-N with {MANIFEST})")
    return found[-1]


def write(world: World, training: ModelTraining, out: Path, step: int, manifest: Mapping[str, Any]) -> Path:
    """Write a checkpoint; a collective call. Where a disk fails: :class:`InputError` on one rank, ``Ended`` on others."""
    target = folder_of(out, step)
    partial = target.with_name(target.name + PARTIAL)
    world.agree(lambda: _make(partial) if world.first else None)
    name = f"rank-{world.rank:05d}.npz"
    shard = world.agree(lambda: _write_arrays(partial / name, shard_of(training)))
    seen = f"balancing-{world.rank:05d}.npz"
    memory = world.agree(lambda: _write_memory(partial / seen, training))
    found = world.comm.gather(((name, shard), (seen, memory)))
    world.agree(lambda: _complete(partial, target, manifest, found) if found is not None else None)
    return target


def _make(partial: Path) -> None:
    try:
        if partial.exists():
            shutil.rmtree(partial)  # of a job that ended while it wrote
        partial.mkdir(parents=True)
    except OSError as reason:
        raise InputError(f"{partial}: cannot be written: {reason.strerror}") from None


def _write_memory(path: Path, training: ModelTraining) -> dict[str, Any] | None:
    """Write what this rank's balancing policy has seen; None where that is nothing."""
    memory = memory_of(training.routing) if training.routing else {}
    return _write_arrays(path, memory) if memory else None


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Write an ``.npz`` file; returns what the manifest says about it."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    _write_through(path, content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write_through(path: Path, content: bytes) -> None:
    """Write a file to the disk."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        raise InputError(f"{path}: cannot be written: {reason.strerror}") from None


def _complete(partial: Path, target: Path, manifest: Mapping[str, Any], found: list[tuple[Told, Told]]) -> None:
    files = {
        "shards": dict(shard for shard, _ in found),
        "balancing": {name: told for _, (name, told) in found if told is not None},
    }
    text = json.dumps({"format": FORMAT, **manifest, **files}, indent=1) + "\n"
    _write_through(partial / MANIFEST, text.encode())
    try:
        if target.exists():  # the same steps, done once more
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as reason:
        raise InputError(f"{target}: cannot be written: {reason.strerror}") from None


@dataclass
class Checkpoint:
    """A checkpoint that is read: its manifest, and the whole tensors of which a rank takes its parts.

    Raises :class:`InputError` where something is missing or not what the manifest says.
    """

    path: Path
    manifest: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.manifest = parsed_json((self.path / MANIFEST).read_text())
        except (OSError, ValueError) as reason:
            raise InputError(f"--resume {self.path}: {MANIFEST} cannot be read: {reason}") from None
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise InputError(f"--resume {self.path}: {MANIFEST} is of another format; needs {FORMAT}")

    def require(self, key: str, value: Any, option: str) -> None:
        """Raise :class:`InputError` where the run that is resumed was of another kind."""
        if self.manifest.get(key) != value:
            raise InputError(f"--resume {self.path}: {option} was {self.manifest.get(key)}, and is {value} now")

    def restore(self, training: ModelTraining) -> None:
        """Give a rank the weights, copies and state that it holds of the checkpoint."""
        found = WholeTensors(f"--resume {self.path}", list(self._shards()))
        found.restore(training, int(self.manifest["updates"]))

    def routed_as(self, setting: Setting) -> bool:
        """Whether tokens went as they go in a setting."""
        return all(self.manifest.get(key) == value for key, value in routed(setting).items())

    def remember(self, training: ModelTraining, rank: int) -> None:
        """Give a rank what its balancing policy had seen, on the mesh on which it saw it."""
        name = f"balancing-{rank:05d}.npz"
        told = self.manifest.get("balancing", {}).get(name)
        if told is not None and training.routing is not None:
            remember(training.routing, self._arrays(name, told))

    def _shards(self) -> Iterator[dict[str, Array]]:
        for name, told in self.manifest["shards"].items():
            yield self._arrays(name, told)

    def _arrays(self, name: str, told: Mapping[str, Any]) -> dict[str, Array]:
        try:
            content = (self.path / name).read_bytes()
        except OSError as reason:
            raise InputError(f"--resume {self.path}: {name} cannot be read: {reason.strerror}") from None
        if hashlib.sha256(content).hexdigest() != told["sha256"]:
            raise InputError(f"--resume {self.path}: {name} is not what {MANIFEST} says (sha256)")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
