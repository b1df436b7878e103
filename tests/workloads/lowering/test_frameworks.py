"""What frameworks do beside the arithmetic: gathers of updated weights beside the forward pass, work on shards, casts to eight bits."""

import pytest
from athanor.cli import cli
from athanor.hardware.machine import load_machine
from athanor.reports.studies.accuracy.libraries import libraries
from athanor.sim.planning.question import Question
from athanor.sim.planning.search import search
from athanor.workloads.model.model import Model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.costs import compute_seconds
from athanor.workloads.schedule.operation import Role
from athanor.workloads.schedule.work import Bookkeeping, Gemm, PipelineWork, Sweep
from click.testing import CliRunner
from pytest import approx
from support.strategies import DENSE, SHAPE, SHARED, exchanges, flat, lowered, moved, simulated, two_levels

SHARDED = {"mesh": {"dp": 4}, "tokens_per_rank": 128, "micro_batch": 1}


def gathers(schedule):
    return [each.name for each in schedule.operations if each.name.endswith("all-gather")]


@pytest.mark.parametrize("zero", ["1", "2"])
def test_updated_weights_come_beside_the_first_forward_pass(zero):
    """The same bytes, layer by layer in the first micro-batch; what is beside layers is gathered after the update, as before."""
    late, at_once = (lowered(zero=zero, overlap=overlap, **SHARDED) for overlap in ("all", "gradients"))
    assert moved(late, "gradient_sync") == approx(moved(at_once, "gradient_sync"))
    names = gathers(late)
    assert [name for name in names if "weights" in name] == [f"m0.l{n}.weights.dense.fp32.all-gather" for n in (0, 1)]
    assert [name for name in names if "weights" not in name] == ["update.dense.fp32.all-gather"]
    ends = exchanges(late)["update.dense.fp32.all-gather"].nbytes
    assert 0 < ends < exchanges(at_once)["update.dense.fp32.all-gather"].nbytes


@pytest.mark.parametrize("model", [DENSE, SHARED])
def test_gathers_beside_the_forward_pass_are_never_slower(model):
    machine = flat(injection=2e3)
    late, at_once, alone = (
        simulated(model, machine, zero="1", overlap=overlap, balancer="even" if model.experts else "none", **SHARDED)
        for overlap in ("all", "gradients", "none")
    )
    assert late["step_seconds"] < at_once["step_seconds"] <= alone["step_seconds"]
    assert late["phases"]["update"] < at_once["phases"]["update"]


def test_blocks_begin_when_the_first_layer_is_there():
    """Before a pipeline's blocks one layer is waited for; the others' gathers end within the step."""
    options = {"mesh": {"pp": 2, "dp": 2}, "tokens_per_rank": 256, "micro_batch": 1, "zero": "1"}
    machine, deep = flat(injection=2e5), Model(name="deep", **{**SHAPE, "layers": 8})
    schedule = lowered(deep, machine, overlap="all", **options)
    works = [each for each in schedule.operations if isinstance(each.work, PipelineWork)]
    before = [each.name for each in schedule.operations if each.name.startswith("l0.weights")]
    assert len(works) == len(before) == 1
    late, at_once = (simulated(deep, machine, overlap=each, **options) for each in ("all", "gradients"))
    assert late["step_seconds"] < at_once["step_seconds"]
    assert late["phases"]["update"] < at_once["phases"]["update"]


def test_a_stage_without_layers_gathers_none():
    """The longest stage says how much is gathered, also where the first one has the embedding alone."""
    deep = Model(name="deep", **{**SHAPE, "layers": 4})
    options = {"mesh": {"pp": 2, "dp": 2}, "tokens_per_rank": 128, "micro_batch": 1, "zero": "1", "stage_layers": "0,4"}
    schedule = lowered(deep, overlap="all", **options)
    assert [name for name in gathers(schedule) if "weights" in name] == [
        f"l{layer}.weights.dense.fp32.all-gather" for layer in range(4)
    ]
    late, at_once = (simulated(deep, flat(injection=2e5), overlap=each, **options) for each in ("all", "gradients"))
    assert late["step_seconds"] < at_once["step_seconds"]


def test_without_shards_there_is_nothing_to_gather():
    for zero in ("0", "3"):
        late, at_once = (simulated(zero=zero, overlap=overlap, **SHARDED) for overlap in ("all", "gradients"))
        assert late["step_seconds"] == at_once["step_seconds"]


def test_the_runtime_refuses_what_it_does_not_do():
    flags = ["--mesh", "dp=1", "--zero", "1", "--overlap", "all", "--global-batch", "1"]
    done = CliRunner().invoke(cli, ["execute", "--model", "gpt-1", *flags])
    assert "--overlap all: is simulated only" in str(done.exception)


def test_the_formula_knows_gathers_beside_the_pass():
    """The planner's formula lies within a twentieth of the engine with either overlap."""
    for overlap in ("gradients", "all"):
        fixed = {"global_batch": 32, "zero": "1", "overlap": overlap, "micro_batch": 1, "recompute": "none"}
        question = Question.of(two_levels(), DENSE, {**fixed, "precision": "O0"}, gpus=16)
        *_, last = search(question)
        assert abs(last.plain()["closed_form_error"]["mean_absolute"]) < 0.05


