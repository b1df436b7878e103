"""Rail-optimised islands: GPUs on an NVSwitch, and one network for each place on it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ..units import BytesPerSecond, Ratio, SecondsOrZero
from .fabric import Array, Fabric, Index, Leg, LinkKind, in_order


class Rails(Fabric):
    """``islands`` islands of ``island`` GPUs: an NVSwitch inside each, and across them a switch a rail.

    A node here is one GPU. It has a port to its island's NVSwitch and a network card to the switch of its rail, which
    the GPUs in the same slot of all islands share (NVIDIA DGX SuperPOD reference architecture; Qian et al., Alibaba
    HPN, SIGCOMM 2024). Both lie behind the node's interface, whose rate bounds what a GPU sends in all: give it the
    sum of the two where they do not hinder each other.

    Inside an island a message crosses the NVSwitch. To the same slot of another island it crosses that rail's switch.
    To another slot there are two ways. ``pxn`` goes over the NVSwitch to the GPU in the target's slot, and from there
    over its card and its rail (NCCL 2.12's PXN; the message loads that GPU's port and card, but not its interface).
    ``spine`` goes over the sender's own card, and from its rail's switch over the spine to the target's rail: the
    uplinks of a rail's switch are one resource of ``spine_taper`` of what its cards inject.

    NVSwitch and rail switches never are the bottleneck themselves. Links are numbered kind by kind, those of cards and
    ports by their node, those of the spine by their rail.
    """

    kind: Literal["rails"] = "rails"
    routing: Literal["pxn", "spine"] = "pxn"
    islands: int = Field(ge=1)
    island: int = Field(ge=1)
    island_bandwidth: BytesPerSecond
    rail_bandwidth: BytesPerSecond
    spine_taper: Ratio
    latency_island: SecondsOrZero
    latency_rail: SecondsOrZero
    latency_spine: SecondsOrZero

    @property
    def supernode(self) -> int:
        """GPUs of an island."""
        return self.island

    def check(self, nodes: int) -> None:
        """Raise ``ValueError`` unless the islands hold exactly so many nodes: PXN needs a GPU in every slot."""
        if nodes != self.islands * self.island:
            raise ValueError(
                f"nodes is {nodes:,}: {self.islands:,} islands of {self.island} have {self.islands * self.island:,}"
            )

    def kinds(self, nodes: int, injection: float, efficiency: float = 1.0) -> list[LinkKind]:
        """Ports of NVSwitches, cards and the spine of all islands: messages pass GPUs that are not used."""
        gpus, card = self.islands * self.island, efficiency * self.rail_bandwidth
        rates = {
            "island": (efficiency * self.island_bandwidth, gpus),
            "rail": (card, gpus),
            "spine": (self.spine_taper * self.islands * card, self.island),
        }
        return [LinkKind(f"{name}.{way}", *rate, name) for name, rate in rates.items() for way in ("out", "in")]

    def routes(self, source: Index, target: Index, nodes: int) -> Index:
        """Two links inside an island or along a rail, four from rail to rail."""
        gpus = self.islands * self.island
        here, slot = np.divmod(source, self.island)
        there, wanted = np.divmod(target, self.island)
        near = here == there
        crosses = ~near & (slot != wanted)
        if self.routing == "pxn":
            # The GPU that sends: the one in the target's slot, over the NVSwitch unless it is the source itself.
            sender = here * self.island + wanted
            inside = near | crosses
            hops = [
                np.where(inside, source, -1),
                np.where(inside, gpus + sender, -1),
                np.where(near, -1, 2 * gpus + sender),
                np.where(near, -1, 3 * gpus + target),
            ]
        else:
            hops = [
                np.where(near, source, 2 * gpus + source),
                np.where(crosses, 4 * gpus + slot, -1),
                np.where(crosses, 4 * gpus + self.island + wanted, -1),
                np.where(near, gpus + target, 3 * gpus + target),
            ]
        return in_order(hops, len(source))

    def legs(self, nodes: int) -> tuple[Leg, ...] | None:
        """Of PXN: over the NVSwitch to the target's slot, then along the rail. Who crosses the spine is known of pairs only."""
        if self.routing != "pxn":
            return None
        gpus = self.islands * self.island
        node = np.arange(gpus)

        def inside(source: Index, target: Index) -> Index:
            sender = source // self.island * self.island + target % self.island
            return np.where((source == sender)[:, None], -1, np.stack([source, gpus + sender], axis=1))

        def along(source: Index, target: Index) -> Index:
            here = source // self.island
            sender = here * self.island + target % self.island
            near = (here == target // self.island)[:, None]
            return np.where(near, -1, np.stack([2 * gpus + sender, 3 * gpus + target], axis=1))

        return Leg(node, node % self.island, inside), Leg(node // self.island, node, along)

    def latencies(self, source: Index, target: Index) -> Array:
        """``[n]`` seconds; PXN takes the NVSwitch's and the rail's one after the other."""
        near = source // self.island == target // self.island
        same_rail = source % self.island == target % self.island
        other = self.latency_island + self.latency_rail if self.routing == "pxn" else self.latency_spine
        across = np.where(same_rail, self.latency_rail, other)
        return np.where(source == target, self.latency_node, np.where(near, self.latency_island, across))
