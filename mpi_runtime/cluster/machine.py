"""The machine file of an emulated cluster: what the simulator predicts it from, nominal rates alone."""

from __future__ import annotations

from ...hardware.fabrics.pruned_fat_tree import PrunedFatTree
from ...hardware.machine import Calibration, Machine, load_machine
from ...hardware.node import Node
from .shape import Shape

COMPUTE = "laptop"
"""The catalogue's machine whose core a node has: the cluster decides nothing about compute."""

LATENCY_SUPERNODE, LATENCY_TOP, OVERHEAD = 30e-6, 40e-6, 20e-6
"""Seconds of an empty message within a supernode and across, and of a message's handling: typical of TCP over veth devices."""

_ASSUMED = "assumed: typical of TCP over veth devices and bridges, tens of microseconds; not measured here"
_NOMINAL = "nominal: the rate that the emulated cluster's links are shaped to"


def machine_of(shape: Shape) -> Machine:
    """The machine that an emulated cluster of this shape stands for; nothing in it is fitted or measured."""
    core = load_machine(COMPUTE)
    transport = shape.transport
    wire = f"{transport.mtu - 52} of {transport.mtu + 14} bytes"
    return Machine(
        name=f"emulated-{shape.supernodes}x{shape.nodes}",
        description=f"An emulated pruned fat tree: {shape.supernodes} supernodes of {shape.nodes} namespaces, one core each",
        nodes=shape.supernodes * shape.nodes,
        core_group=core.core_group,
        node=Node(
            core_groups=1,
            ring_bandwidth=core.node.ring_bandwidth,
            interfaces=1,
            interface_bandwidth=shape.node_rate,
        ),
        fabric=PrunedFatTree(
            supernode=shape.nodes,
            taper=shape.taper,
            routing="adaptive",
            latency_node=1e-6,
            latency_supernode=LATENCY_SUPERNODE,
            latency_top=LATENCY_TOP,
        ),
        calibration=Calibration(
            gemm_efficiency=core.calibration.gemm_efficiency,
            network_efficiency=transport.payload_share,
            message_overhead=OVERHEAD,
            update_overhead=0.0,
            tokens_per_node=core.calibration.tokens_per_node,
        ),
        sources={
            "nodes": "nominal: the namespaces of the emulated cluster",
            "core_group": f"assumed: a core as the catalogue's {COMPUTE} has it",
            "node": _NOMINAL,
            "node.core_groups": "nominal: one rank's worth of a node",
            "node.ring_bandwidth": f"assumed: as the catalogue's {COMPUTE} has it; with one rank a node nothing uses it",
            "fabric": "nominal: the tree as it is built",
            "fabric.taper": "nominal: the rate that uplinks are shaped to, over what their nodes send",
            "fabric.routing": "nominal: one uplink, which all share",
            "fabric.latency_node": f"assumed: as the catalogue's {COMPUTE} has it",
            "fabric.latency_supernode": _ASSUMED,
            "fabric.latency_top": _ASSUMED,
            "calibration": f"assumed: as the catalogue's {COMPUTE} has it",
            "calibration.network_efficiency": f"nominal: payload share of TCP in Ethernet frames as htb counts them: {wire}",
            "calibration.message_overhead": _ASSUMED,
        },
    )
