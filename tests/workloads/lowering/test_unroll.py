"""A rank's step written out flat: its slots one after another, each operation where it belongs, and messages between them."""

from collections import Counter

import numpy as np
import pytest
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.pipeline_blocks import hands_on
from athanor.workloads.lowering.unroll import ARRIVALS, DEPARTURES, PASS, unrolled
from athanor.workloads.pipelines import PIPELINES
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Role
from athanor.workloads.schedule.work import PipelineWork
from support.small_searches import hosted, sized

MACHINE = hosted()
USUAL = {"global_batch": 8, "micro_batch": 1, "zero": "0", "precision": "O2"}

CASES = {
    "plain": (4, {"mesh": {"pp": 2, "dp": 2}}),
    "three": (6, {"mesh": {"pp": 3}}),
    "gpipe": (4, {"mesh": {"dp": 2, "pp": 2}, "pipeline": "gpipe"}),
    "early sums": (4, {"mesh": {"pp": 2, "dp": 2}, "overlap": "gradients"}),
    "sums each time": (4, {"mesh": {"pp": 2, "dp": 2}, "zero": "2", "overlap": "gradients"}),
    "chunks": (8, {"mesh": {"pp": 2, "dp": 2}, "pipeline": "interleaved", "chunks": 2}),
    "split": (4, {"mesh": {"pp": 2, "dp": 2}, "pipeline": "zb-h1"}),
    "nothing at the ends": (4, {"mesh": {"pp": 3}, "pipeline": "zb-h1", "stage_layers": "0,4,0"}),
    "endless": (4, {"mesh": {"pp": 2, "dp": 2}, "pipeline": "2bw"}),
    "updates each time": (4, {"mesh": {"pp": 2, "dp": 2}, "pipeline": "pipedream"}),
    "host": (4, {"mesh": {"pp": 2, "dp": 2}, "offload": "activations"}),
    "beside products": (4, {"mesh": {"pp": 2, "tp": 2}, "tensor_overlap": True, "sequence_parallel": True}),
    "parts": (4, {"mesh": {"pp": 2, "tp": 2}, "scatter_gather": True}),
    "one stage": (4, {"mesh": {"dp": 2}, "global_batch": 256}),
}


def befores(operations):
    """What each operation comes after: those that it names, that before it on its stream, and what these come after."""
    found, latest = [], {}
    for number, each in enumerate(operations):
        direct = {*each.after, *([latest[each.stream]] if each.stream in latest else [])}
        assert all(other < number for other in direct)
        found.append(direct.union(*(found[other] for other in direct)))
        latest[each.stream] = number
    return found


@pytest.fixture(scope="module", params=CASES)
def case(request):
    layers, options = CASES[request.param]
    schedule, _ = lower_step(Setting.of(MACHINE, sized(layers=layers), {**USUAL, **options}))
    return schedule, next(each.work for each in schedule.operations if isinstance(each.work, PipelineWork))


def ranks(schedule):
    """One rank of each stage."""
    places = schedule.mesh.positions(("pp",))
    for stage in range(schedule.mesh.size("pp")):
        yield stage, tuple(stage if at in places else 0 for at in range(len(schedule.mesh.shape)))


def slots(schedule, work, stage, flat):
    """(slot, its number among all parts of the model, message that came, numbers of its block, message that goes)."""
    at = next(number for number, each in enumerate(schedule.operations) if isinstance(each.work, PipelineWork))
    for slot in PIPELINES[work.name].orders(work.stages, work.micro_batches, work.chunks)[stage]:
        virtual = slot.chunk * work.stages + stage
        came = at if flat[at : at + 1] and flat[at].stream == ARRIVALS else None
        at += came is not None
        block = work.blocks[work.block(virtual, PASS[slot.kind], slot.micro_batch)]
        mine = range(at, at + len(block))
        at += len(block)
        gone = at if flat[at : at + 1] and flat[at].stream == DEPARTURES else None
        at += gone is not None
        yield slot, virtual, came, block, mine, gone


