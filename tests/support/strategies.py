"""Small machines and models for tests of strategies, and what a schedule moves by their formulas."""

from collections import Counter

import athanor
import numpy as np
from athanor.hardware.machine import Machine
from athanor.workloads.lowering import lower_step
from athanor.workloads.model.model import Latent, Model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.work import Exchange, Gemm
from support.machines import tree

SHAPE = {"layers": 2, "heads": 8, "hidden": 64, "ffn_hidden": 256, "vocabulary": 512, "seq_len": 32}
DENSE = Model(name="dense", **SHAPE)
EXPERTS = Model(name="experts", **SHAPE, experts=16)
SHARED = Model(name="shared", **SHAPE, experts=16, shared_experts=2, top_k=2, expert_hidden=128, dense_first=1)
GATED = Model(name="gated", **SHAPE, gated=True, kv_heads=2, norm="rms", tied=False)
LATENT = Model(
    name="latent", **SHAPE, latent=Latent(query_rank=48, key_value_rank=32, plain=16, rotary=8, value=12), gated=True
)
BOTH = Model(name="both", **SHAPE, encoder_layers=3, decoder_seq_len=16)
PARAMETERS = DENSE.parameters.total


def flat(**options):
    """A machine of one supernode, one rank a node, without latencies."""
    return tree(**{"nodes": 16, "supernode": 16, "taper": 1.0, "tokens_per_node": 1 << 20, **options})


def two_levels(nodes=4, accelerators=4, **options):
    """Nodes of several accelerators behind a switch."""
    return flat(nodes=nodes, supernode=nodes, core_groups=accelerators, inside="switch", **options)


def hosted(machine, link=5.0, bandwidth=50.0, memory=1e9):
    """The same machine with a host in each node."""
    host = {"host_memory": memory, "host_link": link, "host_memory_bandwidth": bandwidth}
    return machine.model_copy(update={"node": machine.node.model_copy(update=host)})


def sped_up(machine: Machine, factor: float) -> Machine:
    """The same machine with all links so much faster, those to hosts too."""
    node = machine.node
    rates = ("ring_bandwidth", "interface_bandwidth", "host_link", "host_memory_bandwidth")
    faster = {key: getattr(node, key) * factor for key in rates if getattr(node, key) is not None}
    return machine.model_copy(update={"node": node.model_copy(update=faster)})


def plan(**options):
    """Options of a plan in which everything is single precision, two sequences of 32 tokens a rank."""
    return {"precision": "O0", "tokens_per_rank": 64, "zero": "0", **options}


def lowered(model=DENSE, machine=None, **options):
    """The schedule of a step."""
    return lower_step(Setting.of(machine or flat(), model, plan(**options)))[0]


def simulated(model=DENSE, machine=None, **options):
    """The summary of a step at fluid depth."""
    chosen = machine or flat()
    return athanor.simulate(chosen, model, **plan(depth="fluid", **options)).summary()


def exchanges(schedule, category=None):
    """The exchanges of a schedule by name."""
    return {
        each.name: each.work
        for each in schedule.operations
        if isinstance(each.work, Exchange) and category in (None, each.category)
    }


def sent(schedule, exchange):
    """Bytes that a rank sends in an exchange, in the mean: every algorithm here moves the least that there is."""
    ranks = schedule.mesh.size(*exchange.axes)
    if ranks == 1:
        return 0.0
    factor = {"all-reduce": 2 * (ranks - 1) / ranks, "shift": 1.0}.get(exchange.operation, (ranks - 1) / ranks)
    return factor * float(np.mean(exchange.nbytes))


def moved(schedule, category=None, starting=""):
    """Bytes that a rank sends in all, or in one category, or under names that start alike."""
    found = exchanges(schedule, category)
    return sum(sent(schedule, each) for name, each in found.items() if name.startswith(starting))


def kinds(schedule, category):
    """How often each collective occurs in a category."""
    return Counter(each.operation for each in exchanges(schedule, category).values())


def carried(summary, kind="nic.out"):
    """Bytes on all links of a kind in a step."""
    return sum(link["bytes_per_step"] for link in summary["links"] if link["kind"] == kind)


def products(schedule, phase=None, starting=""):
    """FLOPs of a rank's matrix products alone."""
    return sum(
        float(np.mean(each.work.flops))
        for each in schedule.operations
        if isinstance(each.work, Gemm) and phase in (None, each.phase) and each.name.startswith(starting)
    )


def names(schedule, starting):
    """Names of operations that start alike, without their layer, in order."""
    return [each.name.removeprefix(starting) for each in schedule.operations if each.name.startswith(starting)]
