"""A machine's file system: what it reads and writes in all, what one node reaches, and how fast it makes files."""

from __future__ import annotations

from pydantic import Field

from ..records import Record
from ..units import BytesPerSecond, SecondsOrZero


class Storage(Record):
    """A parallel file system of ``servers``, behind the top of the machine's fabric.

    ``read`` and ``write`` are the rates of all servers together; one node reaches ``client`` at most, and never more than its
    network cards. ``metadata_rate`` files are opened a second, and each takes ``latency`` at least.
    """

    servers: int = Field(default=1, gt=0)
    read: BytesPerSecond
    write: BytesPerSecond
    client: BytesPerSecond | None = None
    metadata_rate: float = Field(default=50_000.0, gt=0)
    latency: SecondsOrZero = 1e-3
