"""The axes of a mesh: one line each, with the role that all other code asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

AxisRole = Literal["data", "expert", "context", "tensor", "pipeline"]
"""What the ranks along an axis share out: sequences of a batch; experts (each rank with sequences of its own); parts of every
sequence; parts of every matrix; layers."""


@dataclass(frozen=True)
class Axis:
    """One axis: what it is in a line, its role, and how far out placements put it: ranks near each other talk most.

    ``sharded``: where a mesh has it, ZeRO shards along it and replicates along the other axes of data.
    """

    about: str
    role: AxisRole
    outward: int
    sharded: bool = False


AXES: Mapping[str, Axis] = MappingProxyType(
    {
        "dp": Axis("data parallel: replicas, each with its own tokens", "data", 6),
        "fsdp": Axis(
            "sharded replicas: with --zero they share parameters, gradients and state, and dp replicates",
            "data",
            4,
            sharded=True,
        ),
        "ep": Axis("expert parallel: parts of the experts; each rank has its own tokens", "expert", 5),
        "cp": Axis("context parallel: parts of each sequence (ring self-attention)", "context", 3),
        "tp": Axis("tensor parallel: parts of every matrix (1-D); with --tensor 2d a grid of row x col", "tensor", 2),
        "pp": Axis("pipeline stages: consecutive layers", "pipeline", 7),
    }
)
"""Axes that a plan may name."""

GRID: Mapping[str, Axis] = MappingProxyType(
    {
        "row": Axis("rows of a grid of tp", "tensor", 0),
        "col": Axis("columns of a grid of tp", "tensor", 1),
    }
)
"""Axes that ``--tensor 2d`` makes of tp."""

PARTS: Mapping[str, Axis] = MappingProxyType(
    {
        "tep": Axis("groups of tp that have other experts, where --expert-tensor lies between 1 and tp", "tensor", 2),
        "etp": Axis("ranks of tp that share each expert there", "tensor", 2),
        "cdp": Axis(
            "groups of cp that have copies of the same experts, where --expert-context is a number", "context", 3
        ),
        "cep": Axis("ranks of cp that have other experts there", "context", 3),
    }
)
"""Axes into which experts of a degree of their own divide one; the axis stands for both of its parts (:meth:`Mesh.divide`)."""

EVERY: Mapping[str, Axis] = MappingProxyType({**AXES, **GRID, **PARTS})
"""All of them."""


def axes_of(*roles: AxisRole) -> tuple[str, ...]:
    """The axes of these roles, without parts of axes."""
    return tuple(name for name, axis in EVERY.items() if axis.role in roles and name not in PARTS)


def with_parts(axes: tuple[str, ...]) -> tuple[str, ...]:
    """These axes, and those that may stand in their place in a mesh."""
    roles = {EVERY[axis].role for axis in axes}
    return (*axes, *(name for name, axis in PARTS.items() if axis.role in roles))


DATA = axes_of("data", "expert")
"""Axes whose ranks have tokens of their own."""

CONTEXT = axes_of("context")
"""Axes along which sequences are cut."""

REPLICAS = with_parts((*DATA, *CONTEXT))
"""Axes along which weights are the same, but for the experts that :data:`DATA` cuts."""

SHARDED = tuple(name for name, axis in AXES.items() if axis.sharded)
"""Axes that sharding keeps to where a mesh has them."""

TENSOR = with_parts(axes_of("tensor"))
"""Axes along which matrices are cut."""

STAGES = axes_of("pipeline")
"""Axes along which layers are cut."""

OUTWARD = tuple(sorted(EVERY, key=lambda name: EVERY[name].outward))
"""All axes, from the one whose ranks talk most to the one whose ranks talk least."""
