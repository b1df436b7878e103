"""Training steps message by message, against one process for each rank and stream, and against the engine where that is exact."""

import athanor
import numpy as np
import pytest
import simpy
from athanor.hardware.errors import DoesNotFit
from athanor.sim.engine.noise import Noise
from athanor.sim.engine.rank_engine import RankByRank
from athanor.sim.network.network_models import SHARING
from athanor.workloads.collectives import ROOTED, rounds
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from athanor.workloads.schedule.operation import Operation
from athanor.workloads.schedule.schedule import Schedule
from athanor.workloads.schedule.work import Exchange, Loop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.naive_messages import NaiveShared, Platform
from support.machines import tree

KINDS = [
    ("all-to-all", "linear"),
    ("all-to-all", "pairwise-shift"),
    ("all-reduce", "ring"),
    ("all-reduce", "recursive-doubling"),
    ("reduce-scatter", "ring"),
    ("all-gather", "bruck"),
    ("shift", "previous"),
    ("broadcast", "scatter-all-gather"),
    ("broadcast", "chain"),
    ("reduce", "binomial"),
    ("reduce", "chain"),
]


def play(machine, schedule):
    """Begin and end of every operation on every rank."""
    layout = schedule.layout
    ranks = {str(rank): tuple(map(int, np.unravel_index(rank, layout.mesh.shape))) for rank in range(layout.mesh.ranks)}
    result = RankByRank(machine, schedule, Noise(layout, 0.0, 0.0, 0, 0), ranks).run()
    numbers = {operation.name: number for number, operation in enumerate(schedule.operations)}
    return {(numbers[row.operation], int(row.ranks)): row.end for row in result.rows}, result


def messages(layout, exchange):
    """For each group the steps of an exchange as lists of (from, to, bytes), from the rounds' own partners."""
    for group in layout.groups(exchange.axes):
        group, steps = np.roll(group, -exchange.root), []
        sent = layout.mesh.full(np.asarray(exchange.nbytes, dtype=float))
        wanted = layout.mesh.full(np.asarray(1.0 if exchange.received is None else exchange.received, dtype=float))
        total = sum(wanted[group]) or 1.0
        for each in rounds(exchange.operation, exchange.algorithm, 1, len(group)):
            for step in range(each.steps):
                found = []
                for position, rank in enumerate(group):
                    for partner in each.partners(position, step, len(group)):
                        part = each.share / (len(group) if each.everyone else 1)
                        if exchange.received is not None:
                            part = wanted[group[partner]] / total if sum(wanted[group]) else 1 / len(group)
                        found.append((int(rank), int(group[partner]), float(sent[rank]) * part))
                steps.append(found)
        yield [int(rank) for rank in group], steps


def play_naively(machine, schedule):
    """The same times from one SimPy process for each rank and stream."""
    env = simpy.Environment()
    layout, platform = schedule.layout, Platform(machine, schedule.layout, SHARING["maxmin"])
    network, times = NaiveShared(env, platform.capacity), {}
    ranks = range(layout.mesh.ranks)
    done = {(number, rank): env.event() for number in range(len(schedule.operations)) for rank in ranks}
    came, mine = {}, {}

    def message(here, there, source, target, nbytes, ended):
        yield env.all_of([here, there])
        yield env.timeout(platform.wait(source, target))
        yield network.send(platform.uses(source, target), nbytes, 1.0)
        ended.succeed()

    for number, operation in enumerate(schedule.operations):
        if isinstance(operation.work, Exchange):
            for group, steps in messages(layout, operation.work):
                for rank in group:
                    mine[number, rank] = []
                    for step in range(len(steps)):
                        came[number, step, rank] = env.event()
                        mine[number, rank].append([])
                for step, found in enumerate(steps):
                    for source, target, nbytes in found:
                        ended = env.event()
                        mine[number, source][step].append(ended)
                        mine[number, target][step].append(ended)
                        both = came[number, step, source], came[number, step, target]
                        env.process(message(*both, source, target, nbytes, ended))

    def live(rank, operations):
        for number, operation in operations:
            for other in operation.after:
                yield done[other, rank]
            if isinstance(operation.work, Loop):
                yield env.timeout(float(layout.mesh.full(np.asarray(operation.work.steps, dtype=float))[rank]))
            else:
                for step, ended in enumerate(mine[number, rank]):
                    came[number, step, rank].succeed()
                    yield env.all_of(ended)
            times[number, rank] = env.now
            done[number, rank].succeed()

    for rank in ranks:
        for stream in schedule.streams:
            own = [(number, each) for number, each in enumerate(schedule.operations) if each.stream == stream]
            env.process(live(rank, own))
    env.run()
    return times


