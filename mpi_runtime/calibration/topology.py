"""Where the ranks of a job live: hosts, sockets and supernodes of hosts, and who sends to whom to fill each class of links."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...hardware.errors import InputError

Partners = tuple[int, int]
"""The ranks that a rank sends to and receives from."""


@dataclass(frozen=True)
class Topology:
    """The ranks of a job on hosts that hold equally many.

    ``host[rank]`` numbers hosts in the order in which they appear, ``socket[rank]`` is the processor package that a rank is
    bound to (None where it may move). ``supernode`` is how many consecutive hosts form a supernode, 0 where they form
    none that is known.
    """

    host: tuple[int, ...]
    socket: tuple[int | None, ...]
    supernode: int = 0

    def __post_init__(self) -> None:
        counts = [self.host.count(number) for number in range(self.hosts)]
        if len(set(counts)) > 1:
            found = ", ".join(str(count) for count in counts[:8])
            raise InputError(
                f"the hosts hold {found} ranks: start equally many on each, so that one number tells them all"
            )

    @property
    def ranks(self) -> int:
        """Ranks of the job."""
        return len(self.host)

    @property
    def hosts(self) -> int:
        """Hosts of the job."""
        return max(self.host) + 1

    @property
    def ranks_per_host(self) -> int:
        """Ranks on each host."""
        return self.ranks // self.hosts

    @property
    def shape(self) -> str:
        """Ranks and hosts, in words."""
        ranks = f"{self.ranks_per_host} rank{'s' if self.ranks_per_host > 1 else ''}"
        return f"{ranks} on one host" if self.hosts == 1 else f"{ranks} on each of {self.hosts} hosts"

    @property
    def domain(self) -> int:
        """Hosts of a supernode; all hosts where none is known."""
        return min(self.supernode or self.hosts, self.hosts)

    @property
    def supernodes(self) -> int:
        """Supernodes that the hosts fill, the last perhaps partly."""
        return -(-self.hosts // self.domain)

    @cached_property
    def order(self) -> list[int]:
        """The ranks host by host: the rank at each position, as a machine places them in blocks."""
        return sorted(range(self.ranks), key=lambda rank: (self.host[rank], rank))

    @cached_property
    def position(self) -> list[int]:
        """The position of each rank in :attr:`order`."""
        found = [0] * self.ranks
        for position, rank in enumerate(self.order):
            found[rank] = position
        return found

    def grid(self, ranks: int) -> tuple[int, int]:
        """(outer, inner): the first ``ranks`` positions as supernodes with equally many ranks; one row where these differ."""
        inner = self.domain * self.ranks_per_host
        return (ranks // inner, inner) if ranks > inner and ranks % inner == 0 else (1, ranks)

    def pairs(self) -> dict[str, tuple[int, int]]:
        """Two ranks for each level that the job has: ``socket``, ``node``, ``supernode`` (between hosts) and ``top``."""
        first, found = self.order[0], dict[str, tuple[int, int]]()
        here = [rank for rank in self.order[1:] if self.host[rank] == self.host[first]]
        known = self.socket[first] is not None and None not in {self.socket[rank] for rank in here}
        near = [rank for rank in here if known and self.socket[rank] == self.socket[first]]
        far = [rank for rank in here if rank not in near]
        if near and far:
            found["socket"] = (first, near[0])
        if here:
            found["node"] = (first, (far or here)[0])
        if self.domain > 1:
            found["supernode"] = (first, self.order[self.ranks_per_host])
        if self.supernodes > 1:
            found["top"] = (first, self.order[(self.hosts - 1) * self.ranks_per_host])
        return found

    def partners(self, links: str, rank: int) -> Partners | None:
        """Whom a rank sends to and receives from, so that a class of ``links`` is full in both directions; None for idle ranks.

        ``ring``: the next rank of the host. ``nic``: the same place on the next host of the supernode. ``trunk``: the same
        place in the next supernode; a last supernode that is not full is left out.
        """
        width, domain = self.ranks_per_host, self.domain
        host, slot = divmod(self.position[rank], width)
        supernode, inside = divmod(host, domain)
        if links == "ring":
            at, places = slot, [host * width + other for other in range(width)]
        elif links == "nic":
            first = supernode * domain
            at, places = inside, [(first + other) * width + slot for other in range(min(domain, self.hosts - first))]
        else:
            at, places = supernode, [(other * domain + inside) * width + slot for other in range(self.hosts // domain)]
        if len(places) < 2 or at >= len(places):
            return None
        return self.order[places[(at + 1) % len(places)]], self.order[places[at - 1]]


def socket() -> int | None:
    """The processor package that this process is bound to; None where it may run on several, or the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    with suppress(OSError, ValueError):
        packages = {
            int(Path(f"/sys/devices/system/cpu/cpu{core}/topology/physical_package_id").read_text())
            for core in os.sched_getaffinity(0)
        }
        return packages.pop() if len(packages) == 1 else None
    return None
