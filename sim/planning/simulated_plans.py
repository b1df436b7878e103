"""The engine's word on single plans: the full simulation, and the same step on a machine with faster parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...hardware.core_group import CoreGroup
from ...hardware.errors import AthanorError
from ...hardware.machine import Machine
from ...workloads.lowering import lower_step
from ...workloads.plan.setting import Setting
from ..engine.noise import Noise
from ..engine.step_engine import Engine
from ..network.phases.phases import with_faster
from ..network.phases.transfers import Traffic
from ..simulate import simulate
from .question import Question


@dataclass(frozen=True)
class PlayedPlan:
    """What the engine says of a plan: its summary, or why it says nothing."""

    summary: dict[str, Any] | None
    reason: str = ""


def options_of(question: Question, mesh: Mapping[str, int], options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a plan, as ``simulate()`` takes them."""
    plan = {key: value for key, value in question.plan.to_plain().items() if value is not None}
    return {**plan, **{key: value for key, value in options.items() if value is not None}, "mesh": dict(mesh)}


def play(job: tuple[Question, dict[str, int], dict[str, Any]]) -> PlayedPlan:
    """Simulate a plan."""
    question, mesh, options = job
    bare = question.model.model_copy(update={"plan": {}})
    try:
        return PlayedPlan(simulate(question.machine, bare, **options_of(question, mesh, options)).summary())
    except AthanorError as wrong:
        return PlayedPlan(None, str(wrong))


def faster_links(job: tuple[Question, dict[str, int], dict[str, Any], str, str, float]) -> float | None:
    """Step seconds of a plan where the links of a level have ``factor`` times their bandwidth; None where it cannot be played.

    A level is in both directions: ``nic`` is ``nic.out`` and ``nic.in``.
    """
    question, mesh, options, depth, link, factor = job
    bare = question.model.model_copy(update={"plan": {}})
    try:
        setting = Setting.of(question.machine, bare, options_of(question, mesh, options))
        schedule, _ = lower_step(setting)
        traffic = Traffic(setting.machine, setting.layout, depth)
        traffic.phases = with_faster(traffic.phases, {link: factor})
        noise = Noise.of(setting, 0)
        observed = {"all": (0,) * len(setting.mesh.shape)}
        return Engine(setting.machine, schedule, traffic, noise, observed).run().seconds
    except AthanorError:
        return None


def faster_machine(job: tuple[Question, dict[str, int], dict[str, Any], dict[str, Any]]) -> float | None:
    """Step seconds of a plan on a machine with other values at some keys; None where it cannot be played."""
    question, mesh, options, settings = job
    played = play((question.changed(machine=question.machine.changed(settings)), mesh, options))
    return None if played.summary is None else float(played.summary["step_seconds"])


def levels_used(summary: Mapping[str, Any]) -> list[str]:
    """The levels of links that carry bytes in a run."""
    return list(dict.fromkeys(row["level"] for row in summary["links"]))


def faster_parts(machine: Machine, offloads: bool) -> dict[str, dict[str, Any]]:
    """What could be twice as good about a machine beside its links: the values that make it so, by name."""
    group, calibration = machine.core_group, machine.calibration
    found: dict[str, dict[str, Any]] = {
        "peak": {f"core_group.peak.{name}": 2 * rate for name, rate in group.peak.items()} | _of_attention(group),
        "memory bandwidth": {"core_group.memory_bandwidth": 2 * group.memory_bandwidth},
        "message overhead": {"calibration.message_overhead": calibration.message_overhead / 2},
        "start of operators": {"core_group.operator_overhead": group.operator_overhead / 2},
    }
    if group.launch:
        found["start of kernels by the host"] = {"core_group.launch": group.launch / 2}
    if offloads and machine.node.host_link and machine.node.host_memory_bandwidth:
        found["host link"] = {"node.host_link": 2 * machine.node.host_link}
        found["host memory bandwidth"] = {"node.host_memory_bandwidth": 2 * machine.node.host_memory_bandwidth}
    return found


def _of_attention(group: CoreGroup) -> dict[str, float]:
    """Twice the rates of kernels of attention, which products bound."""
    return {
        f"core_group.attention.{name}.{way}.{size}": 2 * rate
        for name, kernel in group.attention.items()
        for way, rates in (("forward", kernel.forward), ("backward", kernel.backward))
        for size, rate in rates.items()
    }