@st.composite
def programs(draw):
    """A machine and a schedule of loops that differ from rank to rank and collectives on two streams beside them."""
    mesh = Mesh.of({"ep": draw(st.integers(1, 4)), "dp": draw(st.integers(1, 3))})
    core_groups, inside = draw(st.sampled_from([(1, "ring"), (2, "ring"), (2, "switch")]))
    machine = tree(
        nodes=64,
        core_groups=core_groups,
        inside=inside,
        ring=5.0,
        supernode=draw(st.integers(1, 4)),
        taper=draw(st.sampled_from([0.25, 0.5, 1.0])),
        routing=draw(st.sampled_from(["adaptive", "static"])),
        latencies=draw(st.sampled_from([(0.0, 0.0, 0.0), (0.0, 0.125, 0.25)])),
    )
    layout = place(mesh, machine, draw(st.sampled_from(["moda", "block:ep,dp", "block:dp,ep"])), core_groups)
    values = st.lists(st.integers(0, 20), min_size=mesh.ranks, max_size=mesh.ranks)
    operations = []
    for number in range(draw(st.integers(1, 6))):
        stream = draw(st.sampled_from(["compute", "communication", "gradients"]))
        if stream == "compute":
            work = Loop(np.array(draw(values), dtype=float).reshape(mesh.shape))
        else:
            operation, algorithm = draw(st.sampled_from(KINDS))
            axes = draw(st.sampled_from([("ep",), ("dp",), ("ep", "dp")]))
            uneven = operation == "all-to-all" and draw(st.booleans())
            sizes = [np.array(draw(values), dtype=float).reshape(mesh.shape) for _ in range(2)]
            nbytes = sizes[0] if uneven else float(draw(st.integers(1, 60)))
            root = draw(st.integers(0, mesh.size(*axes) - 1)) if operation in ROOTED else 0
            work = Exchange(operation, algorithm, axes, nbytes, "fp32", sizes[1] if uneven else None, root=root)
        before = [other for other in range(number) if operations[other].stream != stream]
        after = tuple(sorted(draw(st.sets(st.sampled_from(before), max_size=2)))) if before else ()
        operations.append(Operation(f"op{number}", "forward", "compute", stream, work, after))
    return machine, Schedule(layout, tuple(operations))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_programs_of_drifting_ranks_are_exact(program):
    """What the engine approximates: groups that drift apart, contend, and overlap."""
    machine, schedule = program
    expected = play_naively(machine, schedule)
    found, result = play(machine, schedule)
    for key, end in expected.items():
        assert found[key] == pytest.approx(end, rel=1e-8, abs=1e-8)
    assert result.seconds == pytest.approx(max(expected.values(), default=0.0), rel=1e-8, abs=1e-8)
    assert sum(sum(phase.values()) for phase in result.exposed.values()) == pytest.approx(result.seconds, abs=1e-8)


TINY = {"machine": "cluster-64", "model": "moda-tiny"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mesh": {"ep": 4, "dp": 8}, "all_to_all": "two-level"},
        {"router": "zipf:1.0", "balancer": "none"},
        {"overlap": "gradients"},
        {"zero": "0", "recompute": "full"},
    ],
    ids=str,
)
def test_steps_of_ranks_that_stay_together_equal_the_engine(options, monkeypatch):
    monkeypatch.setattr(
        "athanor.workloads.loads.token_assignment.MOST_RANKS", 0
    )  # the engine does not know whose tokens go where
    message, fluid = (athanor.simulate(**TINY, **options, depth=depth).summary() for depth in ("message", "fluid"))
    assert message["network"]["depth"] == "message"
    assert message["step_seconds"] == pytest.approx(fluid["step_seconds"], rel=1e-9)
    for category, seconds in fluid["breakdown"].items():
        assert message["breakdown"][category] == pytest.approx(seconds, rel=1e-6, abs=1e-9)
    for ours, theirs in zip(message["links"], fluid["links"], strict=True):
        assert ours["kind"] == theirs["kind"]
        assert ours["bytes_per_step"] == pytest.approx(theirs["bytes_per_step"], rel=1e-9)
        assert ours["max_utilisation"] == pytest.approx(theirs["max_utilisation"], rel=1e-6)


def test_groups_that_drift_take_what_their_messages_take():
    """Phases begin with their groups, so that what was said of them before (slower by up to a half) is not so."""
    options = {
        "mesh": {"ep": 4, "dp": 16},
        "all_to_all": "two-level",
        "router": "zipf:1.0",
        "balancer": "none",
        "jitter": 0.1,
    }
    message, fluid = (athanor.simulate(**TINY, **options, depth=depth).summary() for depth in ("message", "fluid"))
    assert fluid["step_seconds"] == pytest.approx(message["step_seconds"], rel=0.02)
    assert message["breakdown"]["compute"] == pytest.approx(fluid["breakdown"]["compute"], rel=1e-9)


def test_too_many_messages_are_refused():
    with pytest.raises(DoesNotFit, match=r"--depth message: a step of .* messages, .* --depth fluid"):
        athanor.simulate("sunway-oceanlight", "moda-1.93t", depth="message")
