"""What is measured on an accelerator, as plain data: products, attention, memory-bound operators, starts; half is held out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...hardware.precisions import BYTES, Precision
from ...workloads.lowering.layer.ffn import ACTIVATION_FLOPS
from ...workloads.lowering.layer.rank_share import NORM_FLOPS, SOFTMAX_FLOPS
from ...workloads.optimizers import Adam
from ..calibration.points import BenchPoint

LAYOUTS, FORWARD = ("forward", "data", "weights"), ("forward",)
"""A layer's product with its weights, and the two backward: the gradient of what came in, and that of the weights."""

ROW = 1024
"""Elements over which layer norm and softmax go."""

ALIGNED = 16
"""Sides of products in eighths are multiples of it: kernels take no others."""

SWEEPS = {
    "copy": (1.0, 1.0, 0.0),
    "add": (2.0, 1.0, 1.0),
    "sum": (1.0, 0.0, 1.0),
    "fill": (0.0, 1.0, 0.0),
    "layer norm": (1.0, 1.0, NORM_FLOPS),
    "GELU": (1.0, 1.0, ACTIVATION_FLOPS),
    "softmax": (1.0, 1.0, SOFTMAX_FLOPS),
    "Adam": (4.0, 3.0, Adam.flops),
}
"""Memory-bound operators: elements read and written, and FLOPs, for each element; as simulated steps count them.

Adam reads a gradient, a weight and two moments, and writes the last three, all in single precision.
"""

STARTS = ("add", "product", "softmax")
"""Operators on one element, many in a row."""

LOOP = 100_000
"""Steps of a serial loop of the host."""


@dataclass(frozen=True)
class Grid:
    """The sizes that suit a kind of device.

    ``hidden`` and ``tokens`` make the products of Transformer layers, ``odd`` are (m, n, k) that fit no tile or are long and
    thin, ``attention`` are (sequences, heads, tokens of a sequence, elements of a head), ``elements`` those of sweeps.
    """

    hidden: tuple[int, ...]
    tokens: tuple[int, ...]
    odd: tuple[tuple[int, int, int], ...]
    attention: tuple[tuple[int, int, int, int], ...]
    elements: tuple[int, ...]

    def quick(self) -> Grid:
        """Fewer sizes, the largest left out."""
        return Grid(self.hidden[:2], self.tokens[:3], self.odd[::2], self.attention[:4], self.elements[:4])

    def shapes(self) -> list[tuple[int, int, int]]:
        """(m, n, k) of a layer's forward products, by their FLOPs; each width and number of tokens has two of its four."""
        found: set[tuple[int, int, int]] = set()
        for i, h in enumerate(self.hidden):
            for j, t in enumerate(self.tokens):
                found |= {(t, h, h), (t, 4 * h, h)} if (i + j) % 2 else {(t, 3 * h, h), (t, h, 4 * h)}
        return sorted(found, key=_flops)


GRIDS = {
    "cpu": Grid(
        hidden=(256, 512, 1024),
        tokens=(16, 64, 256, 1024),
        odd=((1, 768, 768), (100, 100, 100), (64, 64, 4096), (257, 129, 513), (2000, 64, 96), (333, 777, 555)),
        attention=(
            (1, 4, 128, 64),
            (2, 8, 128, 64),
            (1, 4, 256, 64),
            (1, 8, 256, 128),
            (1, 4, 512, 64),
            (1, 4, 512, 128),
            (1, 2, 1024, 64),
            (1, 4, 1024, 64),
        ),
        elements=tuple(1 << power for power in range(14, 25, 2)),
    ),
    "cuda": Grid(
        hidden=(1024, 2048, 4096, 8192),
        tokens=(64, 512, 2048, 4096, 8192),
        odd=(
            (1, 4096, 4096),
            (100, 100, 100),
            (256, 256, 16384),
            (1000, 1000, 1000),
            (777, 3333, 1555),
            (16384, 128, 512),
            (2049, 4097, 2056),
            (4096, 32000, 4096),
        ),
        attention=(
            (8, 16, 512, 64),
            (4, 32, 512, 128),
            (4, 16, 1024, 64),
            (4, 16, 1024, 128),
            (4, 16, 2048, 64),
            (2, 32, 2048, 128),
            (1, 32, 4096, 64),
            (2, 16, 4096, 128),
            (1, 16, 8192, 64),
            (1, 16, 8192, 128),
        ),
        elements=tuple(1 << power for power in range(18, 29, 2)),
    ),
}


