"""Calibration: fits on made-up data with known numbers, rejected samples, and whole jobs of real processes."""

import json
import os
import signal
import tomllib
from collections import Counter
from pathlib import Path

import athanor
import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.hardware.machine import Machine, load_machine
from athanor.hardware.machine_writer import machine_toml
from athanor.hardware.records import build
from athanor.mpi_runtime.calibration.calibrate import CalibrationTask
from athanor.mpi_runtime.calibration.findings import Findings, FittedNumber
from athanor.mpi_runtime.calibration.fits import curve, line, rate_of_large, standard_error
from athanor.mpi_runtime.calibration.keep import KeptSamples
from athanor.mpi_runtime.calibration.machine import MachineBuilder
from athanor.mpi_runtime.calibration.points import COMPUTED, LARGE, BenchPoint, batches, groups
from athanor.mpi_runtime.calibration.products import Products
from athanor.mpi_runtime.calibration.samples import SampleSeries, judged, reason
from athanor.mpi_runtime.calibration.steps import StepCounts
from athanor.mpi_runtime.calibration.structure import bare, like, supernode_of
from athanor.mpi_runtime.calibration.topology import Topology
from athanor.reports.studies.calibration_checks import CollectiveErrors, checked
from athanor.sim.studies.collective import Collective
from athanor.workloads.collectives import ALGORITHMS, rounds
from support.command_line import eventually
from support.mpi_jobs import begin, finish, gone, job, needs_mpi, ranks_of, told
from support.paths import MACHINE_FILES, ROOT

SIZES = [1 << power for power in range(3, 23)]


def said(text):
    """What Athanor itself said, line by line: launchers add lines of their own."""
    return [line for line in text.splitlines() if line.startswith("athanor: ")]


def series(point, seconds, noise=0.0, count=12):
    """Samples of a point around known seconds."""
    random = np.random.default_rng(point.size)
    return judged(point, 1, list(seconds * (1 + noise * random.standard_normal(count))), [""] * count)


# --- fits -------------------------------------------------------------------------------------------------------------------


def test_a_line_is_found_exactly_and_through_noise_and_outliers():
    start, slope = 5e-6, 1 / 3e9
    exact = line(SIZES, [start + slope * size for size in SIZES])
    assert (exact.start, exact.slope) == pytest.approx((start, slope), rel=1e-6)
    random = np.random.default_rng(1)
    noisy = np.array([start + slope * size for size in SIZES]) * (1 + 0.02 * random.standard_normal(len(SIZES)))
    noisy[[3, 9, 16]] *= 4  # what others did meanwhile
    found = line(SIZES, noisy)
    assert found.start == pytest.approx(start, rel=0.1)
    assert found.slope == pytest.approx(slope, rel=0.1)
    assert abs(found.start - start) < 4 * found.start_error < start
    assert abs(found.slope - slope) < 4 * found.slope_error < slope


def test_a_break_is_found_where_there_is_one_and_only_there():
    low, high = (2e-6, 1 / 1e9), (30e-6, 1 / 1.2e10)

    def seconds(size):
        start, slope = low if size < 16384 else high
        return start + slope * size

    found = curve(SIZES, [seconds(size) for size in SIZES])
    assert len(found.pieces) == 2
    assert 8192 < found.breaks[0] <= 16384
    for piece, (start, slope) in zip(found.pieces, (low, high), strict=True):
        assert (piece.start, piece.slope) == pytest.approx((start, slope), rel=1e-4)
    random, pieces = np.random.default_rng(2), []
    for _ in range(40):  # noise alone is rarely a reason for a second piece, and never one for a bad fit
        noise = 1 + 0.03 * random.standard_normal(len(SIZES))
        found = curve(SIZES, [(4e-6 + size / 2e9) * factor for size, factor in zip(SIZES, noise, strict=True)])
        pieces.append(len(found.pieces))
        assert np.abs(found.errors(SIZES, [4e-6 + size / 2e9 for size in SIZES])).max() < 0.12
    assert pieces.count(2) <= 6


def test_a_curve_of_few_points_is_one_line():
    assert len(curve([8, 512, 65536, 262144], [1e-6, 2e-6, 3e-6, 9e-6]).pieces) == 1
    assert curve([64], [3e-6]).at(1e9) == 3e-6


