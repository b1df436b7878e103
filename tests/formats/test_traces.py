"""A Run as traces of others: every row and second is there, slices nest, arrows lead forward, and their own schemas read them."""

import json

import athanor as package
import pytest
from athanor.reports.formats.reading.protobuf import fields, number, read_varint, signed, varint
from athanor.reports.formats.traces.kineto_writer import kineto_trace, kineto_traces
from athanor.reports.formats.traces.perfetto import perfetto_trace
from athanor.reports.formats.traces.tracks import Tracks
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import athanor


@pytest.fixture(scope="module")
def run():
    """Two stages, so that there are several classes of ranks, messages between them, and exchanges beside products."""
    return package.simulate(
        "selene", "gpt-tiny", mesh={"pp": 2, "dp": 2, "tp": 2}, global_batch=8, micro_batch=1, steps=2, overlap="gradients",
        jitter=0.05,
    )  # fmt: skip


def test_every_row_is_on_one_track_at_its_time(run):
    tracks = Tracks(run)
    assert sorted(each.number for track in tracks.tracks for each in track.slices) == [*range(len(run.trace))]
    first = run.totals.each_step_seconds[0]
    for track in tracks.tracks:
        for each in track.slices:
            offset = first if each.row.step else 0.0
            assert each.row is run.trace[each.number]
            assert each.begin == pytest.approx((offset + each.row.start) * 1e9, abs=1)
            assert each.end == pytest.approx((offset + each.row.end) * 1e9, abs=1)


def test_slices_of_a_track_do_not_overlap(run):
    for track in Tracks(run).tracks:
        for before, after in zip(track.slices, track.slices[1:], strict=False):
            assert before.end <= after.begin


def test_arrows_lead_from_one_class_to_another_and_never_back_in_time(run):
    tracks = Tracks(run)
    assert {start.row.ranks for start, _ in tracks.arrows} == {"first stage", "last stage"}
    for start, end in tracks.arrows:
        assert start.row.ranks != end.row.ranks
        assert start.begin <= end.begin
    received = [end for _, end in tracks.arrows if end.row.role == "stage receive"]
    assert len(received) == sum(row.role == "stage receive" for row in run.trace)


def test_counters_add_up_to_the_bytes_of_the_trace(run):
    for rank, name in ((rank, name) for name, rank in Tracks(run).ranks.items()):
        total = 0.0
        for counter in (each for each in Tracks(run).counters if each.rank == rank):
            assert counter.values[-1][1] == 0.0
            for (at, value), (after, _) in zip(counter.values, counter.values[1:], strict=False):
                total += value * (after - at) / 1e9
        assert total == pytest.approx(sum(row.nbytes for row in run.trace if row.ranks == name and row.level), rel=1e-3)


def test_perfettos_own_schema_reads_the_trace(run):
    proto = pytest.importorskip(
        "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="needs the package perfetto"
    )
    trace = proto.Trace()
    trace.ParseFromString(perfetto_trace(run))
    events = [packet for packet in trace.packet if packet.HasField("track_event")]
    begins = [packet for packet in events if packet.track_event.type == proto.TrackEvent.TYPE_SLICE_BEGIN]
    ends = [packet for packet in events if packet.track_event.type == proto.TrackEvent.TYPE_SLICE_END]
    assert len(begins) == len(ends) == len(run.trace)
    assert sum(packet.timestamp for packet in ends) - sum(packet.timestamp for packet in begins) == pytest.approx(
        1e9 * sum(row.end - row.start for row in run.trace), abs=len(run.trace)
    )
    names = {each.iid: each.name for packet in trace.packet for each in packet.interned_data.event_names}
    assert {names[packet.track_event.name_iid] for packet in begins} == {row.label for row in run.trace}
    tracks = {packet.track_descriptor.uuid for packet in trace.packet if packet.HasField("track_descriptor")}
    parents = {packet.track_descriptor.parent_uuid for packet in trace.packet if packet.track_descriptor.parent_uuid}
    assert parents <= tracks
    assert {packet.track_event.track_uuid for packet in events} <= tracks
    flows = [flow for packet in begins for flow in packet.track_event.flow_ids]
    assert {flows.count(flow) for flow in flows} == {2}


def test_our_own_reader_finds_the_same_packets(run):
    packets = [value for field, _, value in fields(perfetto_trace(run))]
    times = [value for packet in packets for field, _, value in fields(packet) if field == 8]
    assert (
        max(times) == round(1e9 * sum(run.totals.each_step_seconds))
        or max(times) <= 1e9 * sum(run.totals.each_step_seconds) + 1
    )


