"""What waits for what: data are there before they are used, and only what may run beside each other is not ordered."""

import pytest
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.unroll import unrolled
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Role
from athanor.workloads.schedule.work import Exchange, Gemm, Loop
from support.operators import BOTH, DENSE, GATED, LENGTH, SHARED, made
from support.strategies import flat, hosted, simulated

ROOMY = hosted(flat())


def lowered(model, **options):
    plan = {"precision": "O0", "zero": "0", "tokens_per_rank": 2 * LENGTH, **options}
    return lower_step(Setting.of(ROOMY, model, plan))[0]


def befores(operations):
    """For each operation all that is done when it begins: what is before it on its stream, what it waits for, and so on."""
    found, latest = [], {}
    for number, each in enumerate(operations):
        done = set()
        for other in (*each.after, *([latest[each.stream]] if each.stream in latest else [])):
            done |= found[other] | {other}
        latest[each.stream] = number
        found.append(done)
    return found


TENSOR = {
    "tp": (DENSE, {"mesh": {"tp": 2}}),
    "sequence": (GATED, {"mesh": {"tp": 2}, "sequence_parallel": True}),
    "cross": (BOTH, {"mesh": {"tp": 2}, "sequence_parallel": True}),
    "experts": (SHARED, {"mesh": {"ep": 2, "tp": 2}, "sequence_parallel": True, "balancer": "swipe"}),
    "again": (GATED, {"mesh": {"tp": 2}, "sequence_parallel": True, "recompute": "full"}),
}


@pytest.mark.parametrize("case", TENSOR)
@pytest.mark.parametrize("overlap", [False, True])
def test_a_pass_is_a_chain_but_for_exchanges_beside_one_product(case, overlap):
    """Without overlap everything waits for all before it; with it an exchange over tp has one product that it may run beside."""
    model, options = TENSOR[case]
    operations = lowered(model, **options, tensor_overlap=overlap).operations
    done, beside = befores(operations), []
    for number, each in enumerate(operations):
        apart = [other for other in range(number) if other not in done[number]]
        assert len(apart) <= overlap, (each.name, [operations[other].name for other in apart])
        for other in apart:
            pair = (each, operations[other])
            exchange, product = pair if isinstance(each.work, Exchange) else reversed(pair)
            assert isinstance(product.work, Gemm)
            assert exchange.work.axes == ("tp",)
            assert exchange.task.overlaps == ("last product" if exchange is each else "next product")
            beside.append(exchange.name)
    assert bool(beside) == overlap
    assert len(beside) == len(set(beside)), "one product beside each"


@pytest.mark.parametrize("case", TENSOR)
def test_beside_weights_only_what_gradients_of_inputs_need_is_sent(case):
    """An input comes again beside its own gradient, which is added up beside its weight's; nothing forward, nothing of gates."""
    model, options = TENSOR[case]
    operations = lowered(model, **options, tensor_async=True).operations
    done, beside = befores(operations), []
    for number, each in enumerate(operations):
        for other in (operations[at] for at in range(number) if at not in done[number]):
            exchange, product = (each, other) if isinstance(each.work, Exchange) else (other, each)
            assert (exchange.task.role, exchange.phase) == (Role.INPUT_GATHER, "backward")
            assert exchange.task.part == product.task.part != "moe"
            assert product.task.gradient == {"weight": "input", "input": "weight"}[exchange.task.gradient]
            assert product.task.operand in ("qkv", "queries", "keys", "values", "up", "logits")
            beside.append(exchange.name)
    sent = {each.name for each in operations if each.task.role is Role.INPUT_GATHER and each.task.gradient}
    left = {name for name in sent if ".moe." not in name} - {*beside}
    assert all(".cross." in name for name in left), (
        "where two inputs come again, one has a product that does not need it"
    )
    assert beside and len(beside) == len({*beside})


