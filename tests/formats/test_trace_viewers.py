"""Traces in the programs that people open them with: Holistic Trace Analysis and Perfetto's trace processor (``make traces``).

They are asked about runs, simulated and executed, and have to find what the runs themselves say.
"""

import os
import socket
from collections import Counter, defaultdict
from importlib.util import find_spec
from itertools import pairwise
from urllib.parse import urlsplit

import athanor as package
import pytest
from athanor.reports.formats.traces.kineto_writer import kineto_traces
from athanor.reports.formats.traces.perfetto import perfetto_trace
from athanor.reports.formats.traces.tracks import Tracks
from support.mpi_jobs import MPIEXEC, job

pytestmark = pytest.mark.filterwarnings("ignore")  # of these programs, about pandas and plots

RUNS = ["simulated", "offloaded", "executed"]
COPIES, HOST = ("host_copy",), ("launches", "host_sweep")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A pipeline with exchanges beside products; one whose optimizer is on the host; a job over MPI, which has every rank."""
    if find_spec("hta") is None and find_spec("perfetto") is None:
        pytest.skip("neither Holistic Trace Analysis nor perfetto is installed (make traces)")
    plan = {"mesh": {"pp": 2, "dp": 2, "tp": 2}, "global_batch": 8, "micro_batch": 1, "steps": 2}
    found = {
        "simulated": package.simulate("selene", "gpt-tiny", overlap="gradients", jitter=0.05, **plan),
        "offloaded": package.simulate("selene", "gpt-tiny", offload="optimizer,activations:0.5", **plan),
    }
    if MPIEXEC is not None:
        file = tmp_path_factory.mktemp("executed") / "run.json"
        done = job(2, "athanor", "execute", "--model", "moda-tiny", "--mesh", "ep=2", "--steps", "2", "-o", file)
        assert done.returncode == 0, done.stderr
        found["executed"] = package.Run.load(file)
    return found


@pytest.fixture(params=RUNS)
def run(request, runs):
    if request.param not in runs:
        pytest.skip("no mpiexec: extra mpich is not installed")
    return runs[request.param]


@pytest.fixture
def folder(run, tmp_path, monkeypatch):
    """A file of each rank, as the command writes them."""
    monkeypatch.setenv("HTA_DISABLE_NS_ROUNDING", "1")  # nanoseconds are what kernels and runs are compared by
    for rank, text in kineto_traces(run).items():
        (tmp_path / f"rank-{rank}.json").write_text(text)
    return tmp_path


@pytest.fixture
def analysis(folder):
    """Of all steps: as it is called by default it leaves out the last one, as one that a profiler has not seen the end of."""
    found = pytest.importorskip("hta.trace_analysis", reason="Holistic Trace Analysis is not installed (make traces)")
    return found.TraceAnalysis(trace_dir=str(folder), include_last_profiler_step=True)


def union(spans):
    """Disjoint spans that cover the same, in order."""
    found = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([begin, end])
    return found


def length(spans):
    return sum(end - begin for begin, end in spans)


def common(one, other):
    """What two unions have in common: what both last, less what they last together."""
    return length(one) + length(other) - length(union([*map(tuple, one), *map(tuple, other)]))


def by_rank(run):
    """Of each rank the microseconds at which its products, exchanges and copies were under way: from rows alone."""
    starts = [sum(run.totals.each_step_seconds[:step]) for step in range(len(run.totals.each_step_seconds))]
    numbers = Tracks(run).ranks
    found = defaultdict(lambda: defaultdict(list))
    for row in run.trace:
        what = "comm" if row.collective else "copy" if row.kind in COPIES else "host" if row.kind in HOST else "comp"
        found[numbers[row.ranks]][what].append([1e6 * (starts[row.step] + at) for at in (row.start, row.end)])
    return {rank: {what: union(spans) for what, spans in each.items()} for rank, each in found.items()}


def near(microseconds, events):
    """Both ends of each event are rounded to nanoseconds."""
    return pytest.approx(microseconds, abs=2e-3 * events + 1e-9)


def test_every_rank_and_every_argument_is_what_it_looks_for(analysis, run, folder):
    from hta.utils.validate_trace import validate_trace_format

    assert {*analysis.t.get_ranks()} == {*Tracks(run).ranks.values()}
    assert [*map(int, analysis.get_profiler_steps())] == [0, 1]
    for file in folder.iterdir():
        assert validate_trace_format(str(file), "complete") == (True, {})


def test_it_finds_the_times_of_the_run(analysis, run):
    table = analysis.get_temporal_breakdown(visualize=False).set_index("rank")
    count = len(run.trace)
    for rank, spans in by_rank(run).items():
        busy = union([tuple(span) for what in ("comp", "comm", "copy") for span in spans.get(what, [])])
        row = table.loc[rank]
        assert row["kernel_time(us)"] == near(busy[-1][1] - busy[0][0], 1)
        assert row["idle_time(us)"] == near(busy[-1][1] - busy[0][0] - length(busy), count)
        assert row["compute_time(us)"] == near(length(spans["comp"]), count)
        assert row["non_compute_time(us)"] == near(length(busy) - length(spans["comp"]), count)
        assert row["compute_time(us)"] > 0 < row["non_compute_time(us)"]


def test_it_finds_how_much_of_exchanges_products_hide(analysis, run):
    table = analysis.get_comm_comp_overlap(visualize=False).set_index("rank")
    for rank, spans in by_rank(run).items():
        hidden = 100 * common(spans["comp"], spans["comm"]) / length(spans["comm"])
        assert table.loc[rank]["comp_comm_overlap_pctg"] == pytest.approx(hidden, abs=0.02)


def test_it_adds_up_the_kernels_of_each_name(analysis, run):
    kinds, kernels = analysis.get_gpu_kernel_breakdown(
        visualize=False, duration_ratio=1.0, num_kernels=1000, include_memory_kernels=True
    )
    mine = defaultdict(float)
    for row in run.trace:
        if row.kind not in HOST:
            mine[Tracks(run).ranks[row.ranks], row.label] += 1e6 * (row.end - row.start)
    total = kernels["sum (us)"].sum()
    assert total == near(sum(mine.values()), len(run.trace))
    for (rank, label), seconds in mine.items():
        own = kernels[(kernels["rank"] == rank) & kernels["name"].map(lambda name, label=label: name_of(name) == label)]
        if not own.empty:  # what is below its share of all stands as "others"
            assert own["sum (us)"].sum() == near(seconds, len(run.trace))
    assert {"COMPUTATION", "COMMUNICATION"} <= {*kinds["kernel_type"]}
    assert ("MEMORY" in {*kinds["kernel_type"]}) == any(row.kind in COPIES for row in run.trace)


def name_of(kernel):
    """The operation's name in a kernel's."""
    if kernel.startswith("nccl"):
        return kernel.partition("(")[2].removesuffix(")")
    return kernel.rpartition(") ")[2] if kernel.startswith("Memcpy") else kernel


def test_its_time_of_products_is_that_of_our_own_breakdown(tmp_path, monkeypatch):
    """Where all ranks are alike and no exchange is hidden, the breakdown is the trace's: products, and what is exposed."""
    found = pytest.importorskip("hta.trace_analysis", reason="Holistic Trace Analysis is not installed (make traces)")
    monkeypatch.setenv("HTA_DISABLE_NS_ROUNDING", "1")
    run = package.simulate("selene", "gpt-tiny", mesh={"dp": 2, "tp": 2}, global_batch=4, micro_batch=1, zero="1")
    for rank, text in kineto_traces(run).items():
        (tmp_path / f"rank-{rank}.json").write_text(text)
    analysis = found.TraceAnalysis(trace_dir=str(tmp_path))
    (row,) = analysis.get_temporal_breakdown(visualize=False).to_dict("records")
    spent = run.totals.breakdown
    products = sum(spent[each] for each in ("compute", "optimizer", "other"))
    assert row["compute_time(us)"] == near(1e6 * products, len(run.trace))
    assert row["non_compute_time(us)"] + row["idle_time(us)"] == near(
        1e6 * (run.totals.step_seconds - products), len(run.trace)
    )


