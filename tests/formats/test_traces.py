"""A Run as traces of others: every row and second is there, slices nest, arrows lead forward, and their own schemas read them."""

import json
from collections import Counter, defaultdict

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


def parsed(data):
    """{field: values in order} of a message."""
    found = defaultdict(list)
    for field, _, value in fields(data):
        found[field].append(value)
    return found


def test_packets_of_perfetto_are_balanced_in_order_and_about_tracks_that_there_are(run):
    """By the numbers of Perfetto's schema; ``test_trace_viewers.py`` reads them by the schema itself."""
    packets = [parsed(value) for field, _, value in fields(perfetto_trace(run)) if field == 1]
    assert all(packet[10] == [1] for packet in packets)
    tracks, known, names, under_way, flows, last = {}, set(), {}, Counter(), Counter(), 0
    for packet in packets:
        for about in map(parsed, packet[60]):
            (uuid,) = about[1]
            assert uuid not in known and {*about[5]} <= known
            assert about[2] or about[3]
            known.add(uuid)
            tracks[uuid] = parsed(about[8][0])[6] if about[8] else []
        for interned in map(parsed, packet[12]):
            names.update((parsed(each)[1][0], parsed(each)[2][0].decode()) for each in interned[2])
        for event in map(parsed, packet[11]):
            (when,), (kind,), (track,) = packet[8], event[9], event[11]
            assert when >= last
            last = when
            assert bool(tracks[track]) == (kind == 4)
            under_way[track] += {1: 1, 2: -1, 4: 0}[kind]
            assert 0 <= under_way[track] <= 1
            assert kind != 1 or names[event[10][0]]
            flows.update(event[47])
    assert not any(under_way.values())
    assert {*flows.values()} == {2}
    assert len(flows) == len(Tracks(run).arrows)
    assert {unit for each in tracks.values() for unit in each} == {b"B/s", b"%"}
    assert last == pytest.approx(1e9 * sum(run.totals.each_step_seconds), abs=2)
    assert {*names.values()} == {row.label for row in run.trace}


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
    done = [event for event in whole if event.get("cat") in ("kernel", "cpu_op")]
    assert len(done) == len(run.trace)
    assert {event["args"]["kind"] for event in done if event["cat"] == "cpu_op"} == {"launches"}
    starts = {event["args"]["correlation"]: event for event in whole if event.get("cat") == "cuda_runtime"}
    for event in (event for event in done if event["cat"] == "kernel"):
        assert starts.pop(event["args"]["correlation"])["ts"] <= event["ts"]
    assert not starts
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
            assert len(found.trace) == len(times)
            assert {(row.step, row.operation) for row in found.trace} == {*times}
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
