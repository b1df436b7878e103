"""What would make a plan fit: changes of it, single ones and several together, each a plan that is valid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from ...hardware.errors import DoesNotFit, InputError
from ..loads.loads import Load
from ..mesh.axes import REPLICAS
from ..mesh.mesh import Mesh
from ..plan.setting import Setting
from ..recomputation import RECOMPUTATIONS
from ..sharding import SHARDINGS, Sharding
from .account import memory, sample_loads
from .need import PARTS, Memory

TOGETHER = 3
"""Changes that are tried together, at most."""

Change = dict[str, Any]
"""Options of a plan, under their names in :class:`~athanor.workloads.plan.plan.Plan`."""

Known = dict[Mesh, tuple[int, list[Load]]]
"""Loads that were drawn, by mesh, and the tokens of the micro-batch that they were drawn for."""


@dataclass(frozen=True)
class Remedy:
    """Options that make a plan fit, and what is needed then."""

    options: Change
    need: Memory

    @property
    def flags(self) -> str:
        """The options as the command line takes them."""
        return " ".join(_flag(name, value) for name, value in self.options.items())


def require_fit(setting: Setting, loads: list[Load], need: Memory) -> None:
    """Raise :class:`DoesNotFit` where a plan does not fit: what is needed, what there is, and what would make it fit."""
    if not need.fits:
        raise DoesNotFit(f"{shortage(setting, need)}; {_advice(next(remedies(setting, loads), None))}")


def shortage(setting: Setting, need: Memory) -> str:
    """What does not fit, in one line."""
    where = f" on stage {need.stage}" if setting.mesh.size("pp") > 1 else ""
    text = f"{setting.model.name} does not fit {setting.machine.name}{where}: {need}"
    if need.total <= need.capacity:
        return text
    sizes = sorted(((getattr(need, part), part) for part in PARTS), reverse=True)
    largest = ", ".join(f"{part} {size / 1e9:.1f}" for size, part in sizes if size > 0.005 * need.total)
    return f"{text} ({largest})"


def remedies(setting: Setting, loads: list[Load]) -> Iterator[Remedy]:
    """Changes that make a plan fit, single ones first, then as many together as it takes, up to :data:`TOGETHER`.

    Only the smallest number of changes that helps is told.
    """
    families, known = _families(setting), {setting.mesh: (setting.batch.micro_tokens, loads)}
    for together in range(1, TOGETHER + 1):
        helped = False
        for chosen in combinations(families, together):
            for changes in product(*chosen):
                options = {name: value for change in changes for name, value in change.items()}
                need = _need(setting, known, options)
                if need is not None and need.fits:
                    helped = True
                    yield Remedy(options, need)
        if helped:
            return


def _advice(remedy: Remedy | None) -> str:
    if remedy is None:
        return (
            "no change of --zero, --recompute, --micro-batch, --sequence-parallel, --offload or of how --mesh shares its ranks"
            " makes it fit: use more ranks, along tp or pp, or ep for experts, or a smaller model"
        )
    return f"{remedy.flags} needs {remedy.need.total / 1e9:.1f} GB"


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if name == "mesh":
        value = ",".join(f"{axis}={size}" for axis, size in value.items())
    return flag if value is True else f"{flag} {value}"


def _families(setting: Setting) -> list[list[Change]]:
    """Changes that exclude each other stand in one family; families, and changes in them, from cheap to dear."""
    plan, batch = setting.plan, setting.batch
    families: list[list[Change]] = [
        [{"zero": kind} for kind in _more_sharded(setting)],
        [{"sequence_parallel": True}] if setting.mesh.size("tp") > 1 and not plan.sequence_parallel else [],
        list(_meshes(setting)) if plan.tensor == "1d" and setting.mesh.size("dp") > 1 else [],
        [{"micro_batch": 1}] if batch.micro_tokens > batch.seq_len else [],
        [{"recompute": kind} for kind in _more_recomputed(setting)],
        _offloads(setting),
    ]
    return [family for family in families if family]


def _more_sharded(setting: Setting) -> list[str]:
    """Kinds of sharding that leave less on a rank than the plan's: state, then gradients, then weights; none without replicas."""
    if setting.mesh.size(*REPLICAS) == 1:
        return []

    def depth(kind: Sharding) -> int:
        return kind.shards_state + kind.shards_gradients + kind.shards_weights

    steps = dict[int, str]()
    for name, kind in SHARDINGS.items():
        usual = kind.reduces_in_two_levels == (depth(kind) == 1 and setting.model.experts > 0)
        if usual and not kind.quantises:
            steps.setdefault(depth(kind), name)
    return [steps[each] for each in sorted(steps) if each > depth(setting.plan.sharding)]


