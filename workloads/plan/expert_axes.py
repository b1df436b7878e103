"""Over which axes of a mesh the experts of a layer are spread, along which each is cut, and how degrees become axes.

Experts have a grid of their own (Megatron-Core's parallel folding, Liu et al. 2025, arXiv 2504.14960): ranks that attention cuts
sequences or matrices over may each hold other experts. Tensor parallelism of experts is innermost, then come their ranks over
tp, cp and dp, then replicas. Where a degree covers a part of tp or cp, the mesh has that axis in two
(:data:`~..mesh.axes.PARTS`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...hardware.errors import InputError, suggestion
from ..mesh.axes import CONTEXT, TENSOR

if TYPE_CHECKING:
    from ..mesh.mesh import Mesh
    from .plan import Plan

TENSOR_WAYS = ("split", "whole")
"""Words for what ``--expert-tensor`` may be beside a number of ranks."""

CONTEXT_WAYS = ("copies", "spread")
"""Words for what ``--expert-context`` may be beside a number of ranks."""


def expert_tensor(how: str, ranks: int) -> int:
    """Over how many of the ``ranks`` of tp each expert is cut; raises :class:`InputError` where these do not share out so."""
    if how in TENSOR_WAYS:
        return ranks if how == "split" else 1
    return _degree("--expert-tensor", how, "tp", ranks, TENSOR_WAYS)


def expert_context(how: str, ranks: int) -> int:
    """Over how many of the ``ranks`` of cp experts are spread; raises :class:`InputError` where these do not share out so."""
    if how in CONTEXT_WAYS:
        return ranks if how == "spread" else 1
    return _degree("--expert-context", how, "cp", ranks, CONTEXT_WAYS)


def _degree(flag: str, how: str, axis: str, ranks: int, words: tuple[str, ...]) -> int:
    """A number of ranks of an axis that divides it."""
    if not how.isdecimal() or not int(how):
        raise InputError(
            f"{flag} {how}: write {', '.join(words)} or a number of ranks of {axis}{suggestion(how, words)}"
        )
    if ranks % int(how):
        raise InputError(
            f"{flag} {how}: does not divide the {ranks} ranks of {axis}, which experts take in equal parts",
            f"{flag} does not divide {axis}",
        )
    return int(how)


def divided(plan: Plan, mesh: Mesh) -> Mesh:
    """The mesh with tp in ``tep`` and ``etp`` where experts are cut over a part of it; with cp in two where spread over one."""
    width, length = mesh.size("tp"), mesh.size("cp")
    each, over = expert_tensor(plan.expert_tensor, width), expert_context(plan.expert_context, length)
    if each not in (1, width):
        mesh = mesh.divide("tp", {"tep": width // each, "etp": each})
    return mesh if over in (1, length) else mesh.divide("cp", {"cdp": length // over, "cep": over})


def expert_axes(plan: Plan, mesh: Mesh) -> tuple[str, ...]:
    """The axes over which whole experts are dealt; ``ep`` where the mesh has none of them."""
    over = expert_context(plan.expert_context, mesh.size("cp"))
    context = CONTEXT if over == mesh.size("cp") else ("cep",)
    tensor = ("tp",) if expert_tensor(plan.expert_tensor, mesh.size("tp")) == 1 else ("tep",)
    return tuple(axis for axis in ("ep", *context, *tensor) if axis in mesh.axes) or ("ep",)


def expert_cut(plan: Plan, mesh: Mesh) -> tuple[str, ...]:
    """The axes along which each expert is cut: those of tp over which no experts are dealt."""
    dealt = expert_axes(plan, mesh)
    return tuple(axis for axis in mesh.axes if axis in TENSOR and axis not in dealt)


class Folded(NamedTuple):
    """How many ranks of dp hold other experts, and over how many of tp and cp each expert is cut and experts are spread."""

    own: int
    tensor: int
    context: int

    def options(self, tp: int, cp: int) -> dict[str, str]:
        """The options of a plan that say so; none where they are the usual ones."""
        found: dict[str, str] = {}
        if self.tensor < tp:
            found["expert_tensor"] = "whole" if self.tensor == 1 else str(self.tensor)
        if self.context > 1:
            found["expert_context"] = "spread" if self.context == cp else str(self.context)
        return found


def folded(degree: int, tensor: int, tp: int, cp: int) -> Folded:
    """How ``degree`` ranks that share experts, each cut over ``tensor`` of tp, lie over tp, cp and dp, as Megatron-Core has it.

    Raises ``ValueError`` with the reason where they would cover an axis in part and go on along the next one.
    """
    groups = tp // tensor
    rest, left = divmod(degree, groups)
    if left or not rest:
        each = f"{groups} groups of tp={tp}, each of which cuts an expert over {tensor}" if tensor > 1 else f"tp={tp}"
        raise ValueError(f"leaves {degree} for {each}; experts lie over all of these or none")
    if rest % cp == 0:
        return Folded(rest // cp, tensor, cp)
    if cp % rest == 0:
        return Folded(1, tensor, rest)
    raise ValueError(f"leaves {rest} for cp={cp}; neither divides the other")


def fold(options: dict[str, Any]) -> dict[str, Any]:
    """A plan's options without ``expert_parallel``: the mesh with an ``ep`` of its own, cut out of dp, and what lies over cp.

    Raises :class:`InputError` where the degree covers an axis in part and goes on along the next one.
    """
    degree = options.get("expert_parallel")
    if degree is None:
        return options
    found = {key: value for key, value in options.items() if key != "expert_parallel"}
    mesh: dict[str, int] = dict(found["mesh"])
    flag, tp, cp = f"--expert-parallel {degree}", mesh.get("tp", 1), mesh.get("cp", 1)
    if mesh.get("ep", 1) > 1:
        raise InputError(f"{flag}: the mesh has ep={mesh['ep']}; name one of the two", "--expert-parallel with ep")
    each = expert_tensor(str(found.get("expert_tensor", "split")), tp)
    try:
        way = folded(int(degree), each, tp, cp)
    except ValueError as reason:
        raise InputError(f"{flag}: {reason}", "--expert-parallel covers an axis in part") from None
    found |= way.options(tp, cp)
    if way.own > 1:
        dp, left = divmod(mesh.get("dp", 1), way.own)
        if left:
            raise InputError(
                f"{flag}: leaves {way.own} for dp={mesh.get('dp', 1)}, which it does not divide",
                "--expert-parallel does not divide dp",
            )
        mesh = _beside_dp(mesh, dp, way.own)
    return {**found, "mesh": mesh}


def _beside_dp(mesh: dict[str, int], dp: int, ep: int) -> dict[str, int]:
    """The mesh with ``ep`` just inside of dp, of which it was a part."""
    found: dict[str, int] = {}
    for axis, size in mesh.items():
        if axis == "dp":
            found |= ({"dp": dp} if dp > 1 else {}) | {"ep": ep}
        elif axis != "ep":
            found[axis] = size
    return found
