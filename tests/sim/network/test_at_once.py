"""Exchanges that are worked out for many blocks, ranks or passes at once, against one after another."""

from dataclasses import replace

import numpy as np
import pytest
from athanor.hardware.machine import load_machine
from athanor.sim.network import links
from athanor.sim.network.phases import phases_on_trees
from athanor.sim.network.phases.transfers import Traffic
from athanor.sim.simulate import simulate
from athanor.workloads.plan.run_file import resolved
from athanor.workloads.plan.setting import Setting
from athanor.workloads.routing.token_counts import token_counts
from athanor.workloads.schedule.costs import MANY, Costs
from athanor.workloads.schedule.work import Exchange, Gemm

MACHINE = load_machine("sunway-oceanlight")
UNEVEN = {"router": "zipf:1.0", "balancer": "none"}


def layout_of(machine, mesh, **options):
    found = resolved(machine, "mixtral-8x22b", {"mesh": mesh, **options}, True)
    setting = Setting.of(*found[:3])
    return setting.machine, setting.layout


def exchanges(layout, algorithm, count, random):
    shape = tuple(
        length if axis in ("ep", "dp") else 1 for axis, length in zip(layout.mesh.axes, layout.mesh.shape, strict=True)
    )
    found = []
    for number in range(count):
        sent, received = random.integers(1, 9, (2, *shape)).astype(float) * 1e6
        if number == 1:
            sent[...] = sent.mean()  # other ranks are alike than in the first
        found.append(Exchange("all-to-all", algorithm, ("ep",), sent, "bf16", received))
    return found


@pytest.mark.parametrize("depth", ["links", "fluid"])
@pytest.mark.parametrize(
    ("machine", "mesh", "options"),
    [
        ("selene", "pp=2,dp=4,ep=4,tp=2", {}),
        ("sunway-oceanlight", "dp=4,ep=8", {"nodes_per_supernode": 4, "placement": "opposite"}),
        ("sunway-oceanlight", "dp=4,ep=8", {"nodes_per_supernode": 4, "routing": "static"}),
        ("fugaku", "dp=4,ep=4", {}),
    ],
)
@pytest.mark.parametrize("algorithm", ["linear", "two-level"])
def test_exchanges_at_once_take_what_each_takes(machine, mesh, options, depth, algorithm):
    machine, layout = layout_of(machine, mesh, **options)
    traffic, works = Traffic(machine, layout, depth), exchanges(layout, algorithm, 4, np.random.default_rng(3))
    together = traffic.at_once(works)
    assert together is not None
    for number, work in enumerate(works):
        alone = traffic.transfers(work)
        assert len(alone) == len(together)
        for one, many in zip(alone, together, strict=True):
            seconds, _ = one.group_seconds(one.demand.alone[0])
            np.testing.assert_allclose(
                many.seconds[number], np.broadcast_to(seconds, many.seconds[number].shape), 1e-12
            )
            assert one.demand.apart == many.apart[number]
            for kind, nbytes in one.loads.loads.items():
                np.testing.assert_allclose(many.loads.loads[kind][number], nbytes, rtol=1e-12, atol=1e-6)


def assert_same_use(found, want):
    """On each link that carries more than rounding, the flows of its class put as many bytes."""
    carried = np.concatenate([want.loads.loads.get(kind.name, np.zeros(kind.count)) for kind in want.loads.kinds])
    used = [
        (each.demand.nbytes @ each.demand.usage)[each.demand.link_class()[carried > 1e-3]] for each in (found, want)
    ]
    np.testing.assert_allclose(*used, rtol=1e-12)


@pytest.mark.parametrize(
    ("machine", "mesh", "options", "depth"),
    [
        ("selene", "pp=2,dp=4,ep=4,tp=2", {}, "links"),
        ("selene", "pp=2,dp=4,ep=4,tp=2", {}, "fluid"),
        ("eos-h100", "dp=4,ep=8,tp=2", {}, "links"),
        ("sunway-oceanlight", "dp=4,ep=8", {"nodes_per_supernode": 4, "placement": "opposite"}, "links"),
        ("sunway-oceanlight", "dp=4,ep=8", {"nodes_per_supernode": 4, "routing": "static"}, "links"),
        ("fugaku", "dp=4,ep=4", {}, "links"),
    ],
)
@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("sums", ["equal", "others"])
def test_what_comes_back_takes_what_it_takes_by_itself(machine, mesh, options, depth, part, sums):
    """An exchange that is known to bring back what another took is that one's other way: as where nothing is known."""
    machine, layout = layout_of(machine, mesh, **options)
    traffic, unknowing = (Traffic(machine, layout, depth) for _ in range(2))
    there = exchanges(layout, "linear", 3, np.random.default_rng(13))
    if sums == "equal":
        along = layout.mesh.positions(("ep",))
        scale = [
            each.nbytes.mean(axis=along, keepdims=True) / each.received.mean(axis=along, keepdims=True)
            for each in there
        ]
        there = [replace(each, received=each.received * by) for each, by in zip(there, scale, strict=True)]
    back = [replace(each, nbytes=each.received, received=each.nbytes) for each in there]
    some = None
    if part:
        apart = np.zeros(sum(kind.count for kind in traffic.phases.kinds), dtype=bool)
        apart[::3] = True
        some = traffic.part(("ep",), np.array([0, 1]), apart)
    for one, other in zip(there, back, strict=True):
        traffic.transfers(one, some)
        for found, want in zip(traffic.transfers(other, some), unknowing.transfers(other, some), strict=True):
            seconds, wanted = (each.group_seconds(each.demand.alone[0]) for each in (found, want))
            np.testing.assert_allclose(seconds[0], wanted[0], rtol=1e-12)
            level, wanted_level = (
                seconds[1].rpartition(".")[0],
                wanted[1].rpartition(".")[0],
            )  # both ways may be as full
            assert level == wanted_level and found.demand.apart == want.demand.apart
            assert_same_use(found, want)
            for kind, nbytes in want.loads.loads.items():
                np.testing.assert_allclose(found.loads.loads[kind], nbytes, rtol=1e-12, atol=1e-6)
    traffic.at_once(there[:2])
    for found, want in zip(traffic.at_once(back), unknowing.at_once(back), strict=True):  # two known, one not
        np.testing.assert_allclose(found.seconds, want.seconds, rtol=1e-12)
        assert (found.apart == want.apart).all()
        for kind, nbytes in want.loads.loads.items():
            np.testing.assert_allclose(found.loads.loads[kind], nbytes, rtol=1e-12, atol=1e-6)