def test_a_step_beside_weights_lies_between_one_in_turns_and_one_beside_all_products():
    options = {"mesh": {"tp": 4}, "sequence_parallel": True}
    machine = flat(injection=2e3)
    turns, weights, every = (
        simulated(GATED, machine, **options, **way)["step_seconds"]
        for way in ({}, {"tensor_async": True}, {"tensor_overlap": True})
    )
    assert every < weights < turns
    split = {"mesh": {"tp": 2, "pp": 2}, "pipeline": "zb-h1", "tokens_per_rank": 256, "micro_batch": 1}
    halves = [
        simulated(GATED.model_copy(update={"layers": 2}), machine, **split, tensor_async=each)["step_seconds"]
        for each in (False, True)
    ]
    assert halves[0] == halves[1], "half of a backward pass has nothing that does not need what is sent"


GRADIENTS = {
    "zero 0": {"mesh": {"dp": 4}},
    "zero 1": {"mesh": {"dp": 4}, "zero": "1"},
    "zero 1, all": {"mesh": {"dp": 4}, "zero": "1", "overlap": "all"},
    "zero 2": {"mesh": {"dp": 4}, "zero": "2"},
    "zero 3": {"mesh": {"dp": 4}, "zero": "3"},
    "zero ++": {"mesh": {"dp": 2, "fsdp": 2}, "zero": "++"},
    "micro-batches": {"mesh": {"dp": 4}, "zero": "2", "tokens_per_rank": 6 * LENGTH, "micro_batch": 2},
    "offload": {"mesh": {"dp": 4}, "zero": "2", "offload": "optimizer,parameters,activations"},
    "offload of all": {"mesh": {"dp": 4}, "zero": "3", "offload": "optimizer,parameters,activations"},
}


@pytest.mark.parametrize("case", GRADIENTS)
@pytest.mark.parametrize("overlap", ["none", "gradients"])
def test_data_are_there_before_they_are_used(case, overlap):
    """Weights before products with them, gradients before their sums and before they leave, sums before the update."""
    operations = lowered(DENSE, **{"overlap": overlap, **GRADIENTS[case]}).operations
    done = befores(operations)
    ours = {Role.GRADIENT_SUM, Role.OPTIMIZER, Role.HOST_OPTIMIZER, Role.WEIGHT_GATHER, Role.GRADIENT_OFFLOAD}
    ours |= {Role.WEIGHT_FETCH, Role.ACTIVATION_FETCH, Role.ACTIVATION_OFFLOAD, Role.DEQUANTISE}

    def numbers(wanted):
        return {number for number, each in enumerate(operations) if wanted(each)}

    def makes(layer, micro_batch):
        return numbers(
            lambda one: (
                one.task.of_weights
                and isinstance(one.work, Gemm)
                and (one.task.layer, one.task.micro_batch) == (layer, micro_batch)
            )
        )

    kinds = set()
    for number, each in enumerate(operations):
        task = each.task
        if task.role in (Role.GRADIENT_SUM, Role.GRADIENT_OFFLOAD) and task.layer is not None:
            assert makes(task.layer, task.micro_batch) <= done[number], each.name
        if task.role == Role.GRADIENT_OFFLOAD:
            sums = numbers(lambda one, task=task: one.task.role == Role.GRADIENT_SUM and one.task.place == task.place)
            assert {one for one in sums if one < number} <= done[number]
        if task.role in (Role.OPTIMIZER, Role.HOST_OPTIMIZER):
            everything = numbers(
                lambda one: (
                    one.task.role in (Role.GRADIENT_SUM, Role.GRADIENT_OFFLOAD)
                    or (one.phase != "update" and one.stream == "compute")
                )
            )
            assert everything <= done[number], each.name
        if (
            task.role in (Role.WEIGHT_GATHER, Role.WEIGHT_FETCH, Role.DEQUANTISE)
            and task.layer is not None
            and each.phase != "update"
        ):
            backward = each.phase == "backward"
            users = numbers(
                lambda one, task=task, phase=each.phase: (
                    one.task.layer == task.layer
                    and one.phase == phase
                    and isinstance(one.work, Gemm)
                    and one.task.micro_batch == task.micro_batch
                )
            )
            assert all(number in done[user] for user in users if user > number), (each.name, backward)
        if task.role == Role.ACTIVATION_FETCH:
            out = numbers(
                lambda one, task=task: (
                    one.task.role == Role.ACTIVATION_OFFLOAD
                    and one.task.layer == task.layer
                    and one.task.micro_batch == task.micro_batch
                )
            )
            users = numbers(
                lambda one, task=task: (
                    one.task.layer == task.layer
                    and one.phase == "backward"
                    and isinstance(one.work, Gemm)
                    and one.task.micro_batch == task.micro_batch
                )
            )
            assert len(out) == 1
            assert out <= done[number]
            assert all(number in done[user] for user in users)
        kinds |= {task.role} & ours
    assert {Role.GRADIENT_SUM} < kinds
    assert ({Role.HOST_OPTIMIZER} if "offload" in case else {Role.OPTIMIZER}) < kinds


