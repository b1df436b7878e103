"""Pipeline schedules: published bubbles and memory, found by playing the orders; and the player against one process a stage."""

import time
from collections import Counter

import numpy as np
import pytest
import simpy
from athanor.hardware.errors import InputError
from athanor.sim.engine.pipeline_timing import play, play_endless
from athanor.workloads.pipelines import PIPELINES, Slot, find_pipeline, most_in_flight, part_of, place_of, validate
from hypothesis import given, settings
from hypothesis import strategies as st

WORK = {"F": 2.0, "B": 4.0, "W": 2.0}


def free(sender, receiver, kind):
    """A network that takes no time."""
    return 0.0


def played(name, stages, micro_batches, chunks=1, work=None):
    """A schedule with the same work on all stages, cut over the chunks, and a free network."""
    seconds = WORK if work is None else work
    orders = PIPELINES[name].orders(stages, micro_batches, chunks)
    return play(orders, lambda stage, slot: seconds[slot.kind] / chunks, free, folded=PIPELINES[name].folded)


@st.composite
def plans(draw, names=tuple(PIPELINES)):
    """(name, stages, micro-batches, chunks) that the schedule can run."""
    name, stages = draw(st.sampled_from(names)), draw(st.integers(1, 7))
    chunks = draw(st.integers(2, 4)) if name == "interleaved" else 2 if PIPELINES[name].folded else 1
    micro_batches = draw(st.integers(1, 12))
    if name == "interleaved":
        micro_batches = stages * draw(st.integers(1, 4))
    elif name in ("2bw", "dualpipe-v"):
        micro_batches += chunks * stages
    PIPELINES[name].check(stages, micro_batches, chunks)
    return name, stages, micro_batches, chunks


@given(plans())
def test_every_stage_does_everything_once_and_none_waits_for_ever(plan):
    name, stages, micro_batches, chunks = plan
    orders = PIPELINES[name].orders(stages, micro_batches, chunks)
    validate(orders, PIPELINES[name].folded)
    kinds = "FBW" if PIPELINES[name].splits_backward else "FB"
    everything = {Slot(kind, n, chunk) for kind in kinds for n in range(micro_batches) for chunk in range(chunks)}
    assert len(orders) == stages
    assert all(set(order) == everything and len(order) == len(everything) for order in orders)


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@given(stages=st.integers(1, 9), micro_batches=st.integers(1, 40))
def test_bubble_of_gpipe_and_1f1b(name, stages, micro_batches):
    """(p - 1)/m of the work (Huang et al. 2019; Narayanan et al. 2021, section 2.2.1)."""
    seconds, work = played(name, stages, micro_batches).seconds, micro_batches * 6.0
    assert seconds - work == (stages - 1) * 6.0
    assert seconds == pytest.approx(work * (1 + (stages - 1) / micro_batches), rel=1e-15)


@given(st.integers(1, 7), st.integers(1, 5), st.sampled_from([2, 4, 8]))
def test_bubble_of_interleaved(stages, groups, chunks):
    """(p - 1)/(v m) of the work (Narayanan et al. 2021, section 2.2.2); what a power of two divides is exact."""
    micro_batches = groups * stages
    seconds = played("interleaved", stages, micro_batches, chunks).seconds
    assert seconds == pytest.approx(micro_batches * 6.0 * (1 + (stages - 1) / (chunks * micro_batches)), rel=1e-15)


EVEN = {"F": 3.0, "B": 3.0, "W": 3.0}


@pytest.mark.parametrize("work", [EVEN, {"F": 4.0, "B": 6.0, "W": 4.0}, {"F": 4.0, "B": 5.0, "W": 3.0}])
@given(stages=st.integers(1, 8), more=st.integers(0, 20))
def test_bubble_of_zero_bubble(work, stages, more):
    """ZB-H1 (p - 1)(f + b - w), ZB-H2 (p - 1)(f + b - 2w) within its stages (Qi et al. 2023, table 2)."""
    f, b, w = work.values()
    each = f + b + w
    first = played("zb-h1", stages, stages + more, work=work)
    assert first.seconds == (stages + more) * each + (stages - 1) * (f + b - w)
    assert played("1f1b", stages, stages + more, work={"F": f, "B": b + w}).seconds >= first.seconds
    micro_batches = 2 * stages - 1 + more
    second = played("zb-h2", stages, micro_batches, work=work)
    for stage in range(stages):
        inside = second.end[stage][-1] - second.begin[stage][0] - micro_batches * each
        assert inside <= (stages - 1) * (f + b - 2 * w)
    assert second.end[0][-1] == micro_batches * each + (stages - 1) * (f + b - 2 * w)
    assert second.begin[-1][0] == (stages - 1) * f, "stages begin one after another"