def test_slots_follow_each_other_and_their_messages(case):
    schedule, work = case
    last = work.stages * work.chunks - 1
    for stage, coordinate in ranks(schedule):
        flat = unrolled(schedule, coordinate)
        done, before = befores(flat), set()
        for number, each in enumerate(flat):
            assert each.after == tuple(sorted(each.after)), number
            assert all(flat[other].stream != each.stream for other in each.after)
        for slot, virtual, came, block, mine, gone in slots(schedule, work, stage, flat):
            for number, operation in zip(mine, block, strict=True):
                here, first = flat[number], work.first_layer[virtual]
                assert before <= done[number], "all that the slot before did"
                assert came is None or came in done[number]
                assert (here.work, here.stream, here.phase, here.label) == (
                    operation.work,
                    operation.stream,
                    operation.phase,
                    operation.label,
                )
                assert here.task.micro_batch == slot.micro_batch
                layer = operation.task.layer
                assert here.task.layer == (None if layer is None else layer + first)
                assert {mine[other] for other in operation.after} <= done[number]
            makes = {number for number, each in zip(mine, block, strict=True) if hands_on(each)}
            others = set(mine) - makes
            comes = slot.kind != "W" and virtual != (0 if slot.kind == "F" else last)
            goes = slot.kind != "W" and virtual != (last if slot.kind == "F" else 0)
            assert (came is not None, gone is not None) == (comes, goes), slot
            if gone is not None:
                assert makes
                assert makes <= done[gone]
                needed = set().union(*(done[number] for number in makes), *(done[other] for other in done[gone] if flat[other].stream == DEPARTURES))  # fmt: skip
                assert not (others - needed) & done[gone], "not after what runs beside, nor after updates"
            before = set(mine) or before | ({came} if came is not None else set())


def test_messages_come_as_they_were_sent(case):
    """Between each two stages in each direction: as many, in the same order, of the same bytes, under the same names."""
    schedule, work = case
    sent, come = {}, {}
    for stage, coordinate in ranks(schedule):
        for each in unrolled(schedule, coordinate):
            if each.stream in (ARRIVALS, DEPARTURES):
                forward = each.work.algorithm == "next"
                assert each.work.algorithm in ("next", "previous")
                assert each.phase == ("forward" if forward else "backward")
                assert each.task.gradient == (None if forward else "input")
                step = 1 if forward else -1
                leaves = each.stream == DEPARTURES
                assert each.task.role == (Role.STAGE_SEND if leaves else Role.STAGE_RECEIVE)
                assert each.category == "pipeline_transfer"
                other = (stage + step if leaves else stage - step) % work.stages
                pair = (stage, other, forward) if leaves else (other, stage, forward)
                what = (each.task.micro_batch, each.task.layer, each.work, each.label.removesuffix(".send"))
                assert each.label.endswith(".send") == leaves
                assert each.label.startswith("activations" if forward else "activations.grad")
                (sent if leaves else come).setdefault(pair, []).append(what)
    assert sent == come
    if work.stages > 1:
        parts = work.stages * work.chunks
        for way in (True, False):
            found = [each for (_, _, forward), all_of in sent.items() if forward == way for each in all_of]
            assert len(found) == (parts - 1) * work.micro_batches
            ends = work.first_layer[1:] if way else work.first_layer[:-1]
            expected = sorted((m, layer) for m in range(work.micro_batches) for layer in ends)
            assert sorted(each[:2] for each in found) == expected
    else:
        assert not sent


def test_what_follows_a_pipeline_waits_for_all_of_it(case):
    schedule, work = case
    for stage, coordinate in ranks(schedule):
        flat = unrolled(schedule, coordinate)
        done, found = befores(flat), list(slots(schedule, work, stage, flat))
        ends = [mine for *_, mine, _ in found if len(mine)][-1]
        past = (found[-1][-1] or found[-1][-2].stop - 1) + 1
        assert len(flat) - past == len(schedule.operations) - 1 - next(
            number for number, each in enumerate(schedule.operations) if isinstance(each.work, PipelineWork)
        )
        for number in range(past, len(flat)):
            assert set(ends) <= done[number] or flat[number].stream != "compute"


# --- blocks --------------------------------------------------------------------------------------------------------------


def pipeline_of(layers, **options):
    schedule, _ = lower_step(Setting.of(MACHINE, sized(layers=layers), {**USUAL, **options}))
    return schedule, next(each.work for each in schedule.operations if isinstance(each.work, PipelineWork))


