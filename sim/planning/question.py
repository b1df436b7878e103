"""What a search is about: a machine, a model, how many ranks, and which choices of a plan are open."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...hardware.errors import InputError, suggestion
from ...hardware.machine import Machine
from ...hardware.version import version
from ...workloads.mesh.axes import AXES
from ...workloads.mesh.placement import resolve_ranks_per_node
from ...workloads.model.model import Model
from ...workloads.pipelines.stage_layers import WAYS
from ...workloads.plan.choices import registry_of
from ...workloads.plan.plan import Plan

DIMENSIONS = tuple(name for name, each in Plan.options().items() if each.searched)
"""Choices of a plan beside its mesh that a search makes: :class:`~.space.Space` says which values it tries where none are given.

What changes the result of training (``pipedream``, ``2bw``, ``++``, ``--offload-delay``, ``--optimizer``), or needs other kernels
(``--attention``, ``--tensor 2d``) is tried where it is asked for.
"""

OPEN_AXES = ("dp", "tp", "pp", "ep")
"""Axes of the mesh that a search tries where none are named; cp and fsdp are tried where they are asked for."""


@dataclass(frozen=True)
class Question:
    """A search: ``fixed`` are options of the plan that all plans share, ``tries`` values of those that are open.

    ``memory`` is what a rank may take at most, in bytes. ``axes[axis]`` are the sizes that an axis may have. ``said`` are the
    words that name machine and model on the command line, where these are not their names. Open choices of which ``tries`` names
    no values keep to those of ``narrowed``, where they have any of these.
    """

    machine: Machine
    model: Model
    ranks: int
    ranks_per_node: int
    fixed: Mapping[str, Any]
    tries: Mapping[str, tuple[Any, ...]]
    axes: Mapping[str, tuple[int, ...]]
    memory: float
    said: tuple[str, ...] = ()
    narrowed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        machine: Machine,
        model: Model,
        options: Mapping[str, Any],
        tries: Sequence[str] = (),
        gpus: int | None = None,
        nodes: int | None = None,
        memory: float | None = None,
        said: tuple[str, ...] = (),
    ) -> Question:
        """Check what a user asks for; raises :class:`InputError` with the flag that is wrong."""
        given = {key: value for key, value in options.items() if value is not None}
        if "zero" in given:
            given["zero"] = str(given["zero"])
        if "mesh" in given:
            raise InputError(
                "--mesh: the search chooses it; --try tp=4,8 bounds an axis, and --gpus or --nodes all of it"
            )
        if not given.get("global_batch"):
            raise InputError(
                "--global-batch: say how many sequences a step has, for plans with the same batch to be compared"
            )
        if given.get("stage_layers", "even") not in WAYS:
            raise InputError(
                f"--stage-layers {given['stage_layers']}: a search has meshes of other stages; write even or ends"
            )
        open_, axes = _parse(tries)
        if twice := sorted(set(open_) & set(given)):
            raise InputError(f"--try {twice[0]}: --{twice[0].replace('_', '-')} fixes it already; give one of the two")
        per_node = resolve_ranks_per_node(machine, "auto", given.get("ranks_per_node"), gpus or nodes or 0)
        ranks = _ranks(machine, per_node, gpus, nodes)
        room = machine.processor(per_node).memory
        if memory is not None and memory <= 0:
            raise InputError(f"--max-memory {memory:g}: must be above 0")
        return cls(machine, model, ranks, per_node, given, open_, axes, min(room, memory or room), said)

    @cached_property
    def plan(self) -> Plan:
        """The plan that all candidates are changes of: the fixed options, then the model's own, then the defaults."""
        own = {
            name for name in DIMENSIONS if Plan.options()[name].tried == ()
        }  # the model's own unless others are asked for
        searched = {*DIMENSIONS, *SIZES, "mesh"} - own
        left = {key: value for key, value in self.model.plan.items() if key not in searched}
        bare = self.model.model_copy(update={"plan": left})
        options = {"mesh": {"dp": self.ranks}, "ranks_per_node": self.ranks_per_node, **self.fixed}
        return Plan.of(bare, options, self.machine)

    @property
    def seq_len(self) -> int:
        """Tokens of a sequence."""
        return self.plan.seq_len or self.model.seq_len

    def changed(self, **values: Any) -> Question:
        """The same question with other fields."""
        return Question(**{**{name: getattr(self, name) for name in self.__dataclass_fields__}, **values})

    @cached_property
    def digest(self) -> str:
        """A short name for all that the answer depends on."""
        parts = [
            self.machine.model_dump_json(),
            self.model.model_dump_json(),
            self.plan.to_plain(),
        ]
        text = json.dumps(
            [version(), *parts, self.ranks, self.memory, sorted(self.fixed), self.tries, self.axes, self.narrowed],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:12]


SIZES = ("tokens_per_rank", "global_batch", "micro_batch")
"""Sizes of the model's own plan that a search does not take over."""


def _ranks(machine: Machine, per_node: int, gpus: int | None, nodes: int | None) -> int:
    if (gpus is None) == (nodes is None):
        raise InputError("--gpus and --nodes: give one of the two")
    ranks = gpus if gpus is not None else (nodes or 0) * per_node
    flag = f"--gpus {gpus}" if gpus is not None else f"--nodes {nodes}"
    if ranks < 1:
        raise InputError(f"{flag}: must be at least 1")
    if ranks > machine.nodes * per_node:
        raise InputError(
            f"{flag}: {machine.name} has {machine.nodes:,} nodes of {per_node} ranks, {machine.nodes * per_node:,} in all"
        )
    return ranks


def _parse(tries: Sequence[str]) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[int, ...]]]:
    """``KEY=V1,V2`` texts as values of options, and as sizes of axes."""
    open_, axes = dict[str, tuple[Any, ...]](), dict[str, tuple[int, ...]]()
    for text in tries:
        name, equals, rest = text.partition("=")
        key, values = name.replace("-", "_"), [value for value in rest.split(";" if ";" in rest else ",") if value]
        if key not in DIMENSIONS and key not in AXES:
            raise InputError(f"--try {name}: no such choice{suggestion(name, [*DIMENSIONS, *AXES])}")
        if not equals or not values:
            raise InputError(f"--try {text}: write {name}=VALUE,..., such as --try tp=4,8 or --try pipeline=1f1b,zb-h1")
        if key in AXES:
            axes[key] = tuple(_number(text, value) for value in values)
        else:
            open_[key] = tuple(_value(key, text, value) for value in values)
    return open_, axes


def _number(text: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise InputError(f"--try {text}: {value} is no number from 1 on")
    return int(value)


def _value(key: str, text: str, value: str) -> Any:
    """A value of an option, in its type; a wrong one is refused here and not once for every plan."""
    option = Plan.options()[key]
    if option.type is int:
        return _number(text, value)
    if option.type is bool:
        if value not in ("on", "off"):
            raise InputError(f"--try {text}: write {key.replace('_', '-')}=on,off")
        return value == "on"
    if key == "offload":
        value = value.replace("+", ",")
    allowed = option.choices()
    for part in value.split(",") if allowed and key != "placement" else ():
        name, own, _ = part.partition(":")
        if name not in allowed and not (own and registry_of(option.names)):
            raise InputError(f"--try {text}: no such value {part}{suggestion(part, allowed)}")
    return value
