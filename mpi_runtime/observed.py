"""From what all ranks measured to the Run: the same books as the simulator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..workloads.ledger import Ledger, last_to_come
from ..workloads.loads import Load
from ..workloads.schedule import Exchange, Schedule
from ..workloads.summary import Exposed

Array = NDArray[np.float64]

MOST_OBSERVED = 64
"""Ranks whose operations a trace lists; of more, that many are taken at equal distances."""


@dataclass(frozen=True)
class Step:
    """A measured step: seconds, where they went, and the rows of its trace."""

    seconds: float
    exposed: Exposed
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Tokens:
    """What a rank saw of one layer and micro-batch: tokens of its own by rank wanted, and what became of them."""

    wanted: NDArray[np.int64]  # [top_k, ranks]
    carried: int
    moved: int
    dropped: int


def classes(schedule: Schedule) -> dict[str, tuple[int, ...]]:
    """Name and coordinate of the ranks that a trace lists."""
    mesh = schedule.mesh
    ranks = np.unique(np.linspace(0, mesh.ranks - 1, min(mesh.ranks, MOST_OBSERVED)).round().astype(int))
    return {f"rank {rank}": tuple(int(at) for at in np.unravel_index(rank, mesh.shape)) for rank in ranks}


def account(
    schedule: Schedule, begin: Array, end: Array, nbytes: Array, observed: Mapping[str, tuple[int, ...]]
) -> Step:
    """Keep the books of a step from when each rank began and ended each operation, ``[ranks, operations]`` from its start.

    ``nbytes`` are the payloads that exchanges really had. A collective counts from when the last member of its group has come.
    """
    mesh = schedule.mesh
    operations = tuple(
        replace(each, work=replace(each.work, nbytes=nbytes[:, number].reshape(mesh.shape)))
        if isinstance(each.work, Exchange)
        else each
        for number, each in enumerate(schedule.operations)
    )
    ledger = Ledger(replace(schedule, operations=operations), observed)
    for number, operation in enumerate(operations):
        ready = ledger.ready(number)
        came, went = begin[:, number].reshape(mesh.shape), end[:, number].reshape(mesh.shape)
        if isinstance(operation.work, Exchange):
            came = np.minimum(last_to_come(came, mesh.positions(operation.work.axes)), went)
        ledger.done(number, ready, came, went, "measured")
    return Step(ledger.close(), ledger.exposure.seconds, ledger.rows)


def load(tokens: Sequence[Tokens], schedule: Schedule, copies: int) -> Load:
    """The load of one layer from what every rank of the mesh saw; ``copies`` are the (token, choice) pairs of a rank."""
    mesh = schedule.mesh
    groups = mesh.groups(("ep",))
    wanted = np.array([[tokens[rank].wanted.sum(axis=0) for rank in group] for group in groups]).sum(axis=1)
    carried = np.array([[tokens[rank].carried for rank in group] for group in groups])
    every = np.array([each.carried for each in tokens], dtype=np.float64).reshape(mesh.shape)
    total = mesh.ranks * copies
    return Load(
        sent=float(copies),
        received=every,
        wanted=wanted[0],
        carried=carried[0],
        wanted_max_over_mean=float(wanted.max() / copies),
        max_over_mean=float((carried.max(axis=1) / np.maximum(carried.mean(axis=1), 1e-300)).max()),
        moved_fraction=sum(each.moved for each in tokens) / total,
        dropped_fraction=sum(each.dropped for each in tokens) / total,
    )
