"""Optimizers are policies: what they say of themselves is what is lowered, what is accounted for, and what the planner sees."""

from __future__ import annotations

from dataclasses import replace

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.precisions import BYTES
from athanor.sim.planning.estimate import Estimator
from athanor.sim.planning.question import Question
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.data_parallel.held_tensors import HeldTensors, split_axes, together
from athanor.workloads.lowering.data_parallel.sharding import held, layers_of, shards
from athanor.workloads.memory.account import account, sample_loads
from athanor.workloads.memory.state import ModelState
from athanor.workloads.model.model import Parameters, list_models
from athanor.workloads.model.precision import POLICIES, Formats
from athanor.workloads.model.tensors import Tensor, tensors_of_input, tensors_of_layer, tensors_of_output
from athanor.workloads.optimizers import OPTIMIZERS
from athanor.workloads.optimizers.optimizer import Sums, UpdatePass, UpdateProducts, WholeTensor
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Role
from athanor.workloads.schedule.work import Exchange, Gemm, HostSweep, Sweep
from support.small_searches import sized

NAMES = sorted(OPTIMIZERS)
WHOLE = ("adafactor", "lamb", "muon")
PLANS = [
    ("selene", "gpt3-13b", {"mesh": {"pp": 4, "dp": 4, "tp": 4}, "zero": "1", "precision": "bf16"}),
    ("selene", "gpt3-13b", {"mesh": {"dp": 4, "tp": 4}, "zero": "0", "precision": "O1"}),
    (  # PyTorch's FSDP, the usual one there, keeps no copy beside its shards
        "selene",
        "llama2-70b",
        {"mesh": {"fsdp": 8, "dp": 2, "tp": 2}, "zero": "3", "precision": "bf16", "framework": "deepspeed"},
    ),
    ("selene", "gpt3-13b", {"mesh": {"dp": 4, "tp": 4}, "tensor": "2d", "zero": "2", "precision": "O2"}),
    ("sunway-oceanlight", "moda-1.93t", {"mesh": {"ep": 50, "dp": 4}}),
    (
        "eos-h100",
        "deepseek-v3",
        {"mesh": {"ep": 8, "dp": 2, "tp": 2}, "expert_tensor": "whole", "tokens_per_rank": 4096},
    ),
]


def setting_of(plan: tuple, optimizer: str, **more) -> Setting:
    machine, model, options = plan
    return Setting.of(machine, model, {**options, "optimizer": optimizer, **more})


@pytest.mark.parametrize("model", list_models(), ids=lambda each: each.name)
def test_tensors_are_the_parameters_of_every_part(model):
    for parameters, tensors in [
        *((model.of_layer(kind), tensors_of_layer(model, kind)) for kind in set(model.stack)),
        (model.of_input, tensors_of_input(model)),
        (model.of_output, tensors_of_output(model)),
    ]:
        for part in Parameters.model_fields:
            found = sum(count * tensor.size for tensor, count in tensors.get(part, {}).items())
            assert found == getattr(parameters, part), part


