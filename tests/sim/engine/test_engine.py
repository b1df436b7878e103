"""The engine against the naive one: exactly where groups that have drifted apart do not contend, within a bound where they do."""

import pytest
from athanor.workloads.collectives import ALGORITHMS, supports_uneven
from athanor.workloads.lowering.builder import settle
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, Loop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.naive_engine import NaiveEngine
from support.machines import tree
from support.programs import (
    COLLECTIVES,
    STEPS,
    amounts,
    exchanges,
    machines,
    meshes,
    schedule_of,
    simulate,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_collective_equals_the_naive_network(data):
    """Any collective, any placement, bytes that differ: flow classes give what single flows give."""
    core_groups = data.draw(st.integers(1, 4))
    per_node = data.draw(st.sampled_from([ranks for ranks in range(1, 5) if core_groups % ranks == 0]))
    machine, mesh = data.draw(machines(core_groups=core_groups, ring=15.0)), data.draw(meshes())
    placement = data.draw(st.sampled_from(["moda", "opposite", "block:ep,dp", "block:dp,ep"]))
    layout = place(mesh, machine, placement, per_node)
    axes = data.draw(st.sampled_from([("ep",), ("dp",), ("ep", "dp")]))
    one_round = [("all-to-all", "linear"), ("reduce-scatter", "ring"), ("all-gather", "ring")]
    schedule = schedule_of(layout, [data.draw(exchanges(mesh, axes, data.draw(st.booleans()), one_round))])
    found, _ = simulate(machine, schedule)
    expected = NaiveEngine(machine, schedule.layout).run(schedule)
    for key, (_, end) in expected.items():
        assert found[key][1] == pytest.approx(end, rel=1e-9, abs=1e-12)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_algorithm_of_one_group_equals_the_naive_network(data):
    """However many steps it has, whoever takes part in them, even or uneven."""
    machine, mesh = data.draw(machines(core_groups=2, ring=15.0)), data.draw(meshes())
    kinds = [
        (operation, name)
        for operation, known in ALGORITHMS.items()
        for name, algorithm in known.items()
        if not (algorithm.power_of_two and mesh.ranks & (mesh.ranks - 1))
    ]
    kind = data.draw(st.sampled_from(kinds))
    layout = place(mesh, machine, data.draw(st.sampled_from(["moda", "opposite", "block:dp,ep"])), 2)
    even = not supports_uneven(*kind) or data.draw(st.booleans())
    schedule = schedule_of(layout, [data.draw(exchanges(mesh, ("ep", "dp"), even, [kind]))])
    found, _ = simulate(machine, schedule)
    expected = NaiveEngine(machine, schedule.layout).run(schedule)
    for key, (_, end) in expected.items():
        assert found[key][1] == pytest.approx(end, rel=1e-9, abs=1e-12)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_group_by_two_levels_equals_the_naive_network(data):
    """An all-to-all-v in two rounds: what the first one brings to each rank is what it sends on in the second."""
    machine, mesh = data.draw(machines()), data.draw(meshes())
    layout = place(mesh, machine, data.draw(st.sampled_from(["moda", "block:ep,dp", "block:dp,ep"])))
    schedule = schedule_of(layout, [data.draw(exchanges(mesh, ("ep", "dp"), False, [("all-to-all", "two-level")]))])
    found, _ = simulate(machine, schedule)
    for key, (_, end) in NaiveEngine(machine, layout).run(schedule).items():
        assert found[key][1] == pytest.approx(end, rel=1e-9, abs=1e-12)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_programs_without_contention_between_groups_are_exact(data):
    """Groups in supernodes of their own never meet: however far they drift apart, every time is exact."""
    mesh = data.draw(meshes())
    machine = data.draw(machines(supernode=4, taper=0.5))
    layout = place(mesh, machine, {"ep": "node", "dp": "supernode"})
    steps = st.one_of(
        amounts(mesh, 0, 20).map(Loop),
        exchanges(mesh, ("ep",), even=False),
        exchanges(mesh, ("ep",), even=True, kinds=[*COLLECTIVES, *STEPS]),
    )
    schedule = schedule_of(layout, data.draw(st.lists(steps, min_size=1, max_size=6)))
    expected = NaiveEngine(machine, schedule.layout).run(schedule)
    found, result = simulate(machine, schedule)
    for key, (begin, end) in expected.items():
        assert found[key] == (pytest.approx(begin, rel=1e-9, abs=1e-9), pytest.approx(end, rel=1e-9, abs=1e-9))
    assert result.seconds == pytest.approx(max(end for _, end in expected.values()), rel=1e-9)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_programs_of_equal_ranks_are_exact(data):
    """Ranks that compute alike stay together on a symmetric placement, so the phase is no approximation."""
    mesh = data.draw(meshes())
    machine = data.draw(machines(supernode=4, taper=0.5))
    layout = place(mesh, machine, {"dp": "node", "ep": "supernode"})
    axes = st.sampled_from([("ep",), ("dp",), ("ep", "dp")])
    steps = st.one_of(
        st.integers(0, 20).map(lambda seconds: Loop(float(seconds))),
        axes.flatmap(lambda chosen: exchanges(mesh, chosen, even=True, kinds=[*COLLECTIVES, *STEPS])),
    )
    schedule = schedule_of(layout, data.draw(st.lists(steps, min_size=1, max_size=6)))
    expected = NaiveEngine(machine, schedule.layout).run(schedule)
    found, _ = simulate(machine, schedule)
    for key, (_, end) in expected.items():
        assert found[key][1] == pytest.approx(end, rel=1e-9, abs=1e-9)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_streams_that_share_the_network_are_exact(data):
    """Two collectives under way at once share links flow by flow, beside a compute stream."""
    mesh = data.draw(meshes())
    machine = data.draw(machines(supernode=4, taper=0.5, routing="adaptive"))  # static cables would set groups apart
    layout = place(mesh, machine, {"dp": "node", "ep": "supernode"})
    axes = st.sampled_from([("ep",), ("dp",), ("ep", "dp")])
    operations = []
    for number in range(data.draw(st.integers(1, 7))):
        stream = data.draw(st.sampled_from(["compute", "communication", "gradients"]))
        if stream == "compute":
            work = Loop(float(data.draw(st.integers(0, 20))))
        else:
            work = settle(data.draw(exchanges(mesh, data.draw(axes), even=True)), layout)[0]
        before = [other for other in range(number) if operations[other].stream != stream]
        after = tuple(sorted(data.draw(st.sets(st.sampled_from(before), max_size=2)))) if before else ()
        category = "compute" if stream == "compute" else "gradient_sync"
        operations.append(Operation(f"op{number}", "forward", category, stream, work, after))
    schedule = Schedule(layout, tuple(operations))
    expected = NaiveEngine(machine, schedule.layout).run(schedule)
    found, result = simulate(machine, schedule)
    for key, (_, end) in expected.items():
        assert found[key][1] == pytest.approx(end, rel=1e-8, abs=1e-8)
    exposed = result.exposed["forward"]
    assert sum(exposed.values()) == pytest.approx(result.seconds, rel=1e-9, abs=1e-9)
    assert exposed["imbalance"] == pytest.approx(0, abs=1e-9), (
        "alike ranks wait for nobody, whatever stream they wait for"
    )
    loops = sum(operation.work.steps for operation in operations if operation.stream == "compute")
    assert exposed["compute"] == pytest.approx(loops)


def test_a_phase_that_comes_while_another_is_under_way():
    """10 B/s a node: alone, A's 100 bytes take 10 s. B comes after 4 s with 20 bytes on the same links: both run at half."""
    mesh, machine = Mesh.of({"ep": 2}), tree(nodes=4, supernode=4, injection=10.0)
    layout = place(mesh, machine, "moda")
    ring = [Exchange("reduce-scatter", "ring", ("ep",), nbytes, "fp32") for nbytes in (200.0, 40.0)]
    schedule = Schedule(
        layout,
        (
            Operation("a", "forward", "all_to_all", "communication", ring[0]),
            Operation("wait", "forward", "compute", "compute", Loop(4.0)),
            Operation("b", "forward", "gradient_sync", "gradients", ring[1], after=(1,)),
        ),
    )
    for depth in ("fluid", "links"):
        found, result = simulate(machine, schedule, depth)
        assert found[2, 0] == (pytest.approx(4.0), pytest.approx(8.0))
        assert found[0, 0] == (pytest.approx(0.0), pytest.approx(12.0))
        assert result.seconds == pytest.approx(12.0)


@pytest.mark.parametrize("arrival", [4.0 * (1 - 2**-53), 4.0, 4.0 * (1 + 2**-52)])
def test_a_phase_that_comes_just_as_another_ends(arrival):
    """A (40 bytes) and B (20) share 10 B/s until B ends at 4 s, when C (15) comes: what is over stays over."""
    mesh, machine = Mesh.of({"ep": 2}), tree(nodes=4, supernode=4, injection=10.0)
    layout = place(mesh, machine, "moda")
    ring = [Exchange("reduce-scatter", "ring", ("ep",), 2 * nbytes, "fp32") for nbytes in (40.0, 20.0, 15.0)]
    schedule = Schedule(
        layout,
        (
            Operation("a", "forward", "all_to_all", "first", ring[0]),
            Operation("b", "forward", "gradient_sync", "second", ring[1]),
            Operation("wait", "forward", "compute", "compute", Loop(arrival)),
            Operation("c", "forward", "gradient_sync", "third", ring[2], after=(2,)),
        ),
    )
    for depth in ("fluid", "links"):
        found, _ = simulate(machine, schedule, depth)
        assert [found[number, 0][1] for number in (0, 1, 3)] == pytest.approx([7.5, 4.0, 7.0])
