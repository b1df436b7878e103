"""The machine that an emulated cluster is by its nominal rates: what the simulator needs to predict it, nothing measured."""

from __future__ import annotations

from ...hardware.fabrics.pruned_fat_tree import PrunedFatTree
from ...hardware.machine import Calibration, Machine, load_machine
from ...hardware.node import Node
from .job import TIMER_SLACK
from .shape import Shape
from .tree import burst

IP_AND_TCP, ETHERNET = 52, 14
"""Bytes of headers: IPv4 and TCP with timestamps, inside the packet; Ethernet as a shaper counts it, around the packet."""

_LATENCY = (
    "nominal: ranks that wait look for messages once in the timer slack of their jobs, 200 us; and assumed: tens of"
    " microseconds, typical of TCP over veth devices; not measured here"
)


def machine_of(shape: Shape) -> Machine:
    """A machine file's content for a cluster of this shape; each core computes like one of the catalogue's ``laptop``."""
    laptop = load_machine("laptop")
    packet = shape.transport.mtu
    payload, frame = packet - IP_AND_TCP, packet + ETHERNET
    network = Calibration(
        gemm_efficiency=laptop.calibration.gemm_efficiency,
        network_efficiency=payload / frame,
        message_overhead=10e-6,
        link_burst=burst(shape.transport, shape.node_rate) / shape.node_rate + frame / shape.node_rate,
        update_overhead=laptop.calibration.update_overhead,
        tokens_per_node=laptop.calibration.tokens_per_node,
    )
    fabric = PrunedFatTree(
        supernode=shape.nodes,
        taper=shape.taper,
        latency_node=5e-6,
        latency_supernode=TIMER_SLACK + 20e-6,
        latency_top=TIMER_SLACK + 30e-6,
    )
    node = Node(
        core_groups=1,
        ring_bandwidth=laptop.node.ring_bandwidth,
        interfaces=1,
        interface_bandwidth=shape.node_rate,
    )
    return Machine(
        name=f"emulated-{shape.supernodes}x{shape.nodes}",
        description=f"Emulated cluster: {shape.supernodes} supernodes of {shape.nodes} nodes on one computer, nominal rates",
        nodes=shape.supernodes * shape.nodes,
        core_group=laptop.core_group,
        node=node,
        fabric=fabric,
        calibration=network,
        sources=_sources(laptop, payload, frame),
    )


def _sources(laptop: Machine, payload: int, frame: int) -> dict[str, str]:
    cores = {key: f"machine laptop: {said}" for key, said in laptop.sources.items() if key.startswith("core_group")}
    return {
        **cores,
        "nodes": "nominal: the cluster's shape",
        "node.core_groups": "nominal: one rank a node",
        "node.inside": "irrelevant: one rank a node",
        "node.ring_bandwidth": f"machine laptop: {laptop.source('node.ring_bandwidth')}; one rank a node uses none",
        "node.interfaces": "nominal: one veth device",
        "node.interface_bandwidth": "nominal: the rate of the node's shapers",
        "fabric": "nominal: the cluster's shape; an uplink is one link, so that routes need no choice",
        "fabric.latency_node": "assumed: ranks of a node share memory",
        "fabric.latency_supernode": _LATENCY,
        "fabric.latency_top": _LATENCY,
        "calibration": f"machine laptop: {laptop.source('calibration.gemm_efficiency')}",
        "calibration.network_efficiency": "nominal: payload share of TCP in Ethernet frames as htb counts them: "
        f"{payload} of {frame} bytes",
        "calibration.link_burst": "nominal: what the shapers of a node let pass at once, and the packet that they never hold",
        "calibration.message_overhead": "assumed: two system calls and a wake-up",
    }
