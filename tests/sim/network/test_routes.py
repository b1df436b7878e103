"""Phases route by route: the same as by levels on trees, as single flows elsewhere, and whole training steps on every fabric."""

from itertools import pairwise

import numpy as np
import pytest
from athanor import scale, simulate
from athanor.hardware.errors import DoesNotFit, InputError
from athanor.hardware.fabrics import Crossbar
from athanor.hardware.machine import Machine, load_machine
from athanor.sim.network.phases.phases_by_route import ByRoute
from athanor.sim.network.phases.phases_on_trees import ByLevel
from athanor.sim.network.phases.transfers import Traffic
from athanor.sim.network.topology import Graph
from athanor.workloads.collectives import ALGORITHMS, supports_uneven
from athanor.workloads.lowering.simulator_memory import estimate_bytes, require_pairs
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.model.model import load_model
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from oracles.naive_engine import NaiveEngine
from support.fabrics import dragonfly, fat_tree, pruned, rails, torus
from support.machines import tree
from support.paths import MACHINE_FILES
from support.programs import amounts, exchanges, meshes, schedule_of
from support.programs import simulate as run_schedule

slow = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TREES = [
    pruned(3, 0.5, "adaptive"),
    pruned(4, 0.5, "static"),
    fat_tree((2, 0.5), (2, 0.5), (4, None), routing="adaptive"),
    fat_tree((4, 0.5), (4, None)),
    Crossbar(latency_node=0.5, latency_link=1.0),
]
OTHERS = [
    torus(4, 4),
    torus(2, 4, 2),
    dragonfly(4, 2, 2, 2),
    dragonfly(4, 2, 2, 2, "valiant"),
    rails(4, 4),
    rails(4, 4, "spine"),
]


def machine_with(fabric, core_groups=1, **options):
    return Machine.model_validate(
        {**tree(core_groups=core_groups, ring=15.0, **options).model_dump(), "fabric": fabric}
    )


@st.composite
def cases(draw, fabrics):
    """A machine with one of the fabrics, a layout on it, and a collective."""
    core_groups, inside = draw(st.sampled_from([(1, "ring"), (2, "ring"), (2, "switch"), (3, "switch")]))
    overhead = draw(st.sampled_from([0.0, 0.05]))
    machine = machine_with(draw(st.sampled_from(fabrics)), core_groups, inside=inside, overhead=overhead)
    mesh = draw(meshes())
    placement = draw(st.sampled_from(["block:ep,dp", "block:dp,ep", "moda", "opposite"]))
    try:
        layout = place(mesh, machine, placement, core_groups)
    except InputError:  # uneven parts need more supernodes than some of these small machines have
        reject()
    axes = draw(st.sampled_from([("ep",), ("dp",), ("ep", "dp")]))
    size = mesh.size(*axes)
    kinds = [
        (operation, name)
        for operation, known in ALGORITHMS.items()
        for name, algorithm in known.items()
        if not (algorithm.power_of_two and size & (size - 1)) and not algorithm.grid
    ]
    kind = draw(st.sampled_from([("all-to-all", "linear"), ("reduce-scatter", "ring"), *kinds]))
    even = not supports_uneven(*kind) or draw(st.booleans())
    return machine, layout, draw(exchanges(mesh, axes, even, [kind]))


def by_route(machine, layout, depth):
    """A machine's traffic, made to look at single routes."""
    traffic = Traffic(machine, layout, depth)
    assert isinstance(traffic.phases, ByLevel)
    traffic.phases = ByRoute(Graph.of(machine, layout), depth)
    return traffic