def _more_recomputed(setting: Setting) -> list[str]:
    """Kinds of recomputation that keep less than the plan's, but for those that go with few plans."""
    names, own = list(RECOMPUTATIONS), setting.plan.recompute.partition(":")[0]
    after = names.index(own) + 1 if own in names else len(names)
    kinds = ((name, RECOMPUTATIONS[name]) for name in names[after:])
    return [name for name, kind in kinds if not kind.keeps_products and not kind.of_modules]


def _offloads(setting: Setting) -> list[Change]:
    """What else may go to host memory, where there is one."""
    if setting.machine.node.host_memory is None:
        return []
    sets = [{"optimizer"}, {"activations"}, {"optimizer", "activations"}, {"optimizer", "parameters"}]
    if setting.model.experts:
        sets += [{"experts"}, {"optimizer", "experts"}]
    shares = setting.plan.offload_shares
    whole = {name for name, share in shares.items() if share == 1}
    parts = {name: f"{name}:{share:g}" for name, share in shares.items() if share < 1}
    found = dict[str, None]()
    for each in sets:
        if not each <= whole:
            kept = {text for name, text in parts.items() if name not in each}
            found[",".join(sorted(each | whole | kept))] = None
    return [{"offload": names} for names in found]


def _meshes(setting: Setting) -> Iterator[Change]:
    """Fewer replicas in favour of tensor parallelism (inside a node) or stages.

    The global batch stays, and so do micro-batches of whole sequences.
    """
    plan, batch, mesh = setting.plan, setting.batch, setting.plan.mesh
    sequences, rest = divmod(batch.micro_tokens, batch.seq_len)
    for factor in (2**power for power in range(1, mesh["dp"].bit_length())):
        for axis in ("tp", "pp"):
            size = mesh.get(axis, 1) * factor
            if mesh["dp"] % factor or (axis == "tp" and size > setting.ranks_per_node):
                continue
            change: Change = {"mesh": {**mesh, "dp": mesh["dp"] // factor, axis: size}}
            if not plan.global_batch:
                change["tokens_per_rank"] = batch.tokens * factor
            if not rest and plan.micro_batch is None:
                change["micro_batch"] = sequences
            yield change


def _need(setting: Setting, known: Known, options: Change) -> Memory | None:
    """What a rank needs with these options; None where they make no valid plan."""
    try:
        other = _changed(setting, options)
        return memory(other, _loads(other, known))
    except InputError:
        return None


def _changed(setting: Setting, options: Change) -> Setting:
    """The same setting with other options; raises :class:`InputError` where they do not go together."""
    plan = {**setting.plan.to_plain(), **options}
    bare = setting.model.model_copy(update={"plan": {}})
    return Setting.of(setting.machine, bare, {key: value for key, value in plan.items() if value is not None})


def _loads(other: Setting, known: Known) -> list[Load]:
    """The loads of the changed setting: those drawn for its mesh, in proportion to its tokens."""
    if not other.model.experts:
        return []
    if other.mesh not in known:
        known[other.mesh] = (other.batch.micro_tokens, sample_loads(other))
    tokens, loads = known[other.mesh]
    return [load.of_tokens(other.batch.micro_tokens / tokens) for load in loads]
