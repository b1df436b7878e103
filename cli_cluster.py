"""The commands of the emulated cluster: ``athanor cluster up``, ``run``, ``status``, ``machine`` and ``down``."""

from __future__ import annotations

import sys
from typing import Any

import click

from .hardware.errors import InputError
from .reports.terminal import check_writable, console, emit

NAME = click.option("--name", default="default", show_default=True, help="The cluster's name: several can be up.")


@click.group()
def cluster() -> None:
    """A small pruned fat tree on this computer: namespaces, shaped links, real TCP, real MPI."""


@cluster.command()
@click.option("--supernodes", type=int, default=2, show_default=True, help="Supernodes.")
@click.option("--nodes", type=int, default=2, show_default=True, help="Nodes of each.")
@click.option("--node-rate", default="200 Mbit/s", show_default=True, help="What a node sends and receives.")
@click.option("--taper", default="3/16", show_default=True, help="Share of it that uplinks carry.")
@click.option("--tcp-buffer", help="Bytes that a connection may have under way.  [default: 128 KiB]")
@click.option("--congestion-control", help="TCP's algorithm: reno, cubic, ….  [default: reno]")
@click.option("--mtu", type=int, help="Largest packet.  [default: 9000]")
@click.option("--loopback", is_flag=True, help="Plain TCP on the loopback device: no nodes, links or rates.")
@click.option("-o", "output", metavar="FILE", help="Write the machine file of the cluster.")
@NAME
def up(name: str, loopback: bool, output: str | None, **flags: Any) -> None:
    """Build the cluster; it stays up until athanor cluster down.

    It needs root or user namespaces, and touches nothing of the host's network: all of it lives in namespaces of one process.
    """
    from .mpi_runtime.cluster import Cluster, Shape

    check_writable(output)
    made = Cluster.up(Shape.of_flags({key: value for key, value in flags.items() if value is not None}), name, loopback)
    if output:
        _write(made, output)
    if loopback:
        click.echo(f"{name}: jobs talk TCP over the loopback device; there is no topology, and no rate is shaped")
        return
    click.echo(f"{name}: {_about(made.shape)} is up")


@cluster.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-n", "ranks", type=int, help="Ranks.  [default: one on each node]")
@click.option(
    "--ranks-per-node", type=int, default=1, show_default=True, help="Ranks that a node takes before the next."
)
@click.option("--limit", type=float, default=600.0, show_default=True, help="Seconds after which the job is killed.")
@NAME
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, ranks: int | None, ranks_per_node: int, limit: float, command: tuple[str, ...]) -> None:
    """Run a command on every node over MPI: athanor cluster run -- athanor execute ….

    Its exit status is the job's.
    """
    from .mpi_runtime.cluster import Cluster

    done = Cluster.of(name).run(command, ranks, ranks_per_node, limit)
    sys.exit(done.returncode)


@cluster.command()
@click.option("--json", "json_path", metavar="FILE", help="Write what is up as JSON; - for standard output.")
def status(json_path: str | None) -> None:
    """Which clusters are up: shape, nodes, what the kernel says of rates and of the bytes over each uplink."""
    from .mpi_runtime.cluster.look import look
    from .mpi_runtime.cluster.state import states
    from .reports.tables import table

    check_writable(json_path)
    found = [look(state) for state in states()]
    emit(json_path, found)
    if json_path == "-":
        return
    if not found:
        click.echo("no emulated cluster is up")
    for each in found:
        rows = [
            (link["from"], link["to"], link["rate"], f"{link['sent_bytes']:,}", f"{link['dropped_packets']:,}")
            for link in each["links"]
        ]
        nodes = ", ".join(f"{node['name']} ({node['address']})" for node in each["nodes"])
        console().print(f"[bold]{each['name']}[/]: {each['about']}; holder {each['holder']}")
        if rows:
            console().print(nodes)
            console().print(
                table("Links", ["from", "to", "rate", "bytes sent", "packets dropped"], rows, text_columns=2)
            )


@cluster.command()
@click.option("-o", "output", required=True, metavar="FILE", help="The machine file.")
@NAME
def machine(name: str, output: str) -> None:
    """Write the machine file of a cluster, from its nominal rates alone."""
    from .mpi_runtime.cluster import Cluster

    check_writable(output)
    _write(Cluster.of(name), output)


@cluster.command()
@click.option("--all", "every", is_flag=True, help="All that are up.")
@NAME
def down(name: str, every: bool) -> None:
    """End a cluster, and every process on it."""
    from .mpi_runtime.cluster import Cluster
    from .mpi_runtime.cluster.state import states

    names = [state.name for state in states()] if every else [name]
    for each in names:
        Cluster.of(each).down()
        click.echo(f"{each}: down")


def _about(shape: Any) -> str:
    from .hardware.units import si

    return (
        f"{shape.supernodes} supernodes of {shape.nodes} nodes at {si(8 * shape.node_rate, 'bit/s')}, uplinks of"
        f" {si(8 * shape.uplink_rate, 'bit/s')}"
    )


def _write(made: Any, output: str) -> None:
    from pathlib import Path

    from .hardware.writer import machine_toml
    from .mpi_runtime.cluster import machine_of

    if made.state.holder is None:
        raise InputError(f"--name {made.state.name}: a cluster on the loopback device has no topology to write")
    try:
        Path(output).write_text(machine_toml(machine_of(made.shape)), encoding="utf-8")
    except OSError as reason:
        raise InputError(f"{output}: cannot be written: {reason.strerror}") from None
