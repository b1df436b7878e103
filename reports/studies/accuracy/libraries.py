"""What the software of a run does that its plan does not say, as its documentation describes it; runs name their library."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ....hardware.errors import InputError, suggestion
from ....hardware.machine import Machine
from ....hardware.records import Record, build, read_toml
from ...published.run import PublishedRun

TABLE = Path(__file__).parent / "libraries.toml"

OVER = {
    "tensor_overlap": ("tp",),
    "tensor_async": ("tp",),
    "sequence_parallel": ("tp",),
    "scatter_gather": ("tp", "pp"),
}
"""Options of a library that say nothing without these axes."""


class Library(Record):
    """How a library runs a step: ``plan`` has keys of run files, ``set`` keys of the machine file that are the library's."""

    name: str
    title: str
    plan: dict[str, Any]
    set: dict[str, Any] = {}
    compiled: bool = False
    source: str

    @property
    def assumed(self) -> str:
        """What a prediction says of it."""
        told = [f"{self.plan['attention']} attention"] if "attention" in self.plan else []
        told += ["gradients overlapped"] if self.plan.get("overlap", "none") != "none" else []
        told += ["gathers of weights overlapped"] if self.plan.get("overlap") == "all" else []
        return f"{self.title}: {', '.join(told)}"

    def plan_on(self, mesh: Mapping[str, int]) -> dict[str, Any]:
        """Its plan on a mesh, without what says nothing there."""
        return {
            key: value for key, value in self.plan.items() if all(mesh.get(axis, 1) > 1 for axis in OVER.get(key, ()))
        }

    def on(self, machine: Machine) -> Machine:
        """The machine under it; what it says of GPUs' kernels and framework concerns no other accelerator."""
        lacks = [name for name in ("tiles", "framework") if getattr(machine.core_group, name) is None]
        changes = {key: value for key, value in self.set.items() if not any(name in key.split(".") for name in lacks)}
        return machine.changed(changes) if changes else machine


def library_of(run: PublishedRun) -> Library | None:
    """The library that a run names, None where it names none; raises :class:`InputError` for one that there is not."""
    if run.library is None:
        return None
    known = {each.name: each for each in libraries()}
    if run.library not in known:
        raise InputError(f"library {run.library}: no such library{suggestion(run.library, sorted(known))}")
    return known[run.library]


@lru_cache
def libraries() -> tuple[Library, ...]:
    """All of them."""
    return tuple(build(Library, each, f"{TABLE.name}: {each.get('name')}") for each in read_toml(TABLE)["library"])
