"""simulate() and scale(): the contract of the summary, determinism, and laws over whole steps."""

import json
import subprocess
import sys

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.hardware.machine import load_machine
from athanor.sim.studies.scaling import scale
from athanor.workloads.lowering import simulator_memory as limits
from athanor.workloads.model.model import Model, load_model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.results.run import COLUMNS, VOLATILE, Run
from support.paths import EXAMPLES

CONTRACT = {
    "step_seconds", "tokens_per_second", "flops_per_second", "peak_fraction", "ranks", "nodes", "breakdown", "phases",
    "memory_per_rank_bytes", "fits", "load_balance", "network", "events", "seed", "wall_seconds", "peak_rss_bytes", "warnings",
}  # fmt: skip
BREAKDOWN = {
    "compute", "all_to_all", "gradient_sync", "tensor_parallel", "pipeline_bubble", "pipeline_transfer", "optimizer", "balancing",
    "offload", "launch", "imbalance", "other",
}  # fmt: skip
MEMORY = {"parameters", "gradients", "optimizer", "activations", "other", "total", "capacity"}
SMALL = {"machine": "sunway-oceanlight", "mesh": {"ep": 20, "dp": 40}}


def model_of(experts):
    return load_model("moda-1.93t").with_experts(experts)


def small(**options):
    """Four layers show what twelve do."""
    return athanor.simulate(model=model_of(20).changed({"layers": 4}), **{**SMALL, **options})


def steady(run):
    return {key: value for key, value in run.summary().items() if key not in VOLATILE}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"router": "zipf:1.0", "balancer": "none"},
        {"jitter": 0.05},
        {"speed_spread": 0.02, "jitter": 0.01},
        {"overlap": "gradients"},
        {"overlap": "gradients", "jitter": 0.1, "balancer": "capacity:1.25"},
        {"zero": "0", "precision": "O3", "jitter": 0.05},
        {"placement": "opposite", "routing": "static"},
        {"all_to_all": "two-level", "placement": "block:ep,dp"},
        {"tokens_per_rank": 4096, "recompute": "full"},
        {"steps": 3, "router": "zipf:0.5", "drift": 0.2, "balancer": "none", "precision": "O0:1,layerwise"},
        {"top_k": 2, "router": "table:smartmoe-32"},
        {"depth": "bound"},
    ],
    ids=str,
)
def test_summary(options):
    """Every key of the contract; breakdown and phases sum to the step; plain data that JSON can hold."""
    totals = small(**options).summary()
    assert set(totals) >= CONTRACT
    assert set(totals["breakdown"]) == BREAKDOWN
    assert set(totals["memory_per_rank_bytes"]) == MEMORY
    assert set(totals["phases"]) == {"forward", "backward", "update"}
    assert sum(totals["breakdown"].values()) == pytest.approx(totals["step_seconds"], rel=1e-9)
    assert sum(totals["phases"].values()) == pytest.approx(totals["step_seconds"], rel=1e-9)
    assert all(seconds >= -1e-12 for seconds in totals["breakdown"].values())
    memory = dict(totals["memory_per_rank_bytes"])
    capacity, total = memory.pop("capacity"), memory.pop("total")
    assert sum(memory.values()) == pytest.approx(total)
    assert totals["fits"] == (total <= capacity)
    assert totals["ranks"] == totals["nodes"] == 800
    assert totals["network"]["depth"] in ([options["depth"]] if "depth" in options else ["links", "fluid"])
    assert json.loads(json.dumps(totals)) == totals


def test_the_same_seed_gives_the_same_bytes():
    options = {"jitter": 0.05, "router": "zipf:1.0", "balancer": "none", "steps": 2, "drift": 0.1}
    first, again, other = small(**options, seed=3), small(**options, seed=3), small(**options, seed=4)
    assert json.dumps(steady(first)) == json.dumps(steady(again))
    assert first.trace == again.trace
    assert steady(first) != steady(other)