@pytest.mark.parametrize("pipeline", ["1f1b", "gpipe", "interleaved", "zb-h1"])
@pytest.mark.parametrize("stage", [0, 1])
def test_stages_send_what_they_have_made_and_work_on_what_has_come(pipeline, stage):
    """Every message leaves after all that its pass computed, but for gradients of weights; every pass begins when its own has come."""
    model = made("deep", layers=4)
    chunks = 2 if pipeline == "interleaved" else 1
    schedule = lowered(
        model, mesh={"pp": 2, "dp": 2}, pipeline=pipeline, chunks=chunks, tokens_per_rank=4 * LENGTH, micro_batch=1
    )
    operations = unrolled(schedule, (stage, 0))
    done = befores(operations)
    sends = [number for number, each in enumerate(operations) if each.task.role == Role.STAGE_SEND]
    comes = [number for number, each in enumerate(operations) if each.task.role == Role.STAGE_RECEIVE]
    assert len(sends) == len(comes) == 4 * (3 if pipeline == "interleaved" else 1)
    for number in sends:
        phase, micro_batch = operations[number].phase, operations[number].task.micro_batch
        mine = [
            other
            for other in range(number)
            if operations[other].phase == phase
            and operations[other].task.micro_batch == micro_batch
            and operations[other].stream == "compute"
            and not operations[other].task.of_weights
        ]
        assert mine
        assert set(mine) <= done[number], operations[number].name
    for number in comes:
        later = [other for other in range(number + 1, len(operations)) if operations[other].stream == "compute"]
        assert number in done[later[0]], "the slot after it works on it"


def test_what_an_exchange_of_two_levels_needs():
    """Where groups have unequal parts in their supernodes a flat one takes its place, and a note says so; else it stays."""

    def found(**options):
        schedule = lowered(SHARED, balancer="even", all_to_all="two-level", **options)
        return {each.work.algorithm for each in schedule.operations if each.task.role == Role.DISPATCH}, schedule.notes

    algorithms, notes = found(mesh={"ep": 4, "dp": 2})
    assert (algorithms, notes) == ({"two-level"}, ())
    uneven = lower_step(
        Setting.of(
            flat(supernode=3, nodes=12),
            SHARED,
            {
                "precision": "O0",
                "tokens_per_rank": LENGTH,
                "mesh": {"ep": 8},
                "placement": "block:ep",
                "balancer": "even",
                "all_to_all": "two-level",
            },
        )
    )[0]
    assert {each.work.algorithm for each in uneven.operations if each.task.role == Role.DISPATCH} == {"linear"}
    assert uneven.notes == (
        "all-to-all over ep runs as linear instead of two-level: its groups have unequal parts in their supernodes",
    )
    assert not [each for each in uneven.operations if isinstance(each.work, Loop)]
