"""A torus of two or three dimensions."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from ..units import BytesPerSecond, SecondsOrZero
from .fabric import Array, Fabric, Index, Leg, LinkKind, in_order


def _lengths(value: Any) -> Any:
    """``"8x8x4"`` as the list that it stands for; anything else as it is."""
    return [part.strip() for part in value.split("x")] if isinstance(value, str) else value


class Torus(Fabric):
    """Nodes on a grid whose rows close to rings, each joined to its neighbours by a cable in either direction.

    Node x + X (y + Y z) stands at (x, y, z) of an X x Y x Z torus. Routes go the shorter way round in the first
    dimension, then in the next (dimension order; Dally and Seitz, IEEE Trans. Computers 1987); from the opposite side
    of an even ring they go towards higher coordinates. A dimension of two has two cables between its nodes, of which
    routes use the one that leads to the higher coordinate.

    Links are numbered by dimension, in each of them first all that lead towards higher coordinates, and by the node
    that they leave. The first domain is the plane of the first two dimensions.
    """

    kind: Literal["torus"] = "torus"
    routing: Literal["dimension-order"] = "dimension-order"
    shape: Annotated[
        tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=2, max_length=3), BeforeValidator(_lengths)
    ]
    link_bandwidth: BytesPerSecond
    latency_interface: SecondsOrZero
    latency_link: SecondsOrZero

    @property
    def supernode(self) -> int:
        """Nodes of the first plane."""
        return prod(self.shape[:2])

    def check(self, nodes: int) -> None:
        """Raise ``ValueError`` unless the torus has exactly so many nodes."""
        if nodes != prod(self.shape):
            shape = "x".join(str(length) for length in self.shape)
            raise ValueError(f"nodes is {nodes:,}: a torus of {shape} has {prod(self.shape):,}")

    def kinds(self, nodes: int, injection: float, efficiency: float = 1.0) -> list[LinkKind]:
        """The links of the whole torus, in each dimension one a node and direction: routes pass nodes that are not used."""
        rate, count = efficiency * self.link_bandwidth, prod(self.shape)
        axes = "xyz"[: len(self.shape)]
        return [LinkKind(f"{axis}.{way}", rate, count, axis) for axis in axes for way in ("plus", "minus")]

    def routes(self, source: Index, target: Index, nodes: int) -> Index:
        """One dimension after another, a hop at a time."""
        hops = [hop for axis in range(len(self.shape)) for hop in self._along(axis, source, target)]
        return in_order(hops, len(source))

    def legs(self, nodes: int) -> tuple[Leg, ...]:
        """A leg a dimension: it starts with the target's coordinates in those before it, and the source's in those after."""
        node, stride, found = np.arange(prod(self.shape)), 1, []
        for axis, length in enumerate(self.shape):

            def links(source: Index, target: Index, axis: int = axis) -> Index:
                return np.stack(self._along(axis, source, target), axis=1)

            found.append(Leg(node // stride, node % (stride * length), links))
            stride *= length
        return tuple(found)

    def _along(self, axis: int, source: Index, target: Index) -> list[Index]:
        """The hops of a route in one dimension, -1 where there are fewer."""
        total, length, stride = prod(self.shape), self.shape[axis], prod(self.shape[:axis])
        start = 2 * total * axis
        here = source // stride * stride + target % stride
        ahead = (target // stride - here // stride) % length
        plus = 2 * ahead <= length
        left = np.where(plus, ahead, length - ahead)
        first, hops = np.where(plus, start, start + total), []
        for _ in range(length // 2):
            hops.append(np.where(left > 0, first + here, -1))
            place = here // stride % length
            step = (place + np.where(plus, 1, -1)) % length - place
            here = here + np.where(left > 0, step, 0) * stride
            left = left - 1
        return hops

    def latencies(self, source: Index, target: Index) -> Array:
        """``[n]`` seconds: into and out of the network, and each cable."""
        hops, stride = np.zeros(len(source), dtype=np.int64), 1
        for length in self.shape:
            ahead = (target // stride - source // stride) % length
            hops += np.minimum(ahead, length - ahead)
            stride *= length
        return np.where(source == target, self.latency_node, self.latency_interface + hops * self.latency_link)
