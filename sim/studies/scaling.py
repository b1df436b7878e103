"""Scaling studies: the same model on ever more nodes, with the work growing along (weak) or fixed (strong)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Unpack

from ...hardware.errors import InputError
from ...hardware.machine import Machine, load_machine
from ...hardware.version import key
from ...workloads.lowering.simulator_memory import require_room
from ...workloads.model.model import Model, load_model
from ...workloads.plan.plan_options import PlanOptions
from ...workloads.plan.run_file import resolved
from ...workloads.plan.setting import Setting
from ...workloads.plan.signatures import documented
from ..simulate import simulate

Kind = Literal["weak", "strong"]

DEFAULT_SHARES: dict[Kind, tuple[str, ...]] = {
    "weak": ("1/16", "1/8", "3/16", "1/4", "3/8", "1/2", "5/8", "3/4", "1"),
    "strong": ("1/16", "1/8", "1/4", "1/2", "1"),
}
"""Node counts where the user names none, as shares of those that the reference plan uses."""


@dataclass(frozen=True)
class ScalingPoint:
    """One node count of a study: the summary of its run, and how it compares with the smallest one."""

    nodes: int
    summary: dict[str, Any]
    speedup: float = 1.0
    efficiency: float = 1.0


@dataclass(frozen=True)
class Study:
    """A scaling study.

    Strong: ``speedup`` is the smallest run's step time over this one's, ideally the ratio of nodes. Weak: work grows
    with the nodes, so ``speedup`` is the ratio of tokens per second. ``efficiency`` is speedup over ideal.
    """

    kind: Kind
    machine: Machine
    model: Model
    options: dict[str, Any]
    points: list[ScalingPoint] = field(default_factory=list)

    def with_point(self, nodes: int, summary: dict[str, Any]) -> Study:
        """The study with one more point."""
        smallest = self.points[0] if self.points else ScalingPoint(nodes, summary)
        speedup = summary["tokens_per_second"] / smallest.summary["tokens_per_second"]
        point = ScalingPoint(nodes, summary, speedup, speedup / (nodes / smallest.nodes))
        return Study(self.kind, self.machine, self.model, self.options, [*self.points, point])

    def to_plain(self) -> dict[str, Any]:
        """The study as plain data."""
        return {
            "kind": self.kind,
            "machine": self.machine.name,
            "model": self.model.name,
            "options": self.options,
            "points": [
                {"nodes": point.nodes, "speedup": point.speedup, "efficiency": point.efficiency, **point.summary}
                for point in self.points
            ],
        }


@documented()
def scale(
    kind: Kind,
    machine: str | Path | Machine,
    model: str | Path | Model | None = None,
    nodes: Iterable[int] | None = None,
    *,
    allow_overcommit: bool | None = None,
    known: Mapping[str, dict[str, Any]] | None = None,
    on_point: Callable[[str, Study], None] | None = None,
    **options: Unpack[PlanOptions],
) -> Study:
    """Simulate ``model`` on each of ``nodes`` nodes of ``machine``, the smallest first.

    The reference is the plan as ``options`` and the model give it. Weak: experts, ``ep`` and samples grow with the
    nodes. Strong: experts and the global batch stay, ``dp`` grows (or ``ep``, where there is no ``dp``). ``on_point``
    hears of each point as it is done, with its key; points whose key is in ``known`` are taken from there instead of
    being simulated again.
    """
    machine, model, given, overcommit = resolved(machine, model, options, allow_overcommit)
    hardware, chosen = load_machine(machine), load_model(model)
    reference = Setting.of(hardware, chosen, given)
    require_room(reference)
    counts = sorted(set(nodes)) if nodes is not None else default_nodes(kind, reference)
    if not counts:
        raise InputError("--nodes: a study needs at least one node count")
    plans = [(count, *scaled(kind, reference, count)) for count in counts]
    study = Study(kind, hardware, chosen, {key: value for key, value in given.items() if value is not None})
    for count, grown, changed in plans:
        combined = {**given, **changed}
        name = _key(hardware, grown, combined)
        summary = (known or {}).get(name) or _simulated(hardware, grown, combined, overcommit)
        study = study.with_point(count, summary)
        if on_point:
            on_point(name, study)
    return study


def default_nodes(kind: Kind, reference: Setting) -> list[int]:
    """Node counts for which the reference divides evenly, from a sixteenth of its nodes up."""
    counts = []
    for share in DEFAULT_SHARES[kind]:
        part, _, whole = share.partition("/")
        count, rest = divmod(reference.layout.nodes * int(part), int(whole or 1))
        try:
            if not rest and count:
                scaled(kind, reference, count)
                counts.append(count)
        except InputError:
            continue
    return counts


def scaled(kind: Kind, reference: Setting, nodes: int) -> tuple[Model, dict[str, Any]]:
    """Model and options for ``nodes`` nodes; raises :class:`InputError` where the reference does not divide, with the numbers."""
    mesh, model = reference.mesh, reference.model
    if nodes < 1:
        raise InputError(f"--nodes {nodes}: a study needs at least one node")
    ranks, rest = divmod(mesh.ranks * nodes, reference.layout.nodes)
    if rest or not ranks:
        raise InputError(
            f"--nodes {nodes:,}: {mesh.ranks:,} ranks on {reference.layout.nodes:,} nodes give no whole number there"
        )
    grows = "ep" if "dp" not in mesh.axes or (kind == "weak" and "ep" in mesh.axes) else "dp"
    others = mesh.ranks // mesh.size(grows)
    size, rest = divmod(ranks, others)
    if rest or not size:
        raise InputError(
            f"--nodes {nodes:,}: {ranks:,} ranks are no multiple of the {others:,} along other axes than {grows} ({mesh})"
        )
    sizes = {axis: size if axis == grows else mesh.size(axis) for axis in mesh.axes}
    if kind == "weak":
        experts, rest = divmod(model.experts * ranks, mesh.ranks)
        if (rest or experts < (reference.plan.top_k or model.top_k)) and "ep" in mesh.axes:
            raise InputError(
                f"--nodes {nodes:,}: {model.experts:,} experts x {ranks:,}/{mesh.ranks:,} ranks is no number of experts"
            )
        tokens = reference.batch.tokens
        grown = model.with_experts(experts) if "ep" in mesh.axes else model
    else:
        grown = model
        tokens, rest = divmod(reference.batch.tokens * mesh.ranks, ranks)
        if rest:
            raise InputError(
                f"--nodes {nodes:,}: {reference.batch.tokens * mesh.ranks:,} tokens do not divide over {ranks:,} ranks"
            )
    return grown, {
        "mesh": sizes,
        "placement": reference.plan.placement,
        "tokens_per_rank": tokens,
        "global_batch": None,
        "micro_batch": _micro_batch(reference, tokens),
    }


def _micro_batch(reference: Setting, tokens: int) -> int | None:
    """Micro-batches stay as large as the reference's, as far as a rank has so many tokens."""
    sequences, rest = divmod(reference.batch.micro_tokens, reference.batch.seq_len)
    fits = sequences and not rest and tokens % (sequences * reference.batch.seq_len) == 0
    return sequences if fits else None


def _simulated(machine: Machine, model: Model, options: dict[str, Any], allow_overcommit: bool) -> dict[str, Any]:
    return simulate(machine, model, allow_overcommit=allow_overcommit, **options).summary()


def _key(machine: Machine, model: Model, options: Mapping[str, Any]) -> str:
    """What decides a point's result."""
    return key(machine.model_dump(), model.model_dump(), {k: v for k, v in options.items() if v is not None})
