"""The machine before it is measured: what the job and the system tell of its shape, or another machine whose shape it has."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...hardware.errors import InputError
from ...hardware.fabrics.fabric import UNBOUNDED
from ...hardware.machine import Machine
from ..job.environment import THREADS
from .compute import cache
from .points import KIB, MIB
from .topology import Topology

NO_SOURCE = "assumed: nothing of this was measured"


def like(machine: Machine, topology: Topology) -> Machine:
    """The machine whose structure the job has; raises :class:`InputError` where the job does not fit it."""
    hosts, ranks, groups = topology.hosts, topology.ranks_per_host, machine.node.core_groups
    if hosts > machine.nodes:
        raise InputError(f"--like {machine.name}: has {machine.nodes} nodes, and the job runs on {hosts} hosts")
    if groups % ranks:
        raise InputError(
            f"--like {machine.name}: its nodes have {groups} core groups, which {ranks} ranks a host do not divide evenly"
        )
    return machine


def supernode_of(machine: Machine | None, asked: int | None) -> int:
    """Hosts of a supernode: as asked for, or as many as the machine's have nodes; 0 where none is known."""
    if asked is not None and asked < 1:
        raise InputError(f"--nodes-per-supernode {asked}: must be at least 1")
    if machine is None:
        return asked or 0
    known = machine.with_supernodes_of(asked).fabric.supernode
    return 0 if known == UNBOUNDED else known


def bare(name: str, topology: Topology, ranks_on_kernel: int, precisions: tuple[str, ...]) -> Machine:
    """A machine of the job's shape, whose rates wait to be measured; ``sources`` say what is told, and what assumed.

    A core group is what a rank computes on. One host is a node behind a crossbar that nothing passes; several are nodes of a
    pruned fat tree where supernodes are known, else behind a crossbar.
    """
    threads, clock, second = _threads(), _clock(), cache(2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / ranks_on_kernel
    assumed = {
        "core_group.clock": "" if clock else "assumed: the system does not tell; for the record only",
        "core_group.local_memory": "" if second else "assumed: the system does not tell its caches",
    }
    sources = {
        "nodes": f"counted: {topology.shape}",
        "core_group": NO_SOURCE,
        "core_group.management_cores": "assumed: ranks start their operators themselves",
        "core_group.compute_cores": "counted: threads of a rank that compute",
        "core_group.clock": "told by the system, as of now",
        "core_group.memory": f"told by the system: an equal share for each of {ranks_on_kernel} ranks",
        "core_group.local_memory": "told by the system: a core's second cache",
        "core_group.pooled_local_memory": "assumed: a core's own cache holds its tile",
        "core_group.double_buffering": "assumed: processors fetch ahead",
        "core_group.dma_read": "assumed: nothing of this was measured",
        "node": NO_SOURCE,
        "node.core_groups": f"counted: one for each of {topology.ranks_per_host} ranks on a host",
        "node.interfaces": "assumed: one, which stands for all of a host",
        "fabric": NO_SOURCE,
        "fabric.kind": "assumed: one switch" if not topology.supernode else "given: --nodes-per-supernode",
        "fabric.supernode": "given: --nodes-per-supernode",
        "fabric.routing": "assumed: ways are shared evenly",
        "calibration": NO_SOURCE,
        "calibration.tokens_per_node": "assumed: a batch is a choice, not a property",
        **{key: text for key, text in assumed.items() if text},
    }
    if topology.hosts == 1:
        sources["node.interface_bandwidth"] = "assumed: one host sends nothing over its network"
        sources["fabric"] = "assumed: one host sends nothing over its network"
    return Machine.model_validate(
        {
            "name": name,
            "nodes": topology.hosts,
            "core_group": {
                "management_cores": 0,
                "compute_cores": threads,
                "clock": clock or 1e9,
                "peak": dict.fromkeys(precisions, 1e9),
                "memory": memory,
                "memory_bandwidth": 1e9,
                "dma_read": 1.0,
                "dma_write": 1.0,
                "local_memory": float(second or MIB),
                "pooled_local_memory": False,
                "double_buffering": True,
                "operator_overhead": 0.0,
                "scalar_step": 1e-9,
            },
            "node": {
                "core_groups": topology.ranks_per_host,
                "ring_bandwidth": 1e9,
                "interfaces": 1,
                "interface_bandwidth": 1.25e8,
            },
            "fabric": _fabric(topology),
            "calibration": {
                "gemm_efficiency": 1.0,
                "network_efficiency": 1.0,
                "message_overhead": 0.0,
                "update_overhead": 0.0,
                "tokens_per_node": KIB,
            },
            "sources": {key: text for key, text in sources.items() if topology.supernode or key != "fabric.supernode"},
        }
    )


def _fabric(topology: Topology) -> dict[str, Any]:
    if not topology.supernode:
        return {"kind": "crossbar", "routing": "direct", "latency_node": 0.0, "latency_link": 0.0}
    return {
        "kind": "pruned-fat-tree",
        "routing": "adaptive",
        "supernode": topology.supernode,
        "taper": 1.0,
        "latency_node": 0.0,
        "latency_supernode": 0.0,
        "latency_top": 0.0,
    }


def _threads() -> int:
    """Threads that the BLAS library of a rank uses."""
    told = [os.environ[name] for name in THREADS if os.environ.get(name, "").isdigit()]
    return max(1, int(told[0])) if told else 1


def _clock() -> float:
    """Hertz of a core, as the system tells; 0 where it does not."""
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return 1e6 * max(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))
    return 0.0