def test_zero_bubble_has_a_third_of_the_bubble_and_then_none():
    assert played("1f1b", 4, 12, work={"F": 3.0, "B": 6.0}).parts(0).bubble == 27.0
    assert played("zb-h1", 4, 12, work=EVEN).parts(0).bubble == 9.0
    assert played("zb-h2", 4, 12, work=EVEN).parts(0).bubble == 0.0


@pytest.mark.parametrize("name", ["pipedream", "2bw"])
@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 6), more=st.integers(0, 9))
def test_without_a_flush_the_slowest_stage_is_always_busy(name, data, stages, more):
    """A step takes what the slowest stage works for it, exactly: durations are whole numbers."""
    seconds = st.integers(1, 9)
    work = [{kind: float(data.draw(seconds)) for kind in "FB"} for _ in range(stages)]
    micro_batches = 1 + more + (stages if name == "2bw" else 0)
    timing, first = play_endless(
        PIPELINES[name], stages, micro_batches, lambda stage, slot: work[stage][slot.kind], free
    )
    orders = timing.orders
    slowest = max(each["F"] + each["B"] for each in work)
    for stage in range(stages):
        window = orders[stage][first[stage] :]
        assert Counter(slot.kind for slot in window) == {"F": micro_batches, "B": micro_batches}
        parts = timing.parts(stage, first[stage])
        assert parts.seconds == micro_batches * slowest
        assert parts.bubble == micro_batches * (slowest - work[stage]["F"] - work[stage]["B"])


@given(plans())
def test_micro_batches_in_flight(plan):
    name, stages, micro_batches, chunks = plan
    for stage, order in enumerate(PIPELINES[name].orders(stages, micro_batches, chunks)):
        found = most_in_flight(order)
        match name:
            case "gpipe":
                expected = micro_batches
            case "interleaved":  # Megatron's passes ahead, and the one that is running
                expected = min(2 * (stages - stage - 1) + (chunks - 1) * stages + 1, chunks * micro_batches)
            case "zb-h1":
                expected = min(stages, micro_batches)
            case "zb-h2":
                expected = min(2 * stages - 1, micro_batches)
            case "zb-v":  # of half stages: 1F1B's memory on its first stage, on each
                expected = min(2 * stages, 2 * micro_batches)
            case "dualpipe-v":  # PP + 1 of DualPipe, which has twice the ranks
                expected = 2 * stages + 1
            case _:
                expected = min(stages - stage, micro_batches)
        assert sum(found.values()) == expected
        assert found.keys() <= set(range(chunks))


def test_what_is_in_flight_by_chunk_and_by_kind():
    order = [Slot("F", 0), Slot("F", 0, 1), Slot("F", 1), Slot("B", 0, 1), Slot("W", 0, 1), Slot("B", 0), Slot("W", 0)]
    assert most_in_flight(order) == {0: 2, 1: 1}
    first = PIPELINES["interleaved"].orders(2, 4, 2)[0]
    assert [str(slot) for slot in first[:6]] == ["F0", "F1", "F0.1", "F1.1", "F2", "B0.1"]
    assert most_in_flight(first) == {0: 3, 1: 2}
    held = PIPELINES["zb-h1"].orders(4, 8)[3]
    assert (most_in_flight(held), most_in_flight(held, "B")) == ({0: 4}, {0: 1})


def test_versions_of_weights():
    versions = {name: [each.weight_versions(stage, 4) for stage in range(4)] for name, each in PIPELINES.items()}
    assert versions.pop("pipedream") == [4, 3, 2, 1]
    assert versions.pop("2bw") == [2, 2, 2, 2]
    assert set(map(tuple, versions.values())) == {(1, 1, 1, 1)}


def test_chunks_of_a_v_go_there_and_back():
    """Part by part of the model, each once."""
    places = [place_of(part, 3, folded=True) for part in range(6)]
    assert places == [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (0, 1)]
    assert [part_of(*place, 3, folded=True) for place in places] == list(range(6))
    assert [place_of(part, 3) for part in range(6)] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    assert all(part_of(*place_of(part, 4), 4) == part for part in range(12))


@settings(max_examples=20, deadline=None)
@given(stages=st.integers(1, 8), more=st.integers(0, 9))
def test_bubble_of_zero_bubble_in_the_shape_of_a_v(stages, more):
    """None where F, B and W are equal, but that stages begin f of a chunk apart, and half as much (Qi et al. 2023, section 6)."""
    micro_batches = 2 * stages + more
    timing = played("zb-v", stages, micro_batches, 2, EVEN)
    assert [each[0] for each in timing.begin] == [stage * 1.5 for stage in range(stages)]
    least, apart = micro_batches * 9.0, (stages - 1) * 1.5
    assert least + apart <= timing.seconds <= least + 1.5 * apart
    assert timing.seconds <= played("zb-h1", stages, micro_batches, work=EVEN).seconds