@slow
@given(cases(TREES), st.sampled_from(["fluid", "links"]))
def test_routes_on_trees_give_what_levels_give(case, depth):
    """Bytes on every link, and the seconds of every group.

    By levels, a group is taken to use all cables of its domains; by routes only those that carry its bytes.
    """
    machine, layout, exchange = case
    levels = Traffic(machine, layout, depth).transfers(exchange)
    routes = by_route(machine, layout, depth).transfers(exchange)
    assert len(levels) == len(routes)
    for one, other in zip(levels, routes, strict=True):
        assert (one.factor, one.floor) == (other.factor, other.floor)
        for kind in one.loads.kinds:
            none = np.zeros(kind.count)
            found, expected = (each.loads.loads.get(kind.name, none) for each in (other, one))
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-9), kind.name
        (seconds, _), (expected, _) = (each.group_seconds(each.demand.alone[0]) for each in (other, one))
        if depth == "fluid":
            assert seconds == pytest.approx(expected, rel=1e-9)
        else:
            assert np.max(seconds) == pytest.approx(np.max(expected), rel=1e-9)
            assert (np.asarray(seconds) <= np.asarray(expected) * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    "fabric",
    [TREES[0], fat_tree((2, 1.0), (2, 1.0), (4, None), routing="adaptive"), TREES[4]],
    ids=["pruned", "fat-tree", "crossbar"],
)
def test_groups_end_at_their_links_as_by_levels(fabric):
    """Where every link of a domain carries bytes of all its groups, all groups end at the same time."""
    random, mesh, machine = np.random.default_rng(3), Mesh.of({"ep": 4, "dp": 4}), machine_with(fabric)
    layout = place(mesh, machine, "block:dp,ep")
    sent, wanted = random.uniform(1, 9, mesh.shape), random.uniform(1, 9, mesh.shape)
    for algorithm in ("linear", "pairwise-shift"):
        exchange = Exchange("all-to-all", algorithm, ("ep",), sent, "fp32", wanted)
        expected, seconds = (
            [transfer.group_seconds(transfer.demand.alone[0])[0] for transfer in traffic.transfers(exchange)]
            for traffic in (Traffic(machine, layout, "links"), by_route(machine, layout, "links"))
        )
        assert np.ptp(seconds[0]) > 0
        for one, other in zip(seconds, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-9)


@slow
@given(cases(OTHERS))
def test_one_collective_equals_the_naive_network(case):
    """Flow classes on links without levels give what single flows give, the latency of the farthest pair included."""
    machine, layout, exchange = case
    schedule = schedule_of(layout, [exchange])
    if layout.mesh.size(*exchange.axes) < layout.mesh.ranks and len(rounds_of(machine, layout, exchange)) > 1:
        return  # groups that drift apart between rounds contend as one phase: the engine's approximation, tested there
    found, _ = run_schedule(machine, schedule)
    for key, (_, end) in NaiveEngine(machine, layout).run(schedule).items():
        assert found[key][1] == pytest.approx(end, rel=1e-9, abs=1e-12)


def rounds_of(machine, layout, exchange):
    return Traffic(machine, layout, "links").transfers(exchange)


