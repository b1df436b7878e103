"""What would make a plan fit: changes of it, single ones and several together, each a plan that is valid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from ...hardware.errors import DoesNotFit, InputError
from ..loads import Load
from ..setting import Setting
from .account import memory, sample_loads
from .need import PARTS, Memory

TOGETHER = 3
"""Changes that are tried together, at most."""

Change = tuple[str, dict[str, Any]]
"""What to write, and the options of a plan that it stands for."""


@dataclass(frozen=True)
class Remedy:
    """Changes that make a plan fit, as the command line takes them, and what is needed then."""

    flags: str
    need: Memory


def require_fit(setting: Setting, loads: list[Load], need: Memory) -> None:
    """Raise :class:`DoesNotFit` where a plan does not fit: what is needed, what there is, and what would make it fit."""
    if not need.fits:
        raise DoesNotFit(f"{shortage(setting, need)}; {_advice(next(remedies(setting, loads), None))}")


def shortage(setting: Setting, need: Memory) -> str:
    """What does not fit, in one line."""
    where = f" on stage {need.stage}" if setting.mesh.size("pp") > 1 else ""
    name = f"{setting.model.name} does not fit {setting.machine.name}"
    if need.total <= need.capacity:
        return f"{name}: {need.host / 1e9:.1f} GB a rank{where} of {need.host_capacity / 1e9:.1f} GB of host memory"
    sizes = sorted(((getattr(need, part), part) for part in PARTS), reverse=True)
    largest = ", ".join(f"{part} {size / 1e9:.1f}" for size, part in sizes if size > 0.005 * need.total)
    return f"{name}: {need.total / 1e9:.1f} GB a rank{where} of {need.capacity / 1e9:.1f} GB ({largest})"


def remedies(setting: Setting, loads: list[Load]) -> Iterator[Remedy]:
    """Changes that make a plan fit, single ones first, then as many together as it takes, up to :data:`TOGETHER`.

    Only the smallest number of changes that helps is told, and no change twice that helps with less: each is the first of its kind.
    """
    families = _families(setting)
    for together in range(1, TOGETHER + 1):
        helped = False
        for chosen in combinations(families, together):
            for changes in product(*chosen):
                need = _need(setting, loads, changes)
                if need is not None and need.fits:
                    helped = True
                    yield Remedy(" ".join(text for text, _ in changes), need)
        if helped:
            return


def _advice(remedy: Remedy | None) -> str:
    if remedy is None:
        return (
            "no change of --zero, --recompute, --micro-batch, --sequence-parallel, --offload or of how --mesh shares its ranks"
            " makes it fit: use more ranks, along tp or pp, or ep for experts, or a smaller model"
        )
    return f"{remedy.flags} needs {remedy.need.total / 1e9:.1f} GB"


def _families(setting: Setting) -> list[list[Change]]:
    """Changes that exclude each other stand in one family; families, and changes in them, from cheap to dear."""
    plan, batch, mesh = setting.plan, setting.batch, setting.mesh
    stages = ("none", "selective", "full")
    levels = ["hierarchical" if setting.model.experts else "1", "2", "3"]
    deeper = stages[stages.index(plan.recompute) + 1 :]
    zero: list[Change] = [(f"--zero {level}", {"zero": level}) for level in levels[plan.shards :]]
    micro: list[Change] = [("--micro-batch 1", {"micro_batch": 1})] if batch.micro_tokens > batch.seq_len else []
    cut: list[Change] = [("--sequence-parallel", {"sequence_parallel": True})] if _can_cut(setting) else []
    recompute: list[Change] = [(f"--recompute {each}", {"recompute": each}) for each in deeper]
    found = [zero, cut, micro, recompute, _offloads(setting)]
    if plan.tensor == "1d" and mesh.size("dp") > 1:
        found.insert(4, list(_meshes(setting)))
    return [family for family in found if family]


def _can_cut(setting: Setting) -> bool:
    return setting.mesh.size("tp") > 1 and not setting.plan.sequence_parallel


def _offloads(setting: Setting) -> list[Change]:
    """What else may go to host memory, where there is one."""
    if setting.machine.node.host_memory is None:
        return []
    sets = [{"optimizer"}, {"activations"}, {"optimizer", "activations"}, {"optimizer", "parameters"}]
    if setting.model.experts:
        sets += [{"experts"}, {"optimizer", "experts"}]
    before, found = setting.plan.offloads, list[Change]()
    for each in sets:
        if not each <= before:
            names = ",".join(sorted(each | before))
            found.append((f"--offload {names}", {"offload": names}))
    return found


def _meshes(setting: Setting) -> Iterator[Change]:
    """Fewer replicas in favour of tensor parallelism (inside a node) or stages; the global batch stays."""
    mesh, batch = setting.plan.mesh, setting.batch
    sequences, rest = divmod(batch.micro_tokens, batch.seq_len)
    factor = 2
    while factor <= mesh["dp"]:
        for axis in ("tp", "pp"):
            size = mesh.get(axis, 1) * factor
            if mesh["dp"] % factor or (axis == "tp" and size > setting.ranks_per_node):
                continue
            sizes = {**mesh, "dp": mesh["dp"] // factor, axis: size}
            options = {"mesh": sizes, "tokens_per_rank": batch.tokens * factor, "global_batch": None}
            if not rest:
                options["micro_batch"] = sequences
            yield f"--mesh {','.join(f'{name}={count}' for name, count in sizes.items())}", options
        factor *= 2


def _need(setting: Setting, loads: list[Load], changes: tuple[Change, ...]) -> Memory | None:
    """What a rank needs after these changes; None where they make no valid plan."""
    options: dict[str, Any] = {}
    for _, each in reversed(changes):  # a family that stands first decides: the size of a micro-batch
        options |= each
    try:
        other = _changed(setting, options)
        return memory(other, _loads(setting, other, loads))
    except InputError:
        return None


def _changed(setting: Setting, options: dict[str, Any]) -> Setting:
    """The same setting with other options; raises :class:`InputError` where they do not go together."""
    plan = {**setting.plan.model_dump(), **options}
    bare = setting.model.model_copy(update={"plan": {}})
    other = Setting.of(setting.machine, bare, {key: value for key, value in plan.items() if value is not None})
    return replace(other, model=setting.model)


def _loads(setting: Setting, other: Setting, loads: list[Load]) -> list[Load]:
    """The loads of the changed setting: those of the first, in proportion to its tokens, where ranks are the same."""
    if not loads or setting.mesh != other.mesh:
        return sample_loads(other)
    factor = other.batch.micro_tokens / setting.batch.micro_tokens
    if factor == 1:
        return loads
    return [replace(load, sent=load.sent * factor, received=load.received * factor) for load in loads]
