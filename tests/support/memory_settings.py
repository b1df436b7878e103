"""Accelerators, Transformers and plans of which tests ask for memory."""

from athanor.hardware.node import Node
from athanor.workloads.memory import account, memory, sample_loads
from athanor.workloads.model.model import Model
from athanor.workloads.plan.setting import Setting
from support.machines import tree

GIB, GB = 2**30, 1e9


def gpus(memory_bytes=80 * GB, per_node=8, nodes=512, host=None, reserved=None):
    """Nodes of accelerators with so much memory each, and of host memory together."""
    machine = tree(nodes=nodes, supernode=nodes, core_groups=per_node, tokens_per_node=8 << 20)
    group = machine.core_group.model_copy(update={"memory": memory_bytes, "reserved_memory": reserved})
    beside = {} if host is None else {"host_memory": host, "host_link": 16e9, "host_memory_bandwidth": 1e11}
    node = Node.model_validate({**machine.node.model_dump(), **beside})
    return machine.model_copy(update={"core_group": group, "node": node})


def gpt(layers, hidden, heads, vocabulary=51200, **keys):
    values = {"ffn_hidden": 4 * hidden, "seq_len": 2048, "dropout": True, "biases": True, **keys}
    return Model(name="gpt", layers=layers, hidden=hidden, heads=heads, vocabulary=vocabulary, **values)


TINY = {"layers": 8, "hidden": 64, "heads": 8, "vocabulary": 512, "seq_len": 32}


def setting(model=None, machine=None, **options):
    plan = {"placement": "auto", "ranks_per_node": 8, "zero": "0", "precision": "O2", "tokens_per_rank": 128}
    plan = {**plan, "balancer": "even", **options}
    if plan.get("global_batch"):
        del plan["tokens_per_rank"]
    return Setting.of(machine or gpus(), model or gpt(**TINY), plan)


def need(*args, **options):
    here = setting(*args, **options)
    return memory(here, sample_loads(here))


def of(here):
    return account(here, sample_loads(here))


def layers_keep(here, stage=0):
    """Bytes that layers keep between the passes."""
    found = [line for line in of(here).lines if line.part == "activations" and line.kept]
    return sum(float(line.nbytes[stage]) for line in found)


def moe(**keys):
    return gpt(**{**TINY, "dropout": False, "experts": 8, "expert_hidden": 128, **keys})
