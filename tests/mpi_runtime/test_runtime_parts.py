"""Parts of the MPI runtime that need no MPI: routing, gates, vectors, places, streams, books."""

import itertools
import time

import numpy as np
import pytest
from athanor.hardware.errors import DoesNotFit, Ended, InputError
from athanor.hardware.machine import load_machine
from athanor.mpi_runtime.devices import Computing, Sleeping
from athanor.mpi_runtime.execute import observation as observed
from athanor.mpi_runtime.job.environment import Launcher, local_ranks
from athanor.mpi_runtime.job.rank_order import arrange
from athanor.mpi_runtime.messages.link_bytes import links
from athanor.mpi_runtime.messages.streams import After, Streams, Until
from athanor.mpi_runtime.training.flat_vectors import FlatVector
from athanor.mpi_runtime.training.optimizer_rounds import update_alone
from athanor.mpi_runtime.training.token_routing import DROPPED, Routing
from athanor.mpi_runtime.training.transformer import functions as f
from athanor.mpi_runtime.training.transformer.experts.local_experts import LocalExperts
from athanor.workloads.loads.loads import LoadModel
from athanor.workloads.loads.token_assignment import decisions
from athanor.workloads.lowering import lower
from athanor.workloads.mesh.mesh import Mesh
from athanor.workloads.mesh.placement import Layout
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.model.tensors import Tensor
from athanor.workloads.optimizers import Adam, TensorShare
from athanor.workloads.optimizers.hyperparameters import BETA_1, BETA_2, EPSILON, LEARNING_RATE
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.balancers import Balancer, Capacity, Carried, Swipe, Unbalanced
from athanor.workloads.schedule.costs import compute_seconds
from athanor.workloads.schedule.work import Gemm, at
from hypothesis import given
from hypothesis import strategies as st

EMULATED = load_machine("cluster-64")


def exchanged(counts):
    """What an all-to-all of one number for each rank brings: rows of senders become rows of receivers."""
    return np.array(counts).T


def swiped(wanted, local):
    """SWIPE among ranks that only exchange what its messages carry; ``wanted[rank, token, choice]`` are experts."""
    ranks, _, top_k = wanted.shape
    routings = [Routing(wanted[me], ranks, local, me) for me in range(ranks)]
    for choice in range(top_k):
        asked = exchanged([each.wants(choice) for each in routings])
        accepted = exchanged([each.admit(row) for each, row in zip(routings, asked, strict=True)])
        surplus = np.array([each.refuse(choice, row) for each, row in zip(routings, accepted, strict=True)])
        room = np.array([each.room for each in routings])
        for each in routings:
            each.deal(choice, surplus, room)
    return routings


