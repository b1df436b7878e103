"""What frameworks print as *peak allocated*: Megatron-LM on B200, PyTorch's FSDP, and what each keeps beside."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import load_machine
from athanor.reports.published.read_runs import published_runs
from athanor.reports.studies.accuracy.cases import case_of, setting_of
from athanor.workloads.frameworks import FRAMEWORKS
from athanor.workloads.memory import account, sample_loads
from athanor.workloads.model.model import Model, load_model
from athanor.workloads.plan.setting import Setting
from support.memory_settings import GIB, TINY, gpt, setting

V2 = {
    "name": "deepseek-v2",
    "layers": 4,
    "hidden": 5120,
    "ffn_hidden": 12288,
    "heads": 128,
    "latent": {"query_rank": 1536, "key_value_rank": 512, "plain": 128, "rotary": 64, "value": 128},
    "gated": True,
    "norm": "rms",
    "experts": 160,
    "expert_hidden": 1536,
    "top_k": 6,
    "shared_experts": 2,
    "dense_first": 1,
    "vocabulary": 102400,
    "tied": False,
    "seq_len": 4096,
}
MODELS = {
    "70b": lambda: load_model("llama3-70b").model_copy(update={"layers": 12, "seq_len": 4096}),
    "405b": lambda: load_model("llama3-405b").model_copy(update={"layers": 4, "seq_len": 4096}),
    "v2": lambda: Model.model_validate(V2),
    "v3": lambda: load_model("deepseek-v3").model_copy(update={"layers": 4, "dense_first": 1}),
}
PEAKS = [  # SimuMax's B200 release: Megatron-LM 0.14, Transformer Engine 2.11, fused loss, distributed optimizer; GiB
    ("70b", {"pp": 2, "dp": 4}, 66.55),
    ("70b", {"dp": 4, "tp": 2}, 60.68),
    ("70b", {"dp": 2, "tp": 4}, 39.07),
    ("70b", {"tp": 8}, 28.29),
    ("405b", {"pp": 2, "dp": 4}, 87.08),
    ("405b", {"dp": 4, "tp": 2}, 81.59),
    ("405b", {"dp": 2, "tp": 4}, 52.89),
    ("405b", {"tp": 8}, 38.57),
    ("v2", {"ep": 8}, 45.63),
    ("v2", {"pp": 2, "ep": 4}, 44.70),
    ("v3", {"ep": 8}, 104.30),
    ("v3", {"pp": 2, "ep": 4}, 114.00),
]


def peak(name, mesh, **options):
    """GiB of the fullest stage."""
    plan = {"precision": "bf16", "zero": "1", "attention": "fused", "loss": "fused", "balancer": "even", **options}
    batch = {"mesh": mesh, "global_batch": 32, "micro_batch": 1, "sequence_parallel": "tp" in mesh}
    model = MODELS[name]().model_copy(update={"plan": {}})
    here = Setting.of(load_machine("dgx-b200"), model, {**plan, **batch})
    return max(need.allocated for need in account(here, sample_loads(here)).by_stage) / GIB


def test_peaks_of_megatron_are_met():
    """Nothing was fitted to them."""
    errors = np.array([peak(name, mesh) / measured - 1 for name, mesh, measured in PEAKS])
    assert np.abs(errors).mean() < 0.005 and np.abs(errors).max() < 0.012


@pytest.mark.parametrize("wrong", [{"framework": "megatron:2.2"}, {"framework": "deepspeed"}, {"loss": "unfused"}])
def test_peaks_need_what_is_known_of_the_framework(wrong):
    """With an older release of Transformer Engine, another framework or another loss they are missed."""
    name, mesh, measured = PEAKS[1]
    assert abs(peak(name, mesh, **wrong) / measured - 1) > 0.012


def state(zero, **options):
    """Bytes a parameter of weights, gradients and state on each of eight ranks, times eight."""
    model = gpt(**TINY)
    found = account(setting(model, mesh={"dp": 8}, zero=zero, **options), []).worst
    return 8 * (found.parameters + found.gradients + found.optimizer) / model.parameters.total


def test_fsdp_keeps_16_bytes_a_parameter():
    """Single precision alone; others keep a shard in the format of products as well."""
    assert state("3", precision="bf16", framework="fsdp") == pytest.approx(16)
    assert state("3", precision="O2", framework="fsdp") == pytest.approx(16)
    assert state("3", precision="bf16") == state("3", precision="bf16", framework="deepspeed") == pytest.approx(18)
    assert state("2", precision="bf16", framework="fsdp") == state("2", precision="bf16")


def test_the_usual_framework_shards_weights_as_pytorch_does():
    model = gpt(**TINY)
    kinds = [type(FRAMEWORKS[name]) for name in ("megatron", "fsdp")]
    for zero, kind in (("1", kinds[0]), ("3", kinds[1])):
        here = Setting.of("selene", model, {"mesh": {"dp": 8}, "zero": zero, "global_batch": 8})
        assert type(here.framework) is kind
    assert setting(model, mesh={"dp": 8}).framework is None, "formulas alone, where the machine says nothing"


def test_three_numbers_are_printed_in_order():
    for framework in ("megatron", "deepspeed"):
        here = Setting.of("selene", "gpt3-13b", {"mesh": {"dp": 8}, "zero": "1", "framework": framework})
        worst = account(here, []).worst
        assert 0 < worst.allocated <= worst.reserved < worst.total
        assert worst.total - worst.reserved == here.processor.reserved_memory + 3e8
    bare = account(setting(gpt(**TINY), mesh={"dp": 2}), []).worst
    assert bare.allocated == bare.reserved == bare.total


def test_a_release_is_two_numbers():
    with pytest.raises(InputError, match="--framework megatron:new: megatron takes a release"):
        setting(mesh={"dp": 2}, framework="megatron:new")


RAN = [  # of Megatron-LM and NeMo on H100; with gradients in single and an unfused loss they need more than there is
    "bridge_2509_70B",
    "bridge_2509_405B",
    "mlm_ex_Llama3-8B",
    "mlmh100_strong177B_96",
    "nemo_GPT320B",
    "nemo_Llama38B",
    "ds_azure_530B_512",
    "zeropp_138B_4xIB_1k",
]


@pytest.mark.parametrize("name", RAN)
def test_published_plans_fit_as_their_recipes_have_them(name):
    """Formats of gradients, loss and modules that are recomputed come from the recipes; DeepSpeed's limits from its defaults."""
    here = setting_of(case_of(published_runs()[name]))
    assert account(here, sample_loads(here)).worst.fits