def test_balanced_ranks_wait_for_nobody():
    assert small().summary()["breakdown"]["imbalance"] == pytest.approx(0, abs=1e-12)
    assert small(jitter=0.05).summary()["breakdown"]["imbalance"] > 0
    assert small(speed_spread=0.05).summary()["breakdown"]["imbalance"] > 0


@pytest.mark.parametrize("router", ["uniform", "zipf:0.3", "zipf:1.0", "zipf:2.0", "table:smartmoe-32"])
def test_swipe_is_never_slower_than_no_balancing_but_for_its_own_exchanges(router):
    level = small(router=router, balancer="swipe").summary()
    uneven = small(router=router, balancer="none", allow_overcommit=True).summary()
    assert level["load_balance"]["max_over_mean"] == 1.0
    assert level["step_seconds"] <= uneven["step_seconds"] + level["breakdown"]["balancing"] + 1e-12
    assert uneven["load_balance"]["max_over_mean"] == uneven["load_balance"]["wanted_max_over_mean"] > 1.0


def test_capacity_drops_and_is_faster_than_no_balancing():
    dropping = small(router="zipf:1.0", balancer="capacity:1.0").summary()
    assert 0.3 < dropping["load_balance"]["dropped_fraction"] < 0.6
    assert dropping["step_seconds"] < small(router="zipf:1.0", balancer="none").summary()["step_seconds"]


def test_jitter_leaves_the_mean_work_unchanged():
    """Noise has mean one, so only waiting is added."""
    plain, noisy, spread = small().summary(), small(jitter=0.3).summary(), small(speed_spread=0.3).summary()
    assert noisy["breakdown"]["compute"] == pytest.approx(plain["breakdown"]["compute"], rel=0.01)
    assert spread["breakdown"]["compute"] == pytest.approx(plain["breakdown"]["compute"], rel=0.04)
    assert noisy["step_seconds"] > plain["step_seconds"]


def test_more_of_anything_is_never_slower():
    machine = load_machine("sunway-oceanlight")
    base = small().summary()["step_seconds"]
    for key, value in (
        ("node.interface_bandwidth", "56 GB/s"),
        ("fabric.taper", "1/1"),
        ("core_group.memory_bandwidth", "100 GB/s"),
        ("core_group.peak", {"fp64": 2.3e12, "fp32": 4.6e12, "fp16": 18e12}),
        ("calibration.message_overhead", "1 us"),
    ):
        assert small(machine=machine.changed({key: value})).summary()["step_seconds"] <= base * (1 + 1e-12), key


def test_placement_matters_on_a_pruned_tree_only():
    """K8: the swap costs more where gradients cross a pruned trunk, and about nothing where the trunk is full."""
    options = {"mesh": {"ep": 200, "dp": 20}, "model": model_of(200)}
    machine = load_machine("sunway-oceanlight").changed({"fabric.latency_top": "1 us"})
    full = machine.changed({"fabric.taper": "1/1"})

    def ratio(hardware):
        moda, opposite = (
            athanor.simulate(hardware, placement=name, **options).summary()["step_seconds"]
            for name in ("moda", "opposite")
        )
        return opposite / moda

    assert 1.2 < ratio(machine) < 16 / 3
    assert ratio(full) == pytest.approx(1, abs=0.02)


def test_overlap_hides_gradients_behind_the_backward_pass():
    plain, beside = small().summary(), small(overlap="gradients").summary()
    assert beside["breakdown"]["gradient_sync"] < plain["breakdown"]["gradient_sync"]
    assert beside["step_seconds"] < plain["step_seconds"]


def test_gradient_accumulation_scales_all_but_the_update():
    one, four = small().summary(), small(tokens_per_rank=4096).summary()
    assert four["micro_batches"] == 4
    assert four["phases"]["forward"] == pytest.approx(4 * one["phases"]["forward"], rel=1e-6)
    assert four["phases"]["update"] == pytest.approx(one["phases"]["update"], rel=1e-6)


