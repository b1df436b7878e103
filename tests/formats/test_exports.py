"""What is written for other tools reads back as the same, and what has no word there is refused by its key."""

import json
from xml.etree import ElementTree

import athanor as package
import pytest
from athanor import load_machine, load_model, read_deepspeed, read_megatron
from athanor.reports.formats.kinds import Asked
from athanor.reports.formats.machines.simgrid import simgrid_platform
from athanor.workloads.plan.setting import Setting
from support.command_line import athanor

PLANS = {
    "gpt": ("gpt-22b", 'mesh = "pp=2,dp=2,tp=8"\nglobal_batch = 16\nmicro_batch = 1\nprecision = "bf16"\nzero = "1"\nsequence_parallel = true\n'
            'pipeline = "interleaved"\nchunks = 2\nrecompute = "selective"\noverlap = "all"\nattention = "fused"\n'),
    "moe": ("mixtral-8x7b", 'mesh = "pp=4,dp=1,ep=8"\nglobal_batch = 64\nmicro_batch = 1\nprecision = "bf16"\nzero = "1"\npipeline = "1f1b"\n'
            'chunks = 1\nattention = "fused"\nrecompute = "full"\nrecompute_layers = "first:2"\nbalancer = "capacity:1.25"\n'),
    "etp": ("mixtral-8x7b", 'mesh = "dp=2,ep=2,cp=2,tp=8"\nglobal_batch = 64\nmicro_batch = 1\nprecision = "bf16"\nzero = "1"\nattention = "fused"\n'
            'sequence_parallel = true\nexpert_tensor = "4"\nexpert_context = "spread"\n'),
    "latent": ("deepseek-v2-lite", 'mesh = "dp=2,ep=8"\nglobal_batch = 32\nmicro_batch = 1\nprecision = "fp8"\nzero = "1"\nattention = "fused"\n'),
    "offload": ("llama3-8b", 'mesh = "dp=8"\nglobal_batch = 16\nmicro_batch = 2\nseq_len = 4096\nprecision = "bf16"\nzero = "1"\noffload = "optimizer:0.5"\nattention = "fused"\n'),
}  # fmt: skip

COMPARED = ("mesh", "global_batch", "micro_batch", "seq_len", "precision", "zero", "pipeline", "chunks", "recompute", "recompute_layers",
            "overlap", "sequence_parallel", "attention", "offload", "balancer", "expert_tensor", "expert_context", "stage_layers", "optimizer")  # fmt: skip


def run_file(folder, name):
    model, plan = PLANS[name]
    file = folder / f"{name}.toml"
    file.write_text(f'machine = "eos-h100"\nmodel = "{model}"\n[plan]\n{plan}')
    return file


@pytest.mark.parametrize("name", PLANS)
def test_flags_of_megatron_read_back_as_the_same_plan_and_model(name, tmp_path):
    out = tmp_path / "flags.txt"
    done = athanor("export", "megatron", run_file(tmp_path, name), "-o", out)
    assert done.returncode == 0, done.stderr
    ranks = 1
    given = package.read_run_file(tmp_path / f"{name}.toml").plan
    for size in given["mesh"].values():
        ranks *= size
    back = read_megatron(out, Asked(defined={"world_size": str(ranks)}))
    model = load_model(PLANS[name][0])
    assert back.model.parameters == model.parameters
    one = Setting.of("eos-h100", model, given).plan
    other = Setting.of("eos-h100", model, back.plan).plan
    assert {key: size for key, size in one.mesh.items() if size > 1} == {
        key: size for key, size in other.mesh.items() if size > 1
    }
    for key in COMPARED[1:]:
        if key in given:
            assert getattr(other, key) == getattr(one, key), key


def test_deepspeeds_json_reads_back_as_the_same_plan(tmp_path):
    out = tmp_path / "ds.json"
    assert athanor("export", "deepspeed", run_file(tmp_path, "offload"), "-o", out).returncode == 0
    found = read_deepspeed(out).plan
    given = package.read_run_file(tmp_path / "offload.toml").plan
    for key in ("mesh", "global_batch", "micro_batch", "precision", "zero", "offload"):
        assert found[key] == given[key], key
    assert json.loads(out.read_text())["gradient_accumulation_steps"] == 1


def test_a_script_of_slurm_reads_back_with_its_ranks(tmp_path):
    out = tmp_path / "launch.sh"
    assert athanor("export", "slurm", run_file(tmp_path, "gpt"), "-o", out).returncode == 0
    back = read_megatron(out)
    assert back.plan["mesh"] == {"pp": 2, "dp": 2, "tp": 8}
    assert back.model.parameters == load_model("gpt-22b").parameters


@pytest.mark.parametrize(
    ("kind", "model", "plan", "said"),
    [
        ("megatron", "t5-large", 'mesh = "dp=4"', "encoder_layers is 24: Megatron-LM has no flag"),
        ("megatron", "gpt-tiny", 'mesh = "dp=4"\nzero = "2"', "plan.zero is 2"),
        ("megatron", "gpt-tiny", 'mesh = "pp=2,dp=4"\npipeline = "zb-h1"', "plan.pipeline is zb-h1"),
        ("deepspeed", "gpt-tiny", 'mesh = "dp=4"\nzero = "hierarchical"', "plan.zero is hierarchical"),
        ("deepspeed", "gpt-tiny", 'mesh = "dp=4"\nprecision = "fp8"', "plan.precision is fp8"),
    ],
)  # fmt: skip
def test_what_has_no_word_there_is_refused(kind, model, plan, said, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f'machine = "eos-h100"\nmodel = "{model}"\n[plan]\n{plan}\n')
    done = athanor("export", kind, file, "-o", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("machine", ["simgrid-tree", "fugaku", "eos-h100"])
def test_a_platform_has_the_links_and_ways_of_the_fabric(machine, tmp_path):
    machine, nodes = load_machine(machine), 12
    root = ElementTree.fromstring(simgrid_platform(machine, nodes))
    assert len(root.findall(".//host")) == nodes
    bandwidth = {link.get("id"): float(link.get("bandwidth").removesuffix("Bps")) for link in root.iter("link")}
    waits = {link.get("id"): float(link.get("latency").removesuffix("s")) for link in root.iter("link")}
    routes = {(route.get("src"), route.get("dst")): [each.get("id") for each in route] for route in root.iter("route")}
    assert len(routes) == nodes * (nodes - 1)
    for (start, end), way in routes.items():
        one, other = (int(name.removeprefix("node-")) for name in (start, end))
        assert {*way} <= {*bandwidth}
        assert way[0] == f"nic.out.{one}"
        assert bandwidth[way[0]] == machine.injection
        latency = float(machine.fabric.latencies(*(package_array(each) for each in (one, other)))[0])
        assert sum(waits[each] for each in way) == pytest.approx(latency, rel=1e-12)


def package_array(value):
    import numpy as np

    return np.array([value], dtype=np.int64)


def test_large_platforms_are_refused_with_what_would_do(tmp_path):
    file = tmp_path / "m.toml"
    from athanor.hardware.machine_writer import machine_toml

    file.write_text(machine_toml(load_machine("simgrid-tree")))
    done = athanor("export", "simgrid", file, "-o", tmp_path / "p.xml")
    assert done.returncode == 2
    assert "--ranks 512 or fewer" in done.stderr
    assert athanor("export", "simgrid", file, "-o", tmp_path / "p.xml", "--ranks", 8).returncode == 0