@given(st.data())
def test_swipe_by_messages_is_the_policy(data):
    ranks, tokens, top_k, local = (data.draw(st.integers(1, most)) for most in (6, 9, 2, 3))
    top_k = min(top_k, ranks * local)
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    experts = ranks * local
    chances = random.dirichlet(np.full(experts, 0.3))
    wanted = np.array(
        [
            [
                random.permutation(experts)[:top_k] if random.random() < 0.3 else _chosen(random, chances, top_k)
                for _ in range(tokens)
            ]
            for _ in range(ranks)
        ]
    ).reshape(ranks, tokens, top_k)
    routings = swiped(wanted, local)
    counts = np.array(
        [[np.bincount(wanted[:, :, choice].reshape(-1) // local, minlength=ranks)] for choice in range(top_k)]
    )
    expected = Swipe().carry(counts, tokens)
    pairs = np.array([each.counts().sum(axis=1) for each in routings])
    by_sender = np.array([[each.wants(choice) for each in routings] for choice in range(top_k)])
    assert (pairs == Swipe().pairs(by_sender, tokens)).all()
    carried = pairs.sum(axis=0)
    assert carried.tolist() == expected.tokens[0].tolist() == [tokens * top_k] * ranks
    assert sum(each.moved for each in routings) == expected.moved[0]
    for each in routings:
        assert each.counts().sum() == tokens * top_k
        stayed = each.expert == each.wanted
        assert np.count_nonzero(~stayed) <= each.moved


def _chosen(random, chances, top_k):
    return np.argsort(-(np.log(chances + 1e-12) + random.gumbel(size=len(chances))))[:top_k]


def dropped_in_order(wanted, local, limit):
    """Which pairs are above ``limit`` tokens of their rank: the queue of all senders, choice by choice, one by one."""
    ranks, tokens, top_k = wanted.shape
    taken, kept = np.zeros(ranks, dtype=int), np.zeros(wanted.shape, dtype=bool)
    for choice, sender, token in itertools.product(range(top_k), range(ranks), range(tokens)):
        home = wanted[sender, token, choice] // local
        kept[sender, token, choice] = taken[home] < limit
        taken[home] += 1
    return ~kept


def by_sender_of(wanted, local):
    ranks, _, top_k = wanted.shape
    return np.array(
        [[np.bincount(row[:, choice] // local, minlength=ranks) for row in wanted] for choice in range(top_k)]
    )


@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 2), st.floats(0.3, 2), st.integers(0, 99))
def test_capacity_drops_what_the_policy_drops(ranks, tokens, top_k, factor, seed):
    local = 2
    wanted = np.random.default_rng(seed).integers(0, ranks * local, (ranks, tokens, top_k))
    routings = [Routing(wanted[me], ranks, local, me) for me in range(ranks)]
    sent = Capacity(factor).pairs(by_sender_of(wanted, local), tokens)
    for each in routings:
        each.assign(sent[each.me])
    gone = np.array([each.expert == DROPPED for each in routings])
    assert (gone == dropped_in_order(wanted, local, int(np.ceil(factor * tokens * top_k)))).all()
    counts = np.array(
        [[np.bincount(wanted[:, :, choice].reshape(-1) // local, minlength=ranks)] for choice in range(top_k)]
    )
    expected = Capacity(factor).carry(counts, tokens)
    pairs = np.array([each.counts().sum(axis=1) for each in routings])
    by_sender = np.array([[each.wants(choice) for each in routings] for choice in range(top_k)])
    assert (pairs == Capacity(factor).pairs(by_sender, tokens)).all()
    assert pairs.sum(axis=0).tolist() == expected.tokens[0].tolist()
    assert sum(each.dropped for each in routings) == expected.dropped[0]
    for each in routings:
        order = each.order()
        experts = each.expert.reshape(-1)[order]
        assert (np.diff(experts) >= 0).all() and DROPPED not in experts
        assert len(order) == each.counts().sum() == wanted[0].size - each.dropped


class Odd(Balancer):
    """Half a mean for even ranks and what is left for the others, up to a limit: tokens are moved and dropped."""

    def carry(self, wanted, tokens):
        every = wanted.sum(axis=0)
        carried = np.where(np.arange(every.shape[1]) % 2, tokens * len(wanted), tokens * len(wanted) // 2)
        carried = np.broadcast_to(carried, every.shape)
        carried = np.minimum(carried, every + (every.sum(axis=-1, keepdims=True) - every) // every.shape[1])
        moved = np.maximum(carried - every, 0).sum(axis=-1)
        return Carried(carried, moved=moved, dropped=every.sum(axis=-1) - carried.sum(axis=-1))


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 2), st.integers(0, 99))
def test_tokens_go_where_any_policy_says(ranks, tokens, top_k, seed):
    """The default of ``pairs`` carries what ``carry`` does, keeps what wants to stay, and the runtime sends just that."""
    local = 2
    wanted = np.random.default_rng(seed).integers(0, ranks * local, (ranks, tokens, top_k))
    by_sender = by_sender_of(wanted, local)
    for policy in (Odd(), Swipe(), Capacity(1.1), Unbalanced()):
        expected = policy.carry(by_sender.sum(axis=1)[:, None], tokens)
        sent = Balancer.pairs(policy, by_sender, tokens)
        assert (sent >= 0).all() and sent.sum(axis=0).tolist() == expected.tokens[0].tolist()
        routings = [Routing(wanted[me], ranks, local, me) for me in range(ranks)]
        for each in routings:
            each.assign(sent[each.me])
            assert each.counts().sum(axis=1).tolist() == sent[each.me].tolist()
            changed = each.expert != each.wanted
            assert np.count_nonzero(changed) <= each.moved + each.dropped
            assert np.count_nonzero(each.expert == DROPPED) == each.dropped
        assert sum(each.dropped for each in routings) == expected.dropped[0]
        stay = np.minimum(sent, by_sender.sum(axis=0)).sum()
        assert stay == np.minimum(expected.tokens[0], by_sender.sum(axis=(0, 1))).sum()


@pytest.mark.parametrize("balancer", ["none", "swipe"])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_gates_decide_what_the_load_model_has_drawn(balancer, top_k):
    options = {
        "mesh": {"ep": 2, "dp": 3},
        "top_k": top_k,
        "router": "zipf:0.7",
        "balancer": balancer,
        "tokens_per_rank": 96,
    }
    loads = LoadModel(Setting.of(EMULATED, "moda-tiny", options))
    drawn = loads.wanted(1, 2, 0)
    for group in range(3):
        chosen = decisions(loads, 1, 2, 0, group)
        assert chosen.shape == (2, 96, top_k)
        assert (chosen == decisions(loads, 1, 2, 0, group)).all()
        twice = [len(set(token)) < top_k for token in chosen.reshape(-1, top_k).tolist()]
        assert not any(twice)
        by_rank = [np.bincount(chosen[:, :, choice].reshape(-1) // 2, minlength=2).tolist() for choice in range(top_k)]
        if group < drawn.shape[1]:
            assert by_rank == drawn[:, group].tolist()
        else:
            assert [sum(each) for each in by_rank] == [192] * top_k
    others = [decisions(loads, layer, 2, 0, 0).tolist() for layer in (0, 1)]
    assert others[0] != others[1]


def test_gates_follow_popularity():
    options = {"mesh": {"ep": 2, "dp": 1}, "router": "zipf:1", "balancer": "none", "tokens_per_rank": 8192}
    loads = LoadModel(Setting.of(EMULATED, "moda-tiny", options))
    chosen = decisions(loads, 0, 0, 0, 0).reshape(-1)
    assert np.bincount(chosen, minlength=4) / len(chosen) == pytest.approx(loads.chances(0, 0)[0], abs=0.02)


@pytest.mark.parametrize("gated", [False, True])
def test_experts_compute_what_a_ffn_does(gated):
    """Answers are those of each expert alone; gradients of tokens and matrices are finite differences."""
    random = np.random.default_rng(0)
    up, down = random.standard_normal((2, 5, 14 if gated else 7)), random.standard_normal((2, 7, 5))
    tokens, gradient = random.standard_normal((6, 5)), random.standard_normal((6, 5))
    rows = [np.array([0, 2, 5]), np.array([1, 3, 4])]
    experts = LocalExperts(up, down, np.zeros_like(up), np.zeros_like(down), gated, rows, tokens)
    experts.up_product()
    experts.activate()
    answers = experts.down_product()
    experts.take_gradient(gradient)
    experts.down_dgrad()
    experts.down_wgrad()
    experts.activate_gradient()
    back = experts.up_dgrad()
    experts.up_wgrad()

    def total():
        """What the gradient is of."""
        made = np.empty_like(tokens)
        for expert, mine in enumerate(rows):
            made[mine] = f.activate(tokens[mine] @ up[expert], gated) @ down[expert]
        return made, float(np.sum(gradient * made))

    assert np.allclose(answers, total()[0])
    for values, found in ((tokens, back), (up, experts.up_gradient), (down, experts.down_gradient)):
        direction = random.standard_normal(values.shape)
        ends = []
        for step in (1e-6, -1e-6):
            values += step * direction
            ends.append(total()[1])
            values -= step * direction
        assert np.sum(found * direction) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_adam_is_the_published_one():
    """Algorithm 1 of Kingma and Ba, with its bias corrections written out."""
    random = np.random.default_rng(1)
    weights = random.standard_normal(9)
    expected, m, v = weights.copy(), np.zeros(9), np.zeros(9)
    moments = {"first": np.zeros(9), "second": np.zeros(9)}
    for step in range(1, 6):
        g = random.standard_normal(9) / 4
        update_alone(Adam(), "ffn", TensorShare(Tensor(1, 9), np.arange(9), weights, None, g, moments, step))
        m, v = BETA_1 * m + (1 - BETA_1) * g, BETA_2 * v + (1 - BETA_2) * g**2
        scale = np.sqrt(1 - BETA_2**step)
        expected -= LEARNING_RATE * (m / (1 - BETA_1**step)) / (np.sqrt(v) / scale + EPSILON / scale)
    assert np.allclose(weights, expected, rtol=1e-12)


@pytest.mark.parametrize("policy", ["O0", "O1", "O2", "O3"])
@pytest.mark.parametrize("sizes", [[37], [10, 10, 5]])
def test_sharded_updates_are_the_whole_one(policy, sizes):
    formats, cells = POLICIES[policy]["expert"], 4
    shards = [FlatVector("v", sizes, cells, home, True, formats) for home in range(cells)]
    whole = FlatVector("v", sizes, cells, 0, False, formats)
    gradient = np.random.default_rng(2).integers(1, 9, len(whole.gradients))
    for each in (*shards, whole):
        each.weights[:] = np.linspace(-1, 1, len(each.weights))
        each.remember()
    for _ in range(2):
        for each in (*shards, whole):
            each.start_step()
            each.gradients[:] = gradient
            for held, share in each.ready(None, replicas=2):
                update = held.rule.update(share)
                assert next(update, None) is None  # element by element: nothing is asked of others
                share.settle()
        gathered = np.array([np.concatenate(list(each.mine(each.weights))) for each in shards])
        for each in (*shards, whole):
            if each.sharded:
                cells_of = each.gathered()
                cells_of[:] = gathered
                each.spread(cells_of)
    for each in shards:
        assert (each.weights == whole.weights).all()
    assert not (whole.weights == np.linspace(-1, 1, len(whole.weights), dtype=whole.weights.dtype)).all()


def layout(placement, mesh=None):
    return Setting.of(EMULATED, "moda-tiny", {"mesh": mesh or {"ep": 2, "dp": 2}, "placement": placement}).layout


def test_ranks_take_the_places_of_their_hosts():
    assert arrange(layout("block:dp,ep"), [0, 1, 2, 3]) == ([0, 1, 2, 3], "")
    assert arrange(layout("block:ep,dp"), [0, 1, 2, 3]) == ([0, 2, 1, 3], "")
    assert arrange(layout("block:ep,dp"), [2, 0, 3, 1]) == ([1, 0, 3, 2], "")
    place, note = arrange(layout("block:dp,ep"), [0, 0, 0, 0])
    assert place == [0, 1, 2, 3] and "4 nodes" in note and "1 hosts" in note


def test_two_ranks_on_a_host_take_a_node():
    spread = Layout(Mesh(("ep",), (4,)), np.array([0, 1, 0, 1]), 2, 2, 2)
    assert arrange(spread, [0, 0, 1, 1]) == ([0, 2, 1, 3], "")
    assert "4 nodes" in arrange(layout("block:dp,ep"), [0, 0, 1, 1])[1]


def test_launchers_are_known_by_what_they_say():
    assert Launcher.of({}) is None
    assert Launcher.of({"PMI_SIZE": "4", "PMI_RANK": "3"}) == Launcher("hydra", 3, 4)
    assert Launcher.of({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}) == Launcher("prrte", 1, 2)
    assert Launcher.of({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}) == Launcher("slurm", 5, 8)
    assert Launcher.of({"SLURM_STEP_NUM_TASKS": "8"}) is None
    assert local_ranks({"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}) == 4
    assert local_ranks({}) == 1


def test_streams_run_beside_each_other():
    ends, order = [None] * 3, []

    def first():
        yield Until(time.perf_counter() + 0.02)
        order.append("a")
        ends[0] = time.perf_counter()

    def second():
        yield After(0)
        order.append("b")
        ends[1] = time.perf_counter() + 0.01  # an accelerator will have ended it by then
        yield []

    def third():
        order.append("c")
        yield After(1)
        assert time.perf_counter() >= ends[1]
        order.append("d")

    Streams(ends.__getitem__).run({"x": second(), "y": third(), "z": first()})
    assert order == ["c", "a", "b", "d"]


def test_a_virtual_accelerator_takes_the_time_of_the_model():
    machine, work = load_machine("laptop"), Gemm(64.0, 64, 64, 1.0, "fp32")
    device, expected = (
        Sleeping(machine, 8),
        float(compute_seconds(work, machine.processor(8), machine.calibration).seconds),
    )
    begin = device.begin()
    assert device.compute(work, (0,)) - begin >= expected
    device.free = time.perf_counter() + 100  # busy for long: what comes is queued
    ends = [device.compute(work, (0,)) for _ in range(50)]
    assert np.diff(ends) == pytest.approx([expected] * 49)


def test_numpy_computes_every_kind_of_work():
    schedule, device = lower("laptop", "moda-tiny", mesh={"ep": 1, "dp": 1}, tokens_per_rank=8), Computing(0.5)
    for operation in schedule.operations:
        before = time.perf_counter()
        assert device.compute(operation.work, (0, 0)) >= before


def test_books_of_a_measured_step():
    """Two ranks, one exchange: waiting for the other is imbalance, what follows is the network's."""
    schedule = lower("laptop", "moda-tiny", mesh={"ep": 2}, tokens_per_rank=64, zero="0", balancer="none")
    names = [each.name for each in schedule.operations]
    count, dispatch = len(names), names.index("l0.moe.dispatch")
    begin, end = np.zeros((2, count)), np.zeros((2, count))
    end[0, :dispatch], end[1, :dispatch] = np.linspace(0, 1.0, dispatch), np.linspace(0, 3.0, dispatch)
    begin[:, 1:dispatch] = end[:, : dispatch - 1]
    begin[:, dispatch], end[:, dispatch] = [1.0, 3.0], 3.5
    begin[:, dispatch + 1 :] = end[:, dispatch + 1 :] = 3.5
    times = [observed.Times(*each, np.ones(count)) for each in zip(begin, end, strict=True)]
    step = observed.account(schedule, times, observed.classes(schedule))
    assert step.seconds == 3.5
    total = {
        category: sum(step.exposed[phase][category] for phase in step.exposed)
        for category in ("imbalance", "all_to_all")
    }
    assert total["all_to_all"] >= 0.5
    assert total["imbalance"] == pytest.approx(1.0, abs=0.05)  # rank 0 waits 2 s, most of them for the dispatch
    assert sum(sum(each.values()) for each in step.exposed.values()) == pytest.approx(3.5)
    rows = {(row.operation, row.ranks): row for row in step.rows}
    row = rows["l0.moe.dispatch", "rank 0"]
    assert (row.start, row.end, row.nbytes) == (3.0, 3.5, 1.0)
    assert (row.collective, row.axes, row.level) == ("all-to-all", "ep", "node")


def test_links_carry_what_was_sent():
    machine = load_machine("simgrid-tree")
    size = machine.supernode
    node = np.array([0, 1, size, size + 1])
    found = links(machine, Layout(Mesh(("ep",), (4,)), node, 1, size, size), np.arange(16.0).reshape(4, 4), 2.0, 2)
    by_kind = {row.kind: row for row in found}
    off_diagonal = sum(range(16)) - (0 + 5 + 10 + 15)
    across = 2 + 3 + 6 + 7 + 8 + 9 + 12 + 13
    assert by_kind["nic.out"].bytes_per_step == by_kind["nic.in"].bytes_per_step == off_diagonal / 2
    assert by_kind["trunk.out"].bytes_per_step == across / 2
    assert by_kind["ring"].bytes_per_step == 30 / 2


def test_amounts_at_a_coordinate():
    assert at(3.0, (1, 2)) == 3.0
    assert at(np.array([[1.0], [2.0]]), (1, 2)) == 2.0
    assert at(np.arange(6.0).reshape(2, 3), (1, 2)) == 5.0


def test_errors_know_their_status():
    assert (InputError("x").exit_status, DoesNotFit("x").exit_status, Ended("", 3).exit_status) == (2, 3, 3)