@pytest.mark.parametrize("fabric", [torus(4, 3), torus(2, 3, 2), rails(3, 4)], ids=["torus", "torus-3d", "rails"])
def test_streams_share_links_as_single_flows_do(fabric):
    """Two all-to-alls of all nodes under way at once, one of which begins later."""
    machine, mesh = machine_with(fabric, nodes=12), Mesh.of({"ep": 12})
    layout = place(mesh, machine, "block:ep")
    works = [Exchange("all-to-all", "linear", ("ep",), nbytes, "fp32") for nbytes in (12.0, 1200.0, 600.0)]
    streams = ["communication", "gradients", "communication"]
    schedule = Schedule(
        layout,
        tuple(
            Operation(f"op{number}", "forward", "all_to_all", stream, work)
            for number, (stream, work) in enumerate(zip(streams, works, strict=True))
        ),
    )
    found, result = run_schedule(machine, schedule)
    expected = NaiveEngine(machine, layout).run(schedule)
    for key, (_, end) in expected.items():
        assert found[key][1] == pytest.approx(end, rel=1e-8)
    alone = [sum(float(np.max(t.group_seconds(t.demand.alone[0])[0])) for t in
                 Traffic(machine, layout, "fluid").transfers(work)) for work in works]  # fmt: skip
    assert result.seconds > max(alone[1], alone[0] + alone[2]) * 1.1, "they hinder each other"


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_bytes_are_conserved_on_every_hop(data):
    """A message loads each link of its route once, so that links carry bytes times hops; interfaces carry them once."""
    fabric = data.draw(st.sampled_from(OTHERS))
    machine, mesh = machine_with(fabric), Mesh.of({"ep": 4, "dp": 3})
    layout = place(mesh, machine, data.draw(st.sampled_from(["block:ep,dp", "block:dp,ep"])))
    sent, wanted = (np.broadcast_to(data.draw(amounts(mesh, 1, 9)), mesh.shape).astype(float) for _ in range(2))
    (transfer,) = Traffic(machine, layout, "links").transfers(
        Exchange("all-to-all", "linear", ("ep",), sent, "fp32", wanted)
    )
    total = hops = 0.0
    for group in layout.groups(("ep",)):
        for i in group:
            for j in group[group != i]:
                nbytes = sent.flat[i] * wanted.flat[j] / wanted.flat[group].sum()
                ends = (np.array([layout.node[rank]]) for rank in (i, j))
                hops += nbytes * int((fabric.routes(*ends, machine.nodes) >= 0).sum())
                total += nbytes
    loads = transfer.loads.loads
    assert loads["nic.out"].sum() == pytest.approx(total)
    assert loads["nic.in"].sum() == pytest.approx(total)
    own = sum(loads[kind.name].sum() for kind in machine.fabric_links(machine.nodes))
    assert own == pytest.approx(hops)


@pytest.mark.parametrize("depth", ["fluid", "links"])
@pytest.mark.parametrize(
    ("fabric", "key"),
    [
        (torus(4, 4), "link_bandwidth"),
        (dragonfly(4, 2, 2, 2), "local_bandwidth"),
        (dragonfly(4, 2, 2, 2), "global_bandwidth"),
        (rails(4, 4), "rail_bandwidth"),
        (rails(4, 4, "spine"), "rail_bandwidth"),
    ],
)
def test_more_bandwidth_is_never_slower(fabric, key, depth):
    random, mesh = np.random.default_rng(4), Mesh.of({"ep": 4, "dp": 4})
    uneven = random.uniform(1, 9, mesh.shape), "fp32", random.uniform(1, 9, mesh.shape)
    for placement in ("block:ep,dp", "block:dp,ep"):
        for exchange in (
            Exchange("all-to-all", "linear", ("ep",), *uneven),
            Exchange("all-reduce", "ring", ("ep", "dp"), 64.0, "fp32"),
        ):
            times, moving = [], []
            for factor in (0.5, 1.0, 2.0, 100.0):
                faster = machine_with(fabric.model_copy(update={key: factor * getattr(fabric, key)}))
                transfers = Traffic(faster, place(mesh, faster, placement), depth).transfers(exchange)
                times.append(sum(np.max(each.group_seconds(each.demand.alone[0])[0]) for each in transfers))
                moving.append(sum(np.max(each.demand.alone[0]) for each in transfers))
            # Bytes never need longer. But a flow may: one whose message has the longer latency, by that at most.
            spread = sum(each.times * float(np.ptp(each.demand.ends.latency)) for each in transfers)
            for seconds, most in ((moving, 0.0), (times, spread)):
                assert all(later <= before * (1 + 1e-9) + most for before, later in pairwise(seconds))


