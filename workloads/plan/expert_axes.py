"""Over which axes of a mesh the experts of a layer are spread, and how a degree that counts dp x cp x tp becomes axes.

Experts have a grid of their own (Megatron-Core's parallel folding, Liu et al. 2025, arXiv 2504.14960): ranks that attention cuts
sequences or matrices over may each hold other experts. Tensor parallelism of experts is innermost, then come their ranks over
tp, cp and dp, then replicas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError
from ..mesh.axes import CONTEXT

if TYPE_CHECKING:
    from ..mesh.mesh import Mesh
    from .plan import Plan


def expert_axes(plan: Plan, mesh: Mesh) -> tuple[str, ...]:
    """The axes over which whole experts are dealt; ``ep`` where the mesh has none of them."""
    context = CONTEXT if plan.expert_context == "spread" else ()
    tensor = ("tp",) if plan.expert_tensor == "whole" else ()
    return tuple(axis for axis in ("ep", *context, *tensor) if axis in mesh.axes) or ("ep",)


def fold(options: dict[str, Any]) -> dict[str, Any]:
    """A plan's options without ``expert_parallel``: the mesh with an ``ep`` of its own, cut out of dp, and what lies over cp.

    Raises :class:`InputError` where the degree covers an axis in part.
    """
    degree = options.get("expert_parallel")
    if degree is None:
        return options
    found = {key: value for key, value in options.items() if key != "expert_parallel"}
    mesh: dict[str, int] = dict(found["mesh"])
    flag = f"--expert-parallel {degree}"
    if mesh.get("ep", 1) > 1:
        raise InputError(f"{flag}: the mesh has ep={mesh['ep']}; name one of the two", "--expert-parallel with ep")
    rest = int(degree)
    if found.get("expert_tensor") == "whole":
        rest = _through(flag, rest, "tp", mesh.get("tp", 1), "; or split experts over tp (--expert-tensor split)")
    if rest > 1 and mesh.get("cp", 1) > 1:
        rest = _through(flag, rest, "cp", mesh["cp"], "")
        found["expert_context"] = "spread"
    if rest > 1:
        dp, left = divmod(mesh.get("dp", 1), rest)
        if left:
            raise InputError(
                f"{flag}: leaves {rest} for dp={mesh.get('dp', 1)}, which it does not divide",
                "--expert-parallel does not divide dp",
            )
        mesh = _beside_dp(mesh, dp, rest)
    return {**found, "mesh": mesh}


def _through(flag: str, rest: int, axis: str, size: int, else_: str) -> int:
    """What is left of a degree that covers all of an axis."""
    if rest % size:
        raise InputError(
            f"{flag}: leaves {rest} for {axis}={size}; experts lie over all of an axis or none of it{else_}",
            f"--expert-parallel covers {axis} in part",
        )
    return rest // size


def _beside_dp(mesh: dict[str, int], dp: int, ep: int) -> dict[str, int]:
    """The mesh with ``ep`` just inside of dp, of which it was a part."""
    found: dict[str, int] = {}
    for axis, size in mesh.items():
        if axis == "dp":
            found |= ({"dp": dp} if dp > 1 else {}) | {"ep": ep}
        elif axis != "ep":
            found[axis] = size
    return found