def test_a_rank_a_core_group_shares_the_interface():
    tiny = {"model": "moda-tiny", "machine": "cluster-64"}
    node = athanor.simulate(**tiny, mesh={"ep": 4}, tokens_per_rank=512).summary()
    group = athanor.simulate(**tiny, mesh={"ep": 4, "dp": 2}, ranks_per_node=2, tokens_per_rank=256).summary()
    assert (node["nodes"], group["nodes"], group["ranks"]) == (4, 4, 8)
    assert group["memory_per_rank_bytes"]["capacity"] == node["memory_per_rank_bytes"]["capacity"] / 2


def test_drifting_steps_differ_and_are_averaged():
    run = small(steps=4, router="zipf:1.0", drift=0.5, balancer="none")
    steps = run.summary()["each_step_seconds"]
    assert len(set(steps)) == 4
    assert run.summary()["step_seconds"] == pytest.approx(np.mean(steps))
    assert set(run.to_frame()["step"]) == {0, 1, 2, 3}


def test_trace():
    run = small(router="zipf:1.0", balancer="none")
    frame = run.to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["class"]) == set(run.classes) == {"lightest", "median", "heaviest"}
    assert (frame["end"] >= frame["start"]).all()
    assert set(frame["phase"]) == {"forward", "backward", "update"}
    gemms = frame[frame["kind"] == "gemm"]
    assert (gemms["flops"] >= 0).all()
    assert set(gemms["limit"]) <= {"compute", "memory", "start of operators"}
    exchanges = frame[(frame["kind"] == "exchange") & (frame["category"] == "all_to_all")]
    assert set(exchanges["limit"]) <= {"trunk.out", "trunk.in", "nic.out", "nic.in", "messages"}
    heavy = frame[(frame["class"] == "heaviest") & frame["operation"].str.endswith(".up")]["flops"].sum()
    light = frame[(frame["class"] == "lightest") & frame["operation"].str.endswith(".up")]["flops"].sum()
    assert heavy > 2 * light
    assert {"kind", "links", "bytes_per_step", "max_utilisation"} <= set(run.links_frame().columns)
    assert (run.links_frame()["max_utilisation"] <= 1).all()


def test_runs_are_saved_and_loaded(tmp_path):
    run = small()
    run.save(tmp_path / "run.json")
    again = Run.load(tmp_path / "run.json")
    assert (again.totals, again.trace, again.expert_load, again.plan) == (
        run.totals,
        run.trace,
        run.expert_load,
        run.plan,
    )
    (tmp_path / "other.json").write_text('{"format": "something else"}')
    for name, message in (("none.json", "no such file"), ("other.json", "format is 'something else'")):
        with pytest.raises(InputError, match=message):
            Run.load(tmp_path / name)
    with pytest.raises(InputError, match="cannot be written"):
        run.save(tmp_path / "no" / "folder" / "run.json")


def test_what_does_not_fit_is_refused_unless_asked_for():
    options = {"model": "moda-14.5t", "machine": "sunway-oceanlight", "zero": "0"}
    with pytest.raises(DoesNotFit, match="--zero hierarchical needs"):
        athanor.simulate(**options)
    totals = athanor.simulate(**options, allow_overcommit=True).summary()
    assert totals["fits"] is False
    assert any("would not run" in warning for warning in totals["warnings"])


def test_precision_that_the_machine_lacks():
    with pytest.raises(InputError, match="no fp16"):
        athanor.simulate("sunway-taihulight", "moda-tiny", precision="O2")
    assert athanor.simulate("sunway-taihulight", "moda-tiny", precision="O0").summary()["fits"]


