"""What an emulated cluster looks like: its nodes and their names, its rates, and how TCP is set up on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from ...hardware.errors import InputError, suggestion
from ...hardware.records import Record, first_error
from ...hardware.units import Bytes, BytesPerSecond, Ratio, Seconds

MOST_NODES = 256
"""Namespaces that one computer is asked to hold at most."""

CONGESTION_CONTROLS = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
"""Where the kernel tells TCP's algorithms."""


@dataclass(frozen=True)
class EmulatedNode:
    """One emulated node: its name, which is its namespace and its hostname, its IPv4 address, and its supernode's number."""

    name: str
    address: str
    supernode: int


class TcpTransport(Record):
    """How the nodes' TCP and the links' queues are set up; the defaults are what the measurements found to share links best.

    ``tcp_buffer`` limits what a connection may have under way, ``congestion_control`` names the kernel's algorithm,
    ``mtu`` is the largest packet, ``segments`` how many of them TCP may hand to a link as one (1: a link's queue
    alternates between connections packet by packet), and ``burst`` for how long a link that was idle may send without
    waiting (it makes up for timers that are late).
    """

    tcp_buffer: Bytes = 131072.0
    congestion_control: str = "reno"
    mtu: int = Field(9000, ge=1280, le=65000)
    segments: int = Field(1, ge=1, le=65535)
    burst: Seconds = 2e-3

    @model_validator(mode="after")
    def _buffers_hold_packets(self) -> TcpTransport:
        if self.tcp_buffer < 2 * self.mtu:
            raise ValueError(f"tcp_buffer is {self.tcp_buffer:.0f} B; it must hold two packets of {self.mtu} B")
        return self

    @model_validator(mode="after")
    def _the_kernel_has_the_algorithm(self) -> TcpTransport:
        known = CONGESTION_CONTROLS.read_text().split() if CONGESTION_CONTROLS.exists() else []
        if known and self.congestion_control not in known:
            reason = f"no such algorithm in this kernel{suggestion(self.congestion_control, known)}"
            raise ValueError(f"congestion_control is {self.congestion_control}: {reason}")
        return self


class Shape(Record):
    """A pruned fat tree of ``supernodes`` times ``nodes`` nodes that send ``node_rate`` bytes a second each.

    The uplink of a supernode carries ``taper`` of what its nodes send together. Rates are those of Ethernet frames, in
    each direction.
    """

    supernodes: int = Field(2, gt=0, le=200)
    nodes: int = Field(2, gt=0, le=200)
    node_rate: BytesPerSecond = 25e6
    taper: Ratio = 3 / 16
    transport: TcpTransport = TcpTransport()

    @model_validator(mode="after")
    def _one_computer_can_hold_it(self) -> Shape:
        if (count := self.supernodes * self.nodes) > MOST_NODES:
            raise ValueError(
                f"{self.supernodes} supernodes of {self.nodes} are {count} nodes; at most {MOST_NODES} are allowed"
            )
        return self

    @property
    def uplink_rate(self) -> float:
        """Bytes per second and direction between a supernode and the top."""
        return self.nodes * self.node_rate * self.taper

    @property
    def all_nodes(self) -> list[EmulatedNode]:
        """Every node, supernode by supernode."""
        return [
            EmulatedNode(
                f"node-{number}", f"10.77.{number // self.nodes}.{10 + number % self.nodes}", number // self.nodes
            )
            for number in range(self.supernodes * self.nodes)
        ]

    @classmethod
    def of_flags(cls, flags: Mapping[str, Any]) -> Shape:
        """A shape from what a command line gave; raises :class:`InputError` that names the flag."""
        transport = {key: flags[key] for key in TcpTransport.model_fields if key in flags}
        own = {key: flags[key] for key in cls.model_fields if key in flags}
        try:
            return cls.model_validate({**own, "transport": transport})
        except ValidationError as wrong:
            key, found, reason = first_error(cls, wrong)
            if key in ("", "transport"):
                flag = next((name for name in flags if reason.startswith(f"{name} is ")), "supernodes")
                raise InputError(f"--{flag.replace('_', '-')}: {reason}") from None
            raise InputError(f"--{key.rpartition('.')[2].replace('_', '-')} {found}: {reason}") from None
