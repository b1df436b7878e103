"""Checkpoints: every rank writes its shard, one manifest says that they are whole, and any mesh can read them.

A shard is an ``.npz`` file. Of each tensor that the rank updates it has the elements' places in the whole tensor, their weights,
master copies and optimizer's state. What several ranks have is written by one of them. Shards go into a folder that has another
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
from ..job.world import World
from ..training.optimizer_rounds import HeldTensor
from ..training.transformer.training import ModelTraining
from ..training.transformer.weights.holdings import Flat, ModelHoldings, ShardPiece
from ..training.transformer.weights.tensors import index_of, tensors_of

Array = NDArray[Any]

FORMAT = "athanor-checkpoint/1"
MANIFEST = "manifest.json"
PARTIAL = ".partial"


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
    shard = world.agree(lambda: _write_shard(partial / name, training))
    shards = world.comm.gather((name, shard))
    world.agree(lambda: _complete(partial, target, manifest, shards) if shards is not None else None)
    return target


def _make(partial: Path) -> None:
    try:
        if partial.exists():
            shutil.rmtree(partial)  # of a job that ended while it wrote
        partial.mkdir(parents=True)
    except OSError as reason:
        raise InputError(f"{partial}: cannot be written: {reason.strerror}") from None


def _write_shard(path: Path, training: ModelTraining) -> dict[str, Any]:
    """Write this rank's shard; returns what the manifest says about it."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(_arrays(training)))
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


def _complete(partial: Path, target: Path, manifest: Mapping[str, Any], shards: list[tuple[str, Any]]) -> None:
    text = json.dumps({"format": FORMAT, **manifest, "shards": dict(shards)}, indent=1) + "\n"
    _write_through(partial / MANIFEST, text.encode())
    try:
        if target.exists():  # the same steps, done once more
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as reason:
        raise InputError(f"{target}: cannot be written: {reason.strerror}") from None


def _arrays(training: ModelTraining) -> Iterator[tuple[str, Array]]:
    """Names and arrays of this rank's shard."""
    holdings = training.holdings
    for flat, each in holdings.tensors:
        if len(each.index) and _writes(holdings, flat):
            name = str(each.name)
            yield f"{name}/index", _runs(each.index)
            yield f"{name}/weights", flat.share[each.here]
            if flat.master is not None:
                yield f"{name}/master", flat.master[each.here]
            for slot, values in each.state.items():
                yield f"{name}/state.{slot}", values


def _writes(holdings: ModelHoldings, flat: Flat) -> bool:
    """Whether this rank, of all that have the same, writes a vector."""
    shards, place = flat.shards, holdings.place
    return not any(place.me(axis) for axis in shards.replicas if axis not in shards.axes)


def _runs(index: Array) -> Array:
    """Places as first places and lengths of their runs, ``[runs, 2]``."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    starts = np.concatenate([[0], breaks])
    return np.stack([index[starts], np.diff(np.concatenate([starts, [len(index)]]))], axis=1)


def _places(runs: Array) -> Array:
    """And back."""
    return np.concatenate([np.arange(start, start + count) for start, count in runs])


@dataclass
class Checkpoint:
    """A checkpoint that is read: its manifest, and the whole tensors of which a rank takes its parts.

    Raises :class:`InputError` where something is missing or not what the manifest says.
    """

    path: Path
    manifest: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.manifest = json.loads((self.path / MANIFEST).read_text())
        except (OSError, ValueError) as reason:
            raise InputError(f"--resume {self.path}: {MANIFEST} cannot be read: {reason}") from None
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise InputError(f"--resume {self.path}: {MANIFEST} is of another format; needs {FORMAT}")
        self._parts: dict[str, list[tuple[Array, Array]]] = {}

    def require(self, key: str, value: Any, option: str) -> None:
        """Raise :class:`InputError` where the run that is resumed was of another kind."""
        if self.manifest.get(key) != value:
            raise InputError(f"--resume {self.path}: {option} was {self.manifest.get(key)}, and is {value} now")

    def restore(self, training: ModelTraining) -> None:
        """Give a rank the weights, copies and state that it holds of the checkpoint."""
        self._read()
        holdings = training.holdings
        holdings.updates = int(self.manifest["updates"])
        for flat in holdings.flats:
            for piece in flat.pieces:
                self._weights(holdings, flat, piece)
        for flat, each in holdings.tensors:
            self._state(flat, each)

    def _read(self) -> None:
        for name, told in self.manifest["shards"].items():
            try:
                content = (self.path / name).read_bytes()
            except OSError as reason:
                raise InputError(f"--resume {self.path}: {name} cannot be read: {reason.strerror}") from None
            if hashlib.sha256(content).hexdigest() != told["sha256"]:
                raise InputError(f"--resume {self.path}: {name} is not what {MANIFEST} says (sha256)")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                for key in arrays.files:
                    tensor, _, what = key.rpartition("/")
                    if what != "index":
                        places = _places(arrays[f"{tensor}/index"])
                        self._parts.setdefault(key, []).append((places, arrays[key]))

    def _found(self, key: str) -> list[tuple[Array, Array]]:
        if key not in self._parts:
            raise InputError(f"--resume {self.path}: has no {key}; optimizer and formats must be those of the run")
        return self._parts[key]

    def _whole(self, key: str, size: int) -> Array:
        """A whole tensor, from the parts in all shards."""
        parts = self._found(key)
        whole, known = np.zeros(size, dtype=parts[0][1].dtype), np.zeros(size, dtype=bool)
        for places, values in parts:
            whole[places], known[places] = values, True
        if not known.all():
            raise InputError(f"--resume {self.path}: lacks {np.count_nonzero(~known):,} of {size:,} numbers of {key}")
        return whole

    def _of_share(self, key: str, index: Array) -> Array:
        """What an optimizer keeps for a rank's share as a whole: only ranks with the same share can take it over."""
        for places, values in self._found(key):
            if np.array_equal(places, index):
                return values
        raise InputError(
            f"--resume {self.path}: {key} is kept by share, and shares were others: needs the mesh of the run"
        )

    def _weights(self, holdings: ModelHoldings, flat: Flat, piece: ShardPiece) -> None:
        """Weights of all that the rank keeps."""
        for of in tensors_of(piece.weight, holdings.sizes):
            index = index_of(piece.weight, of, holdings.sizes, holdings.place)
            values = self._whole(f"{of.name_in(piece.weight)}/weights", of.tensor.size)[index]
            start = piece.start + (of.row or 0) * piece.shape[1]
            if flat.weights is not None:
                flat.weights[start : start + len(index)] = values
            low, high = flat.inside(start, start + len(index), flat.shards.mine)
            if low < high:
                flat.share[start + low - flat.first : start + high - flat.first] = values[low:high]

    def _state(self, flat: Flat, each: HeldTensor) -> None:
        if flat.master is not None and len(each.index):
            flat.master[each.here] = self._whole(f"{each.name}/master", each.tensor.size)[each.index]
        if not len(each.index):
            return
        for slot, values in each.state.items():
            key = f"{each.name}/state.{slot}"
            if slot in each.rule.kept(each.tensor):
                values[...] = self._found(key)[0][1]
            elif len(values) == len(each.index):
                values[...] = self._whole(key, each.tensor.size)[each.index]
            else:
                values[...] = self._of_share(key, each.index)