def test_studies_too_large_for_this_computer_are_refused(monkeypatch):
    monkeypatch.setattr(limits, "available_bytes", lambda: 50e6)
    with pytest.raises(DoesNotFit, match=r"needs about 0.1 GB of this computer's memory"):
        small()
    monkeypatch.undo()
    vast = load_machine("sunway-oceanlight").changed({"nodes": 10**12})
    with pytest.raises(DoesNotFit, match="1,000,000,000,000 ranks"):
        athanor.simulate(vast, "moda-tiny", mesh={"ep": 2, "dp": 5 * 10**11})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"router": "zipf:1.0", "balancer": "none", "allow_overcommit": True},
        {"routing": "static", "depth": "bound", "speed_spread": 0.05},
        {"jitter": 0.05},
        {"router": "zipf:1.0", "drift": 0.1, "balancer": "capacity:1.25", "steps": 3},
        {"router": "table:smartmoe-32", "balancer": "none", "tokens_per_rank": 4096, "allow_overcommit": True},
    ],
    ids=str,
)
def test_the_estimate_of_memory_is_above_what_is_used(options):
    """At the full size, in a process of its own; and not so far above that it would refuse what runs."""
    script = f"import athanor; print(athanor.simulate('sunway-oceanlight', 'moda-1.93t', **{options}).totals['peak_rss_bytes'])"
    used = float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    chosen = {key: value for key, value in options.items() if key != "allow_overcommit"}
    estimate = limits.estimate_bytes(Setting.of("sunway-oceanlight", "moda-1.93t", chosen))
    assert used < estimate < 2.5 * used


@pytest.mark.parametrize(("layers", "stages", "micro_batches"), [(100, 1, 50), (500, 100, 20), (5000, 100, 200)])
def test_many_layers_and_micro_batches_that_are_alike_need_little_memory(layers, stages, micro_batches):
    """Blocks are written once: what is needed grows with what differs, and 5,000 layers are no reason to refuse."""
    shape = {"heads": 4, "hidden": 64, "ffn_hidden": 128, "vocabulary": 128, "seq_len": 32}
    model = Model(name="deep", layers=layers, **shape)
    options = {"mesh": {"pp": stages}, "tokens_per_rank": 32 * micro_batches, "micro_batch": 1}
    estimate = limits.estimate_bytes(Setting.of("selene", model, options))
    assert estimate < 0.25e9


def test_weak_scaling_grows_experts_and_batch():
    study = scale("weak", "sunway-oceanlight", "moda-1.93t", [6000, 24000])
    small_, large = study.points
    assert large.summary["parameters"]["expert"] == 4 * small_.summary["parameters"]["expert"]
    assert small_.summary["mesh"] == {"ep": 25, "dp": 240}
    assert small_.summary["tokens_per_rank"] == large.summary["tokens_per_rank"]
    assert 0.9 < large.efficiency < 1
    assert small_.efficiency == small_.speedup == 1


def test_strong_scaling_keeps_experts_and_batch():
    study = scale("strong", "sunway-oceanlight", "moda-1.93t", [6000, 12000])
    small_, large = study.points
    assert small_.summary["parameters"] == large.summary["parameters"]
    assert small_.summary["mesh"] == {"ep": 400, "dp": 15}
    assert small_.summary["tokens_per_rank"] == 2 * large.summary["tokens_per_rank"] == 16 * 1024
    assert 1.5 < large.speedup < 2


@pytest.mark.parametrize(
    ("kind", "model", "nodes", "message"),
    [
        ("strong", "moda-1.93t", 6100, "no multiple of the 400"),
        ("weak", "moda-1.93t", 1000, "no multiple of the 240"),
        ("strong", "moda-14.5t", 6000, "no multiple of the 2,400"),
        ("weak", "moda-1.93t", 0, "at least one node"),
        ("strong", "moda-1.93t", 1228800, "exceed sunway-oceanlight"),
    ],
)
def test_node_counts_that_do_not_divide(kind, model, nodes, message):
    with pytest.raises(InputError, match=message):
        scale(kind, "sunway-oceanlight", model, [nodes])


def test_known_points_are_not_simulated_again():
    keys = {}
    scale(
        "weak",
        "cluster-64",
        "moda-tiny",
        [4, 8],
        on_point=lambda key, study: keys.update({key: study.points[-1].summary}),
    )
    marked = {key: {**summary, "marked": True} for key, summary in keys.items()}
    again = scale("weak", "cluster-64", "moda-tiny", [4, 8, 16], known=marked)
    assert [point.summary.get("marked", False) for point in again.points] == [True, True, False]
    other = scale("weak", "cluster-64", "moda-tiny", [4], known=marked, seed=1)
    assert "marked" not in other.points[0].summary


