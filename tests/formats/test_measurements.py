"""Logs of nccl-tests and OSU: the fitted machine gives the log's bus bandwidths, and the truth where a machine made the log."""

import json

import pytest
from athanor import InputError, load_machine, read_nccl_tests, read_osu
from athanor.reports.formats.kinds import Asked
from athanor.reports.formats.machines.measured import MeasuredCollective, fitted
from athanor.sim.messages.lower_bounds import bus_factor
from athanor.sim.studies.collective import Collective
from support.command_line import athanor

H100 = """# nThread 1 nGpus 8 minBytes 8388608 maxBytes 8589934592 step: 4(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0
#
# Using devices
{ranks}
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
{rows}
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 370.000
#
"""


def rank_lines(hosts, each):
    return "\n".join(
        f"#  Rank {rank:2d} Group  0 Pid {9000 + rank} on  node-{rank // each:02d} device {rank % each:2d} [0x1b] NVIDIA H100 80GB HBM3"
        for rank in range(hosts * each)
    )


def row(size, time, ranks, operation):
    algorithm = size / time / 1e3
    bus = algorithm * bus_factor(operation, ranks)
    one = f"{time:9.1f} {algorithm:7.2f} {bus:7.2f}      0"
    return f"{size:12d} {size // 4:12d}     float     sum      -1  {one}  {one}"


BUS = {8388608: 190.0, 33554432: 290.0, 134217728: 345.0, 536870912: 364.0, 2147483648: 368.5, 8589934592: 369.6}
"""Bus bandwidths in GB/s of the shape that a node of H100 shows: half at 8 MiB, nearly all from 512 MiB on."""


def nccl_log(hosts=1, each=8, operation="all-reduce"):
    ranks = hosts * each
    rows = [row(size, size * bus_factor(operation, ranks) / bus / 1e3, ranks, operation) for size, bus in BUS.items()]
    return H100.format(ranks=rank_lines(hosts, each), rows="\n".join(rows))


def written(folder, text, name="log.txt"):
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize("hosts", [1, 2])
def test_simulated_bus_bandwidths_are_those_of_the_log(hosts, tmp_path):
    notes = []
    asked = Asked(machine="eos-h100", defined={"operation": "all-reduce"}, tell=notes.append)
    machine = read_nccl_tests(written(tmp_path, nccl_log(hosts)), asked)
    what = Collective(machine, "all-reduce", 8 * hosts, ranks_per_node=8)
    algorithm = notes[0].partition(":")[0]
    for size, bus in BUS.items():
        assert what.run(algorithm, size).bus_bandwidth / 1e9 == pytest.approx(bus, rel=0.05)
    key = "node.ring_bandwidth" if hosts == 1 else "calibration.network_efficiency"
    assert machine.source(key).startswith("calibrated: log.txt, all-reduce")
    assert "±" in machine.source(key)
    assert machine.fabric.kind == load_machine("eos-h100").fabric.kind