@pytest.mark.parametrize("work", [EVEN, {"F": 4.0, "B": 6.0, "W": 4.0}, {"F": 4.0, "B": 5.0, "W": 3.0}])
@settings(max_examples=20, deadline=None)
@given(stages=st.integers(1, 6), more=st.integers(0, 12))
def test_bubble_of_dualpipe(work, stages, more):
    """No more than (p - 1)(F&B + B - 3W) of a chunk, B in full and F&B one after the other (DeepSeek-V3, table 2)."""
    f, b, w = work.values()
    timing, micro_batches = played("dualpipe-v", stages, 2 * stages + more, 2, work), 2 * stages + more
    most = (stages - 1) * (f + 2 * (b + w) - 3 * w) / 2
    assert micro_batches * (f + b + w) <= timing.seconds <= micro_batches * (f + b + w) + most


def naive(orders, duration, transfer, folded):
    """The same with one SimPy process for each stage, and one for each message; ``{(stage, slot): (begin, end, under way)}``."""
    env, stages = simpy.Environment(), len(orders)
    chunks = 1 + max(slot.chunk for order in orders for slot in order)
    arrived = {(stage, slot): env.event() for stage, order in enumerate(orders) for slot in order}
    found = {}

    def message(seconds, event, made):
        yield env.timeout(seconds)
        event.succeed(made)

    def work(stage):
        for slot in orders[stage]:
            back = folded and slot.chunk % 2
            start, part = env.now, slot.chunk * stages + (stages - 1 - stage if back else stage)
            made = start
            comes = part > 0 if slot.kind == "F" else slot.kind == "B" and part < stages * chunks - 1
            if comes:
                made = yield arrived[stage, slot]
            begin = env.now
            yield env.timeout(duration(stage, slot))
            found[stage, slot] = begin, env.now, begin - max(start, made) if begin > start else 0.0
            onward = part + {"F": 1, "B": -1, "W": stages * chunks}[slot.kind]
            if 0 <= onward < stages * chunks:
                chunk, to = divmod(onward, stages)
                to = stages - 1 - to if folded and chunk % 2 else to
                event = arrived[to, Slot(slot.kind, slot.micro_batch, chunk)]
                env.process(message(transfer(stage, to, slot.kind) if to != stage else 0.0, event, env.now))

    for stage in range(stages):
        env.process(work(stage))
    env.run()
    return found


@settings(deadline=None)
@given(plans(), st.integers(0, 9999), st.sampled_from([0.0, 1.0, 10.0]))
def test_clocks_are_those_of_one_process_for_each_stage(plan, seed, longest):
    """Random work, and transfers of up to so many times as much: the same to the last bit."""
    name, stages, micro_batches, chunks = plan
    orders = PIPELINES[name].orders(stages, micro_batches, chunks)
    random = np.random.default_rng(seed)
    work = random.uniform(0.0, 1.0, (stages, 3, chunks)).tolist()
    links = random.uniform(0.0, longest, (stages, stages, 2)).tolist()

    def duration(stage, slot):
        return work[stage]["FBW".index(slot.kind)][slot.chunk]

    def transfer(sender, receiver, kind):
        return links[sender][receiver]["FB".index(kind)]

    folded = PIPELINES[name].folded
    timing = play(orders, duration, transfer, folded=folded)
    expected = naive(orders, duration, transfer, folded)
    for stage, order in enumerate(orders):
        under_way = [expected[stage, slot][2] for slot in order]
        assert timing.begin[stage] == [expected[stage, slot][0] for slot in order]
        assert timing.end[stage] == [expected[stage, slot][1] for slot in order]
        assert timing.under_way[stage] == pytest.approx(under_way, abs=1e-9)
        parts = timing.parts(stage)
        assert parts.transfer == pytest.approx(sum(under_way), abs=1e-9)
        assert parts.seconds == pytest.approx(timing.end[stage][-1], abs=1e-9)
        assert parts.bubble >= -1e-9
    assert timing.seconds == max(end for _, end, _ in expected.values())


