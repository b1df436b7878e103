"""Collectives message by message: against one process a rank, orbits against rank by rank, and what holds for all of them."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.sim.messages.message_simulation import MessageSimulation, play
from athanor.sim.messages.message_tables import MessageSteps
from athanor.sim.messages.rank_symmetry import RankSymmetry
from athanor.sim.messages.sender_classes import play_merged
from athanor.sim.network.network_models import SHARING
from athanor.sim.network.phases.round_bytes import Payload
from athanor.sim.network.topology import Graph
from athanor.sim.studies.collective import collective
from athanor.workloads.collectives import ALGORITHMS, Round, check, rounds
from athanor.workloads.collectives.blocks import Whole
from athanor.workloads.collectives.patterns import Pattern
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import place
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles.naive_messages import Platform, play_naively
from support.machines import tree

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}
ALL = [(operation, algorithm) for operation, known in ALGORITHMS.items() for algorithm in known]
LATENCIES = (0.0, 0.125, 0.25)


@st.composite
def machines(draw, nodes=64):
    core_groups, inside = draw(st.sampled_from([(1, "ring"), (2, "ring"), (2, "switch"), (3, "switch")]))
    return tree(
        nodes=nodes,
        core_groups=core_groups,
        inside=inside,
        ring=draw(st.sampled_from([5.0, 40.0])),
        supernode=draw(st.integers(1, 4)),
        taper=draw(st.sampled_from([0.25, 0.5, 1.0])),
        routing=draw(st.sampled_from(["adaptive", "static"])),
        latencies=draw(st.sampled_from([(0.0, 0.0, 0.0), LATENCIES])),
        overhead=draw(st.sampled_from([0.0, 0.0625])),
    )


def steps_of(machine, layout, operation, algorithm, vector, model, share=None, alone=False, sent=None):
    groups, grid = layout.groups(("ep",)), layout.two_level(("ep",))
    outer, inner = (1, groups.shape[1]) if grid is None else grid.shape[1:]
    found = rounds(operation, algorithm, outer, inner)
    graph = Graph.of(machine, layout)
    amounts = [each for each in (share, sent) if each is not None]
    sent = np.full(groups.size, float(vector)) if sent is None else sent
    orbits = RankSymmetry.alone(graph) if alone else RankSymmetry.of(graph, groups, found, inner, amounts)
    payloads = [Payload(sent, share)] * len(found)
    return MessageSteps(
        graph, groups, found, inner, payloads, SHARING[model], machine.calibration.message_overhead, orbits
    )


def listed(layout, operation, algorithm, vector):
    """The steps as the naive network wants them: lists of (from, to, bytes), from the rounds' own partners."""
    group, grid = layout.groups(("ep",))[0], layout.two_level(("ep",))
    outer, inner = (1, len(group)) if grid is None else grid.shape[1:]
    for each in rounds(operation, algorithm, outer, inner):
        size = {"group": len(group), "inner": inner, "outer": outer}[each.scope]
        for step in range(each.steps):
            messages = []
            for position, rank in enumerate(group):
                place_in, fellow = {
                    "group": (position, lambda q, p: q),
                    "inner": (position % inner, lambda q, p: p // inner * inner + q),
                    "outer": (position // inner, lambda q, p: q * inner + p % inner),
                }[each.scope]
                for partner in each.partners(place_in, step, size):
                    nbytes = vector * each.share / (size if each.everyone else 1)
                    messages.append((int(rank), int(group[fellow(partner, position)]), nbytes))
            yield messages


@settings(max_examples=150, **SLOW)
@given(data=st.data())
def test_collectives_equal_one_process_a_rank(data):
    """Any algorithm, network model and start: messages on orbits give what single flows between single processes give."""
    ranks = data.draw(st.integers(2, 9))
    operation, algorithm = data.draw(st.sampled_from(ALL))
    model = data.draw(st.sampled_from(sorted(SHARING)))
    machine = data.draw(machines())
    layout = place(Mesh.of({"ep": ranks}), machine, "block:ep", machine.node.core_groups)
    try:
        steps = steps_of(machine, layout, operation, algorithm, 60.0, model)
    except InputError:
        assume(False)
    assume(
        not machine.calibration.message_overhead or not steps.crowds
    )  # the processor posts messages one by one: tested below
    late = (
        data.draw(st.lists(st.integers(0, 20), min_size=ranks, max_size=ranks)) if steps.ranks == ranks else [0] * ranks
    )
    (found,) = play([(steps, np.array(late, dtype=float)[steps.orbits.first])])
    platform = Platform(machine, layout, SHARING[model])
    (expected,) = play_naively(platform, [(list(listed(layout, operation, algorithm, 60.0)), late)])
    assert found[steps.orbits.rank] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=60, **SLOW)
@given(data=st.data())
def test_collectives_side_by_side_equal_one_process_a_rank(data):
    """A gradient's reduce-scatter under an all-to-all, or any two: they share every link message by message."""
    ranks, machine = data.draw(st.integers(2, 7)), data.draw(machines())
    assume(not machine.calibration.message_overhead)
    layout = place(Mesh.of({"ep": ranks}), machine, "block:ep", machine.node.core_groups)
    model = data.draw(st.sampled_from(sorted(SHARING)))
    both, naive = [], []
    for _ in range(2):
        operation, algorithm = data.draw(st.sampled_from(ALL))
        nbytes = float(data.draw(st.integers(1, 90)))
        late = data.draw(st.lists(st.integers(0, 20), min_size=ranks, max_size=ranks))
        try:
            both.append(
                (steps_of(machine, layout, operation, algorithm, nbytes, model, alone=True), np.array(late, float))
            )
        except InputError:
            assume(False)
        naive.append((list(listed(layout, operation, algorithm, nbytes)), late))
    expected = play_naively(Platform(machine, layout, SHARING[model]), naive)
    for found, wanted in zip(play(both), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@settings(max_examples=100, **SLOW)
@given(data=st.data())
def test_orbits_change_nothing(data):
    """The same seconds with every rank by itself, at every depth; orbits are found where there are any."""
    machine = data.draw(machines())
    operation, algorithm = data.draw(st.sampled_from(ALL))
    ranks = data.draw(st.sampled_from([1, 2, 4, 6, 8, 12, 16]))
    options = {
        "placement": data.draw(st.sampled_from(["block", "scatter"])),
        "network_model": data.draw(st.sampled_from(sorted(SHARING))),
        "depth": data.draw(st.sampled_from(["bound", "fluid", "message"])),
    }
    try:
        collective(machine, operation, algorithm, ranks, 60.0, check_symmetry=True, **options)
    except InputError:
        assume(False)


@pytest.mark.parametrize(
    ("operation", "algorithm", "ranks"),
    [
        ("all-to-all", "linear", 1),
        ("all-to-all", "two-level", 1),
        ("all-to-all", "pairwise-xor", 1),
        ("all-to-all", "pairwise-shift", 16),
        ("all-reduce", "ring", 16),
        ("all-reduce", "two-level", 1),
        ("all-reduce", "binary-tree", 64),
    ],
)
def test_how_many_ranks_are_looked_at(operation, algorithm, ranks):
    """64 ranks in four supernodes: turned, mirrored or shuffled onto each other as far as the rounds allow."""
    machine = tree(nodes=64, supernode=16, taper=3 / 16)
    layout = place(Mesh.of({"ep": 64}), machine, "block:ep")
    assert steps_of(machine, layout, operation, algorithm, 64.0, "maxmin").ranks == ranks


def test_unequal_supernodes_have_no_orbits():
    machine = tree(nodes=64, supernode=16, taper=3 / 16)
    layout = place(Mesh.of({"ep": 60}), machine, "block:ep")
    assert steps_of(machine, layout, "all-to-all", "pairwise-shift", 64.0, "maxmin").ranks == 60


@settings(max_examples=60, **SLOW)
@given(data=st.data())
def test_no_depth_is_faster_than_the_bound(data):
    machine = data.draw(machines())
    operation, algorithm = data.draw(st.sampled_from(ALL))
    ranks = data.draw(st.integers(1, 16))
    try:
        found = {
            depth: collective(machine, operation, algorithm, ranks, 60.0, depth=depth)
            for depth in ("bound", "fluid", "message")
        }
    except InputError:
        assume(False)
    bound = found["bound"]
    for each in found.values():
        assert each.seconds >= bound.seconds * (1 - 1e-9)
        assert each.seconds >= each.bound_seconds * (1 - 1e-9), "no algorithm beats what must move"


@pytest.mark.parametrize(
    ("operation", "algorithm"), [("all-to-all", "linear"), ("all-to-all", "pairwise-shift"), ("all-reduce", "ring")]
)
def test_depths_agree_where_contention_is_uniform(operation, algorithm):
    machine = tree(nodes=64, supernode=64, taper=1.0, injection=12.5e9, latencies=(0.0, 2e-6, 4e-6))
    seconds = [
        collective(machine, operation, algorithm, 64, 2.0**22, depth=depth).seconds
        for depth in ("bound", "fluid", "message")
    ]
    assert seconds[1] == pytest.approx(seconds[2], rel=1e-9)
    assert seconds[0] == pytest.approx(seconds[1], rel=0.01)


def test_ranks_that_go_their_own_ways_are_faster_than_ranks_that_wait():
    """40 ranks fold to 32 for recursive doubling: who had no message to fold goes on, and leaves the trunk early."""
    machine = tree(nodes=64, supernode=16, taper=0.25, latencies=(0.0, 0.01, 0.02))
    message, fluid = (
        collective(machine, "all-reduce", "recursive-doubling", 40, 64.0, depth=depth).seconds
        for depth in ("message", "fluid")
    )
    assert message < 0.95 * fluid


def test_the_processor_posts_messages_one_by_one():
    """64 ranks all at once: 63 overheads, then the longest latency, where bytes are few."""
    machine = tree(nodes=64, supernode=4, overhead=1.0, injection=1e12, latencies=(0.0, 0.5, 2.0))
    assert collective(machine, "all-to-all", "linear", 64, 1.0).seconds == pytest.approx(63 * 1.0 + 2.0)
    assert collective(machine, "all-to-all", "two-level", 64, 1.0).seconds == pytest.approx(3 + 0.5 + 15 + 2.0)


def test_taper_of_one_makes_across_equal_to_inside():
    for operation, algorithm in (("all-to-all", "pairwise-xor"), ("all-reduce", "halving-doubling")):
        inside, across = (
            collective(tree(nodes=64, supernode=size, taper=1.0), operation, algorithm, 16, 64.0).seconds
            for size in (64, 4)
        )
        assert inside == pytest.approx(across, rel=1e-12)


@settings(max_examples=60, **SLOW)
@given(data=st.data())
def test_twice_the_bandwidth_is_twice_as_fast(data):
    operation, algorithm = data.draw(st.sampled_from(ALL))
    ranks = data.draw(st.sampled_from([4, 8, 16]))
    assume(operation != "barrier")
    slow, fast = (
        collective(tree(nodes=64, supernode=4, taper=0.25, injection=rate), operation, algorithm, ranks, 64.0).seconds
        for rate in (10.0, 20.0)
    )
    assert fast == pytest.approx(slow / 2, rel=1e-9)


def test_algorithms_that_need_a_power_of_two_say_so():
    with pytest.raises(InputError, match="power of two"):
        check("all-to-all", "pairwise-xor", 12)


@settings(max_examples=80, **SLOW)
@given(data=st.data())
def test_uneven_all_to_alls_in_classes_equal_single_messages(data):
    """Ranks that receive unequal parts: messages of alike senders as one class, or None where an interface fills up."""
    ranks = data.draw(st.integers(4, 12))
    machine = tree(
        nodes=64,
        supernode=data.draw(st.integers(2, 4)),
        taper=data.draw(st.sampled_from([0.25, 0.5, 1.0])),
        routing=data.draw(st.sampled_from(["adaptive", "static"])),
        latencies=LATENCIES,
        overhead=data.draw(st.sampled_from([0.0, 0.0625])),
    )
    layout = place(Mesh.of({"ep": ranks}), machine, "block:ep")
    parts = np.array(data.draw(st.lists(st.integers(1, 40), min_size=ranks, max_size=ranks)), dtype=float)
    model = data.draw(st.sampled_from(["maxmin", "cm02"]))
    amount = st.sampled_from([60.0, 600.0])
    alike = amount.map(lambda one: [one] * ranks)  # most others fill an interface up
    sent = np.array(data.draw(alike | st.lists(amount, min_size=ranks, max_size=ranks)))
    steps = steps_of(machine, layout, "all-to-all", "linear", 60.0, model, share=parts / parts.sum(), sent=sent)
    assume(steps.ranks == ranks)
    merged = play_merged(steps)
    assume(merged is not None)
    race = MessageSimulation(steps.capacity, alone=True)
    course = race.add(steps)
    course.come(np.arange(ranks), np.zeros(ranks))
    race.run()
    assert merged == pytest.approx(course.through, rel=1e-9, abs=1e-9)


class Given(Pattern):
    """Each position sends to a given one."""

    def __init__(self, *targets):
        self.to = np.array(targets)

    def targets(self, position, size, step):
        return self.to[position] + 0 * np.asarray(step)

    def sources(self, position, size, step):
        return np.argsort(self.to)[position] + 0 * np.asarray(step)


def test_a_step_is_only_passed_over_where_all_its_messages_end_together():
    """Two steps of four messages inside supernodes and four across: in one each rank has both kinds, in the other one kind."""
    machine = tree(nodes=8, supernode=4, taper=0.25, latencies=(0.0, 0.0, 0.0))
    layout = place(Mesh.of({"ep": 8}), machine, "block:ep")
    mixed, apart = Given(1, 4, 3, 6, 5, 0, 7, 2), Given(4, 5, 3, 2, 0, 1, 7, 6)
    found = [Round("group", each, "exchange", 1.0, Whole()) for each in (mixed, apart, apart)]
    graph = Graph.of(machine, layout)
    payloads = [Payload(np.full(8, 40.0))] * 3
    steps = MessageSteps(
        graph, layout.groups(("ep",)), found, 8, payloads, SHARING["maxmin"], 0.0, RankSymmetry.alone(graph)
    )
    listed_steps = [[(rank, int(each.to[rank]), 40.0) for rank in range(8)] for each in (mixed, apart, apart)]
    (expected,) = play_naively(Platform(machine, layout, SHARING["maxmin"]), [(listed_steps, [0] * 8)])
    assert play([(steps, np.zeros(8))])[0] == pytest.approx(expected)
    assert len(set(np.round(expected, 9))) == 2


def test_a_hot_receiver_leaves_interfaces_with_room():
    """Zipf's law over 64 ranks: classes do, and time is what the hottest rank takes in."""
    machine = tree(nodes=64, supernode=16, taper=3 / 16, injection=12.5e9, latencies=(0.0, 2e-6, 4e-6))
    layout = place(Mesh.of({"ep": 64}), machine, "block:ep")
    share = 1 / np.arange(1, 65) / (1 / np.arange(1, 65)).sum()
    steps = steps_of(machine, layout, "all-to-all", "linear", 64 * 2.0**20, "cm02", share=share)
    merged = play_merged(steps)
    assert merged is not None
    assert merged.max() >= 63 * 64 * 2.0**20 * share[0] / 12.5e9