@pytest.mark.parametrize(
    ("operation", "ranks", "hosts"), [("all-reduce", 8, 1), ("all-gather", 16, 4), ("all-to-all", 8, 1)]
)
def test_a_log_of_a_machine_gives_that_machine(operation, ranks, hosts):
    base = load_machine("eos-h100")
    truth = base.changed(
        {"node.ring_bandwidth": 3.1e11, "fabric.latency_node": 3 * 3.5e-6, "calibration.message_overhead": 1.5e-6}
        if hosts == 1
        else {"calibration.network_efficiency": 0.71}
    )
    what = Collective(truth, operation, ranks, ranks_per_node=ranks // hosts)
    algorithm = "ring" if operation != "all-to-all" else "linear"
    seconds = {size: what.run(algorithm, size).seconds for size in (1e4, 1e6, 1e8)}
    found = fitted(MeasuredCollective("log", operation, ranks, hosts, seconds), base)
    assert max(map(abs, found.errors.values())) < (3e-2 if operation == "all-to-all" else 2e-3)
    assert found.machine.node.ring_bandwidth == pytest.approx(truth.node.ring_bandwidth, rel=5e-3)
    assert found.machine.calibration.network_efficiency == pytest.approx(truth.calibration.network_efficiency, rel=2e-3)


def test_json_says_the_same_as_text(tmp_path):
    results = [
        {"size": size, "count": size // 4, "type": "float", "redop": "sum", "root": -1,
         "out_of_place": {"time": round(size * 1.75 / bus / 1e3, 1), "alg_bw": 1.0, "bus_bw": bus, "nwrong": 0}}
        for size, bus in BUS.items()
    ]  # fmt: skip
    devices = [{"rank": rank, "host": "node-00", "device": rank} for rank in range(8)]
    table = {"version": "2.17.6", "test": "all_reduce_perf", "devices": devices, "results": results}
    one = read_nccl_tests(written(tmp_path, json.dumps(table), "log.json"), Asked(machine="eos-h100"))
    asked = Asked(machine="eos-h100", defined={"operation": "all_reduce"})
    other = read_nccl_tests(written(tmp_path, nccl_log()), asked)
    assert one.node.ring_bandwidth == pytest.approx(other.node.ring_bandwidth, rel=1e-3)


OSU = """
# OSU MPI Latency Test v7.4
# Datatype: MPI_CHAR.
# Size       Avg Latency(us)
{}
"""


def test_osus_messages_give_latency_and_bandwidth(tmp_path):
    rows = "\n".join(f"{2**power:<10d} {3.0 + 2**power / 10e3:14.2f}" for power in range(0, 23, 2))
    notes = []
    machine = read_osu(written(tmp_path, OSU.format(rows)), Asked(machine="eos-h100", tell=notes.append))
    what = Collective(machine, "broadcast", 2, ranks_per_node=1)
    assert what.run(notes[0].partition(":")[0], 2**22).seconds == pytest.approx((3.0 + 2**22 / 10e3) * 1e-6, rel=0.05)


@pytest.mark.parametrize(
    ("text", "kind", "defined", "said"),
    [
        ("hello\n", "nccl-tests", {}, "has no lines of sizes and times"),
        (nccl_log(), "nccl-tests", {}, "--define operation=NAME"),
        (nccl_log().replace("Rank", "rang"), "nccl-tests", {"operation": "all_reduce"}, "--define ranks=N"),
        (nccl_log(hosts=1, each=3), "nccl-tests", {"operation": "all_reduce"}, "3 ranks a host do not divide the 8"),
        ("# OSU MPI Multi-pair Test v7\n1 2\n", "osu", {}, "cannot be read"),
        ("# OSU MPI Allreduce Latency Test v7\n1 2\n", "osu", {}, "--define ranks=N"),
        ("# OSU MPI Latency Test v7\n1 fast\n", "osu", {}, "line 2: must be a size and a time"),
    ],
)  # fmt: skip
def test_what_a_log_does_not_say_is_asked_for_in_one_line(text, kind, defined, said, tmp_path):
    options = [word for key, value in defined.items() for word in ("--define", f"{key}={value}")]
    done = athanor(
        "import", kind, written(tmp_path, text), "--machine", "eos-h100", *options, "-o", tmp_path / "m.toml"
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_other_numbers_are_asked_for(tmp_path):
    with pytest.raises(InputError, match="--machine names one"):
        read_nccl_tests(written(tmp_path, nccl_log()), Asked(defined={"operation": "all_reduce"}))


@pytest.mark.parametrize("seconds", [0.0, 1e-320, 1e9, float("inf"), float("nan")])
def test_times_that_nothing_takes_are_refused(seconds):
    measured = MeasuredCollective("a log", "all-reduce", 2, 2, {1024.0: 1e-5, 4096.0: seconds})
    with pytest.raises(InputError, match=r"a log: 4096 bytes take .* can be fitted"):
        fitted(measured, load_machine("selene"))
