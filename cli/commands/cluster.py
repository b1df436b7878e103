"""The commands of the emulated cluster: ``athanor cluster up``, ``run``, ``status``, ``machine`` and ``down``."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ...hardware.errors import InputError
from ...reports.tables.terminal import check_writable, console, emit

if TYPE_CHECKING:
    from ...mpi_runtime.cluster import Cluster, Shape

NAME = click.option("--name", default="default", show_default=True, help="Name of the cluster, if there are several.")


@click.group()
def cluster() -> None:
    """An emulated cluster: a pruned fat tree with real TCP and real MPI, made of network namespaces of this computer."""


@cluster.command()
@NAME
@click.option("--supernodes", type=int, default=2, show_default=True, help="Number of supernodes.")
@click.option("--nodes", type=int, default=2, show_default=True, help="Nodes of each supernode.")
@click.option("--node-rate", default="200 Mbit/s", show_default=True, help="Rate at which a node sends, and receives.")
@click.option(
    "--taper", default="3/16", show_default=True, help="Rate of a supernode's uplink over the rates of its nodes."
)
@click.option("--tcp-buffer", help="Buffer of a TCP connection.  [default: the size that shares links best]")
@click.option("--congestion-control", help="TCP's congestion control, one that the kernel has.  [default: reno]")
@click.option("--loopback", is_flag=True, help="Plain TCP on the loopback device: no nodes, links or rates.")
@click.option("-o", "output", metavar="FILE", help="Write the cluster's machine file.")
def up(name: str, loopback: bool, output: str | None, **flags: Any) -> None:
    """Build a cluster; it stays until it is taken down."""
    from ...mpi_runtime.cluster import Cluster, Shape

    check_writable(output)
    given = {key: value for key, value in flags.items() if value is not None}
    shape = Shape.of_flags(given)
    if loopback and output:
        raise InputError(f"-o {output}: the loopback device has no topology that a machine file could describe")
    made = Cluster.up(shape, name, loopback)
    if output:
        _write_machine(output, shape)
    click.echo(f"{name}: {_described(made)}")


@cluster.command()
@NAME
@click.option("-n", "ranks", type=int, help="Number of ranks.  [default: as many as fit the nodes]")
@click.option("--ranks-per-node", type=click.IntRange(1), default=1, show_default=True, help="Ranks of a node.")
@click.option(
    "--limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Kill the job after so many seconds."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, ranks: int | None, ranks_per_node: int, limit: float | None, command: tuple[str, ...]) -> None:
    """Run an MPI job: athanor cluster run -- athanor execute ...

    Ends with the exit status of the job, or with 124 if the job was killed after --limit.
    """
    from ...mpi_runtime.cluster import Cluster

    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _end)
    done = Cluster.of(name).run(command, ranks, ranks_per_node, limit)
    sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


@cluster.command()
@click.option("--json", "json_path", metavar="FILE", help="Write the status as JSON; - for standard output.")
def status(json_path: str | None) -> None:
    """Show which clusters are up: shape, nodes, the kernel's own rates, and bytes over each uplink."""
    from ...mpi_runtime.cluster import Cluster
    from ...mpi_runtime.cluster.report import report

    check_writable(json_path)
    clusters = Cluster.all()
    reports = [report(each) for each in clusters]
    emit(json_path, {"clusters": reports})
    if json_path == "-":
        return
    if not clusters:
        click.echo("No emulated cluster is up; athanor cluster up makes one.")
    for each, found in zip(clusters, reports, strict=True):
        click.echo(f"{found['name']}: {_described(each)}")
        if found["kind"] == "namespaces":
            _show_links(found)


@cluster.command()
@NAME
@click.option("-o", "output", metavar="FILE", required=True, help="The machine file to write.")
def machine(name: str, output: str) -> None:
    """Write the machine file of a cluster, with its nominal rates only, for athanor simulate --machine FILE."""
    from ...mpi_runtime.cluster import Cluster

    found = Cluster.of(name)
    if found.state.holder is None:
        raise InputError(f"--name {name}: the loopback device has no topology that a machine file could describe")
    _write_machine(output, found.shape)


@cluster.command()
@NAME
@click.option("--all", "every", is_flag=True, help="Remove all clusters.")
def down(name: str, every: bool) -> None:
    """Take a cluster down, and end whatever runs on it."""
    from ...mpi_runtime.cluster import Cluster

    for each in Cluster.all() if every else [Cluster.of(name)]:
        each.down()
        click.echo(f"{each.state.name}: down")


def _end(number: int, frame: FrameType | None) -> None:
    """End a job as an interruption does, with the status that a shell gives for the signal."""
    sys.exit(128 + number)


def _described(made: Cluster) -> str:
    """A cluster in one line."""
    shape, holder = made.shape, made.state.holder
    if holder is None:
        return f"{len(made.nodes)} ranks on the loopback device, plain TCP without a topology"
    tree = f"{shape.supernodes} supernodes of {shape.nodes} nodes, {_bits(shape.node_rate)} each"
    return f"{tree}, uplinks {_bits(shape.uplink_rate)}; holder is process {holder.pid}"


def _bits(rate: float) -> str:
    from ...hardware.units import si

    return si(8 * rate, "bit/s")


def _show_links(found: dict[str, Any]) -> None:
    from ...hardware.units import si
    from ...reports.tables.runs import table

    addresses = {node["name"]: node["address"] for node in found["nodes"]}
    rows = [
        (
            link["low"],
            addresses.get(link["low"], ""),
            link["high"],
            _bits(link["rate_up"]),
            _bits(link["rate_down"]),
            si(link["bytes_up"], "B"),
            si(link["bytes_down"], "B"),
        )
        for link in found["links"]
    ]
    columns = ["link of", "address", "to", "rate up", "rate down", "sent up", "sent down"]
    console().print(table("", columns, rows, text_columns=3))


def _write_machine(output: str, shape: Shape) -> None:
    from ...hardware.files import write_whole
    from ...hardware.machine_writer import machine_toml
    from ...mpi_runtime.cluster import machine_of

    write_whole(output, machine_toml(machine_of(shape)))