def test_chromes_json_has_what_analysers_ask_for(run):
    for rank, text in kineto_traces(run).items():
        trace = json.loads(text)
        assert trace["distributedInfo"]["rank"] == rank
        kernels = [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]
        assert {event["pid"] for event in kernels} == {rank}
        for event in kernels:
            assert {"stream", "correlation", "External id", "device"} <= {*event["args"]}
            assert event["dur"] >= 0
            if event["args"].get("collective"):
                assert event["name"].startswith("nccl")
                assert {"Collective name", "In msg nelems", "Out msg nelems", "Group size", "dtype"} <= {*event["args"]}
    whole = json.loads(kineto_trace(run))["traceEvents"]
    assert sum(event.get("cat") == "kernel" for event in whole) == len(run.trace)
    ids = [event["id"] for event in whole if event["ph"] in "sf"]
    assert {ids.count(each) for each in ids} == {2}


def test_a_trace_of_kineto_is_a_measured_run_that_compares(run, tmp_path):
    """What is written reads back with its times; ranges around kernels tell as much as arguments."""
    run.save(tmp_path / "predicted.json")
    for rank, text in kineto_traces(run).items():
        for ranges in (False, True):
            trace = json.loads(text)
            if ranges:
                steps = [sum(run.totals.each_step_seconds[:at]) for at in (0, 1, 2)]
                kernels = [
                    event for event in trace["traceEvents"] if event.get("cat") == "kernel" and event["tid"] == 7
                ]
                marks = [
                    {**event, "cat": "gpu_user_annotation", "name": event["args"].pop("operation")} for event in kernels
                ]
                marks += [{"ph": "X", "cat": "user_annotation", "name": f"ProfilerStep#{at}", "ts": steps[at] * 1e6,
                           "dur": (steps[at + 1] - steps[at]) * 1e6} for at in (0, 1)]  # fmt: skip
                trace["traceEvents"] += marks
            (tmp_path / "trace.json").write_text(json.dumps(trace))
            out = tmp_path / "measured.json"
            done = athanor(
                "import", "kineto", tmp_path / "trace.json", "--define", f"run={tmp_path / 'predicted.json'}", "-o", out
            )
            assert done.returncode == 0, done.stderr
            found = package.Run.load(out)
            name = next(name for name, number in Tracks(run).ranks.items() if number == rank)
            times = {(row.step, row.operation): (row.start, row.end) for row in run.trace if row.ranks == name}
            long = {(row.step, row.operation) for row in run.trace if row.ranks == name and row.end - row.start > 1e-8}
            assert [row.operation for row in found.trace] == [row.operation for row in run.trace if row.ranks == name]
            if ranges:
                for row in (row for row in found.trace if (row.step, row.operation) in long):
                    assert (row.start, row.end) == pytest.approx(times[row.step, row.operation], abs=3e-9)
                assert found.totals.step_seconds == pytest.approx(run.totals.step_seconds, rel=1e-6)
            assert sum(found.totals.breakdown.values()) == pytest.approx(found.totals.step_seconds, rel=1e-6)
            assert athanor("compare", tmp_path / "predicted.json", out).returncode == 0


def test_the_command_writes_one_file_or_one_of_each_rank(run, tmp_path):
    saved = tmp_path / "run.json"
    run.save(saved)
    done = athanor("export", "perfetto", saved, "-o", tmp_path / "run.pftrace")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.pftrace").read_bytes() == perfetto_trace(run)
    assert athanor("export", "kineto", saved, "-o", tmp_path / "ranks").returncode == 0
    assert len([*(tmp_path / "ranks").iterdir()]) == len(run.classes)
    wrong = athanor("export", "perfeto", saved, "-o", tmp_path / "x")
    assert wrong.returncode == 2
    assert "did you mean perfetto" in wrong.stderr


@given(st.integers(-(2**63), 2**64 - 1))
def test_numbers_of_protocol_buffers_read_back(value):
    assert read_varint(varint(value), 0) == (value % 2**64, len(varint(value)))
    (found,) = fields(number(5, value))
    assert found == (5, 0, value % 2**64)
    if value < 2**63:
        assert signed(found[2]) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_are_refused(data):
    try:
        assert sum(1 for _ in fields(data)) <= len(data)
    except ValueError as wrong:
        assert str(wrong)
