"""Over which axes of a mesh the experts of a layer are spread, along which each is cut, and how degrees become axes.

Experts have a grid of their own (Megatron-Core's parallel folding, Liu et al. 2025, arXiv 2504.14960): ranks that attention cuts
sequences or matrices over may each hold other experts. Tensor parallelism of experts is innermost, then come their ranks over
tp, cp and dp, then replicas. Where a degree covers a part of tp, the mesh has that axis in two (:data:`~..mesh.axes.PARTS`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError, suggestion
from ..mesh.axes import CONTEXT, TENSOR
from ..mesh.mesh import Mesh

if TYPE_CHECKING:
    from .plan import Plan

WAYS = ("split", "whole")
"""Words for what ``--expert-tensor`` may be beside a number of ranks."""


def expert_tensor(how: str, ranks: int) -> int:
    """Over how many of the ``ranks`` of tp each expert is cut; raises :class:`InputError` where these do not share out so.

    Where no expert is cut otherwise (tp of 1), any word says 1.
    """
    if how in WAYS:
        return ranks if how == "split" else 1
    if not how.isdecimal() or not int(how):
        raise InputError(f"--expert-tensor {how}: write split, whole or a number of ranks of tp{suggestion(how, WAYS)}")
    if ranks % int(how):
        raise InputError(
            f"--expert-tensor {how}: does not divide the {ranks} ranks of tp; experts are cut over equal parts of them",
            "--expert-tensor does not divide tp",
        )
    return int(how)


def divided(plan: Plan, mesh: Mesh) -> Mesh:
    """The mesh with tp in two, ``tep`` outside ``etp``, where experts are cut over a part of it."""
    width = mesh.size("tp")
    each = expert_tensor(plan.expert_tensor, width)
    return mesh if each in (1, width) else mesh.divide("tp", {"tep": width // each, "etp": each})


def expert_axes(plan: Plan, mesh: Mesh) -> tuple[str, ...]:
    """The axes over which whole experts are dealt; ``ep`` where the mesh has none of them."""
    context = CONTEXT if plan.expert_context == "spread" else ()
    tensor = ("tp",) if expert_tensor(plan.expert_tensor, mesh.size("tp")) == 1 else ("tep",)
    return tuple(axis for axis in ("ep", *context, *tensor) if axis in mesh.axes) or ("ep",)


def expert_cut(plan: Plan, mesh: Mesh) -> tuple[str, ...]:
    """The axes along which each expert is cut: those of tp over which no experts are dealt."""
    dealt = expert_axes(plan, mesh)
    return tuple(axis for axis in mesh.axes if axis in TENSOR and axis not in dealt)


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
    width = mesh.get("tp", 1)
    each = expert_tensor(str(found.get("expert_tensor", "split")), width)
    if each < width:
        rest = _through(flag, rest, f"tp/{each}" if each > 1 else "tp", width // each, "; or name another --expert-tensor")
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