def test_the_rate_is_that_of_large_messages():
    """A burst lets small ones pass at twice the rate, as links that are shaped do."""
    burst = [size / 50e6 if size <= 32768 else size / 25e6 for size in SIZES]
    assert rate_of_large(SIZES, burst, LARGE) == pytest.approx(25e6, rel=1e-9)
    burst[-3] *= 3
    assert rate_of_large(SIZES, burst, LARGE) == pytest.approx(25e6, rel=0.35)


def test_a_standard_error_is_as_large_as_the_noise():
    points = [series(BenchPoint("messages", "x", size), 1e-3, noise=0.1, count=400) for size in (1, 2, 3)]
    error = standard_error(points, lambda medians: medians[0])
    assert error == pytest.approx(1.25 * 0.1 * 1e-3 / 400**0.5, rel=0.35)  # of a median of normal numbers


def test_errors_of_a_fit_are_those_of_what_was_held_out():
    points = [
        series(BenchPoint("collective", "x", size, {"ranks": 2}, held_out=number % 3 == 2), 1e-5 + size / 1e9)
        for number, size in enumerate(SIZES)
    ]
    fitted = FittedNumber.of("x", points)
    assert np.abs(fitted.errors(held_out=True)).max() < 1e-6
    points[2] = series(points[2].point, 2 * points[2].median)
    again = FittedNumber.of("x", points)
    assert again.curve == fitted.curve  # what is held out takes no part
    assert again.errors(held_out=True)[0] == pytest.approx(-0.5)


def test_efficiency_and_overhead_of_products():
    """Times that the machine's own model made are fitted by the numbers that they were made with."""
    machine = load_machine("laptop").changed({"calibration.gemm_efficiency": 0.62})
    shapes = [(m, n, k) for m in (8, 64, 512, 1024) for n, k in ((256, 1024), (1024, 256), (64, 2048))]
    points = []
    for precision in ("fp32", "fp64"):
        for m, n, k in shapes:
            cost = machine.processor(8).gemm(m, n, k, 1, precision).seconds + 7e-6
            detail = {"m": m, "n": n, "k": k, "precision": precision}
            points.append(series(BenchPoint("gemm", f"{precision} {m} {n} {k}", 2 * m * n * k, detail), float(cost)))
    points[4] = series(points[4].point, 3 * points[4].median)  # one that lies far off
    start = series(BenchPoint("start", "x", 1), 7e-6)
    found = Products(points, [start]).fit(machine, 8)
    assert found.efficiency == pytest.approx(0.62, rel=0.02)
    assert found.overhead == pytest.approx(7e-6, rel=0.05)


# --- samples ----------------------------------------------------------------------------------------------------------------


def test_disturbed_samples_are_rejected_and_counted():
    assert reason(0.01, 0.0, 0.0, 0.0) == ""
    assert reason(0.5, 0.0, 0.3, 0.0) == "foreign"
    assert reason(0.01, 0.0, 0.015, 0.0) == ""  # ticks of the clock that counts
    assert reason(0.01, 0.0, 0.0, 5.0) == "switched"
    assert reason(0.5, 0.0, 0.0, 5.0) == ""  # what every system does to itself
    assert reason(0.01, 0.005, 0.0, 0.0) == "apart"
    point = BenchPoint("links", "x", 1)
    seconds = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 9.0, 1.01, 5.0, 5.0]
    reasons = [""] * 8 + ["foreign", "switched"]
    found = judged(point, 1, seconds, reasons)
    assert found.rejected == {"foreign": 1, "switched": 1, "outlier": 1}
    assert found.clean and len(found.used) == 7
    assert (found.median, found.least) == (1.0, 0.98)
    assert found.quartile <= found.median and found.spread < 1.05


def test_where_nothing_is_clean_the_fastest_count():
    found = judged(BenchPoint("links", "x", 1), 1, [*range(1, 21)], ["foreign"] * 18 + [""] * 2)
    assert not found.clean
    assert found.used.tolist() == [1, 2, 3]
    apart = judged(BenchPoint("links", "x", 1), 1, [*range(1, 21)], ["apart"] * 2 + ["foreign"] * 18)
    assert apart.used.tolist() == [3, 4, 5]  # what began apart is too short, not too long


# --- what is measured, and where it goes ------------------------------------------------------------------------------------