def test_a_ring_of_a_torus_by_hand():
    """Eight nodes in a 4 x 2 torus, all to all: of each node's 7 messages, x.plus carries 1 + 2 of one row and of the other."""
    machine, mesh = machine_with(torus(4, 2), nodes=8), Mesh.of({"ep": 8})
    traffic = Traffic(machine, place(mesh, machine, "block:ep"), "fluid")
    (transfer,) = traffic.transfers(Exchange("all-to-all", "linear", ("ep",), 80.0, "fp32"))
    per_link = {name: loads.tolist() for name, loads in transfer.loads.loads.items() if loads.any()}
    # In a row of four: distance 1 ahead once, distance 2 ahead once (three links), distance 1 back once; to both rows.
    assert {name: set(np.round(np.array(loads) * 80.0, 9)) for name, loads in per_link.items()} == {
        "nic.out": {70.0}, "nic.in": {70.0}, "x.plus": {60.0}, "x.minus": {20.0}, "y.plus": {40.0},
    }  # fmt: skip
    seconds, decided = transfer.group_seconds(transfer.demand.alone[0])
    assert (seconds, decided) == (pytest.approx(60.0 / 5.0 + 2.0 + 3 * 0.25), "x.plus")


@pytest.mark.parametrize("placement", ["moda", "opposite", "block:ep,dp", "block:dp,ep"])
@pytest.mark.parametrize("path", MACHINE_FILES, ids=lambda path: path.stem)
def test_training_steps_on_every_example(path, placement):
    machine = load_machine(path)
    summary = simulate(machine, "moda-tiny", mesh={"ep": 4, "dp": 12}, placement=placement).summary()
    assert summary["network"] == {"depth": "fluid", "routing": machine.fabric.routing}
    assert sum(summary["breakdown"].values()) == pytest.approx(summary["step_seconds"], rel=1e-9)
    own = [kind.name for kind in machine.fabric_links(machine.nodes)]
    named = [row["kind"] for row in summary["links"]]
    assert named == [name for name in ("nic.out", "nic.in", *own) if name in named]
    assert path.stem == "crossbar-64" or set(named) & set(own), "48 nodes reach past one switch"
    assert all(0 < row["max_utilisation"] <= 1 for row in summary["links"])


@pytest.mark.parametrize("name", ["torus-8x8x8", "dragonfly-1056", "rails-256"])
def test_uneven_steps_and_overlap(name):
    machine = load_machine(next(path for path in MACHINE_FILES if path.stem == name))
    options = {"mesh": {"ep": 4, "dp": 4}, "router": "zipf:1.0", "balancer": "none", "overlap": "gradients"}
    fluid, links = (simulate(machine, "moda-tiny", depth=depth, **options).summary() for depth in ("fluid", "links"))
    assert fluid["load_balance"]["max_over_mean"] > 1.1
    for one, other in zip(fluid["links"], links["links"], strict=True):
        assert one["bytes_per_step"] == pytest.approx(other["bytes_per_step"], rel=1e-9)
    assert links["step_seconds"] == pytest.approx(fluid["step_seconds"], rel=0.1)


@pytest.mark.parametrize("name", ["torus-8x8x8", "dragonfly-1056", "rails-256"])
@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_scaling_studies(name, kind):
    machine = load_machine(next(path for path in MACHINE_FILES if path.stem == name))
    study = scale(kind, machine, "moda-tiny", [8, 16, 32], mesh={"ep": 4, "dp": 8}, tokens_per_rank=512)
    assert [point.nodes for point in study.points] == [8, 16, 32]
    assert all(0 < point.efficiency <= 1.01 for point in study.points)


def test_many_classes_take_links_by_themselves():
    machine = load_machine(next(path for path in MACHINE_FILES if path.stem == "dragonfly-1056"))
    options = {"mesh": {"ep": 128, "dp": 1}, "routing": "valiant"}
    model = load_model("moda-tiny").with_experts(128)
    assert simulate(machine, model, **options).summary()["network"]["depth"] == "links"
    with pytest.raises(DoesNotFit, match=r"--depth fluid: .* classes of unequal flows exceed 4,000; --depth links"):
        simulate(machine, model, depth="fluid", **options)


