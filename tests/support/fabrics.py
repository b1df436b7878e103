"""Small fabrics for tests, built in code."""

from athanor.hardware.fabrics import Dragonfly, FatTree, PrunedFatTree, Rails, Torus


def fat_tree(*tiers, routing="static"):
    """A fat tree of (children, taper) a tier, the top's taper None; turning at tier n costs n + 1 seconds."""
    levels = [{"down": down, "taper": taper, "latency": 1.0 + n} for n, (down, taper) in enumerate(tiers)]
    return FatTree(tiers=levels, routing=routing, latency_node=0.5)


def pruned(supernode, taper, routing):
    return PrunedFatTree(
        supernode=supernode, taper=taper, routing=routing, latency_node=0.5, latency_supernode=1.0, latency_top=2.0
    )


def torus(*shape):
    return Torus(shape=shape, link_bandwidth=5.0, latency_node=0.5, latency_interface=2.0, latency_link=0.25)


def dragonfly(groups, routers, hosts, global_links, routing="minimal"):
    return Dragonfly(
        groups=groups,
        routers=routers,
        hosts=hosts,
        global_links=global_links,
        routing=routing,
        local_bandwidth=4.0,
        global_bandwidth=3.0,
        latency_node=0.5,
        latency_router=1.0,
        latency_local=0.25,
        latency_global=8.0,
    )


def rails(islands, island, routing="pxn"):
    return Rails(
        islands=islands,
        island=island,
        routing=routing,
        island_bandwidth=90.0,
        rail_bandwidth=10.0,
        spine_taper=0.5,
        latency_node=0.5,
        latency_island=1.0,
        latency_rail=3.0,
        latency_spine=7.0,
    )