@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_what_a_rank_has_of_tensors_is_what_it_holds(plan):
    setting = setting_of(plan, "muon")
    for each in held(setting):
        cut = setting.mesh.size(*split_axes(setting, each.part))
        parts = [count * tensor.size / cut for tensor, count in HeldTensors(setting).of(each.part).items()]
        assert np.allclose(sum(parts), each.parameters, rtol=1e-12)
        assert np.allclose(sum(one.parameters for one in HeldTensors(setting).ruled(each)), each.parameters, rtol=1e-12)


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_lowered_bytes_flops_and_exchanges_are_the_policys_own(plan, optimizer):
    """Counted again from the definition: passes by parameter, sums and matrices by tensor, over ranks that share tensors."""
    setting = setting_of(plan, optimizer)
    schedule, _ = lower_step(setting)
    formats = setting.plan.precisions.at(0)
    updates = [each for each in schedule.operations if each.category == "optimizer"]
    mine = [each for each in updates if each.task.role is not Role.UPDATE_SCALING]  # which is the framework's
    assert all(each.name.startswith(f"update.{optimizer}.") for each in mine)
    swept = sum(
        np.asarray(each.work.size) * (each.work.read + each.work.written)
        for each in mine
        if isinstance(each.work, Sweep)
    )
    flops = sum(np.asarray(each.work.flops) for each in mine if isinstance(each.work, Sweep))
    sums = sum(
        np.asarray(each.work.nbytes)
        for each in mine
        if isinstance(each.work, Exchange) and each.work.operation == "all-reduce"
    )
    whole = sum(
        np.asarray(each.work.nbytes)
        for each in mine
        if isinstance(each.work, Exchange) and each.work.operation == "all-gather"
    )
    products = sum(np.asarray(each.work.flops) for each in mine if isinstance(each.work, Gemm))
    expected = dict.fromkeys(("swept", "flops", "sums", "whole", "products"), 0.0)
    for each in held(setting):
        alone, parts = setting.mesh.size(*together(setting, each)) == 1, shards(setting, each)
        for tensor, count in HeldTensors(setting).of(each.part).items():
            own = count * tensor.size / setting.mesh.size(*split_axes(setting, each.part)) / parts
            rule = setting.plan.optimizing.rule(each.part, tensor)
            for step in rule.steps(tensor, formats[each.part]):
                match step:
                    case UpdatePass():
                        expected["swept"] = expected["swept"] + own * (step.read + step.written)
                        expected["flops"] = expected["flops"] + own * step.flops
                    case Sums() if not alone:
                        expected["sums"] = expected["sums"] + 4 * step.numbers * count
                    case WholeTensor() if not alone:
                        expected["whole"] = expected["whole"] + BYTES[step.element] * tensor.size * count
                    case UpdateProducts():
                        touched = count if parts == 1 else np.minimum(count, count / parts + 1)
                        each_matrix = sum(2 * m * n * k * times for m, n, k, times in step.shapes)
                        expected["products"] = expected["products"] + touched * each_matrix
    for found, name in ((swept, "swept"), (flops, "flops"), (sums, "sums"), (whole, "whole"), (products, "products")):
        assert np.allclose(found, expected[name], rtol=1e-9), name


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_memory_of_state_is_the_policys_own_line_by_line(plan, optimizer):
    setting = setting_of(plan, optimizer)
    found = account(setting, sample_loads(setting))
    formats, by_stage = setting.plan.precisions.at(0), found.stages.by_stage
    lines = [line for line in found.lines if line.part == "optimizer"]
    for each in held(setting):
        state = kept = np.zeros(found.stages.count)
        for tensor, count in HeldTensors(setting).of(each.part).items():
            rule, number = setting.plan.optimizing.rule(each.part, tensor), by_stage(count)
            parts = shards(setting, each) * setting.mesh.size(*split_axes(setting, each.part))
            state = state + number * tensor.size / parts * rule.state_bytes(formats[each.part])
            kept = kept + number * 4 * sum(rule.kept(tensor).values())
        for what, expected in (("state", state), ("state of whole tensors", kept)):
            line = sum(
                (line.nbytes for line in lines if (line.name, line.what) == (each.part, what)), start=np.zeros(1)
            )
            assert np.allclose(line, expected, rtol=1e-12)


def test_adafactor_keeps_a_number_a_row_and_one_a_column():
    rule = OPTIMIZERS.find("adafactor")
    for tensor in (Tensor(4096, 16384), Tensor(7, 3)):
        formats = POLICIES["bf16"]["ffn"]
        assert rule.rule("ffn", tensor).slots(formats) == ()
        assert {name: len(each) for name, each in rule.state(5, tensor, formats).items()} == {
            "rows": tensor.rows,
            "columns": tensor.columns,
        }


@pytest.mark.parametrize("optimizer", NAMES)
def test_state_before_the_first_step_has_the_bytes_that_slots_say(optimizer):
    count = 1 << 14
    for tensor, part in ((Tensor(128, 128), "ffn"), (Tensor(1, count), "norm"), (Tensor(128, 128), "embedding")):
        for policy in ("O0", "O2", "O3", "fp64"):
            formats = POLICIES[policy][part]
            rule = OPTIMIZERS.find(optimizer).rule(part, tensor)
            arrays = rule.state(count, tensor, formats)
            kept = sum(array.nbytes for name, array in arrays.items() if name in rule.kept(tensor))
            slots = sum(array.nbytes for array in arrays.values()) - kept
            assert slots == pytest.approx(count * sum(each.nbytes for each in rule.slots(formats)))
            assert kept == sum(rule.kept(tensor).values()) * (8 if policy == "fp64" else 4)


