"""Scaling studies: the same model on ever more nodes, with the work growing along (weak) or fixed (strong)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

from ...hardware.errors import InputError, suggestion
from ...hardware.machine import Machine, load_machine
from ...hardware.shown import Shown
from ...hardware.version import key
from ...workloads.lowering.simulator_memory import require_room
from ...workloads.mesh.axes import axes_of
from ...workloads.model.model import Model, load_model
from ...workloads.plan.plan_options import PlanOptions
from ...workloads.plan.run_file import resolved
from ...workloads.plan.setting import Setting
from ...workloads.plan.signatures import documented
from ..simulate import simulate
from ..workers import Workers
from .points import crew_of, points

Kind = Literal["weak", "strong"]
Grow = Literal["experts", "data"]
"""What grows with the nodes of a weak study, beside the batch: experts and ``ep``, or only ``dp``, the model being fixed."""

DEFAULT_SHARES: dict[Kind, tuple[str, ...]] = {
    "weak": ("1/16", "1/8", "3/16", "1/4", "3/8", "1/2", "5/8", "3/4", "1"),
    "strong": ("1/16", "1/8", "1/4", "1/2", "1"),
}
"""Node counts where the user names none, as shares of those that the reference plan uses."""


@dataclass(frozen=True)
class ScalingPoint:
    """One node count of a study: the summary of its run, and how it compares with the smallest one.

    ``experts`` is those of a layer of the model at this point, 0 for a dense model; its mesh and parameters are in the summary.
    """

    nodes: int
    summary: dict[str, Any]
    experts: int = 0
    speedup: float = 1.0
    efficiency: float = 1.0


@dataclass(frozen=True)
class Study(Shown):
    """A scaling study.

    Strong: ``speedup`` is the smallest run's step time over this one's, ideally the ratio of nodes. Weak: work grows
    with the nodes, so ``speedup`` is the ratio of tokens per second. ``efficiency`` is speedup over ideal. ``grow`` says
    what grows beside the batch in a weak study; None in a strong one.
    """

    kind: Kind
    machine: Machine
    model: Model
    options: dict[str, Any]
    points: list[ScalingPoint] = field(default_factory=list)
    grow: Grow | None = None
    newest: ScalingPoint | None = None
    """The point that was done last; points are in the order of nodes, whichever was done first."""

    def with_point(self, nodes: int, summary: dict[str, Any], experts: int) -> Study:
        """The study with one more point."""
        added = ScalingPoint(nodes, summary, experts)
        every = sorted([*self.points, added], key=lambda point: point.nodes)
        points = [_beside(every[0], point) for point in every]
        return replace(self, points=points, newest=points[every.index(added)])

    def to_plain(self) -> dict[str, Any]:
        """The study as plain data."""
        return {
            "kind": self.kind,
            "machine": self.machine.name,
            "model": self.model.name,
            "grow": self.grow,
            "options": self.options,
            "points": [
                {
                    "nodes": point.nodes,
                    "speedup": point.speedup,
                    "efficiency": point.efficiency,
                    "experts": point.experts,
                    **point.summary,
                }
                for point in self.points
            ],
        }


def _beside(smallest: ScalingPoint, point: ScalingPoint) -> ScalingPoint:
    """A point with what it gains over the smallest."""
    speedup = point.summary["tokens_per_second"] / smallest.summary["tokens_per_second"]
    return replace(point, speedup=speedup, efficiency=speedup / (point.nodes / smallest.nodes))


@documented()
def scale(
    kind: Kind,
    machine: str | Path | Machine,
    model: str | Path | Model | None = None,
    nodes: Iterable[int] | None = None,
    *,
    grow: Grow | None = None,
    allow_overcommit: bool | None = None,
    known: Mapping[str, dict[str, Any]] | None = None,
    on_point: Callable[[str, Study], None] | None = None,
    jobs: int = 1,
    workers: Workers | None = None,
    **options: Unpack[PlanOptions],
) -> Study:
    """Simulate ``model`` on each of ``nodes`` nodes of ``machine``, the smallest first.

    The reference is the plan as ``options`` and the model give it. Weak: the batch grows with the nodes, and with ``grow``
    "experts" so do the experts and ``ep`` (each point is a larger model then), with "data" only ``dp`` (all points are the
    same model); by default experts where the mesh has ``ep``, else data. Strong: model and global batch stay, ``dp`` grows
    (or ``ep``, or ``fsdp``, where there is none of the axes before). ``on_point`` hears of each point as it is done, with its
    key; points whose key is in ``known`` are taken from there instead of being simulated again. ``jobs`` processes work on them,
    or ``workers`` that are there already; results do not depend on how many.

    Raises :class:`InputError` where the reference does not divide over a node count, or ``grow`` does not suit it.
    """
    machine, model, given, overcommit = resolved(machine, model, options, allow_overcommit)
    hardware, chosen = load_machine(machine), load_model(model)
    reference = Setting.of(hardware, chosen, given)
    require_room(reference)
    grows = growing(kind, reference, grow)
    counts = sorted(set(nodes)) if nodes is not None else default_nodes(kind, reference, grows)
    if not counts:
        raise InputError("--nodes: a study needs at least one node count")
    plans = [(count, *scaled(kind, reference, count, grows)) for count in counts]
    kept = {key: value for key, value in given.items() if value is not None}
    study = Study(kind, hardware, chosen, kept, grow=grows)
    tasks, sizes = dict[str, _Task](), dict[str, tuple[int, int]]()
    for count, grown, changed in plans:
        combined = {**given, **changed}
        name = _key(hardware, grown, combined)
        tasks[name], sizes[name] = (hardware, grown, combined, overcommit), (count, grown.experts)
    with crew_of(workers, jobs) as crew:
        for name, summary in points(_simulated, tasks, known, crew):
            count, experts = sizes[name]
            study = study.with_point(count, summary, experts)
            if on_point:
                on_point(name, study)
    return study


def growing(kind: Kind, reference: Setting, grow: str | None) -> Grow | None:
    """What grows in a study beside the batch; raises :class:`InputError` for what does not suit it."""
    experts = "ep" in reference.plan.mesh
    if kind == "strong":
        if grow is not None:
            raise InputError(
                f"--grow {grow}: only weak scaling takes it; in strong scaling model and batch stay the same"
            )
        return None
    if grow is None:
        return "experts" if experts else "data"
    if grow not in get_args(Grow):
        raise InputError(f"--grow {grow}: must be experts or data{suggestion(grow, get_args(Grow))}")
    if grow == "experts" and not experts:
        raise InputError(
            f"--grow experts: {reference.model.name} on {reference.mesh} has no axis ep; --grow data has none"
        )
    return "experts" if grow == "experts" else "data"


def default_nodes(kind: Kind, reference: Setting, grow: Grow | None = None) -> list[int]:
    """Node counts for which the reference divides evenly, from a sixteenth of its nodes up."""
    counts = []
    for share in DEFAULT_SHARES[kind]:
        part, _, whole = share.partition("/")
        count, rest = divmod(reference.layout.nodes * int(part), int(whole or 1))
        try:
            if not rest and count:
                scaled(kind, reference, count, grow)
                counts.append(count)
        except InputError:
            continue
    return counts


def scaled(kind: Kind, reference: Setting, nodes: int, grow: Grow | None = None) -> tuple[Model, dict[str, Any]]:
    """Model and options for ``nodes`` nodes; ``grow`` as :func:`growing` gives it.

    Raises :class:`InputError` where the reference does not divide, with the numbers.
    """
    mesh, model = reference.mesh, reference.model
    if nodes < 1:
        raise InputError(f"--nodes {nodes}: a study needs at least one node")
    ranks, rest = divmod(mesh.ranks * nodes, reference.layout.nodes)
    if rest or not ranks:
        raise InputError(
            f"--nodes {nodes:,}: {mesh.ranks:,} ranks on {reference.layout.nodes:,} nodes give no whole number there"
        )
    given = reference.plan.mesh
    grows = "ep" if grow == "experts" else _data_axis(given, kind)
    others = mesh.ranks // given.get(grows, 1)
    size, rest = divmod(ranks, others)
    if rest or not size:
        raise InputError(
            f"--nodes {nodes:,}: {ranks:,} ranks are no multiple of the {others:,} along other axes than {grows} ({mesh})"
        )
    sizes = {**given, grows: size} if grows in given else {grows: size, **given}
    if grow == "experts":
        experts, rest = divmod(model.experts * ranks, mesh.ranks)
        if rest or experts < (reference.plan.top_k or model.top_k):
            raise InputError(
                f"--nodes {nodes:,}: {model.experts:,} experts x {ranks:,}/{mesh.ranks:,} ranks is no number of experts"
            )
        tokens, grown = reference.batch.tokens, model.with_experts(experts)
    elif kind == "weak":
        tokens, grown = reference.batch.tokens, model
    else:
        grown = model
        tokens, rest = divmod(reference.batch.tokens * mesh.ranks, ranks)
        if rest:
            raise InputError(
                f"--nodes {nodes:,}: {reference.batch.tokens * mesh.ranks:,} tokens do not divide over {ranks:,} ranks"
            )
    return grown, {
        "mesh": sizes,
        "tokens_per_rank": tokens,
        "global_batch": None,
        "micro_batch": _micro_batch(reference, tokens),
    }


def _data_axis(mesh: Mapping[str, int], kind: Kind) -> str:
    """The axis along which replicas grow: one that the mesh has, else a new one."""
    known = axes_of("data", "expert") if kind == "strong" else axes_of("data")
    return next((axis for axis in known if axis in mesh), "dp")


def _micro_batch(reference: Setting, tokens: int) -> int | None:
    """Micro-batches stay as large as the reference's, as far as a rank has so many tokens."""
    sequences, rest = divmod(reference.batch.micro_tokens, reference.batch.seq_len)
    fits = sequences and not rest and tokens % (sequences * reference.batch.seq_len) == 0
    return sequences if fits else None


_Task = tuple[Machine, Model, dict[str, Any], bool]


def _simulated(task: _Task) -> dict[str, Any]:
    machine, model, options, allow_overcommit = task
    return simulate(machine, model, allow_overcommit=allow_overcommit, **options).summary()


def _key(machine: Machine, model: Model, options: Mapping[str, Any]) -> str:
    """What decides a point's result."""
    return key(machine.model_dump(), model.model_dump(), {k: v for k, v in options.items() if v is not None})
