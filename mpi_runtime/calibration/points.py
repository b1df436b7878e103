"""What is measured: points as plain data, in batches whose samples are taken in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import lcm
from typing import Any

from ...workloads.collectives import ALGORITHMS, rounds
from ...workloads.lowering.layer.ffn import ACTIVATION_FLOPS
from ...workloads.lowering.layer.rank_share import NORM_FLOPS, SOFTMAX_FLOPS
from .topology import Topology

KIB, MIB = 1 << 10, 1 << 20

SMALLEST = 8
"""Bytes of the messages that tell what a message costs without its content."""

LARGE = 256 * KIB
"""Bytes from which a message tells a link's rate: what is smaller may pass in the burst that a shaped link allows."""

NEAR_SWITCHES = tuple(share * size // 16 for size in (8 * KIB, 64 * KIB) for share in (12, 15))
"""Bytes just below sizes at which libraries often change from eager messages to a rendezvous: to see which side it is on."""

COMPUTED = 5e-4
"""Seconds that a rank computes, asleep, before it hands something on."""

HANDED_ON = (8, 4 * KIB, 16 * KIB, 64 * KIB, LARGE)
"""Bytes that one rank hands to another after it has computed."""

MOST_GROUPS = 4
"""Sizes of groups that collectives are measured on: all ranks, half of them, a quarter, …"""

MAIN = {"all-to-all": ("linear", "pairwise-shift", "two-level"), "all-reduce": ("ring", "two-level")}
"""What training steps use: measured on all groups, and by --quick; the other algorithms on all ranks alone."""


@dataclass(frozen=True)
class BenchPoint:
    """One thing to measure, on all ranks of the job at once.

    Points of a ``series`` differ in ``size`` alone: bytes, messages, FLOPs, elements. ``detail`` is what else tells how to
    measure it. A point that is ``held_out`` takes no part in a fit, and so says how good it is.
    """

    kind: str
    series: str
    size: int
    detail: dict[str, Any] = field(default_factory=dict)
    held_out: bool = False

    @property
    def key(self) -> str:
        """What tells it from all others of a job."""
        return f"{self.kind}: {self.series}: {self.size}"


@dataclass(frozen=True)
class PointBatch:
    """Points whose samples are taken in turn, in shuffled order."""

    name: str
    points: list[BenchPoint]


def batches(topology: Topology, quick: bool, swept: int, compute: bool = True) -> Iterator[PointBatch]:
    """All that is measured on a job; sweeps over memory pass ``swept`` bytes."""
    if topology.ranks > 1:
        yield PointBatch("messages", list(_messages(topology, quick)))
        yield PointBatch("links", list(_links(topology, quick)))
        for ranks in groups(topology.ranks)[: 1 if quick else MOST_GROUPS]:
            for operation, known in ALGORITHMS.items():
                points = [
                    point
                    for algorithm in known
                    if _wanted(operation, algorithm, ranks == topology.ranks and not quick)
                    for point in _collective(topology, operation, algorithm, ranks, quick)
                ]
                if points:
                    yield PointBatch(f"{operation} of {ranks} ranks", points)
    if compute:
        yield PointBatch("products", list(_products(quick)))
        yield PointBatch("memory", list(_memory(swept)))
        yield PointBatch("operators", list(_operators()))


def groups(ranks: int) -> list[int]:
    """All ranks, half of them, a quarter, … down to two or three."""
    return [ranks >> halvings for halvings in range(ranks.bit_length() - 1)]


def _messages(topology: Topology, quick: bool) -> Iterator[BenchPoint]:
    """Ping-pong by level, and many small messages at once."""
    sizes = [8, 512, *(KIB << power for power in range(3, 11)), *NEAR_SWITCHES]
    if not quick:
        sizes = [*sizes, 64, *(KIB << power for power in range(1, 13)), *(3 * KIB << power for power in range(10))]
    sizes = sorted(set(sizes))
    for level, (one, other) in topology.pairs().items():
        detail = {"level": level, "pair": [one, other]}
        series = f"{level}, ranks {one} and {other}"
        yield BenchPoint("library ping-pong", series, SMALLEST, detail)
        yield from (BenchPoint("ping-pong", series, size, detail) for size in sizes)
        yield from (BenchPoint("handover", series, size, detail) for size in HANDED_ON)
    yield from (BenchPoint("messages", f"{SMALLEST} bytes each", count) for count in (16, 64, 256))


def _links(topology: Topology, quick: bool) -> Iterator[BenchPoint]:
    """Every class of links that the job can fill."""
    for links in ("ring", "nic", "trunk"):
        busy = [rank for rank in range(topology.ranks) if topology.partners(links, rank)]
        if busy:
            series = f"{links}, {topology.shape}"
            series += f", supernodes of {topology.domain}" if topology.supernodes > 1 else ""
            for size in (LARGE << power for power in range(5)):
                yield BenchPoint("links", series, size, {"links": links, "ranks": len(busy)})


def _wanted(operation: str, algorithm: str, all_of_them: bool) -> bool:
    return all_of_them or algorithm in MAIN.get(operation, ())


def _collective(topology: Topology, operation: str, algorithm: str, ranks: int, quick: bool) -> Iterator[BenchPoint]:
    """An algorithm over sizes, every third held out, where it can run on the first so many ranks."""
    known = ALGORITHMS[operation][algorithm]
    outer, inner = topology.grid(ranks)
    if (known.power_of_two and ranks & (ranks - 1)) or (known.grid and (outer == 1 or inner == 1)):
        return
    shape = f"{outer} x {inner} ranks" if known.grid else f"{ranks} ranks"
    detail = {"operation": operation, "algorithm": algorithm, "ranks": ranks, "outer": outer, "inner": inner}
    series = f"{operation} {algorithm}, {shape}"
    if operation == "barrier":
        yield BenchPoint("collective", series, 0, detail)
        return
    sizes = [_rounded(nominal, operation, algorithm, outer, inner) for nominal in SIZES[: 11 if quick else None]]
    for place, size in enumerate(dict.fromkeys(sizes)):  # of many ranks small vectors are rounded up to one size
        yield BenchPoint("collective", series, size, detail, held_out=place % 3 == 2)


SIZES = [KIB << power for power in range(13)]
"""Bytes of a rank's vector, 1 KiB to 4 MiB; an all-to-all cuts it into a block for each rank."""


def _rounded(nominal: int, operation: str, algorithm: str, outer: int, inner: int) -> int:
    """The bytes of a collective nearest to ``nominal`` that its ranks share evenly; of an all-to-all, those of one block."""
    ranks = outer * inner
    if operation == "all-to-all":
        return max(1, nominal // ranks)
    parts = ranks
    if not ALGORITHMS[operation][algorithm].grid:
        parts = lcm(1, *(each.parts(ranks) for each in rounds(operation, algorithm, outer, inner)))
    return 4 * parts * max(1, round(nominal / (4 * parts)))


def _products(quick: bool) -> Iterator[BenchPoint]:
    """GEMMs from the few tokens of an expert to a whole batch, square and long, and the start of operators."""
    rows = (8, 128, 512) if quick else (8, 32, 128, 512, 1024)
    sides = ((256, 1024), (1024, 256)) if quick else ((256, 1024), (1024, 256), (512, 512), (1024, 1024), (2048, 64))
    for precision in ("fp32", "fp64"):
        for m in rows:
            for n, k in sides if precision == "fp32" or not quick else sides[:1]:
                yield BenchPoint("gemm", f"{precision} {m} x {n} x {k}", 2 * m * n * k, _gemm(m, n, k, precision))
    yield BenchPoint("gemm", "fp32 1 x 1 x 1", 2, _gemm(1, 1, 1, "fp32"))
    yield BenchPoint("start", "sweep of one element", 1)
    yield BenchPoint("loop", "serial steps", 100_000)


def _gemm(m: int, n: int, k: int, precision: str) -> dict[str, Any]:
    return {"m": m, "n": n, "k": k, "precision": precision}


def _operators() -> Iterator[BenchPoint]:
    """Operators that pass over elements, of a small and a larger layer: what each computes for an element, as it is lowered."""
    for rows, hidden in ((512, 64), (512, 256)):
        for name, size, flops in (
            ("norm", rows * hidden, NORM_FLOPS),
            ("norm gradient", rows * hidden, NORM_FLOPS),
            ("softmax", rows * hidden, SOFTMAX_FLOPS),
            ("softmax gradient", rows * hidden, SOFTMAX_FLOPS),
            ("activation", 4 * rows * hidden, ACTIVATION_FLOPS),
            ("activation gradient", 4 * rows * hidden, ACTIVATION_FLOPS),
        ):
            yield BenchPoint("operator", f"{name} of {rows} x {hidden}", size, {"operator": name, "flops": flops})


def _memory(swept: int) -> Iterator[BenchPoint]:
    """Sweeps over more memory than caches hold: copies, reads, writes, sums of vectors, and the update's bookkeeping."""
    for name, read, written in (("copy", 4, 4), ("read", 4, 0), ("write", 0, 4)):
        yield BenchPoint("sweep", name, swept, {"read": read, "written": written})
    yield BenchPoint("reduction", "a += b", swept)
    yield BenchPoint("bookkeeping", "parameters", swept // 4)
