"""The tree out of network namespaces: one for each node, each supernode's switch and the top, veth pairs and shapers."""

from __future__ import annotations

from dataclasses import dataclass

from .shape import Shape, Transport

LAUNCHER = "/run/athanor/launch"
"""What MPICH's mpiexec calls in place of ssh; it lies in the cluster's own /run, which the host does not see."""

_LAUNCHER = r"""#!/bin/sh
while case "$1" in -*) true ;; *) false ;; esac; do shift; done
node=$(basename "$(readlink "/run/netns/$1")")
shift
exec ip netns exec "$node" unshare --uts sh -c 'hostname "$0" && exec sh -c "$*"' "$node" "$@"
"""


@dataclass(frozen=True)
class Port:
    """One end of a link: the namespace that it lies in, the device there, and the bytes per second that it may send."""

    namespace: str
    device: str
    rate: float


def links(shape: Shape) -> list[tuple[Port, Port]]:
    """Both ends of every link of the tree, lower end first."""
    rate, uplink = shape.node_rate, shape.uplink_rate
    return [
        *((Port(n.name, "eth0", rate), Port(f"supernode-{n.supernode}", n.name, rate)) for n in shape.all_nodes),
        *(
            (Port(f"supernode-{s}", "uplink", uplink), Port("top", f"supernode-{s}", uplink))
            for s in range(shape.supernodes)
        ),
    ]


def script(shape: Shape) -> str:
    """A shell script that builds the tree inside the holder's namespaces."""
    ends = [end for link in links(shape) for end in link]
    bridges = ["top", *(f"supernode-{number}" for number in range(shape.supernodes))]
    mtu = shape.transport.mtu
    lines = [
        "set -e",
        "mkdir /run/athanor",
        f"cat > {LAUNCHER} <<'LAUNCHER'\n{_LAUNCHER}LAUNCHER",
        f"chmod +x {LAUNCHER}",
    ]
    for name in (*bridges, *(node.name for node in shape.all_nodes)):
        lines += [f"ip netns add {name}", f"ip -n {name} link set lo up"]
    for name in bridges:
        lines.append(f"ip -n {name} link add switch mtu {mtu} type bridge forward_delay 0 mcast_snooping 0")
        lines.append(f"ip -n {name} link set switch up")
    for low, high in links(shape):
        one, other = (f"{end.device} netns {end.namespace} mtu {mtu}" for end in (low, high))
        lines.append(f"ip link add {one} type veth peer name {other}")
    for end in ends:
        lines += _port(end, shape.transport)
    for node in shape.all_nodes:
        lines.append(f"ln -s {node.name} /run/netns/{node.address}")
        lines += _addresses(node.name, node.address, shape.transport)
    return "\n".join(lines) + "\n"


def _port(end: Port, transport: Transport) -> list[str]:
    """Commands that join an end of a link to its bridge, shape what it sends, and bring it up."""
    tc, device = f"tc -n {end.namespace}", end.device
    burst = max(end.rate * transport.burst, 2.0 * (transport.mtu + 14))
    master = "" if device == "eth0" else "master switch"
    return [
        f"ip -n {end.namespace} link set {device} gso_max_segs {transport.segments} {master} up",
        f"{tc} qdisc add dev {device} root handle 1: htb default 1",
        f"{tc} class add dev {device} parent 1: classid 1:1 htb rate {8 * end.rate:.0f}bit "
        f"burst {burst:.0f} cburst {burst:.0f} quantum {transport.mtu + 14}",
        f"{tc} qdisc add dev {device} parent 1:1 pfifo limit {transport.queue}",
    ]


def _addresses(name: str, address: str, transport: Transport) -> list[str]:
    """Commands that give a node its address, and its TCP buffers and congestion control.

    Congestion control is an attribute of the route: the sysctl refuses algorithms that the host keeps to itself.
    """
    size = f"{transport.tcp_buffer:.0f}"
    small = min(4096, int(transport.tcp_buffer))
    return [
        f"ip netns exec {name} sh -c 'echo {small} {size} {size} > /proc/sys/net/ipv4/tcp_rmem; "
        f"echo {small} {size} {size} > /proc/sys/net/ipv4/tcp_wmem'",
        f"ip -n {name} address add {address}/16 dev eth0 noprefixroute",
        f"ip -n {name} route add 10.77.0.0/16 dev eth0 src {address} congctl {transport.congestion_control}",
    ]
