"""What fused kernels of attention reach: by the size of a head, the way, and how many keys a query meets."""

import pytest
from athanor.hardware.attention_rates import AttentionRate, fastest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import CATALOGUE, list_machines, load_machine
from athanor.hardware.records import build
from athanor.workloads.attention_kernels import ATTENTION_KERNELS, Unfused
from athanor.workloads.model.flops import causal_share
from athanor.workloads.model.model import Model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.costs import Costs
from athanor.workloads.schedule.work import FusedAttention
from pytest import approx

TERA = 1e12

LONG = {
    "name": "long",
    "layers": 32,
    "heads": 32,
    "hidden": 4096,
    "ffn_hidden": 11008,
    "vocabulary": 32000,
    "gated": True,
    "norm": "rms",
    "tied": False,
    "seq_len": 65536,
}
PLAN = {"mesh": {"dp": 8}, "global_batch": 16, "micro_batch": 1, "precision": "bf16", "zero": "3"}
PLAN |= {"overlap": "gradients", "recompute": "full"}


def kernel(**changes):
    table = {"forward": {"64": "100 TFLOP/s", "128": "200 TFLOP/s"}, "backward": {"64": "80 TFLOP/s"}, "fill": 100}
    return build(AttentionRate, {**table, **changes}, "here")


class TestRates:
    def test_between_sizes_rates_are_interpolated_and_below_the_smallest_they_fall_with_it(self):
        assert [kernel().rate(size, 2) / TERA for size in (32, 64, 96, 128, 256)] == approx([50, 100, 150, 200, 200])
        assert [kernel().rate(size, 5) / TERA for size in (32, 64, 128)] == approx([40, 80, 80])

    def test_the_fastest_depends_on_the_size_of_a_head(self):
        small, large = (
            kernel(backward={"64": "90 TFLOP/s", "128": "90 TFLOP/s"}),
            kernel(backward={"64": "80 TFLOP/s", "128": "190 TFLOP/s"}),
        )
        assert [fastest({"small": small, "large": large}, size) for size in (64, 128)] == ["small", "large"]

    @pytest.mark.parametrize("wrong", [{}, {"wide": "1 TFLOP/s"}, {"0": "1 TFLOP/s"}, {"64": 3}])
    def test_a_table_that_is_none_is_refused(self, wrong):
        with pytest.raises(InputError, match="forward"):
            kernel(forward=wrong)

    def test_what_machines_name_are_kernels_that_plans_know_newer_ones_faster(self):
        fused = {each.name for each in ATTENTION_KERNELS.values() if each.name}
        for machine in list_machines():
            named = machine.core_group.attention
            assert set(named) <= fused
            for size in (64, 128):
                order = [named[name].both_ways(size) for name in ("flash-1", "flash-2", "flash-3") if name in named]
                assert order == sorted(order, reverse=True)
        assert {"eos-h100", "selene", "dgx-b200"} <= {
            each.name for each in list_machines() if each.core_group.attention
        }


class TestTimes:
    @pytest.mark.parametrize("machine", ["eos-h100", "selene"])
    def test_a_kernel_takes_its_flops_at_its_rate_and_more_the_fewer_keys_a_query_meets(self, machine):
        here = load_machine(machine)
        costs, rate = Costs(here, 8), here.core_group.attention["flash-2"]
        for length in (512.0, 32768.0):
            for products in (2, 5):
                share = causal_share(length, length)
                work = FusedAttention(length, length, 128.0, 128.0, 1024.0, products, "bf16", share, "flash-2")
                expected = work.flops / rate.rate(128, products) * (1 + rate.fill / (length * share))
                assert costs.of(work).seconds == approx(expected + here.core_group.operator_overhead)

    def test_a_ring_takes_the_kernel_s_rate_and_its_fill_in_every_part(self):
        from athanor.workloads.lowering import lower_step

        seconds = {}
        for parts in (1, 4):
            model = Model(**{**LONG, "layers": 1, "seq_len": 8192})
            setting = Setting.of(
                "eos-h100", model, {"mesh": {"cp": parts}, "tokens_per_rank": 8192, "attention": "cudnn"}
            )
            works = [
                each.work for each in lower_step(setting, 0)[0].operations if isinstance(each.work, FusedAttention)
            ]
            assert {each.kernel for each in works} == {"cudnn"} and len(works) == 2 * parts
            costs = Costs(setting.machine, 8)
            overhead = setting.machine.core_group.operator_overhead
            seconds[parts] = parts * sum(float(costs.of(each).seconds) - overhead for each in works)
        met = 8192 * causal_share(8192, 8192)
        assert seconds[4] / seconds[1] == approx((1 + 4 * 400 / met) / (1 + 400 / met), rel=1e-3)

    def test_published_runs_at_65536_tokens_with_the_kernel_that_they_had(self):
        """MPT-7B in llm-foundry's table: 1,013 and 1,956 tokens/s a GPU, with Triton's kernel."""
        import athanor

        for machine, published in (("selene", 1013), ("eos-h100", 1956)):
            run = athanor.simulate(machine, Model(**LONG), attention="triton", allow_overcommit=True, **PLAN)
            assert run.summary()["tokens_per_second"] / 8 == approx(published, rel=0.1)


class TestNames:
    def test_fused_is_the_machine_s_fastest_and_results_say_which(self):
        import athanor

        plan = {"mesh": {"dp": 1}, "global_batch": 1, "attention": "fused"}
        model = Model(**{**LONG, "layers": 1, "seq_len": 1024})
        named = athanor.simulate("eos-h100", model, **{**plan, "attention": "flash-3"}).summary()
        fused = athanor.simulate("eos-h100", model, **plan).summary()
        assert fused["attention_kernel"] == named["attention_kernel"] == "flash-3"
        assert fused["step_seconds"] == named["step_seconds"]
        assert athanor.simulate("laptop", model, allow_overcommit=True, **plan).summary()["attention_kernel"] == "fused"

    @pytest.mark.parametrize("machine", ["dgx1-v100", "sunway-oceanlight", "selene"])
    def test_a_kernel_that_the_machine_does_not_name_is_refused(self, machine):
        with pytest.raises(InputError, match=f"--attention flash-3: {machine} does not say what it reaches"):
            Setting.of(machine, Model(**LONG), {"mesh": {"dp": 1}, "global_batch": 1, "attention": "flash-3"})

    def test_kernels_with_a_name_keep_no_scores(self):
        assert [name for name, each in ATTENTION_KERNELS.items() if each.keeps_scores] == ["unfused"]
        assert isinstance(ATTENTION_KERNELS["unfused"], Unfused)
        assert all(each.name in ("", name) for name, each in ATTENTION_KERNELS.items())


def test_the_catalogue_gives_no_rate_twice():
    """Where a machine names kernels, the rate of one without a name stands nowhere."""
    for path in CATALOGUE.glob("*.toml"):
        group = load_machine(path).core_group
        assert not group.attention or group.tiles is None or group.tiles.attention is None