PUBLISHED = {"adam": 8, "adamw": 8, "lamb": 8, "sgd": 4, "adafactor": 0, "muon": 4, "adam8bit": 2 + 2 * 4 / 2048}
"""Bytes a parameter of a hidden matrix beside its master copy, moments in single."""


@pytest.mark.parametrize("optimizer", NAMES)
def test_bytes_a_parameter_are_the_published_ones(optimizer):
    formats = Formats("fp16", "fp16", "fp16", master="fp32", moments="fp32")
    rule = OPTIMIZERS.find(optimizer).rule("ffn", Tensor(64, 64))
    assert rule.state_bytes(formats) == pytest.approx(4 + PUBLISHED[optimizer])


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("zero", ["1", "2", "3"])
def test_sharding_divides_what_is_kept_by_parameter_and_nothing_else(optimizer, zero):
    def lines(level):
        options = {"mesh": {"dp": 8}, "zero": level, "optimizer": optimizer, "framework": "deepspeed"}
        setting = Setting.of("selene", "gpt3-13b", options)
        found = account(setting, sample_loads(setting))
        return {(line.name, line.what): float(line.nbytes[0]) for line in found.lines if line.part == "optimizer"}

    whole, parts = lines("0"), lines(zero)
    assert whole.keys() == parts.keys()
    for key, nbytes in whole.items():
        assert parts[key] == pytest.approx(nbytes / (8 if key[1] == "state" else 1))


@pytest.mark.parametrize("optimizer", [name for name in NAMES if OPTIMIZERS.find(name).hosted])
def test_the_hosts_sweep_is_the_gradient_the_state_twice_and_the_new_weight(optimizer):
    plan = ("selene", "gpt3-13b", {"mesh": {"dp": 4}, "zero": "2", "precision": "O2", "offload": "optimizer"})
    setting = setting_of(plan, optimizer)
    schedule, _ = lower_step(setting)
    found = sum(
        float(each.work.size) * each.work.nbytes for each in schedule.operations if isinstance(each.work, HostSweep)
    )
    formats, expected = setting.plan.precisions.at(0), 0.0
    for each in held(setting):
        for tensor, count in HeldTensors(setting).of(each.part).items():
            state = setting.plan.optimizing.rule(each.part, tensor).state_bytes(formats[each.part])
            expected += count * tensor.size / 4 * (2 + 2 * state + 2)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", WHOLE)
def test_updates_that_look_at_whole_tensors_stay_on_accelerators(optimizer):
    with pytest.raises(InputError, match=r"--offload optimizer with an --optimizer of whole tensors"):
        setting_of(("selene", "gpt3-13b", {"mesh": {"dp": 4}, "offload": "optimizer"}), optimizer)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        ("adm", "--optimizer adm: no such optimizer .*did you mean adam"),
        (
            "sgd:momentun=0.9",
            "--optimizer sgd:momentun=0.9: sgd has no hyper-parameter momentun.*did you mean momentum",
        ),
        ("sgd:momentum=x", "--optimizer sgd:momentum=x: sgd needs a number from 0 on for momentum"),
        (
            "no_such_module:Lion",
            "--optimizer no_such_module:Lion: no such optimizer .*nor is there a module no_such_module",
        ),
        ("athanor.workloads.optimizers:OPTIMIZERS", "is no optimizer"),
    ],
)
def test_what_is_no_optimizer_is_refused_in_one_line(optimizer, said):
    with pytest.raises(InputError, match=said) as refused:
        setting_of(PLANS[0], optimizer)
    assert "\n" not in str(refused.value)


def test_adam_is_what_is_lowered_where_nothing_is_said():
    plan = {"machine": "selene", "model": "gpt3-13b", "mesh": {"dp": 4, "tp": 4}}
    assert athanor.lower(**plan) == athanor.lower(**plan, optimizer="adam")
    assert athanor.lower(**plan) != athanor.lower(**plan, optimizer="sgd")