def test_its_other_analyses_take_the_trace(analysis, run):
    idle, _ = analysis.get_idle_time_breakdown(ranks=[0], visualize=False)
    assert {*idle["idle_category"]} <= {"host_wait", "kernel_wait", "other"}
    assert analysis.get_queue_length_summary(ranks=[0]) is not None
    starts = analysis.get_cuda_kernel_launch_stats(ranks=[0], visualize=False)[0]
    assert len(starts) > 0
    assert (starts["launch_delay"] >= -1e-3).all()
    passes = analysis.get_gpu_user_annotation_breakdown(visualize=False)
    assert {*passes["name"]} == {row.runs_in for row in run.trace if row.stream == "compute"}
    named = analysis.get_gpu_kernels_with_user_annotations(rank=0)
    computed = named[(named["stream"] == 7) & (named["dur"] > 0)]
    assert {*computed["s_user_annotation"]} == {*passes["name"]}


def test_ranks_that_come_late_are_found_among_executed_ones(folder, runs, run):
    found = pytest.importorskip("hta.trace_analysis", reason="Holistic Trace Analysis is not installed (make traces)")
    if run is not runs.get("executed"):
        pytest.skip("a simulated run observes one rank of each class")
    late = found.TraceAnalysis(trace_dir=str(folder), include_last_profiler_step=True).get_potential_stragglers()
    assert 0 < len(late) <= 2
    assert {*late} <= {0, 1}