def test_exchanges_that_some_stages_do_load_links_as_often_as_they_do_them():
    machine, layout = layout_of("selene", "pp=4,dp=2,ep=4,tp=2")
    traffic, works = Traffic(machine, layout, "links"), exchanges(layout, "linear", 3, np.random.default_rng(5))
    along = [length if axis == "pp" else 1 for axis, length in zip(layout.mesh.axes, layout.mesh.shape, strict=True)]
    times = [np.array(each, dtype=float).reshape(along) for each in ([0, 2, 1, 0], [0, 1, 1, 0], [0, 3, 5, 0])]
    together = traffic.at_once(works, times)
    for number, (work, often) in enumerate(zip(works, times, strict=True)):
        for kind, nbytes in traffic.weighted(work, often).loads.items():
            np.testing.assert_allclose(together[0].loads.loads[kind][number], nbytes, rtol=1e-12, atol=1e-6)


def test_a_tree_carries_what_pairs_send():
    machine, layout = layout_of("selene", "dp=16,ep=8")
    traffic = Traffic(machine, layout, "links")
    (work,) = exchanges(layout, "linear", 1, np.random.default_rng(7))
    (transfer,) = traffic.transfers(work)
    tree, groups = traffic.phases.links, layout.groups(("ep",))
    sent, received = (layout.mesh.full(each)[groups] for each in (work.nbytes, work.received))
    pairs = sent[:, :, None] * (received / received.sum(axis=1, keepdims=True))[:, None, :]
    for name, domain, cables, cable in tree.by_level():
        home, lane = domain[groups], cable[groups]
        across = home[:, :, None] != home[:, None, :]
        count = next(kind.count for kind in tree.kinds if kind.name == f"{name}.in")
        for way, at in (
            ("in", home[:, None, :] * cables + lane[:, None, :]),
            ("out", home[:, :, None] * cables + lane[:, None, :]),
        ):
            want = np.bincount(np.broadcast_to(at, pairs.shape)[across], pairs[across], count)
            np.testing.assert_allclose(transfer.loads.loads[f"{name}.{way}"], want, rtol=1e-12, atol=1e-3)


def test_passes_through_a_layer_share_their_exchanges(monkeypatch):
    """A step looks at each layer's exchanges once: dispatch, and combine the other way, backward as forward."""
    seen = []

    def counted(*arguments):
        seen.append(arguments[2].ndim)
        return links.all_pairs_loads(*arguments)

    monkeypatch.setattr(phases_on_trees, "all_pairs_loads", counted)
    run = simulate("sunway-oceanlight", "moda-1.93t", mesh="ep=40", depth="links", allow_overcommit=True, **UNEVEN)
    layers = 12
    uneven = [each for each in seen if each == 2]
    assert layers <= len(uneven) <= layers + 2  # and even ones: the tokens' counts
    assert run.totals.step_seconds > 0


@pytest.mark.parametrize("field", ["m", "k"])
def test_products_with_equal_rows_cost_what_each_costs(field):
    costs, random = Costs(MACHINE, 1), np.random.default_rng(11)
    rows = random.integers(0, 50, 2 * MANY).astype(float)
    rows[17] = 1e9  # more than there are ranks
    shape = {"m": 512.0, "k": 768.0} | {field: rows}
    found = costs.of(Gemm(n=1024.0, count=1.0, precision="fp16", **shape)).seconds
    some = np.r_[:64, 17]
    want = Costs(MACHINE, 1)
    each = [want.of(Gemm(n=1024.0, count=1.0, precision="fp16", **shape | {field: float(rows[at])})) for at in some]
    assert found[some].tolist() == [float(one.seconds) for one in each]


@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (64, 1), (256, 8)])
def test_sums_are_those_of_the_same_draw(experts, top_k):
    chances = 1.0 / np.arange(1, experts + 1)
    each, sums = (
        token_counts(chances / chances.sum(), top_k, 4096, 3, np.random.default_rng(2), None, only)
        for only in (False, True)
    )
    assert (each.sum(axis=0) == sums.sum(axis=0)).all() and len(sums) == 1
