"""Which clusters there are: a file for each, in a folder that only their owner can write."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...hardware.errors import InputError, suggestion
from .holder import Holder
from .shape import Shape


@dataclass(frozen=True)
class ClusterState:
    """A cluster by name: its shape, and its holder; None on the loopback device, which nothing has to hold."""

    name: str
    shape: Shape
    holder: Holder | None

    def save(self) -> None:
        """Write the state's file, whole or not at all."""
        holder = {"pid": self.holder.pid, "born": self.holder.born} if self.holder else None
        table = {"name": self.name, "holder": holder, "shape": self.shape.model_dump()}
        path = _path(self.name)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(table, indent=1), encoding="utf-8")
        beside.replace(path)

    def forget(self) -> None:
        """Remove the state's file."""
        _path(self.name).unlink(missing_ok=True)


def folder() -> Path:
    """The folder of the states, made where it is missing; raises :class:`InputError` where it belongs to someone else."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    # Without it /tmp, as tmux and X11 have their sockets: TMPDIR differs between shells, and all have to find one cluster.
    path = Path(base) / "athanor" if base else Path(f"/tmp/athanor-{os.getuid()}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as reason:
        raise InputError(f"{path}: cannot be made: {reason.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(f"{path}: must be a folder that only you can write; set XDG_RUNTIME_DIR to another place")
    return path


@contextmanager
def locked() -> Iterator[None]:
    """Alone among all that start and end clusters."""
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def states() -> list[ClusterState]:
    """The clusters that run; what is left of one whose holder has died is removed."""
    found = []
    for path in sorted(folder().glob("*.json")):
        state = _read(path)
        if state and state.holder and not state.holder.alive:
            state.forget()
        elif state:
            found.append(state)
    return found


def require_free(name: str) -> None:
    """Raise :class:`InputError` where a cluster of this name is up, or its file is one that cannot be read."""
    if any(state.name == name for state in states()):
        raise InputError(f"--name {name}: this cluster is up already; take it down first, or choose another --name")
    if _path(name).exists():
        raise InputError(
            f"{_path(name)}: not the state of a cluster of this version; remove it, or choose another --name"
        )


def _read(path: Path) -> ClusterState | None:
    """A state; None where the file is not one, as another version may have left it."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        holder = Holder(**table["holder"]) if table["holder"] else None
        return ClusterState(table["name"], Shape.model_validate(table["shape"]), holder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find(name: str) -> ClusterState:
    """The cluster ``name``; raises :class:`InputError` that says which there are."""
    running = {state.name: state for state in states()}
    if name in running:
        return running[name]
    if not running:
        raise InputError(f"--name {name}: no emulated cluster is up; athanor cluster up makes one")
    raise InputError(f"--name {name}: no such cluster is up{suggestion(name, running)}")


def _path(name: str) -> Path:
    return folder() / f"{name}.json"
