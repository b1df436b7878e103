"""The machines of the catalogue: what their data sheets say of each other, and the collectives that were measured on them."""

import re

import athanor
import pytest
from athanor.hardware.machine import list_machines, load_machine
from athanor.sim.studies.collective import collective
from athanor.workloads.mesh.placement import resolve_ranks_per_node

MACHINES = {machine.name: machine for machine in list_machines()}
ACCELERATORS = sorted(name for name, machine in MACHINES.items() if machine.node.ports)
PUBLISHED = [*ACCELERATORS, "fugaku"]
SURE = re.compile(r"found|memory-sure|memory-unsure|assumed|approximated|made up|computed")


@pytest.mark.parametrize(
    ("name", "flops_a_cycle", "precision"),
    [
        ("dgx2-v100", 1024, "fp16"),
        ("selene", 2048, "bf16"),
        ("eos-h100", 4096, "bf16"),
        ("eos-h100", 8192, "fp8"),
        ("dgx-h200", 4096, "bf16"),
        ("torchtitan-h100", 4096, "bf16"),
        ("deepseek-h800", 8192, "fp8"),
        ("dgx-b200", 8192, "bf16"),
        ("gb200-nvl72", 16384, "fp8"),
        ("mi300x", 2048, "bf16"),
        ("frontier", 1024, "bf16"),
        ("aurora", 4096, "bf16"),
        ("a800", 2048, "bf16"),
        ("h20", 1024, "bf16"),
        ("h20", 2048, "fp8"),
        ("meta-h100", 4096, "bf16"),
        ("ascend-910b", 8192, "fp16"),
        ("gaudi3", 2 * 256 * 256, "bf16"),
        ("tpu-v4", 2 * 128 * 128, "bf16"),
        ("tpu-v5p", 2 * 128 * 128, "bf16"),
        ("tpu-v3", 2 * 128 * 128, "bf16"),
        ("cloud-brain-2", 64 * 2, "fp32"),
        ("fugaku", 2 * 2 * 8, "fp64"),
    ],
)
def test_peaks_are_cores_times_clock(name, flops_a_cycle, precision):
    group = MACHINES[name].core_group
    assert group.compute_cores * flops_a_cycle * group.clock == pytest.approx(group.peak[precision], rel=0.005)


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("dgx2-v100", 1536), ("jean-zay-a100", 384), ("selene", 3072), ("vtrain-a100", 512), ("eos-h100", 6144)]
    + [("torchtitan-h100", 512), ("cloud-brain-2", 2048), ("tpu-v3", 2048), ("fugaku", 4096), ("azure-gpt3", 10_000)]
    + [("jean-zay-v100", 416), ("aws-p5", 512), ("deepseek-h800", 2048), ("gb200-nvl72", 72)]
    + [("frontier", 3072), ("aurora", 127_488), ("meta-h100", 16_384), ("tpu-v4", 3072), ("ascend-910b", 8192)],
)
def test_published_runs_have_room(name, ranks):
    """Ranks are accelerators; on Fugaku they are nodes."""
    machine = MACHINES[name]
    assert machine.nodes * resolve_ranks_per_node(machine, "moda", None, ranks) >= ranks


@pytest.mark.parametrize(
    ("name", "ranks", "measured"),
    [
        ("dgx1-v100", 8, 134.5e9),
        ("selene", 8, 235e9),
        ("selene", 32, 192e9),
        ("eos-h100", 8, 370e9),
        ("eos-h100", 32, 370e9),
        ("dgx-b200", 8, 700e9),
        ("aws-p5", 8, 480e9),
        ("mi300x", 8, 313e9),
    ],
)
def test_all_reduces_run_at_the_measured_bus_bandwidth(name, ranks, measured):
    """Figures of NVIDIA, AMD, vTrain (V100) and stas00 (A100) for large vectors; across nodes of H100 a node's ports and its interfaces carry equally much."""
    found = collective(name, "all-reduce", "ring", ranks, 2.0**34)
    assert found.bus_bandwidth == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(
    ("name", "rate", "measured"), [("eos-h100", "309 GB/s", 480e9), ("dgx-b200", "546 GB/s", 850e9)]
)
def test_switches_add_up_at_the_measured_bus_bandwidth(name, rate, measured):
    """NVIDIA's figures with SHARP inside a node, from which the rates that machine files name are worked out."""
    machine = MACHINES[name].changed({"node.inside_reduction": rate})
    assert collective(machine, "all-reduce", "ring", 8, 2.0**34).bus_bandwidth == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sources_say_how_sure_each_number_is(name):
    machine = MACHINES[name]
    numbers = [key for key, text, _ in machine.numbers() if text[0] in "0123456789" and text != "0"]
    known = [key for key in numbers if key not in machine.fitted()]
    assert [key for key in known if not SURE.search(machine.source(key))] == []
    constants = (
        r"calibration\.(gemm|network)_efficiency|node\.ring_bandwidth"
        r"|core_group\.(dma_\w+|tiles\.precisions\.fp8|framework\.fragments)"
    )
    assert [key for key in machine.fitted() if not re.fullmatch(constants + r"|interval[\w.]+", key)] == []


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_step_runs_on_every_accelerator(name):
    """Eight accelerators of one node, or the chips of a TPU; what a large product reaches lies below the peak."""
    machine = load_machine(name)
    precision = "O2" if "fp16" in machine.core_group.peak else "O0"
    run = athanor.simulate(name, "moda-tiny", mesh={"ep": 4, "dp": 2}, precision=precision)
    totals = run.summary()
    assert totals["nodes"] == -(-8 // machine.node.core_groups)
    inside = "port" if machine.node.core_groups > 1 else "nic"
    assert {row["kind"] for row in totals["links"]} >= {f"{inside}.out", f"{inside}.in"}
    best = next(each for each in ("bf16", "fp16") if each in machine.core_group.peak)
    product = machine.processor(machine.node.core_groups).gemm(8192.0, 8192.0, 8192.0, 1, best)
    share = 2 * 8192.0**3 / float(product.seconds) / machine.core_group.peak[best]
    wasted = 0.05 if machine.core_group.tiles else 0.02  # by the last wave
    assert share == pytest.approx(machine.calibration.gemm_efficiency, rel=wasted)
    assert product.compute > 2 * product.memory, "large products are bound by their FLOPs"


@pytest.mark.parametrize("name", [name for name in ACCELERATORS if MACHINES[name].node.host_link])
def test_hosts_are_slower_than_accelerators(name):
    """Offloading costs what it should: a link carries a fraction of the memory's rate, and a host's memory is shared."""
    machine = MACHINES[name]
    processor = machine.processor(machine.node.core_groups)
    assert processor.host_link < 0.05 * machine.core_group.memory_bandwidth
    assert processor.host_bandwidth * machine.node.core_groups == pytest.approx(machine.node.host_memory_bandwidth)
    assert float(processor.host_copy(processor.host_link)) == 1.0
