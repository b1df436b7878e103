"""Small machines for tests, built in code."""

from athanor.hardware.core_group import CoreGroup
from athanor.hardware.fabrics import PrunedFatTree
from athanor.hardware.machine import Calibration, Machine
from athanor.hardware.node import Node


def tree(
    nodes=16,
    supernode=4,
    taper=0.5,
    routing="adaptive",
    core_groups=1,
    inside="ring",
    injection=10.0,
    ring=40.0,
    latencies=(0.0, 0.0, 0.0),
    overhead=0.0,
    **calibration,
):
    """A pruned tree whose ``Loop`` steps take one second each, so that tests can prescribe compute times."""
    group = CoreGroup(
        management_cores=1,
        compute_cores=4,
        clock=1e9,
        peak={"fp64": 1e9, "fp32": 1e9, "fp16": 4e9},
        memory=1e9,
        memory_bandwidth=1e9,
        dma_read=1.0,
        dma_write=1.0,
        local_memory=65536.0,
        pooled_local_memory=True,
        double_buffering=True,
        operator_overhead=0.0,
        scalar_step=1.0,
    )
    fabric = PrunedFatTree(
        supernode=supernode,
        taper=taper,
        routing=routing,
        latency_node=latencies[0],
        latency_supernode=latencies[1],
        latency_top=latencies[2],
    )
    values = {"gemm_efficiency": 1.0, "network_efficiency": 1.0, "update_overhead": 0.0, "tokens_per_node": 64}
    return Machine(
        name="test-tree",
        nodes=nodes,
        core_group=group,
        node=Node(
            core_groups=core_groups,
            inside=inside,
            ring_bandwidth=ring,
            interfaces=1,
            interface_bandwidth=injection,
        ),
        fabric=fabric,
        calibration=Calibration(message_overhead=overhead, **{**values, **calibration}),
        sources=dict.fromkeys(("nodes", "core_group", "node", "fabric", "calibration"), "made up for a test"),
    )