@given(plans(), st.integers(0, 999))
def test_clocks_of_many_ranks_are_those_of_each(plan, seed):
    """Stages whose two ranks differ, and one whose ranks are alike: each rank's clock is as if it were alone."""
    name, stages, micro_batches, chunks = plan
    orders = PIPELINES[name].orders(stages, micro_batches, chunks)
    work = np.random.default_rng(seed).integers(1, 9, (stages, 2, 1)).astype(float)

    def clocks(ranks):
        one = float(5.0 * work[0, 0, 0])
        asked = (lambda stage, slot: one if stage == 1 else work[stage][ranks]), (lambda *ends: 0.5)
        return play(orders, *asked, folded=PIPELINES[name].folded)

    both = clocks(slice(None))
    for rank in range(2):
        alone = clocks((rank, 0))
        for stage in range(stages):
            for many, single in ((both.end, alone.end), (both.under_way, alone.under_way)):
                assert [np.broadcast_to(each, (2, 1))[rank, 0] for each in many[stage]] == single[stage]
    assert both.seconds == max(float(np.max(ends[-1])) for ends in both.end)


def test_sending_does_not_keep_a_stage_from_working():
    """The second micro-batch runs on stage 0 while the first is still on its way; stage 1 waits for both messages."""
    orders = [[Slot("F", 0), Slot("F", 1)], [Slot("F", 0), Slot("F", 1)]]
    timing = play(orders, lambda stage, slot: 1.0, lambda sender, receiver, kind: 3.0)
    assert timing.begin == [[0.0, 1.0], [4.0, 5.0]]
    assert timing.parts(1) == (2.0, 3.0, 1.0)
    assert timing.parts(1, first=1) == (1.0, 0.0, 0.0)


def test_stages_that_wait_for_each_other_are_told():
    crossed = [Slot("F", 0), Slot("B", 0), Slot("F", 1), Slot("B", 1)]
    late = [Slot("F", 1), Slot("B", 1), Slot("F", 0), Slot("B", 0)]
    for ask in (validate, lambda orders: play(orders, lambda stage, slot: 1.0, free)):
        with pytest.raises(InputError) as caught:
            ask([crossed, late])
        assert str(caught.value) == (
            "pipeline: stages wait for each other: stage 0 before B0 for B0 of stage 1; stage 1 before F1 for F1 of stage 0"
        )
    with pytest.raises(InputError, match="stage 0 before W0 for B0 of stage 0"):
        validate([[Slot("F", 0), Slot("W", 0), Slot("B", 0)]])
    blocked = [[Slot("B", 0), Slot("F", 0)] for _ in range(6)]
    with pytest.raises(InputError, match="stage 3 before B0 for F0 of stage 3; and 2 more"):
        validate(blocked)


def test_orders_that_lack_or_repeat_something():
    whole = [Slot("F", 0), Slot("B", 0)]
    with pytest.raises(InputError, match="stage 1 has no B0, which others have"):
        validate([whole, whole[:1]])
    with pytest.raises(InputError, match="stage 0 has F0 2 times, must have it once"):
        validate([[whole[0], *whole]])


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("interleaved", (4, 10, 2), "--pipeline interleaved: 10 micro-batches are no multiple of pp=4 stages"),
        ("interleaved", (4, 8, 1), "--chunks 1: --pipeline interleaved needs at least 2 a stage; 1f1b has one"),
        ("1f1b", (4, 8, 2), "--chunks 2: --pipeline 1f1b has one chunk a stage; --pipeline interleaved takes more"),
        ("zb-v", (4, 8, 1), "--chunks 1: --pipeline zb-v has two chunks a stage, one for each way; use --chunks 2"),
        ("dualpipe-v", (4, 7, 2), "--pipeline dualpipe-v: 7 micro-batches, must be at least 8 = 2 x pp"),
        ("gpipe", (4, 0, 1), "--pipeline gpipe: 0 micro-batches, must be at least 1"),
        ("2bw", (4, 3, 1), "--pipeline 2bw: 3 micro-batches a step, must be at least the pp=4 stages, or two"),
    ],
)
def test_bad_input_says_what_is_allowed(name, asked, told):
    with pytest.raises(InputError) as caught:
        PIPELINES[name].check(*asked)
    assert str(caught.value).startswith(told)


def test_unknown_pipelines():
    assert find_pipeline("1f1b") is PIPELINES["1f1b"]
    with pytest.raises(InputError) as caught:
        find_pipeline("zb-h3")
    assert str(caught.value).startswith("--pipeline zb-h3: no such pipeline (gpipe, 1f1b, interleaved, zb-h1, ")
    assert "; did you mean zb-h" in str(caught.value)


def test_a_large_pipeline_is_played_in_one_pass(capsys):
    """64 stages, 512 micro-batches, 2 chunks: 131,072 slots. The time is told, not judged."""
    orders = PIPELINES["interleaved"].orders(64, 512, 2)
    start = time.process_time()
    timing = play(orders, lambda stage, slot: WORK[slot.kind] / 2, free)
    with capsys.disabled():
        print(f"\n{sum(map(len, orders)):,} slots in {time.process_time() - start:.2f} s of CPU time")
    assert timing.seconds == 512 * 6.0 * (1 + 63 / (2 * 512))
