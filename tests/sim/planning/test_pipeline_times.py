"""Closed forms of pipelines: every registered one is held to its own order, played slot by slot."""

import pytest
from athanor.sim.engine.pipeline_timing import play
from athanor.sim.planning.pipeline_times import PipelineTimes
from athanor.workloads.pipelines import PIPELINES, PartSeconds, Pipeline, Slot, StageSeconds, most_in_flight, streamed
from hypothesis import given, settings
from hypothesis import strategies as st

WITHIN = 0.03


class Sequential(Pipeline):
    """A user's own, without a closed form: the example of the documentation."""

    name, about = "sequential", "one micro-batch at a time"

    def orders(self, stages, micro_batches, chunks=1):
        return [[Slot(kind, m, 0) for m in range(micro_batches) for kind in ("F", "B")] for _ in range(stages)]


def played(pipeline, parts, stages, micro_batches, send):
    """Seconds of a step by the engine's recurrence; of an endless pipeline the mean of many."""
    split, chunks = pipeline.splits_backward, len(parts) // stages

    def duration(stage, slot):
        part = parts[slot.chunk * stages + stage]
        completes = slot.kind == ("W" if split else "B") and slot.micro_batch % micro_batches == micro_batches - 1
        usual = {"F": part.forward, "B": part.backward, "W": part.weights}[slot.kind]
        return usual + (part.tail if completes else 0.0)

    def making(stage, slot):
        part = parts[slot.chunk * stages + stage]
        ready = {"F": part.forward - part.forward_after, "B": part.backward - part.backward_after, "W": part.weights}
        return ready[slot.kind]

    if not pipeline.asynchronous:
        orders = pipeline.orders(stages, micro_batches, chunks)
        return play(orders, duration, lambda *ends: send, making, folded=pipeline.folded).seconds
    steps = 2 * stages * max(2, 16 // micro_batches)  # circles of every length come round
    orders = streamed(pipeline, stages, micro_batches, steps).orders
    timing = play(orders, duration, lambda *ends: send, making)
    places = {slot.micro_batch: place for place, slot in enumerate(orders[0]) if slot.kind == "B"}
    from_, to = (timing.end[0][places[step * micro_batches - 1]] for step in (steps // 2, steps))
    return (to - from_) / (steps - steps // 2)


@st.composite
def steps(draw, names):
    """A pipeline, and parts that are alike or not, whose messages are short or as long as passes."""
    name = draw(st.sampled_from(sorted(names)))
    pipeline = PIPELINES.get(name, Sequential())
    stages = draw(st.sampled_from([2, 3, 4, 6, 8]))
    chunks = draw(st.sampled_from([2, 3])) if name == "interleaved" else 1 + pipeline.folded
    whole = name in ("interleaved", "2bw")
    micro_batches = stages * draw(st.integers(1, 4)) if whole else draw(st.sampled_from([1, 2, 3, 5, 8, 16, 31]))
    micro_batches += 2 * stages * (name == "dualpipe-v")
    uneven = draw(st.sampled_from([0.0, 0.03, 0.2, 1.0]))
    late, tail = draw(st.sampled_from([0.0, 0.2])), draw(st.sampled_from([0.0, 0.0, 0.3, 2.0]))
    usual = draw(st.tuples(st.just(1.0), st.floats(0.8, 2.0), st.floats(0.7, 1.2)))
    parts = []
    for _ in range(stages * chunks):
        forward, backward, weights = (each * (1 + uneven * draw(st.floats(0, 1))) for each in usual)
        weights = weights if pipeline.splits_backward else 0.0
        parts.append(PartSeconds(forward, backward, weights, 0.0, late * backward, tail * draw(st.floats(0, 1))))
    send = draw(st.sampled_from([0.0, 0.003, 0.03, 0.2, 1.0, 3.0]))
    return pipeline, parts, stages, micro_batches, send


@settings(max_examples=100, deadline=None)
@given(steps({*PIPELINES, "sequential"}))
def test_every_pipeline_takes_what_its_order_takes(step):
    pipeline, parts, stages, micro_batches, send = step
    found, least = PipelineTimes(), StageSeconds(parts, stages, send)
    true = played(*step)
    assert found.step_seconds(pipeline, least, micro_batches) == pytest.approx(true, rel=WITHIN)
    assert found.played(pipeline, least, micro_batches) == pytest.approx(true, rel=WITHIN)
    if not pipeline.asynchronous:
        assert least.least(micro_batches) <= true * (1 + 1e-12)


@settings(max_examples=100, deadline=None)
@given(steps({"gpipe"}))
def test_gpipe_is_exact(step):
    pipeline, parts, stages, micro_batches, send = step
    bare = [part._replace(tail=0.0) for part in parts]
    found = pipeline.step_seconds(StageSeconds(bare, stages, send), micro_batches)
    assert found == pytest.approx(played(pipeline, bare, stages, micro_batches, send), rel=1e-12)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("stages", [2, 4, 8])
def test_equal_stages_with_free_messages_need_no_playing(name, stages):
    """The closed forms are there where plans usually are: a search would be slow without."""
    pipeline, chunks = PIPELINES[name], 1 + PIPELINES[name].chunked
    part = PartSeconds(1.0, 1.0, 1.0) if pipeline.splits_backward else PartSeconds(1.0, 2.0)
    found = pipeline.step_seconds(StageSeconds([part] * (stages * chunks), stages, 0.0), 4 * stages)
    assert found == pytest.approx(played(pipeline, [part] * (stages * chunks), stages, 4 * stages, 0.0), rel=1e-9)


@given(
    st.sampled_from([name for name, each in PIPELINES.items() if not each.asynchronous]),
    st.integers(2, 9),
    st.integers(1, 40),
    st.integers(2, 3),
)
def test_what_is_kept_is_what_the_order_keeps(name, stages, micro_batches, chunks):
    pipeline = PIPELINES[name]
    chunks = chunks if name == "interleaved" else 1 + pipeline.folded
    micro_batches += 2 * stages * (name == "dualpipe-v")
    micro_batches = stages * -(-micro_batches // stages) if name == "interleaved" else micro_batches
    most = [most_in_flight(order) for order in pipeline.orders(stages, micro_batches, chunks)]
    found = pipeline.in_flight(stages, micro_batches, chunks)
    assert found == [[each.get(chunk, 0) for chunk in range(chunks)] for each in most]