@pytest.mark.parametrize("optimizer", NAMES)
def test_the_planner_sees_each_optimizer_as_the_engine_does(optimizer):
    """What an optimizer adds to Adam's step and memory, in closed form and simulated."""
    machine, model = athanor.load_machine("selene"), athanor.load_model("gpt3-13b")
    options = {"global_batch": 64, "precision": "bf16", "depth": "fluid"}
    mesh, more = {"dp": 4, "tp": 4}, {"zero": "1", "micro_batch": 1, "placement": "megatron"}

    def both(name: str) -> tuple[float, float, float, float]:
        question = Question.of(machine, model, {**options, "optimizer": name}, gpus=16)
        estimate = Estimator(question).estimate(mesh, more)
        run = athanor.simulate(machine=machine, model=model, mesh=mesh, optimizer=name, **options, **more)
        total = run.summary()
        return estimate.seconds, total["step_seconds"], estimate.memory.total, total["memory_per_rank_bytes"]["total"]

    found, adam = both(optimizer), both("adam")
    assert found[2] == pytest.approx(found[3], rel=1e-9)
    assert found[0] - adam[0] == pytest.approx(found[1] - adam[1], rel=0.01, abs=1e-3 * adam[1])


def test_a_search_takes_optimizers_as_an_open_choice():
    tries = [
        "optimizer=adam;sgd:momentum=0.8",
        "tp=4",
        "pp=1",
        "zero=0",
        "recompute=full",
        "overlap=none",
        "micro_batch=1",
    ]
    found = athanor.plan("selene", "gpt3-13b", gpus=16, global_batch=64, tries=tries, simulated=2)
    seconds = {plan.options["optimizer"]: played.summary for plan, played in found.plans if played}
    assert seconds.keys() == {"adam", "sgd:momentum=0.8"}


def test_a_state_of_an_account_by_hand():
    """A run of the account with a changed optimizer gives what another setting gives: nothing is remembered between them."""
    setting = setting_of(PLANS[1], "adam")
    changed = replace(setting, plan=setting.plan.changed(optimizer="sgd"))
    stages = account(setting, []).stages
    formats = setting.plan.precisions.at(0)
    adam, sgd = (
        sum(float(line.nbytes[0]) for line in ModelState(one, formats, stages).lines() if line.part == "optimizer")
        for one in (setting, changed)
    )
    assert adam - sgd == pytest.approx(4 * float(sum(each.parameters for each in held(setting))))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_tied_table_is_where_it_is_looked_up_and_where_it_gives_scores(tied, stages):
    """One stage has it once for both; of several the first and the last have one each, tied or not."""
    model = sized(tied=tied)
    setting = Setting.of("cluster-64", model, {"mesh": {"pp": stages}, "precision": "O0", "tokens_per_rank": 1 << 12})
    found = HeldTensors(setting).of("embedding")
    tables = sum(
        (
            np.broadcast_to(np.reshape(count, -1), stages)
            for tensor, count in found.items()
            if tensor in (Tensor(model.vocabulary, model.hidden), Tensor(model.hidden, model.vocabulary))
        ),
        start=np.zeros(stages),
    )
    assert tables.tolist() == ([1.0 if tied else 2.0] if stages == 1 else [1.0, *[0.0] * (stages - 2), 1.0])


@pytest.mark.parametrize("first", [0, 2, 4])
def test_a_stage_has_room_to_update_the_largest_tensor_that_it_has(first):
    """Not one that other stages have: with layers of an FFN before those of experts, stages have different ones."""
    width = athanor.load_model("moda-tiny").ffn_hidden
    model = sized("moda-tiny", dense_first=first, expert_hidden=4 * width)
    setting = Setting.of(
        "sunway-oceanlight", model, {"mesh": {"pp": 2, "ep": 2}, "optimizer": "muon", "micro_batch": 1}
    )
    found, formats = account(setting, sample_loads(setting)), setting.plan.precisions.at(0)
    (line,) = (each for each in found.lines if each.what == "the update of one tensor")
    rule = setting.plan.optimizing.rule
    for stage in range(2):
        largest = max(
            rule(part, tensor).workspace(tensor, formats[part])
            for layer in layers_of(setting, stage)
            for part, tensors in tensors_of_layer(model, model.stack[layer]).items()
            for tensor in tensors
        )
        assert line.nbytes[stage] == largest
