"""The tree out of network namespaces: one for each node, each supernode's switch and the top, veth pairs and shapers."""

from __future__ import annotations

from dataclasses import dataclass

from .shape import EmulatedNode, Shape, TcpTransport

LAUNCHER = "/run/athanor/launch"
"""What MPICH's mpiexec calls in place of ssh; it lies in the cluster's own /run, which the host does not see."""

QUEUE = 20000
"""Packets that may wait for a link, more than all connections together have under way: links drop nothing."""

_NEIGHBOURS = "/run/athanor/neighbours"

# Nothing is sent that no job sends.
_QUIET = {"ipv6/conf/default/disable_ipv6": "1", "ipv6/conf/all/disable_ipv6": "1"}

# Where nothing is lost, whatever TCP takes for a loss is only a long queue: no probes for lost tails, no restart of
# slow start after a pause. (The least retransmission time, a second as in RFC 6298, stands with the route.)
_LOSSLESS = {"ipv4/tcp_early_retrans": "0", "ipv4/tcp_slow_start_after_idle": "0"}

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
    switches = ["top", *(f"supernode-{number}" for number in range(shape.supernodes))]
    lines = [
        "set -e",
        "mkdir /run/athanor",
        *_file(LAUNCHER, _LAUNCHER),
        *_file(_NEIGHBOURS, "".join(f"neigh add {n.address} lladdr {_mac(n)} dev eth0\n" for n in shape.all_nodes)),
        f"chmod +x {LAUNCHER}",
    ]
    for name in (*switches, *(node.name for node in shape.all_nodes)):
        lines += [f"ip netns add {name}", f"ip -n {name} link set lo up", _sysctl(name, _QUIET)]
    for name in switches:
        lines.append(
            f"ip -n {name} link add switch mtu {shape.transport.mtu} type bridge forward_delay 0 mcast_snooping 0"
        )
        lines.append(f"ip -n {name} link set switch up")
    for low, high in links(shape):
        one, other = (f"{end.device} netns {end.namespace} mtu {shape.transport.mtu}" for end in (low, high))
        lines.append(f"ip link add {one} type veth peer name {other}")
        lines += [*_port(low, shape.transport), *_port(high, shape.transport)]
    for node in shape.all_nodes:
        lines += _node(node, shape.transport)
    return "\n".join(lines) + "\n"


def _file(path: str, content: str) -> list[str]:
    return [f"cat > {path} <<'END-OF-FILE'\n{content}END-OF-FILE"]


def _sysctl(namespace: str, values: dict[str, str]) -> str:
    """A command that sets kernel parameters of a namespace; one that this kernel does not have is left out."""
    writes = (f"test ! -e /proc/sys/net/{key} || echo {value} > /proc/sys/net/{key}" for key, value in values.items())
    return f"ip netns exec {namespace} sh -ec '{'; '.join(writes)}'"


def burst(transport: TcpTransport, rate: float) -> float:
    """Bytes that a link of a rate sends without waiting after it was idle: those of the shape's time, at least two packets."""
    return max(rate * transport.burst, 2.0 * (transport.mtu + 14))


def _port(end: Port, transport: TcpTransport) -> list[str]:
    """Commands that join an end of a link to its switch, shape what it sends, and bring it up.

    A switch is told where its nodes are (:func:`_node`): only towards the top does it send what it does not know.
    """
    tc, link = f"tc -n {end.namespace}", f"ip -n {end.namespace} link set {end.device}"
    most = burst(transport, end.rate)
    flood = "on" if end.device == "uplink" else "off"
    switched = [
        f"{link} master switch",
        f"{link} type bridge_slave learning off flood {flood} mcast_flood off bcast_flood off",
    ]
    return [
        f"{link} gso_max_segs {transport.segments}",
        *([] if end.device == "eth0" else switched),
        f"{tc} qdisc add dev {end.device} root handle 1: htb default 1",
        f"{tc} class add dev {end.device} parent 1: classid 1:1 htb rate {8 * end.rate:.0f}bit "
        f"burst {most:.0f} cburst {most:.0f} quantum {transport.mtu + 14}",
        f"{tc} qdisc add dev {end.device} parent 1:1 pfifo limit {QUEUE}",
        f"{link} up",
    ]


def _node(node: EmulatedNode, transport: TcpTransport) -> list[str]:
    """Commands that give a node its addresses and its TCP, and tell the switches where it is.

    Congestion control is an attribute of the route: the sysctl refuses algorithms that the host keeps to itself.
    """
    size = f"{transport.tcp_buffer:.0f}"
    buffers = f"{min(4096, int(transport.tcp_buffer))} {size} {size}"
    return [
        _sysctl(node.name, {**_LOSSLESS, "ipv4/tcp_rmem": buffers, "ipv4/tcp_wmem": buffers}),
        f"bridge -n supernode-{node.supernode} fdb add {_mac(node)} dev {node.name} master static",
        f"bridge -n top fdb add {_mac(node)} dev supernode-{node.supernode} master static",
        f"ln -s {node.name} /run/netns/{node.address}",
        f"ip -n {node.name} link set eth0 address {_mac(node)}",
        f"ip -n {node.name} address add {node.address}/16 dev eth0 noprefixroute",
        f"ip -n {node.name} route add 10.77.0.0/16 dev eth0 src {node.address} "
        f"congctl {transport.congestion_control} rto_min 1s",
        f"ip -n {node.name} -batch {_NEIGHBOURS}",
    ]


def _mac(node: EmulatedNode) -> str:
    """A node's Ethernet address, made of its IPv4 address."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in node.address.split("."))
