"""Fabrics: routes against graphs that are built here from each fabric's description, and closed forms."""

from itertools import product
from math import prod

import networkx as nx
import numpy as np
import pytest
from athanor.hardware.fabrics import Crossbar, Dragonfly, FatTree, Rails, Torus
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fabrics import dragonfly, fat_tree, pruned, rails, torus

INJECTION = 10.0


def pairs(nodes):
    """All pairs of different nodes, ``(source, target)``."""
    source, target = np.divmod(np.arange(nodes * nodes), nodes)
    return source[source != target], target[source != target]


# --- each fabric's links once more, as (from, to) by number; a node is ("node", i) or what stands for it -------------------


def tree_links(fabric, nodes):
    """Switches of an XGFT: subtree s of level l ends in its switches (l, s, i), one for each uplink of those below."""
    if isinstance(fabric, FatTree):
        tiers = [(tier.down, tier.taper) for tier in fabric.tiers]
    else:
        tiers = [(fabric.supernode, fabric.taper), (None, None)]
    links, size, below, static = [], 1, 1, fabric.routing == "static"
    for level, (down, taper) in enumerate(tiers[:-1], 1):
        size *= down
        uplinks = below * max(1, round(down * taper)) if static else 1
        up = [
            ((level, s, cable % below), (level + 1, s // (tiers[level][0] or nodes), cable))
            for s, cable in product(range(-(-nodes // size)), range(uplinks))
        ]
        links += up + [(high, low) for low, high in up]
        below = uplinks
    return links, lambda node: (1, node // tiers[0][0], 0)


def torus_links(fabric, nodes):
    shape = fabric.shape
    places = list(product(*(range(length) for length in reversed(shape))))  # the first dimension runs fastest
    links = []
    for axis, step in product(range(len(shape)), (1, -1)):
        position = len(shape) - 1 - axis
        for place in places:
            onwards = (place[position] + step) % shape[axis]
            links.append((place, (*place[:position], onwards, *place[position + 1 :])))
    return links, lambda node: places[node]


def dragonfly_links(fabric, nodes):
    groups, routers = fabric.groups, fabric.routers
    cables = routers * fabric.global_links // (groups - 1)
    local = [
        ((g, r), (g, (r + 1 + further) % routers))
        for g, r, further in product(range(groups), range(routers), range(routers - 1))
    ]
    far = []
    for g, port in product(range(groups), range(cables * (groups - 1))):
        other = (g + 1 + port % (groups - 1)) % groups
        back = (g - other - 1) % groups + port // (groups - 1) * (groups - 1)
        far.append(((g, port // fabric.global_links), (other, back // fabric.global_links)))
    return local + far, lambda node: (node // fabric.hosts // routers, node // fabric.hosts % routers)


def rails_links(fabric, nodes):
    island = fabric.island
    gpu, switch = [("gpu", n) for n in range(nodes)], [("nvswitch", n // island) for n in range(nodes)]
    rail = [("rail", n % island) for n in range(nodes)]
    up = [(("rail", r), "spine") for r in range(island)]
    links = [*zip(gpu, switch, strict=True), *zip(switch, gpu, strict=True)]
    links += [*zip(gpu, rail, strict=True), *zip(rail, gpu, strict=True)]
    return links + up + [(high, low) for low, high in up], lambda node: ("gpu", node)


LINKS = {Torus: torus_links, Dragonfly: dragonfly_links, Rails: rails_links}


def walked(fabric, nodes):
    """Routes of all pairs, each walked link by link through the graph, with its length and the shortest there is."""
    links, place = LINKS.get(type(fabric), tree_links)(fabric, nodes)
    kinds = fabric.kinds(nodes, INJECTION)
    assert sum(kind.count for kind in kinds) == len(links)
    assert all(kind.capacity > 0 for kind in kinds)
    graph = nx.DiGraph(links)
    graph.add_nodes_from(place(node) for node in range(nodes))
    shortest = dict(nx.all_pairs_shortest_path_length(graph))
    source, target = pairs(nodes)
    for a, b, route in zip(source, target, fabric.routes(source, target, nodes), strict=True):
        used = route[route >= 0]
        assert (route[: len(used)] >= 0).all(), "-1 only after a route's end"
        assert (used < len(links)).all()
        here = place(a)
        for number in used:
            start, end = links[number]
            assert start == here
            here = end
        assert here == place(b)
        yield a, b, [links[number] for number in used], shortest[place(a)][place(b)]


TREES = st.one_of(
    st.builds(
        pruned, st.integers(1, 6), st.sampled_from([0.2, 0.5, 0.75, 1.0]), st.sampled_from(["adaptive", "static"])
    ),
    st.builds(
        lambda lower, top, routing: fat_tree(*lower, (top, None), routing=routing),
        st.lists(st.tuples(st.integers(2, 4), st.sampled_from([0.25, 0.5, 0.75, 1.0])), max_size=2),
        st.integers(2, 4),
        st.sampled_from(["adaptive", "static"]),
    ),
)


@settings(deadline=None)
@given(TREES, st.integers(2, 18))
@example(fat_tree((4, 0.75), (2, 0.5), (2, None)), 16)  # 4 nodes on 3 uplinks: cables of both levels have to meet
def test_routes_of_trees_are_shortest_paths(fabric, nodes):
    if isinstance(fabric, FatTree):
        nodes = min(nodes, prod(tier.down for tier in fabric.tiers))
    for _, _, route, shortest in walked(fabric, nodes):
        assert len(route) == shortest


@settings(deadline=None)
@given(st.lists(st.integers(2, 5), min_size=2, max_size=3).filter(lambda shape: prod(shape) <= 48))
def test_routes_of_a_torus_are_shortest_paths_in_the_order_of_dimensions(shape):
    for _, _, route, shortest in walked(torus(*shape), prod(shape)):
        assert len(route) == shortest
        moved = [
            next(len(a) - 1 - i for i, (one, other) in enumerate(zip(a, b, strict=True)) if one != other)
            for a, b in route
        ]
        assert moved == sorted(moved)


@st.composite
def dragonflies(draw, routing):
    routers, global_links = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    groups = draw(st.integers(2, min(7, routers * global_links + 1)))
    return dragonfly(groups, routers, draw(st.integers(1, 2)), global_links, routing)


@settings(deadline=None)
@given(dragonflies("minimal"))
def test_minimal_routes_of_a_dragonfly_pass_one_global_link(fabric):
    nodes = fabric.groups * fabric.supernode
    for a, b, route, _ in walked(fabric, nodes):
        across = [start[0] != end[0] for start, end in route]
        away = a // fabric.supernode != b // fabric.supernode
        assert sum(across) == away
        assert len(route) <= 3
        if fabric.parallel == 1 and away:
            assert len(route) == one_global_hop(fabric, route)


def one_global_hop(fabric, route):
    """Hops of the shortest way over the only cable between the groups of a route's ends."""
    links, _ = dragonfly_links(fabric, 0)
    start, end = route[0][0], route[-1][1]
    ((out, into),) = [(a, b) for a, b in links if (a[0], b[0]) == (start[0], end[0])]
    return (start != out) + 1 + (into != end)


@settings(deadline=None)
@given(dragonflies("valiant"))
def test_valiant_routes_pass_a_third_group(fabric):
    nodes = fabric.groups * fabric.supernode
    for a, b, route, _ in walked(fabric, nodes):
        groups = [route[0][0][0], *(end[0] for start, end in route if start[0] != end[0])] if route else []
        away = a // fabric.supernode != b // fabric.supernode
        assert len(set(groups)) == len(groups), "no group twice"
        if route:
            assert len(groups) == (3 if away and fabric.groups > 2 else 1 + away)


def test_valiant_spreads_what_minimal_routing_piles_up():
    """All nodes of a group send to the next one: Kim et al.'s adversary, which minimal routing puts on one cable."""
    load = {}
    for routing in ("minimal", "valiant"):
        fabric = dragonfly(9, 4, 2, 2, routing)
        source = np.arange(fabric.groups * fabric.supernode)
        target = (source + fabric.supernode) % len(source)
        routes = fabric.routes(source, target, len(source))
        start = fabric.kinds(len(source), INJECTION)[0].count
        load[routing] = np.bincount(routes[routes >= start])
    assert load["minimal"].max() == 8
    assert load["valiant"].max() < 8
    assert load["valiant"].sum() == 2 * load["minimal"].sum()


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["pxn", "spine"]))
def test_routes_of_rails(islands, island, routing):
    nodes = islands * island
    if nodes == 1:
        return
    for a, b, route, shortest in walked(rails(islands, island, routing), nodes):
        near, same_rail = a // island == b // island, a % island == b % island
        passed = {place[0] if isinstance(place, tuple) else place for link in route for place in link}
        assert len(route) == (2 if near or same_rail else 4) >= shortest
        if near:
            assert passed == {"gpu", "nvswitch"}
        elif same_rail:
            assert passed == {"gpu", "rail"}
        else:
            assert passed == {"gpu", "rail", "nvswitch" if routing == "pxn" else "spine"}
            if routing == "pxn":  # the NVSwitch is on the sender's side, so the rail is the target's
                assert route[0][1] == ("nvswitch", a // island)
                assert route[2][1] == ("rail", b % island)
    assert len(route) == shortest or islands == 1 or routing == "spine"


# --- closed forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 4), (8, 4), (4, 4, 4), (2, 4, 6), (3, 4)])
def test_bisection_of_a_torus(shape):
    """Halving the longest (even) dimension cuts two rings' worth of cables: 2 N / k links in each direction."""
    fabric, axis = torus(*shape), int(np.argmax(shape))
    nodes, length = prod(shape), max(shape)
    links, _ = torus_links(fabric, nodes)
    cut = [(a[-1 - axis] < length // 2, b[-1 - axis] < length // 2) for a, b in links]
    kinds = fabric.kinds(nodes, INJECTION)
    capacity = np.repeat([kind.capacity for kind in kinds], [kind.count for kind in kinds])
    assert capacity[[one > other for one, other in cut]].sum() == 2 * nodes / length * 5.0


@pytest.mark.parametrize("shape", [(5, 3), (3, 3, 5), (4, 4), (4, 2, 4)])
def test_an_all_to_all_loads_a_torus_as_its_distances_say(shape):
    """K odd: all links of a dimension carry N (k - 1/k) / 8 routes each; k even: ties to plus, N k / 8 in the mean."""
    nodes = prod(shape)
    routes = torus(*shape).routes(*pairs(nodes), nodes)
    load = np.bincount(routes[routes >= 0], minlength=2 * len(shape) * nodes).reshape(len(shape), 2, nodes)
    for (plus, minus), length in zip(load, shape, strict=True):
        longest = length // 2
        assert (plus == nodes / length * sum(range(longest + 1))).all()
        assert (minus == nodes / length * sum(range((length - 1) // 2 + 1))).all()


def test_ties_on_a_torus_go_to_plus():
    here, there = np.array([0, 2]), np.array([2, 0])
    assert torus(4, 3).routes(here, there, 12)[:, :2].tolist() == [[0, 1], [2, 3]]


def test_a_balanced_dragonfly():
    """A = 2 p = 2 h: a h + 1 groups, one cable between any two, three hops at most, all of which occur."""
    fabric = dragonfly(33, 8, 4, 4)
    nodes = fabric.groups * fabric.supernode
    assert nodes == 1056
    local, far = fabric.kinds(nodes, INJECTION, efficiency=0.5)
    assert (local.count, local.capacity) == (33 * 8 * 7, 2.0)
    assert (far.count, far.capacity) == (33 * 32, 1.5)
    source, target = pairs(nodes)
    routes = fabric.routes(source, target, nodes)
    assert set((routes >= 0).sum(axis=1)) == {0, 1, 2, 3}
    load = np.bincount(routes[routes >= 0], minlength=local.count + far.count)
    assert (load[local.count :] == fabric.supernode**2).all(), "an all-to-all spreads evenly over the global cables"


def test_parallel_global_cables_share_the_targets():
    fabric = dragonfly(3, 4, 2, 2)
    assert fabric.parallel == 4
    source, target = pairs(24)
    routes = fabric.routes(source, target, 24)
    start, far = fabric.kinds(24, INJECTION)
    load = np.bincount(routes[routes >= start.count] - start.count, minlength=far.count)
    assert (load == 8 * 8 / 4).all()


def test_uplinks_and_taper_of_a_fat_tree():
    fabric = fat_tree((16, 0.5), (8, 0.25), (4, None))
    assert (fabric.supernode, fabric.supernodes(512), fabric.uplinks, fabric.cables) == (16, 32, (8, 16), 16)
    kinds = fabric.kinds(512, INJECTION)
    assert [kind.name for kind in kinds] == ["tiers.0.out", "tiers.0.in", "tiers.1.out", "tiers.1.in"]
    assert [kind.count for kind in kinds] == [32 * 8, 32 * 8, 4 * 16, 4 * 16]
    assert all(kind.capacity == pytest.approx(INJECTION) for kind in kinds)
    whole = fat_tree((16, 0.5), (8, 0.25), (4, None), routing="adaptive").kinds(512, INJECTION)
    assert [kind.count for kind in whole] == [32, 32, 4, 4]
    assert [kind.capacity for kind in whole[::2]] == [16 * 0.5 * INJECTION, 128 * 0.5 * 0.25 * INJECTION]


def test_a_fat_tree_of_two_tiers_is_the_pruned_tree():
    one, other = pruned(16, 3 / 16, "adaptive"), fat_tree((16, 3 / 16), (4, None), routing="adaptive")
    source, target = pairs(64)
    assert (one.routes(source, target, 64) == other.routes(source, target, 64)).all()
    assert (one.latencies(source, target) == other.latencies(source, target)).all()
    assert [(kind.capacity, kind.count) for kind in one.kinds(64, INJECTION)] == [
        (kind.capacity, kind.count) for kind in other.kinds(64, INJECTION)
    ]


@settings(deadline=None)
@given(st.integers(2, 16), st.sampled_from([0.25, 0.5, 0.75]), st.integers(2, 4), st.sampled_from([0.5, 1.0]))
def test_static_routes_of_a_fat_tree_spread_evenly(down, taper, leaves, upper):
    """D-mod-K: the consecutive targets of a subtree load its incoming cables with numbers that differ by one at most."""
    fabric = fat_tree((down, taper), (leaves, upper), (2, None))
    nodes = 2 * down * leaves
    routes = fabric.routes(*pairs(nodes), nodes)
    load = np.bincount(routes[routes >= 0], minlength=sum(kind.count for kind in fabric.kinds(nodes, INJECTION)))
    start = 0
    for kind, size in zip(fabric.kinds(nodes, INJECTION), [down, down, down * leaves, down * leaves], strict=True):
        part = load[start : start + kind.count].reshape(nodes // size, -1)
        start += kind.count
        if kind.name.endswith(".in"):
            assert (part.max(axis=1) - part.min(axis=1) <= nodes - size).all(), (
                "one target more or less, from all outside"
            )
        assert (part.sum(axis=1) == size * (nodes - size)).all()


def test_rails_have_a_spine_of_what_the_cards_inject():
    kinds = {kind.name: kind for kind in rails(8, 4).kinds(32, 100.0, efficiency=0.5)}
    assert (kinds["island.out"].capacity, kinds["island.out"].count) == (45.0, 32)
    assert (kinds["rail.in"].capacity, kinds["rail.in"].count) == (5.0, 32)
    assert (kinds["spine.out"].capacity, kinds["spine.out"].count) == (0.5 * 8 * 5.0, 4)


@pytest.mark.parametrize(
    ("fabric", "target", "seconds"),
    [
        (Crossbar(latency_node=0.5, latency_link=1.0), 1, 2.0),
        (pruned(4, 0.5, "static"), 3, 1.0),
        (pruned(4, 0.5, "static"), 4, 2.0),
        (fat_tree((2, 0.5), (2, 0.5), (2, None)), 1, 1.0),
        (fat_tree((2, 0.5), (2, 0.5), (2, None)), 7, 3.0),
        (torus(4, 4), 10, 2.0 + 4 * 0.25),
        (dragonfly(5, 2, 2, 2), 1, 1.0),
        (dragonfly(5, 2, 2, 2), 2, 1.25),
        (
            dragonfly(5, 2, 2, 2),
            4,
            9.25,
        ),  # port 0 of group 0 is router 0's; port 3 of group 1 router 1's, the target's router 0
        (rails(4, 4), 1, 1.0),
        (rails(4, 4), 4, 3.0),
        (rails(4, 4), 5, 4.0),
        (rails(4, 4, "spine"), 5, 7.0),
    ],
)
def test_latencies(fabric, target, seconds):
    here = np.zeros(2, dtype=np.int64)
    assert fabric.latencies(here, np.array([0, target])).tolist() == [0.5, seconds]


def test_only_trees_have_levels():
    assert all(fabric.levels(8, 1.0) is None for fabric in (torus(4, 2), dragonfly(3, 2, 2, 1), rails(2, 4)))
    assert [level.name for level in fat_tree((4, 0.5), (2, None)).levels(8, 1.0)] == ["nic", "tiers.0"]
    assert [level.name for level in Crossbar(latency_node=0, latency_link=0).levels(8, 1.0)] == ["nic"]


def test_supernodes():
    assert torus(4, 3, 2).supernode == 12
    assert torus(4, 3).supernode == 12
    assert dragonfly(3, 2, 5, 1).supernode == 10
    assert rails(2, 4).supernode == 4
