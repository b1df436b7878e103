"""Who holds what: the parameters of each part of the model on a rank, and the axes over which they are replicated."""

from __future__ import annotations

from dataclasses import dataclass

from .mesh import Mesh
from .model import Model
from .precision import Part


@dataclass(frozen=True)
class Holding:
    """Parameters of one part of the model that a rank holds, and the axes over which they are replicated."""

    part: Part
    parameters: float
    replicas: tuple[str, ...]


CUT: dict[Part, tuple[str, ...]] = {"expert": ("ep",), "attention": (), "gate": (), "norm": (), "embedding": ()}
"""The axes along which each part is cut; over all other axes of the mesh it is replicated."""


def held(model: Model, mesh: Mesh, layers: int | None = None) -> list[Holding]:
    """What a rank holds of the whole model, or of so many of its layers (then without embedding)."""
    counts, share = model.parameters, 1.0 if layers is None else layers / model.layers
    return [
        Holding(
            part, getattr(counts, part) / mesh.size(*cut) * share, tuple(axis for axis in mesh.axes if axis not in cut)
        )
        for part, cut in CUT.items()
        if layers is None or part != "embedding"
    ]