@pytest.fixture
def decoded(run):
    """The packets by Perfetto's own schema."""
    proto = pytest.importorskip(
        "perfetto.protos.perfetto.trace.perfetto_trace_pb2",
        reason="the package perfetto is not installed (make traces)",
    )
    trace = proto.Trace()
    trace.ParseFromString(perfetto_trace(run))
    assert not unknown(trace)
    return proto, trace.packet


def unknown(message):
    """Whether a message has fields, at any depth, that its schema does not know."""
    unknown_fields = pytest.importorskip("google.protobuf.unknown_fields")
    if len(unknown_fields.UnknownFieldSet(message)):
        return True
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if isinstance(value, list) or hasattr(value, "add") else [value]:
                if unknown(each):
                    return True
    return False


def test_perfettos_schema_knows_every_field_of_every_packet(decoded, run):
    proto, packets = decoded
    event = proto.TrackEvent
    assert {packet.trusted_packet_sequence_id for packet in packets} == {1}
    assert packets[0].sequence_flags == proto.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    descriptors = {packet.track_descriptor.uuid: packet.track_descriptor for packet in packets if packet.HasField("track_descriptor")}  # fmt: skip
    assert len(descriptors) == sum(packet.HasField("track_descriptor") for packet in packets)
    processes = {uuid for uuid, each in descriptors.items() if each.HasField("process")}
    assert len({descriptors[uuid].process.pid for uuid in processes}) == len(processes)
    for uuid, each in descriptors.items():
        assert each.name or each.process.process_name
        assert (each.parent_uuid in processes) == (uuid not in processes)
    events = [packet for packet in packets if packet.HasField("track_event")]
    assert all(one.timestamp <= other.timestamp for one, other in pairwise(events))
    known, names, open_slices, flows = set(), {}, Counter(), Counter()
    for packet in packets:
        for each in packet.interned_data.event_names:
            assert each.iid not in names
            names[each.iid] = each.name
        if packet.HasField("track_descriptor"):
            known.add(packet.track_descriptor.uuid)
        elif packet.HasField("track_event"):
            each = packet.track_event
            assert each.track_uuid in known
            counter = descriptors[each.track_uuid].HasField("counter")
            assert counter == (each.type == event.TYPE_COUNTER)
            if each.type == event.TYPE_SLICE_BEGIN:
                assert names[each.name_iid]
                open_slices[each.track_uuid] += 1
                flows.update(each.flow_ids)
            elif each.type == event.TYPE_SLICE_END:
                open_slices[each.track_uuid] -= 1
            assert 0 <= open_slices[each.track_uuid] <= 1
    assert not any(open_slices.values())
    assert {*flows.values()} <= {2}
    assert len(flows) == len(Tracks(run).arrows)
    for each in descriptors.values():
        if each.HasField("counter"):
            assert each.counter.unit_name in ("B/s", "%")


@pytest.fixture(scope="module")
def program():
    """Where Perfetto's trace processor is: as TRACE_PROCESSOR says, else fetched by its package from where it is published."""
    prebuilts = pytest.importorskip(
        "perfetto.prebuilts.perfetto_prebuilts", reason="the package perfetto is not installed (make traces)"
    )
    if own := os.environ.get("TRACE_PROCESSOR"):
        return own
    from perfetto.prebuilts.manifests.trace_processor_shell import TRACE_PROCESSOR_SHELL_MANIFEST

    try:
        socket.create_connection((urlsplit(TRACE_PROCESSOR_SHELL_MANIFEST[0]["url"]).hostname, 443), timeout=5).close()
    except OSError as reason:
        pytest.skip(f"the trace processor cannot be fetched ({reason}), and TRACE_PROCESSOR does not say where one is")
    return prebuilts.get_perfetto_prebuilt(TRACE_PROCESSOR_SHELL_MANIFEST)


@pytest.fixture
def processor(run, program, tmp_path):
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    file = tmp_path / "run.pftrace"
    file.write_bytes(perfetto_trace(run))
    with TraceProcessor(trace=str(file), config=TraceProcessorConfig(bin_path=program)) as found:
        yield found


def test_the_trace_processor_finds_slices_counters_and_flows(processor, run):
    def column(question):
        return [row.found for row in processor.query(question)]

    assert column("select count(*) as found from slice") == [len(run.trace)]
    assert column("select sum(dur) as found from slice")[0] == pytest.approx(
        1e9 * sum(row.end - row.start for row in run.trace), abs=len(run.trace)
    )
    assert {*column("select distinct name as found from slice")} == {row.label for row in run.trace}
    assert column("select max(depth) as found from slice") == [0]
    assert column("select count(*) as found from flow") == [len(Tracks(run).arrows)]
    counters = Tracks(run).counters
    assert column("select count(*) as found from counter") == [sum(len(each.values) for each in counters)]
    assert sorted(column("select name as found from counter_track")) == sorted(each.name for each in counters)
    assert {*column("select distinct unit as found from counter_track")} == {each.unit for each in counters}
    assert column("select sum(value) as found from stats where severity = 'error'") == [0]