@pytest.mark.parametrize("pp", [1, 2, 4])
def test_passes_that_are_alike_share_a_block(pp):
    """The first, the last and all in the middle, forward and backward; of one stage both ends in one."""
    _, work = pipeline_of(8, mesh={"pp": pp}, global_batch=64)
    assert len(work.blocks) == 2 * min(pp, 3)
    assert {len(uses) for of_part in work.uses for uses in of_part} == {1}
    assert work.first_layer == tuple(8 // pp * stage for stage in range(pp))
    assert (work.activations is None) == (pp == 1)
    assert work.along == tuple(pp if axis == "pp" else 1 for axis in _mesh_axes(pp))


def _mesh_axes(pp):
    schedule, _ = pipeline_of(8, mesh={"pp": pp}, global_batch=64)
    return schedule.mesh.axes


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({}, False),
        ({"overlap": "gradients"}, True),
        ({"overlap": "gradients", "zero": "2"}, False),
        ({"pipeline": "2bw"}, True),
        ({"pipeline": "pipedream"}, False),
    ],
)
def test_the_last_micro_batch_differs_where_it_reduces_or_updates(options, differs):
    _, work = pipeline_of(4, mesh={"pp": 2, "dp": 2}, **options)
    for part in work.uses:
        forward, backward = part
        assert len(set(forward)) == 1
        assert len(backward) == (work.micro_batches if differs else 1)
        assert len(set(backward)) == 1 + differs
        if differs:
            assert backward.count(backward[-1]) == 1, "the last alone"
        updates = [number for number in set(backward) if any(each.phase == "update" for each in work.blocks[number])]
        asynchronous = options.get("pipeline") in ("2bw", "pipedream")
        assert bool(updates) == asynchronous
        if asynchronous:
            assert backward[-1] in updates
            assert len(updates) == 1


@pytest.mark.parametrize(("tp", "options", "parts"), [(1, {}, 1), (2, {}, 2), (2, {"sequence_parallel": True}, 1)])
def test_what_stages_pass_on_is_cut_over_ranks_of_tp_and_put_together_again(tp, options, parts):
    whole_of = pipeline_of(4, mesh={"pp": 2, "tp": tp}, **options)[1]
    _, work = pipeline_of(4, mesh={"pp": 2, "tp": tp}, scatter_gather=tp > 1, **options)
    assert work.activations.nbytes == pytest.approx(whole_of.activations.nbytes / parts)
    for virtual, of_part in enumerate(work.uses):
        for which, uses in enumerate(of_part):
            block = work.blocks[uses[0]]
            gathers = [number for number, each in enumerate(block) if each.task.role == Role.STAGE_GATHER]
            assert gathers == ([0] if parts > 1 and virtual != which else [])
            for number in gathers:
                each = block[number]
                assert each.phase == ("forward", "backward")[which]
                assert each.task.gradient == (None, "input")[which]
                assert (each.work.operation, each.work.axes) == ("all-gather", ("tp",))
                assert np.all(each.work.nbytes == whole_of.activations.nbytes)


def test_halves_of_a_split_backward_pass_are_the_whole_one():
    """W has what makes gradients of weights, B all else; together, and in the same order, they are the whole pass."""
    _, whole = pipeline_of(4, mesh={"pp": 2})
    _, halves = pipeline_of(4, mesh={"pp": 2}, pipeline="zb-h1")
    for of_whole, of_halves in zip(whole.uses, halves.uses, strict=True):
        full = whole.blocks[of_whole[1][0]]
        first, second = (halves.blocks[of_halves[which][0]] for which in (1, 2))
        assert not any(each.task.of_weights for each in first)
        assert all(each.task.of_weights for each in second)
        for mine, wanted in ((first, False), (second, True)):
            assert [each.task for each in mine] == [each.task for each in full if each.task.of_weights == wanted]
    assert len(whole.uses[0]) == 2
    assert len(halves.uses[0]) == 3


@pytest.mark.parametrize("name", ["zb-v", "dualpipe-v"])
def test_folded_stages_hand_on_to_neighbours_both_ways(name):
    """Activations of the second chunk go back, their gradients on; where a chunk turns round on its stage nothing is sent."""
    options = {"mesh": {"pp": 3, "dp": 1}, "pipeline": name, "chunks": 2, "micro_batch": 1, "global_batch": 8}
    schedule, work = pipeline_of(6, **options)
    assert [list(parts) for parts in (work.first_layer[:3], work.first_layer[3:])] == [[0, 1, 2], [5, 4, 3]]
    sent, come = Counter(), Counter()
    for stage, coordinate in ranks(schedule):
        for each in unrolled(schedule, coordinate):
            if each.stream in (ARRIVALS, DEPARTURES):
                step = 1 if each.work.algorithm == "next" else -1
                leaves = each.stream == DEPARTURES
                sender = stage if leaves else stage - step
                assert 0 <= sender < 3 and 0 <= sender + step < 3
                what = (sender, step, each.task.micro_batch, each.task.layer, each.task.gradient)
                (sent if leaves else come)[what] += 1
    assert sent == come and set(sent.values()) == {1}
    assert len(sent) == 2 * 4 * 8, "of six parts five hand on, one of them to itself; there and back"
    assert {(sender, step) for sender, step, *_ in sent} == {(0, 1), (1, 1), (1, -1), (2, -1)}
