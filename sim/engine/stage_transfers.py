"""What stages of a pipeline hand to each other: seconds of each message where all send at once, and the links they load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...workloads.pipelines import Kind
from ...workloads.schedule.work import Exchange
from ..network.links import Array, LinkLoads
from ..network.phases.transfers import Traffic


@dataclass(frozen=True)
class Handover:
    """Messages from every stage to the next (``F``) or the one before (``B``), from each rank to the one in its place there.

    ``seconds`` has the mesh's shape, by sender; ``loads`` are the bytes of one message of each sender, and ``limit`` the kind of
    link that holds the slowest back. The last stage sends to the first only where a pipeline ``wraps`` around, as one of
    several chunks does.
    """

    seconds: Array
    limit: str
    loads: LinkLoads

    @classmethod
    def of(
        cls, traffic: Traffic, activations: Exchange, kind: Kind, wraps: bool, sends: Sequence[int] | None = None
    ) -> Handover:
        """The messages of one direction; with ``sends``, by stage, each counts so many times in the loads."""
        mesh = traffic.layout.mesh
        members = mesh.groups(activations.axes)
        by = 1 if kind == "F" else -1
        chosen = np.ones(members.shape, dtype=np.bool_)
        if not wraps:
            chosen[:, -1 if kind == "F" else 0] = False
        source, target = members[chosen], np.roll(members, -by, axis=1)[chosen]
        sent = mesh.full(np.asarray(activations.nbytes, dtype=np.float64))[source]
        demand, loads = traffic.phases.one_each(source[:, None], target[:, None], sent[:, None])
        finish, limit = demand.alone
        node = traffic.layout.node
        latency = traffic.machine.fabric.latencies(node[source], node[target])
        seconds = np.zeros(mesh.ranks)
        seconds[source] = demand.group_seconds(finish) + latency + traffic.machine.calibration.message_overhead
        if sends is not None:
            times = np.broadcast_to(np.array(sends, dtype=np.float64), members.shape)[chosen]
            loads = traffic.phases.one_each(source[:, None], target[:, None], (sent * times)[:, None])[1]
        return cls(seconds.reshape(mesh.shape), limit, loads)
