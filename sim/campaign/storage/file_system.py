"""How long a checkpoint is on its way: the file system's servers, the nodes' own cards, and the fabric between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....hardware.machine import Machine
from ....hardware.site.storage import Storage
from ....workloads.plan.setting import Setting


@dataclass(frozen=True)
class FileTransfer:
    """Seconds of a transfer between nodes and the file system, and what limits it."""

    seconds: float
    limit: str


def transfer(
    machine: Machine, storage: Storage, nodes: int, nbytes: float, files: int, reading: bool = False
) -> FileTransfer:
    """``nbytes`` in all that ``nodes`` nodes read or write, each its share, as so many files.

    The file system hangs at the top of the fabric: on a tree, what leaves a domain crosses that domain's links. All
    limits hold at once, so that the tightest one counts.
    """
    each = nbytes / nodes
    client = min(machine.injection, storage.client or machine.injection)
    limits = {
        "servers": nbytes / (storage.read if reading else storage.write),
        "nodes": each / client,
        "metadata": files / storage.metadata_rate,
    }
    for level in (machine.fabric.levels(nodes, machine.injection) or [])[1:]:
        fullest = int(np.bincount(level.domain).max())
        limits[f"links of {level.name}"] = fullest * each / (level.capacity * level.cables)
    limit = max(limits, key=lambda name: limits[name])
    return FileTransfer(storage.latency + limits[limit], limit)


def copy_seconds(setting: Setting, nodes: int, nbytes: float) -> float:
    """Seconds that every node takes to copy its share of a checkpoint to its own memory, from which it is written later.

    Over the links to its host, where it has one; else within the memory of its core groups, which is read and written.
    """
    machine, each = setting.machine, nbytes / nodes
    node = machine.node
    if node.host_link is not None and node.host_memory_bandwidth is not None:
        return each / min(node.core_groups * node.host_link, node.host_memory_bandwidth)
    return each / (node.core_groups * machine.core_group.memory_bandwidth / 2.0)


def neighbour_seconds(machine: Machine, nodes: int, nbytes: float) -> float:
    """Seconds in which every node sends its share to a neighbour, and receives as much."""
    return nbytes / nodes / machine.injection