def test_pairs_and_partners_of_hosts_in_supernodes():
    """Six hosts of two ranks that a launcher dealt out in turn; supernodes of two hosts, then of four."""
    topology = Topology(tuple(range(6)) * 2, (None,) * 12, 2)
    assert topology.order == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    assert topology.pairs() == {"node": (0, 6), "supernode": (0, 1), "top": (0, 5)}
    assert topology.grid(8) == (2, 4) and topology.grid(6) == (1, 6) and topology.grid(4) == (1, 4)
    for links in ("ring", "nic", "trunk"):
        pairs = {rank: topology.partners(links, rank) for rank in range(12)}
        assert all(pairs[to][1] == rank for rank, (to, _) in pairs.items())
        for one, other in ((topology.host[rank], topology.host[to]) for rank, (to, _) in pairs.items()):
            assert (one == other) is (links == "ring")
            assert (one // 2 == other // 2) is (links != "trunk")
    uneven = Topology(tuple(range(6)), (None,) * 6, 4)
    assert [uneven.partners("trunk", rank) for rank in range(6)] == [None] * 6  # one full supernode has none to send to
    assert uneven.partners("nic", 5) == (4, 4)
    assert Topology((0, 0, 0, 0), (0, 0, 1, 1)).pairs() == {"socket": (0, 1), "node": (0, 2)}
    with pytest.raises(InputError, match="hosts hold 2, 1 ranks"):
        Topology((0, 0, 1), (None,) * 3)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(("hosts", "width", "supernode"), [(1, 1, 0), (1, 3, 0), (4, 1, 2), (6, 2, 3), (90, 16, 9)])
def test_points_have_keys_of_their_own_and_sizes_that_ranks_share(hosts, width, supernode, quick):
    topology = Topology(tuple(np.repeat(range(hosts), width).tolist()), (None,) * hosts * width, supernode)
    made = list(batches(topology, quick, 1 << 20))
    points = [point for batch in made for point in batch.points]
    assert len({point.key for point in points}) == len(points)
    kinds = {point.kind for point in points}
    assert {"gemm", "sweep", "reduction", "start", "loop", "bookkeeping"} <= kinds
    if hosts * width == 1:
        assert not {"ping-pong", "links", "collective", "messages"} & kinds
        return
    names = {point.series for point in points if point.kind == "collective"}
    assert any("two-level" in name for name in names) is (supernode > 0)
    for point in points:
        if (
            point.kind == "collective"
            and point.detail["algorithm"] in ("ring", "two-level")
            and "gather" in point.series
        ):
            assert point.size % (4 * point.detail["ranks"]) == 0
    held = [point for point in points if point.held_out]
    assert held and all(point.kind == "collective" for point in held)
    assert groups(12) == [12, 6, 3] and groups(1) == []


def made_up(topology, machine, network_only=True):
    """The series of a job on a cluster whose numbers are known exactly."""
    nic, trunk, ring = 20e6, 7.5e6, 4e9
    for batch in batches(topology, True, 1 << 20, not network_only):
        for point in batch.points:
            size, detail = point.size, point.detail
            match point.kind:
                case "ping-pong" | "library ping-pong" | "handover":
                    rate, latency = {"node": (ring, 3e-6), "supernode": (nic, 12e-6), "top": (trunk, 22e-6)}[
                        detail["level"]
                    ]
                    seconds = latency + 2e-6 + size / rate + COMPUTED * (point.kind == "handover")
                case "messages":
                    seconds = 40e-6 + 2e-6 * size
                case "links":
                    width, domain = topology.ranks_per_host, topology.domain
                    rate = {"ring": ring / width, "nic": nic / width, "trunk": trunk / width / domain}[detail["links"]]
                    seconds = 1e-5 + size / rate
                case "collective":
                    continue
                case _:
                    seconds = 1e-4 + size / 1e7
            yield series(point, seconds)


def simulated_collectives(topology, machine, slower=lambda operation: 1.0):
    """What collectives take on a machine, by the simulator."""
    asked = {}
    for batch in batches(topology, True, 1 << 20, False):
        for point in batch.points:
            if point.kind == "collective":
                key = (point.detail["operation"], point.detail["ranks"])
                asked[key] = asked.get(key) or Collective(machine, *key, ranks_per_node=topology.ranks_per_host)
                yield series(point, slower(key[0]) * asked[key].run(point.detail["algorithm"], point.size).seconds)


def test_latencies_are_those_of_steps_in_which_all_ranks_take_part():
    """Collectives that the simulator made up give its numbers back, though two ranks alone are three times as fast."""
    topology = Topology((0, 0, 1, 1, 2, 2, 3, 3), (None,) * 8, 2)
    machine = load_machine("cluster-64").changed(
        {"fabric.supernode": 2, "node.interface_bandwidth": "20 MB/s", "calibration.network_efficiency": 1.0}
        | {"calibration.message_overhead": "2 us", "fabric.taper": 7.5 / 40, "node.ring_bandwidth": "4 GB/s"}
        | {"fabric.latency_supernode": "36 us", "fabric.latency_top": "66 us", "fabric.latency_node": "9 us"}
    )
    made = [*made_up(topology, machine), *simulated_collectives(topology, machine)]
    findings = Findings(made, topology, machine)
    found = MachineBuilder(machine, findings, True, "").make()
    assert (found.machine.fabric.latency_supernode, found.machine.fabric.latency_top) == pytest.approx(
        (36e-6, 66e-6), rel=0.02
    )
    assert found.machine.fabric.latency_node == pytest.approx(3e-6, rel=0.05)  # no step stays on one host
    assert findings.latency("top").value == pytest.approx(22e-6, rel=0.05)
    checks = list(checked(findings, found.machine, None))
    assert CollectiveErrors.of(checks, "calibrated").worst < 0.05
    pairs = {"fabric.latency_supernode": "12 us", "fabric.latency_top": "22 us", "calibration.messages": []}
    lone = found.machine.changed(pairs)
    assert CollectiveErrors.of(checked(findings, lone, None), "calibrated").worst > 0.5


@pytest.mark.parametrize("operation", ["all-to-all", "all-reduce", "all-gather"])
@pytest.mark.parametrize("algorithm", ["linear", "pairwise-shift", "pairwise-xor", "ring", "two-level", "bruck"])
def test_steps_are_counted_as_single_messages_are(operation, algorithm):
    """Levels, messages and the fullest links of every step, message by message."""
    known = ALGORITHMS[operation]
    if algorithm not in known:
        return
    outer, inner, width = 2, 4, 2
    topology = Topology(tuple(np.repeat(range(4), width).tolist()), (None,) * 8, 2)
    steps, messages, loads = [0, 0, 0], 0, []
    for each in rounds(operation, algorithm, outer, inner):
        groups = {"group": [range(8)], "inner": [range(4), range(4, 8)], "outer": [(at, at + 4) for at in range(4)]}[
            each.scope
        ]
        for step in range(each.steps):
            sent = [
                (members[at], members[to])
                for members in groups
                for at in range(len(members))
                for to in each.partners(at, step, len(members))
            ]
            ring, out, into, up, down = (Counter() for _ in range(5))
            farthest = 0
            for source, target in sent:
                hosts = source // width, target // width
                level = (hosts[0] != hosts[1]) + (hosts[0] // 2 != hosts[1] // 2)
                farthest = max(farthest, level)
                ring[hosts[0]] += level == 0
                out[hosts[0]] += level > 0
                into[hosts[1]] += level > 0
                up[hosts[0] // 2] += level > 1
                down[hosts[1] // 2] += level > 1
            steps[farthest] += 1
            messages += max(Counter(source for source, _ in sent).values())
            share = each.share / (len(groups[0]) if each.everyone else 1)
            most = [max(counts.values()) * share for counts in (ring, out, up)]
            loads.append((most[0], max(most[1], max(into.values()) * share), max(most[2], max(down.values()) * share)))
    found = StepCounts.of(topology, operation, algorithm, outer, inner)
    assert (list(found.steps), found.messages) == (steps, messages)
    assert np.array([load for times, load in found.loads for _ in range(times)]) == pytest.approx(np.array(loads))


def test_the_numbers_of_a_made_up_cluster_come_back():
    topology = Topology((0, 0, 1, 1, 2, 2, 3, 3), (None,) * 8, 2)
    machine = load_machine("cluster-64").changed(
        {"fabric.supernode": 2, "node.interface_bandwidth": "25 MB/s", "calibration.network_efficiency": 0.5}
    )
    findings = Findings(made_up(topology, machine), topology, machine)
    made = MachineBuilder(machine, findings, True, "host; date; library").make()
    calibrated, fabric = made.machine.calibration, made.machine.fabric
    assert calibrated.message_overhead == pytest.approx(2e-6, rel=1e-3)
    assert (fabric.latency_node, fabric.latency_supernode, fabric.latency_top) == pytest.approx(
        (3e-6, 12e-6, 22e-6), rel=0.05
    )
    assert calibrated.network_efficiency == pytest.approx(0.8, rel=1e-3)
    assert fabric.taper == pytest.approx(7.5 / 40, rel=1e-3)
    assert made.machine.node.ring_bandwidth == pytest.approx(4e9, rel=1e-3)
    assert made.machine.core_group == machine.core_group  # --network-only
    assert made.machine.unsourced() == []
    measured = [key for key, text in made.machine.sources.items() if text.startswith("calibrated:")]
    assert "calibration.messages" in measured
    assert len(measured) == 8 and len(made.found) == 7
    assert "median of" in made.machine.source("fabric.taper")
    assert "host; date; library" in made.machine.source("fabric.taper")
    assert not made.warnings


def test_what_a_switch_in_a_node_carries_is_shared_by_its_ports():
    topology = Topology((0, 0, 1, 1), (None,) * 4, 0)
    machine = load_machine("cluster-64").changed({"node.inside": "switch"})
    made = MachineBuilder(machine, Findings(made_up(topology, machine), topology, machine), True, "").make()
    assert made.machine.node.ring_bandwidth == pytest.approx(4e9 / 2, rel=1e-3)


def test_a_trunk_that_its_nodes_do_not_fill_tells_no_taper():
    topology = Topology(tuple(range(8)), (None,) * 8, 4)
    machine = load_machine("cluster-64").changed({"fabric.supernode": 4, "node.interface_bandwidth": "20 MB/s"})
    found = list(made_up(topology, machine))
    for number, each in enumerate(found):
        if each.point.detail.get("links") == "trunk":  # as fast as the interfaces
            found[number] = series(each.point, 1e-5 + each.point.size / 20e6)
    assert MachineBuilder(machine, Findings(found, topology, machine), True, "").make().machine.fabric.taper == 1.0


MACHINES = [*MACHINE_FILES, "cluster-64", "laptop"]


@pytest.mark.parametrize("name", MACHINES, ids=lambda name: Path(name).stem)
def test_any_machine_can_lend_its_structure(name):
    machine = load_machine(name)
    hosts, known = min(machine.nodes, 4 * machine.supernode), supernode_of(machine, None)
    topology = Topology(tuple(range(hosts)), (None,) * hosts, known)
    assert like(machine, topology) is machine
    made = MachineBuilder(machine, Findings(made_up(topology, machine), topology, machine), True, "here").make()
    read = build(Machine, tomllib.loads(machine_toml(made.machine)), "written")
    assert read == made.machine
    assert (read.nodes, read.fabric.kind, read.core_group) == (machine.nodes, machine.fabric.kind, machine.core_group)
    found = {number.key: number.value for number in made.found}
    if hosts == 1:
        assert not found
        return
    assert found.pop("calibration.message_overhead") == pytest.approx(2e-6, rel=1e-3)
    assert found.pop("calibration.network_efficiency") == pytest.approx(20e6 / machine.node.injection, rel=1e-3)
    trunk = 7.5 / 20 / max(known, 1)
    expected = {
        "pruned-fat-tree": {
            "fabric.latency_supernode": 12e-6,
            "fabric.latency_top": 22e-6,
            "fabric.taper": trunk,
        },
        "crossbar": {"fabric.latency_link": 6e-6},
        "fat-tree": {
            "fabric.tiers.0.latency": 12e-6,
            "fabric.tiers.1.latency": 22e-6,
            "fabric.tiers.0.taper": trunk,
        },
    }.get(machine.fabric.kind, {})
    assert found == pytest.approx(expected, rel=0.06)
    assert bool(made.warnings) is (machine.fabric.kind in ("dragonfly", "torus", "rails"))


def test_more_than_nominal_takes_its_place():
    topology = Topology((0, 1), (None,) * 2)
    machine = load_machine("cluster-64").changed({"node.interface_bandwidth": "10 MB/s"})
    made = MachineBuilder(machine, Findings(made_up(topology, machine), topology, machine), True, "").make()
    assert made.machine.node.interface_bandwidth == pytest.approx(20e6, rel=1e-3)
    assert made.machine.calibration.network_efficiency == pytest.approx(1.0, rel=1e-3)
    assert made.machine.source("node.interface_bandwidth").startswith("calibrated:")
    (warning,) = made.warnings
    assert warning == "node.interface_bandwidth: 20 MB/s was measured, which takes the place of the nominal 10 MB/s"


def test_a_machine_of_one_rank_has_a_source_for_every_number():
    topology = Topology((0,), (None,))
    base = bare("alone", topology, 1, ("fp64", "fp32", "fp16"))
    findings = Findings(made_up(topology, base, network_only=False), topology, base)
    made = MachineBuilder(base, findings, False, "host").make()
    assert made.machine.unsourced() == []
    assert made.machine.source("node.ring_bandwidth").startswith("assumed:")
    assert made.machine.source("core_group.peak.fp16").count("single precision")
    assert athanor.simulate(made.machine, "moda-tiny", mesh={"dp": 1}, tokens_per_rank=64).summary()["step_seconds"] > 0


def test_kept_points_are_those_of_the_same_job(tmp_path):
    path, mine, other = tmp_path / "m.toml.samples.jsonl", {"ranks": 2}, {"ranks": 4}
    first = series(BenchPoint("links", "ring", 1024, {"links": "ring"}), 1e-3)
    KeptSamples(path, mine).keep(first)
    KeptSamples(path, other).keep(series(first.point, 9.0))
    with path.open("a") as lines:
        lines.write('{"format": "athanor-samples/1", "job": {"ra')  # what an interruption leaves
    kept = KeptSamples(path, mine)
    assert kept.of(first.point, 12) == first
    assert kept.of(first.point, 13) is None  # more samples are wanted than it has
    assert kept.of(BenchPoint("links", "ring", 1024, {"links": "nic"}), 12) is None
    kept.keep(series(first.point, 2e-3))
    assert KeptSamples(path, mine).of(first.point, 12).median == pytest.approx(2e-3)
    assert KeptSamples(path, other).of(first.point, 12).median == pytest.approx(9.0)
    assert KeptSamples(path, mine, fresh=True).known == {}


def test_what_makes_no_task(tmp_path):
    with pytest.raises(InputError, match="--network-only: leaves computing unmeasured"):
        CalibrationTask(tmp_path / "m.toml", network_only=True)
    with pytest.raises(InputError, match="--nodes-per-supernode 0: must be at least 1"):
        CalibrationTask(tmp_path / "m.toml", nodes_per_supernode=0)
    with pytest.raises(InputError, match="no supernodes whose size can be set"):
        CalibrationTask(tmp_path / "m.toml", like=load_machine("laptop"), nodes_per_supernode=2)


# --- whole jobs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """One whole calibration: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("calibration")
    out = ("--out", folder / "out", "--json", folder / "told.json")
    done = job(2, "athanor", "calibrate", "-o", folder / "machine.toml", "--quick", *out)
    assert done.returncode == 0, done.stderr
    return folder, done


@needs_mpi
def test_a_calibrated_machine_says_where_all_is_from_and_simulates(calibrated):
    folder, done = calibrated
    machine = load_machine(folder / "machine.toml")
    assert machine.unsourced() == []
    assert (machine.nodes, machine.node.core_groups, machine.fabric.kind) == (1, 2, "crossbar")
    measured = set(machine.fitted())
    assert measured >= {
        "core_group.peak.fp32",
        "core_group.peak.fp64",
        "core_group.memory_bandwidth",
        "core_group.operator_overhead",
        "core_group.scalar_step",
        "node.ring_bandwidth",
        "fabric.latency_node",
        "calibration.gemm_efficiency",
        "calibration.message_overhead",
        "calibration.update_overhead",
    }
    assert 1e8 < machine.core_group.peak["fp32"] < 1e13
    assert machine.core_group.peak["fp16"] == machine.core_group.peak["fp32"]
    assert 1e7 < machine.node.ring_bandwidth < 1e12
    assert 0 <= machine.calibration.message_overhead < 0.1  # a busy machine may hide it
    run = athanor.simulate(folder / "machine.toml", "moda-tiny", mesh={"ep": 2}, tokens_per_rank=128)
    assert run.summary()["step_seconds"] > 0
    for text in ("Measured", "Messages between two ranks", "all-reduce ring, 2 ranks", "held out"):
        assert text in done.stdout


@needs_mpi
def test_the_files_of_a_calibration(calibrated):
    folder, _ = calibrated
    told, whole = (json.loads(path.read_text()) for path in (folder / "told.json", folder / "out" / "calibration.json"))
    assert told["format"] == "athanor-calibration/1"
    assert {key: whole[key] for key in told} == told
    written = {path.name for path in (folder / "out").iterdir()}
    plots = {"ping_pong", "collectives_1", "collectives_2", "residuals", "simulated", "products"}
    assert written == {"calibration.json", "points.csv", "report.html"} | {
        f"{n}.{k}" for n in plots for k in ("png", "svg")
    }
    points = whole["points"]
    page = (ROOT / "docs" / "formats" / "calibration.md").read_text()
    for part in (
        whole,
        points[0],
        *(whole[name][0] for name in ("numbers", "messages", "collectives", "products", "checks")),
    ):
        for key in part:
            assert f"`{key}`" in page, key
    for kind in {point["kind"] for point in points}:
        assert f"`{kind}`" in page, kind
    assert all(len(point["seconds"]) == len(point["reasons"]) >= 6 for point in points)
    for point in points:
        counted = {why: point["reasons"].count(why) for why in ("foreign", "switched", "apart", "outlier")}
        assert point["rejected"] == {why: count for why, count in counted.items() if count}
    # What the machine says is what the samples say.
    counts = [point for point in points if point["kind"] == "messages"]
    slope = line([point["size"] for point in counts], [point["median_seconds"] for point in counts]).slope
    numbers = {number["key"]: number for number in told["numbers"]}
    overhead = numbers["calibration.message_overhead"]
    assert overhead["value"] == pytest.approx(slope, rel=1e-3)
    assert load_machine(folder / "machine.toml").calibration.message_overhead == overhead["value"]
    assert overhead["rejected"] == sum(sum(point["rejected"].values()) for point in counts)
    # Simulations stand beside what was measured, at every size.
    collectives = [point for point in points if point["kind"] == "collective"]
    assert len(whole["checks"]) == len(collectives)
    for check, point in zip(whole["checks"], collectives, strict=True):
        operation, algorithm = point["detail"]["operation"], point["detail"]["algorithm"]
        simulated = athanor.collective(
            folder / "machine.toml", operation, algorithm, 2, point["size"], ranks_per_node=2
        )
        assert check["calibrated"] == pytest.approx(simulated.seconds, rel=1e-9)
        assert check["measured"] == point["median_seconds"]


@needs_mpi
def test_a_calibration_is_not_measured_again_and_takes_another_machine_for_its_structure(calibrated, tmp_path):
    """All points of the network are kept: only rates that the other machine has as nominal ones change."""
    folder, _ = calibrated
    kept = (folder / "machine.toml.samples.jsonl").read_text()
    (tmp_path / "m.toml.samples.jsonl").write_text(kept)
    like = ("--like", "laptop", "--network-only")
    # laptop has eight core groups, which two ranks divide: each computes on four of them
    done = job(2, "athanor", "calibrate", "-o", tmp_path / "m.toml", "--quick", *like, "--json", "-")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (tmp_path / "m.toml.samples.jsonl").read_text() == kept
    assert told["points_kept_from_before"] == len([text for text in kept.splitlines() if _network(text)])
    laptop, machine = load_machine("laptop"), load_machine(tmp_path / "m.toml")
    assert machine.core_group == laptop.core_group
    assert machine.source("core_group.memory") == laptop.source("core_group.memory")
    assert machine.source("node.ring_bandwidth").startswith("calibrated:")
    assert any("--fresh measures them anew" in warning for warning in told["warnings"])
    assert told["errors"]["nominal"]["points"] == told["errors"]["calibrated"]["points"] > 0


def _network(text):
    return json.loads(text)["point"]["kind"] in (
        "ping-pong",
        "library ping-pong",
        "messages",
        "handover",
        "links",
        "collective",
    )


REFUSALS = [
    (["-o", "/no/such/folder/m.toml"], "/no/such/folder/m.toml: cannot be written"),
    (["-o", "m.toml", "--like", "no-such.toml"], "no-such.toml: no such file"),
    (["-o", "m.toml", "--like", "laptopp"], "did you mean laptop?"),
    (["-o", "m.toml", "--like", "broken.toml"], "broken.toml: not a TOML file"),
    (["-o", "m.toml", "--network-only"], "--network-only: leaves computing unmeasured"),
    (["-o", "m.toml", "--nodes-per-supernode", "0"], "--nodes-per-supernode 0: must be at least 1"),
    (["-o", "m.toml", "--expect-ranks", "4"], "--expect-ranks 4: 3 ranks run"),
    (
        ["-o", "m.toml", "--like", "cluster-64"],
        "its nodes have 2 core groups, which 3 ranks a host do not divide evenly",
    ),
    (["-o", "m.toml", "--out", "broken.toml"], "--out broken.toml: cannot be written"),
    ([], "Missing option '-o'"),
]


@needs_mpi
def test_what_cannot_be_calibrated_is_refused_by_one_rank(tmp_path):
    (tmp_path / "broken.toml").write_text("nodes = ")
    answers = told(tmp_path, 3, [["calibrate", "--quick", *options] for options, _ in REFUSALS])
    for (_, message), answer in zip(REFUSALS, answers, strict=True):
        (text,) = answer.said
        assert message in text
        assert answer.statuses == {2}
        assert answer.out == "" and "Traceback" not in answer.errors
        assert answer.files == ["broken.toml"]


def points_kept(path):
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


@needs_mpi
def test_an_interrupted_calibration_keeps_its_points(tmp_path):
    process = begin(2, "athanor", "calibrate", "-o", tmp_path / "m.toml", "--quick")
    ranks, path = ranks_of(process, 2), tmp_path / "m.toml.samples.jsonl"
    assert eventually(lambda: points_kept_whole(path))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
    status, out, err = finish(process)
    assert (status, said(err)) == (130, ["athanor: interrupted"]) and "Measured" not in out
    assert gone(ranks)
    assert not (tmp_path / "m.toml").exists()
    assert points_kept(path)


@needs_mpi
def test_a_calibration_goes_on_where_one_before_it_stopped(calibrated, tmp_path):
    """Some way into what an interruption or a time limit leaves: the first points of a whole calibration, the last cut short."""
    whole = (calibrated[0] / "machine.toml.samples.jsonl").read_text().splitlines(keepends=True)
    first, path = whole[: 9 * len(whole) // 10], tmp_path / "m.toml.samples.jsonl"
    path.write_text("".join(first) + whole[len(first)][:40])
    done = job(2, "athanor", "calibrate", "-o", tmp_path / "m.toml", "--quick", "--json", "-")
    assert done.returncode == 0, done.stderr
    told, lines = json.loads(done.stdout), path.read_text().splitlines()
    after = [json.loads(text) for number, text in enumerate(lines) if number != len(first)]
    assert after[: len(first)] == [json.loads(text) for text in first]
    keys = [(entry["point"]["kind"], entry["point"]["series"], entry["point"]["size"]) for entry in after]
    assert len(set(keys)) == len(keys) > len(first)  # nothing was measured twice
    assert told["points_kept_from_before"] == len(first)
    assert load_machine(tmp_path / "m.toml").unsourced() == []


def points_kept_whole(path):
    """Whether a samples file has points, and its last one is written."""
    return path.exists() and path.read_text().endswith("\n")


@needs_mpi
def test_a_time_limit_keeps_what_was_measured(calibrated, tmp_path):
    """Points that are there when it strikes, of this run or of one before; that each is kept at once, interruptions show."""
    folder, _ = calibrated
    first = (folder / "machine.toml.samples.jsonl").read_text().splitlines(keepends=True)[:4]
    path = tmp_path / "m.toml.samples.jsonl"
    path.write_text("".join(first))
    done = job(2, "athanor", "calibrate", "--quick", "-o", tmp_path / "m.toml", "--time-limit", "2")
    assert (done.returncode, done.stdout) == (124, "")
    (line,) = said(done.stderr)  # where the ranks were may follow
    assert line.startswith("athanor: --time-limit 2: the job ran longer and was ended")
    assert not (tmp_path / "m.toml").exists()
    assert points_kept(path)[:4] == [json.loads(text) for text in first]


def test_series_of_an_old_file_may_be_held_out_now(tmp_path):
    """Which points are held out is a matter of the fit, not of the measurement."""
    path, job_of = tmp_path / "s.jsonl", {"ranks": 2}
    KeptSamples(path, job_of).keep(series(BenchPoint("collective", "x", 8), 1.0))
    found = KeptSamples(path, job_of).of(BenchPoint("collective", "x", 8, held_out=True), 1)
    assert isinstance(found, SampleSeries) and found.point.held_out
