"""Claims of BaGuaLu that need no simulated step: its parameters, units, memory and the fabric's taper."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .....hardware.machine import Machine
from .....hardware.precisions import BYTES
from .....sim.network.maxmin import fair_rates
from .....workloads.lowering.data_parallel.sharding import held
from .....workloads.memory import FIXED_FP32, update_state_share
from .....workloads.model.model import load_model
from .....workloads.model.precision import POLICIES
from .....workloads.optimizers import Adam
from .....workloads.plan.setting import Setting
from ....published import published
from ...claims import Claim
from ..quantities import fits, zero_volume

MODELS = ("moda-1.93t", "moda-14.5t", "moda-174t")


def fact_claims(machine: Machine) -> Iterator[Claim]:
    """Claims that need no simulated step."""
    facts, sources = published("bagualu")["facts"], published("bagualu")["sources"]
    for name in MODELS:
        target = published("bagualu")["expert_parameters"][name]
        yield Claim(
            f"{name}: expert parameters",
            target,
            load_model(name).parameters.expert,
            "arithmetic",
            sources["expert_parameters"],
        )
    group = machine.core_group
    yield Claim(
        "half over single precision peak",
        facts["half_over_single"],
        group.peak["fp16"] / group.peak["fp32"],
        "arithmetic",
        sources["half_over_single"],
    )
    yield Claim(
        "half over single, time of an expert's GEMM",
        facts["half_over_single"],
        _gemm_ratio(machine),
        "arithmetic",
        sources["half_over_single"],
    )
    yield Claim(
        "update state under APEX O2",
        facts["update_state_share"],
        update_state_share("O2"),
        "arithmetic",
        sources["update_state_share"],
    )
    cores = machine.node.core_groups * group.cores
    yield Claim("cores a node", facts["cores_per_node"], cores, "arithmetic", sources["cores"])
    yield Claim("cores of 96,000 nodes", facts["cores_used"], 96_000 * cores, "arithmetic", sources["cores"])
    for flows, share in facts["uplink_share"].items():
        yield Claim(
            f"rate of {flows} flows out of a supernode",
            share,
            uplink_share(machine, int(flows)),
            "arithmetic",
            sources["uplinks"],
        )
    needed = 1e12 * sum(FIXED_FP32.values())
    cards = {"decimal": needed / 32e9, "binary": needed / (32 * 2**30), "mixed": needed / 1e12 * 1024 / 32}
    for how, count in facts["v100_for_1t"].items():
        yield Claim(
            f"V100-32G for a trillion FP32 parameters, {how} units",
            count,
            np.ceil(cards[how]),
            "arithmetic",
            sources["v100_for_1t"],
        )
    yield Claim("ZeRO's volume over an all-reduce's", 1.0, zero_volume(240), "arithmetic", sources["zero_volume"])


def memory_claims(machine: Machine) -> Iterator[Claim]:
    """What fits a node, and what does not."""
    facts, sources = published("bagualu")["facts"], published("bagualu")["sources"]
    for name in MODELS:
        yield Claim(
            f"{name}: GB a node at 16 B a parameter",
            facts["node_gigabytes"][name],
            _gigabytes(name, False),
            "arithmetic",
            sources["memory"],
        )
        yield Claim(
            f"{name}: the same, update sharded over replicas",
            facts["node_gigabytes_sharded"][name],
            _gigabytes(name, True),
            "arithmetic",
            sources["memory"],
        )
    yield Claim(
        "moda-14.5t fits without ZeRO", False, fits(machine, "moda-14.5t", zero="0"), "predicted", sources["memory"]
    )
    yield Claim(
        "moda-14.5t fits with the hierarchical update",
        True,
        fits(machine, "moda-14.5t"),
        "predicted",
        sources["memory"],
    )
    two = {"mesh": {"ep": 48000, "dp": 2}, "zero": "0"}
    yield Claim(
        "moda-174t, two experts a node, fits at 24 B",
        False,
        fits(machine, "moda-174t", accounting="fp32", **two),
        "predicted",
        sources["memory_174t"],
    )
    yield Claim(
        "moda-174t, two experts a node, fits at 16 B",
        True,
        fits(machine, "moda-174t", **two),
        "predicted",
        sources["memory_174t"],
    )


def uplink_share(machine: Machine, flows: int) -> float:
    """The share of its full rate that each of ``flows`` flows gets that leave a supernode from as many nodes."""
    trunk, _ = machine.fabric_links(machine.supernode)
    nic, trunk_rate = machine.injection, trunk.capacity * trunk.count
    rate = fair_rates(np.array([[1.0, flows]]), np.array([nic, trunk_rate]), np.ones(1))[0]
    return float(rate / nic)


def _gemm_ratio(machine: Machine) -> float:
    processor = machine.processor(1)
    single, half = (processor.gemm(1024.0, 49152, 4096, 1, precision).seconds for precision in ("fp32", "fp16"))
    return float(single / half)


def _gigabytes(name: str, sharded: bool) -> float:
    """Weights, gradients and state of experts and attention at 16 B a parameter, as the claim counts them."""
    setting = Setting.of("sunway-oceanlight", name, {})
    formats = POLICIES["O2"]["expert"]
    kept = BYTES[formats.weight] + BYTES[formats.gradient]
    total = 0.0
    for each in held(setting):
        if each.part in ("expert", "attention"):
            total += float(np.max(each.parameters)) * (
                kept + Adam().state_bytes(formats) / (setting.mesh.size(*each.replicas) if sharded else 1)
            )
    return total / 1e9