def test_pairs_of_ranks_have_a_limit():
    require_pairs(20_000_000)
    with pytest.raises(DoesNotFit, match=r"20,003,256 pairs of ranks, .* fewer ranks in all or along ep"):
        require_pairs(4_473 * 4_472)
    machine = machine_with(torus(16, 16, 18), nodes=4608)
    traffic = Traffic(machine, place(Mesh.of({"ep": 4608}), machine, "block:ep"), "fluid")
    with pytest.raises(DoesNotFit, match=r"21,229,056 pairs of ranks, .* --depth links adds them up"):
        traffic.transfers(Exchange("all-to-all", "linear", ("ep",), 1.0, "fp32"))
    two_level = traffic.transfers(Exchange("all-to-all", "two-level", ("ep",), 4608.0, "fp32"))
    assert [transfer.loads.loads["nic.out"].max() * transfer.factor for transfer in two_level] == [
        pytest.approx(4608.0 * 255 / 256),
        pytest.approx(4608.0 * 17 / 18),
    ]


def test_room_for_routes_is_asked_for():
    model, files = load_model("moda-tiny").with_experts(64), {path.stem: path for path in MACHINE_FILES}
    routes, levels = (
        estimate_bytes(Setting.of(files[name], model, {"mesh": {"ep": 64, "dp": 1}, "depth": "fluid"}))
        for name in ("torus-8x8x8", "crossbar-64")
    )
    assert routes - levels > 64 * 63 * 100


def test_less_room_is_asked_for_where_bytes_are_added_up_by_legs():
    files = {path.stem: path for path in MACHINE_FILES}
    model, plan = load_model("moda-tiny").with_experts(512), {"mesh": {"ep": 512, "dp": 1}, "router": "zipf:1.0"}
    made = [
        estimate_bytes(Setting.of(files["torus-8x8x8"], model, {**plan, "balancer": "none", "depth": depth}))
        for depth in ("fluid", "auto", "links")
    ]
    assert made[0] > made[1] == made[2]


@pytest.mark.parametrize("algorithm", ["pairwise-shift", "pairwise-xor", "bruck"])
def test_steps_with_other_all_to_alls(algorithm):
    options = {"mesh": {"ep": 4, "dp": 4}}
    linear, other = (
        simulate("cluster-64", "moda-tiny", all_to_all=name, **options).summary() for name in ("linear", algorithm)
    )
    (sent, more) = (summary["links"][0]["bytes_per_step"] for summary in (linear, other))
    assert (sent == pytest.approx(more)) == (algorithm != "bruck"), "Bruck's blocks travel more than once"
    assert other["breakdown"]["all_to_all"] > linear["breakdown"]["all_to_all"]


def test_what_other_all_to_alls_refuse():
    with pytest.raises(InputError, match=r"all-to-all bruck: blocks of unequal size cannot travel together; linear, "):
        simulate("cluster-64", "moda-tiny", mesh={"ep": 4}, all_to_all="bruck", router="zipf:1.0", balancer="none")
    with pytest.raises(InputError, match=r"all-to-all pairwise-xor: 3 ranks, must be a power of two"):
        simulate("cluster-64", load_model("moda-tiny").with_experts(3), mesh={"ep": 3}, all_to_all="pairwise-xor")
    with pytest.raises(DoesNotFit, match=r"--all-to-all pairwise-shift: 96,000 ranks along ep .* linear and two-level"):
        simulate("sunway-oceanlight", "moda-174t", all_to_all="pairwise-shift")


@pytest.mark.parametrize("depth", ["fluid", "links"])
def test_a_group_without_bytes_waits_for_no_link(depth):
    """Nodes 0 and 2 of a ring send 40 bytes each at 5 B/s; the routes of 1 and 3 share links with theirs, but are empty."""
    mesh, machine = Mesh.of({"ep": 2, "dp": 2}), machine_with(torus(4, 4))
    traffic = Traffic(machine, place(mesh, machine, "block:dp,ep"), depth)
    (transfer,) = traffic.transfers(Exchange("all-to-all", "linear", ("ep",), np.array([[80.0, 0.0]]), "fp32"))
    seconds, decided = transfer.group_seconds(transfer.demand.alone[0])
    assert (list(seconds), decided) == ([8.0 + 2.5, 2.5], "x.plus")