def plan(kind: str, precisions: Sequence[Precision], quick: bool) -> list[BenchPoint]:
    """All points of a device of a kind (``cpu`` or ``cuda``), in the order in which they are measured.

    Of each operator and precision small ones come first, so that what the large ones will take is known before; all operators
    get on alike, so that a calibration that runs out of time has some of each. ``precisions`` stand widest first, and not all
    of them are fp8.
    """
    grid = GRIDS[kind].quick() if quick else GRIDS[kind]
    groups: dict[tuple[Any, ...], list[BenchPoint]] = {}
    for point in [
        *_starts(precisions),
        *_products(grid, precisions),
        *_attention(grid, precisions),
        *_sweeps(grid, precisions),
    ]:
        groups.setdefault(family(point), []).append(point)
    placed = [
        (place / len(members), number, point)
        for number, members in enumerate(groups.values())
        for place, point in enumerate(sorted(members, key=lambda each: each.size))
    ]
    return [point for _, _, point in sorted(placed, key=lambda each: each[:2])]


def family(point: BenchPoint) -> tuple[Any, ...]:
    """What points have in common that differ in shape and size only."""
    detail = point.detail
    names = ("precision", "layout", "operator", "fused", "causal", "backward")
    return (point.kind, *(detail.get(name) for name in names))


def _products(grid: Grid, precisions: Iterable[Precision]) -> Iterator[BenchPoint]:
    layers, odd = enumerate(grid.shapes()), enumerate(sorted(set(grid.odd) - set(grid.shapes()), key=_flops))
    for (place, (rows, columns, depth)), layouts in [
        *((each, LAYOUTS) for each in layers),
        *((each, FORWARD) for each in odd),
    ]:
        for precision in precisions:
            eighths = precision == "fp8"
            if eighths and any(side % ALIGNED for side in (rows, columns, depth)):
                continue
            for layout in FORWARD if eighths else layouts:
                m, n, k = _laid(rows, columns, depth, layout)
                detail = {"m": m, "n": n, "k": k, "precision": precision, "layout": layout}
                series = f"{precision} {layout} {m} x {n} x {k}"
                yield BenchPoint("gemm", series, 2 * m * n * k, detail, held_out=place % 2 == 1)


def _flops(shape: tuple[int, int, int]) -> tuple[int, tuple[int, int, int]]:
    """What shapes are sorted by."""
    return shape[0] * shape[1] * shape[2], shape


def _laid(rows: int, columns: int, depth: int, layout: str) -> tuple[int, int, int]:
    """(m, n, k) of a layer's product in one of its passes."""
    return {
        "forward": (rows, columns, depth),
        "data": (rows, depth, columns),
        "weights": (columns, depth, rows),
    }[layout]


def _attention(grid: Grid, precisions: Sequence[Precision]) -> Iterator[BenchPoint]:
    """Fused forward and backward under a causal mask, as GPTs train, and without one forward; in single operators forward.

    In two-byte formats, for which such kernels are made, and in wider ones only where the device has none of these.
    """
    wanted = [each for each in precisions if BYTES[each] == 2] or [each for each in precisions if BYTES[each] > 2]
    kinds = ((True, True, False), (True, True, True), (True, False, False), (False, True, False), (False, False, False))
    shapes = sorted(grid.attention, key=lambda shape: shape[0] * shape[1] * shape[2] ** 2 * shape[3])
    for number, (fused, causal, backward) in enumerate(kinds):
        for place, (sequences, heads, length, size) in enumerate(shapes):
            for precision in wanted:
                count, products = sequences * heads, 5 if backward else 2
                detail = {
                    "count": count,
                    "length": length,
                    "size": size,
                    "precision": precision,
                    "fused": fused,
                    "causal": causal,
                    "backward": backward,
                }
                words = [
                    precision,
                    "fused" if fused else "unfused",
                    "causal" if causal else "full",
                    "backward" if backward else "forward",
                    f"{sequences} x {heads} x {length} x {size}",
                ]
                flops = 2 * products * count * length * length * size
                yield BenchPoint("attention", " ".join(words), flops, detail, held_out=(place + number) % 2 == 1)


def _sweeps(grid: Grid, precisions: Sequence[Precision]) -> Iterator[BenchPoint]:
    """Each operator in formats of four bytes and more and in the first of two; Adam in single."""
    halves = [each for each in precisions if BYTES[each] == 2][:1]
    wanted: list[Precision] = [each for each in precisions if BYTES[each] >= 4] + halves
    for number, (operator, (read, written, _)) in enumerate(SWEEPS.items()):
        for place, elements in enumerate(grid.elements):
            for precision in [each for each in wanted if operator != "Adam" or each == "fp32"]:
                detail = {"operator": operator, "elements": elements, "precision": precision}
                nbytes = int((read + written) * BYTES[precision] * elements)
                series = f"{precision} {operator}, {elements} elements"
                yield BenchPoint("sweep", series, nbytes, detail, held_out=(place + number) % 2 == 1)


def _starts(precisions: Sequence[Precision]) -> Iterator[BenchPoint]:
    precision = precisions[0]
    for operator in STARTS:
        yield BenchPoint(
            "start", f"{precision} {operator} of one element", 1, {"operator": operator, "precision": precision}
        )
    yield BenchPoint("loop", "serial steps", LOOP)