@pytest.mark.parametrize(
    "options",
    [{}, {"router": "zipf:1.0", "balancer": "none"}, {"zero": "0", "depth": "bound"}, {"mesh": {"ep": 4, "dp": 3}}],
    ids=str,
)
@pytest.mark.parametrize("name", ["cluster-64", str(EXAMPLES / "machines" / "torus-8x8x8.toml")])
def test_links_carry_their_bytes_in_the_time_that_they_are_busy(options, name):
    """Utilisation in the mean x links x capacity x seconds is all bytes; the busiest link is no less busy than the mean.

    Links that carry nothing, of which a torus has many beside so few ranks, do not count.
    """
    machine = athanor.load_machine(name)
    summary = athanor.simulate(machine, "moda-tiny", **{"mesh": {"ep": 4, "dp": 4}, **options}).summary()
    assert {row["kind"] for row in summary["links"]} >= {"nic.out", "nic.in"}
    for row in summary["links"]:
        carried = row["mean_utilisation"] * row["links"] * row["capacity_bytes_per_second"] * summary["step_seconds"]
        assert carried == pytest.approx(row["bytes_per_step"], rel=1e-9)
        assert row["mean_utilisation"] <= row["max_utilisation"] * (1 + 1e-9)


@pytest.mark.parametrize(("grow", "same"), [("experts", False), ("data", True)])
def test_weak_scaling_says_what_grows_at_every_point(grow, same):
    """U1: the same model under the same name with ``data``, larger ones with ``experts``; the batch grows with both."""
    study = scale("weak", "cluster-64", "moda-tiny", [16, 32], grow=grow)
    small_, large = study.points
    assert study.grow == study.to_plain()["grow"] == grow
    assert (small_.summary["parameters"] == large.summary["parameters"]) is same
    assert large.experts == (1 if same else 2) * small_.experts
    axis = "dp" if same else "ep"
    assert large.summary["mesh"][axis] == 2 * small_.summary["mesh"][axis]
    assert (
        large.summary["tokens_per_rank"] * large.summary["ranks"]
        == 2 * small_.summary["tokens_per_rank"] * small_.summary["ranks"]
    )
    assert [point["experts"] for point in study.to_plain()["points"]] == [small_.experts, large.experts]


@pytest.mark.parametrize(
    ("kind", "mesh", "grows"),
    [
        ("weak", {"dp": 2, "tp": 2}, "dp"),
        ("weak", {"tp": 4}, "dp"),
        ("weak", {"fsdp": 4}, "fsdp"),
        ("strong", {"dp": 2, "tp": 2}, "dp"),
        ("strong", {"tp": 4}, "dp"),
    ],
)
def test_dense_models_scale_over_replicas(kind, mesh, grows):
    """Whatever axes the mesh has, replicas grow; what does not grow stays; the model is the same at all points."""
    options = {"mesh": mesh, "zero": "3" if "fsdp" in mesh else "1", "global_batch": 16, "micro_batch": 1}
    study = scale(kind, "selene", "megatron-1.7b", [1, 2], ranks_per_node=4, allow_overcommit=True, **options)
    small_, large = (point.summary for point in study.points)
    assert large["mesh"] == {**small_["mesh"], grows: 2 * small_["mesh"].get(grows, 1)}
    assert small_["parameters"] == large["parameters"]
    assert large["tokens_per_rank"] == small_["tokens_per_rank"] / (2 if kind == "strong" else 1)


@pytest.mark.parametrize(
    ("kind", "model", "grow", "message"),
    [
        ("strong", "moda-tiny", "data", "only weak scaling takes it"),
        ("weak", "moda-tiny", "date", "did you mean data"),
        ("weak", "megatron-1.7b", "experts", "has no axis ep"),
    ],
)
def test_growth_that_does_not_suit_is_refused(kind, model, grow, message):
    mesh = {"mesh": {"dp": 4}} if model != "moda-tiny" else {}
    with pytest.raises(InputError, match=message):
        scale(kind, "cluster-64", model, [4], grow=grow, **mesh)