def test_work_on_shards_grows_with_ranks_and_tensors():
    """Two gathers and one reduction of four matrices of each layer, and the embedding's, for each rank and micro-batch."""
    machine, each = flat(), 1e-3
    slow = machine.changed({"calibration.shard_overhead": each})
    for ranks in (2, 8):
        options = {"mesh": {"dp": ranks}, "zero": "3", "tokens_per_rank": 64, "micro_batch": 1}
        plain, told = (simulated(machine=on, **options)["step_seconds"] for on in (machine, slow))
        works = [op.work for op in lowered(machine=slow, **options).operations if isinstance(op.work, Bookkeeping)]
        count = sum(work.shards for work in works)
        micro_batches = 2
        assert count == micro_batches * ranks * (3 * 4 * 2 + 3) - (micro_batches - 1) * ranks
        assert told - plain == approx(count * each)
    for zero in ("1", "2"):
        first, second = (simulated(machine=on, zero=zero, mesh={"dp": 8}) for on in (machine, slow))
        assert first["step_seconds"] == second["step_seconds"]


def test_eight_bits_are_made_of_sixteen():
    """Activations and gradients are read once and written twice; gradients of weights find both made already."""
    setting = Setting.of("eos-h100", "gpt-2", {"mesh": {"dp": 8}, "precision": "fp8", "global_batch": 8, "zero": "0"})
    from athanor.workloads.lowering import lower_step

    works = {op.name: op.work for op in lower_step(setting)[0].operations if isinstance(op.work, Gemm)}
    assert works["l0.ffn.up"].cast_from == works["l0.ffn.up.dgrad"].cast_from == "bf16"
    assert works["l0.ffn.up.wgrad"].cast_from is None
    processor, calibration = setting.machine.processor(8), setting.machine.calibration
    work = Gemm(4096.0, 4096.0, 4096.0, 1.0, "fp8")
    cast = Gemm(4096.0, 4096.0, 4096.0, 1.0, "fp8", cast_from="bf16")
    sweep = Sweep(4096.0**2, 2.0, 2.0, 0.0, "fp8")
    seconds = [float(compute_seconds(each, processor, calibration).seconds) for each in (work, cast, sweep)]
    assert seconds[1] - seconds[0] == approx(seconds[2] - processor.launch(1))


def test_every_row_has_a_library_and_its_keys_are_the_machines():
    for each in libraries():
        assert each.source
        for mesh in ({"dp": 8}, {"pp": 2, "tp": 4}):
            Setting.of(each.on(load_machine("selene")), "gpt3-6.7b", {"mesh": mesh, **each.plan_on(mesh)})


# --- passes around the update and the loss -------------------------------------------------------------------------------------


def swept(schedule, role, gradient=None):
    """Bytes read and written by the sweeps of a role."""
    works = [each.work for each in schedule.operations if (each.task.role, each.task.gradient) == (role, gradient)]
    return sum(work.size * work.read for work in works), sum(work.size * work.written for work in works)


def test_frameworks_pass_over_gradients_around_the_update():
    """Norm and clipping always; copies of what is kept shorter; the scale of a loss whose gradients are halves; zeros behind."""
    count, options = DENSE.parameters.total, {"mesh": {"dp": 1}, "framework": "megatron"}
    of_bf16, of_halves = (swept(lowered(precision=each, **options), Role.UPDATE_SCALING) for each in ("bf16", "O2"))
    assert of_bf16 == (count * (4 + 4 + 4), count * (4 + 4))  # norm, clipping, master weights again; clipping, zeros
    assert of_halves == (count * (4 + 4 + 4 + 4 + 4), count * (4 + 4 + 4 + 2))  # also widened, and divided by the scale
    assert not any(each.task.role is Role.UPDATE_SCALING for each in lowered(mesh={"dp": 1}).operations), (
        "a machine without a framework"
    )


def test_passes_of_which_all_is_counted_stream():
    """At their own share of the bandwidth; others at that which also stands for what is not counted."""
    selene = load_machine("selene")
    fast = selene.changed({"core_group.streaming": 0.6})
    plan = {"mesh": {"dp": 1}, "framework": "megatron", "precision": "bf16"}
    for work in (each.work for each in lowered(**plan).operations if isinstance(each.work, Sweep)):
        slow, other = (
            compute_seconds(work, machine.processor(1), machine.calibration).seconds - machine.processor(1).launch(1)
            for machine in (selene, fast)
        )
        assert other == approx(slow / (1 if not work.streams else fast.core_group.streaming / 0.8))
    streams = {each.task.role for each in lowered(**plan).operations if getattr(each.work, "streams", False)}
    assert streams == {Role.UPDATE_SCALING, Role.OPTIMIZER, Role.LOSS}


def test_of_shards_a_rank_passes_over_its_own_and_clears_all():
    whole, cut = (
        lowered(mesh={"dp": 4}, framework="megatron", precision="bf16", zero=zero, overlap="none") for zero in "01"
    )
    (read, written), (mine, made) = (swept(each, Role.UPDATE_SCALING) for each in (whole, cut))
    zeros = 4 * DENSE.parameters.total
    assert mine == approx(read / 4) and made - zeros == approx((written - zeros) / 4)


def test_a_loss_that_is_not_fused_passes_over_logits_in_single_precision():
    plain, fused, bare = (
        lowered(mesh={"dp": 1}, precision="bf16", **way)
        for way in ({"framework": "megatron"}, {"framework": "megatron", "loss": "fused"}, {})
    )
    assert swept(fused, Role.LOSS) == swept(bare, Role.LOSS) and swept(fused, Role.LOSS, "input") == (0, 0)
    logits = swept(bare, Role.LOSS)[1] / 2
    assert swept(plain, Role.LOSS) == (22 * logits, 16 * logits)  # cast, maximum, less it, exponential, sum, quotient
    assert swept(plain, Role.LOSS, "input") == (8 * logits, 6 * logits)
