"""The text of a mesh, ``ep=400,dp=240``: as the command line and run files take it, and as results show it."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLE = "ep=400,dp=240"


def mesh_sizes(mesh: str | Mapping[str, int]) -> dict[str, int]:
    """Axis sizes of ``"ep=400,dp=240"``, or of a mapping as it is; raises ``ValueError`` for text that is none."""
    if not isinstance(mesh, str):
        return dict(mesh)
    sizes: dict[str, int] = {}
    for part in mesh.split(","):
        axis, _, size = (text.strip() for text in part.partition("="))
        if not axis or not size.lstrip("-").isdecimal() or axis in sizes:
            raise ValueError(f"write axis=size,..., each axis once, for example {EXAMPLE}")
        sizes[axis] = int(size)
    return sizes


def mesh_text(sizes: Mapping[str, int]) -> str:
    """``ep=400,dp=240``."""
    return ",".join(f"{axis}={size}" for axis, size in sizes.items())
