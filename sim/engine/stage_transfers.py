"""What stages of a pipeline hand to each other: seconds of each message where all send at once, and the links they load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...hardware.fabrics.fabric import LinkKind
from ...hardware.message_costs import HANDED
from ...workloads.pipelines import Kind
from ...workloads.schedule.work import Exchange
from ..network.links import Array, Index, LinkLoads
from ..network.phases.transfers import Traffic
from .stage_cards import Slowing


@dataclass(frozen=True)
class Handover:
    """Messages from every stage to the next (``F``) or the one before (``B``), from each rank to the one in its place there.

    ``seconds`` has the mesh's shape, by sender, and so has ``wire``, the part of them in which bytes pass (where cards have a
    bucket: that in which bytes would pass without, more than is seen); ``loads`` are the bytes of one message of each sender,
    and ``limit`` the kind of link that holds the slowest back. The last stage sends to the first only where a pipeline ``wraps``
    around, as one of several chunks does.
    """

    seconds: Array
    wire: Array
    limit: str
    loads: LinkLoads

    @classmethod
    def of(
        cls,
        traffic: Traffic,
        activations: Exchange,
        kind: Kind,
        wraps: bool,
        sends: Sequence[int] | None = None,
        passing: Callable[[Index, Index, Array], Array] | None = None,
    ) -> Handover:
        """The messages of one direction; with ``sends``, by stage, each counts so many times in the loads.

        ``passing(source, target, nbytes)`` are the seconds in which their bytes pass; None: while all stages send at once.
        """
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
        start, rate = traffic.costs.start(node[source], node[target], sent, HANDED)
        wire, fixed = np.zeros(mesh.ranks), np.zeros(mesh.ranks)
        passed = passing(source, target, sent) if passing else demand.group_seconds(finish)
        if traffic.costs.measured:  # bytes that processors hand on anyway meanwhile
            start, passed = start + sent / rate, np.maximum(passed - sent / rate, 0.0)
        wire[source], fixed[source] = passed, start
        if sends is not None:
            times = np.broadcast_to(np.array(sends, dtype=np.float64), members.shape)[chosen]
            loads = traffic.phases.one_each(source[:, None], target[:, None], (sent * times)[:, None])[1]
        seen = np.maximum(wire - traffic.costs.burst, 0.0) if traffic.costs.burst else wire
        return cls((seen + fixed).reshape(mesh.shape), wire.reshape(mesh.shape), limit, loads)


@dataclass
class SharedCards:
    """What hand-overs and blocks of a pipeline share: the links that a stage's messages pass, and what blocks send over them.

    Messages inside nodes and messages between nodes take different ways.
    """

    traffic: Traffic
    activations: Exchange
    handovers: Mapping[Kind, Handover]
    wraps: bool
    axis: int
    _ways: dict[tuple[int, int], int] = field(default_factory=dict)
    _parts: dict[tuple[int, int, bool], dict[LinkKind, tuple[Index, Array]]] = field(default_factory=dict)

    def way(self, sender: int, receiver: int) -> int:
        """0 where all messages stay in their nodes, else 1."""
        key = (sender, receiver)
        if key not in self._ways:
            node = self.traffic.layout.node.reshape(self.traffic.layout.mesh.shape)
            ends = (node.take([stage], axis=self.axis) for stage in key)
            self._ways[key] = int(not np.equal(*ends).all())
        return self._ways[key]

    def share(
        self, stage: int, way: int, out: bool, loads: LinkLoads, seconds: float, met: Mapping[str, NDArray[np.bool_]]
    ) -> Slowing:
        """How a stage's messages and a block of ``seconds`` and ``loads`` slow each other, on the link where they do most.

        On links that are ``met``, by kind, what other stages send meets them too.
        """
        found = [Slowing()]
        for kind, (links, parts) in self._taken(stage, way, out).items() if seconds else ():
            if kind.name not in loads.loads:
                continue
            each = kind.each[links] if isinstance(kind.each, np.ndarray) else kind.each
            busy = np.minimum(loads.loads[kind.name][links] / each / seconds, 1.0)
            both = busy > 0
            if both.any():
                crowd = met[kind.name][links] if kind.name in met else np.zeros(len(links), dtype=np.bool_)
                found.append(Slowing.most(busy[both], parts[both], crowd[both]))
        most = max(found, key=lambda each: each.block)
        return most._replace(message=max(each.message for each in found))

    def _taken(self, stage: int, way: int, out: bool) -> dict[LinkKind, tuple[Index, Array]]:
        """Links, by kind, that messages out of a stage, or into it, pass on one way, and the part that they take meanwhile."""
        key = (stage, way, out)
        if key not in self._parts:
            mesh = self.traffic.layout.mesh
            members = mesh.groups(self.activations.axes)
            count, found = members.shape[1], dict[str, Array]()
            nbytes = mesh.full(np.asarray(self.activations.nbytes, dtype=np.float64))
            for kind, handover in self.handovers.items():
                by = 1 if kind == "F" else -1
                sender = stage if out else (stage - by) % count
                receiver = (sender + by) % count
                if (not self.wraps and receiver != sender + by) or self.way(sender, receiver) != way:
                    continue
                source = members[:, sender]
                wire = float(handover.wire.reshape(-1)[source].max())
                if not wire:
                    continue
                ends = source[:, None], members[:, receiver][:, None]
                loads = self.traffic.phases.one_each(*ends, nbytes[source][:, None])[1]
                for link in loads.kinds:
                    if link.name in loads.loads:
                        part = np.minimum(loads.loads[link.name] / link.capacity / wire, 1.0)
                        found[link.name] = np.maximum(found.get(link.name, 0.0), part)
            passed = ((kind, found[kind.name]) for kind in self.traffic.phases.kinds if kind.name in found)
            self._parts[key] = {kind: (np.flatnonzero(parts), parts[parts > 0]) for kind, parts in passed}
        return self._parts[key]
