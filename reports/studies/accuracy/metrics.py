"""From a row's metric to a prediction in its unit, and back to the seconds of a step that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ....hardware.errors import AthanorError
from ....hardware.machine import Machine
from ....sim.simulate import simulate
from ....sim.studies.collective import collective
from ....workloads.memory import account, sample_loads
from ....workloads.plan.setting import Setting
from ...published.run import COLLECTIVE, LAYER, PublishedRun
from .cases import Case, LeftOut, cases_of, require_fit, setting_of
from .conventions import step_flops
from .memory_rows import memory_of

TERA, EXA = 1e12, 1e18

VECTOR = float(2**30)
"""Bytes of a collective whose size was not published: bandwidths are quoted where they no longer grow."""


@dataclass(frozen=True)
class Prediction:
    """What was predicted, in the unit of the row; ``low`` and ``high`` at 90 %, where the machine has fitted constants.

    ``setting`` and ``measured_seconds`` are those of a whole step, for rows that the null model predicts too.
    """

    value: float
    assumed: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    setting: Setting | None = None
    measured_seconds: float | None = None
    seconds: float | None = None


def predict(
    published: PublishedRun,
    run: Callable[[Setting], dict[str, Any]],
    change: Callable[[Machine], Machine] = lambda machine: machine,
) -> Prediction:
    """The prediction of a published run; ``run`` simulates a setting, after ``change`` has changed its machine.

    Raises :class:`LeftOut` with the reason where none is made.
    """
    if published.left_out:
        raise LeftOut(published.left_out)
    try:
        if published.metric == COLLECTIVE:
            return _collective(published, change(published.machine_used))
        cases = [each.on(change(each.machine)) for each in cases_of(published)]
        case = cases[0]
        if published.is_memory:
            return Prediction(*memory_of(published, case))
        if published.metric == LAYER:
            return _layer(published, case, run)
        require_fit(setting_of(case))
        return min((_step(published, each, run) for each in _fitting(cases)), key=lambda made: made.seconds or 0.0)
    except AthanorError as wrong:
        raise LeftOut(str(wrong)) from None


def simulated(setting: Setting) -> dict[str, Any]:
    """The summary of a step; what ran also fits, so that memory is no objection."""
    options = setting.plan.to_plain()
    bare = setting.model.model_copy(update={"plan": {}})
    given = {key: value for key, value in options.items() if value is not None}
    return simulate(setting.machine, bare, allow_overcommit=True, **given).summary()


def _fitting(cases: list[Case]) -> list[Case]:
    """Those that the memory of an accelerator holds; the first one, which is the smallest, in any case: what ran fits."""
    found = cases[:1]
    for each in cases[1:]:
        setting = setting_of(each)
        need = max(part.total for part in account(setting, sample_loads(setting)).by_stage)
        if need <= setting.machine.processor(setting.ranks_per_node).memory:
            found.append(each)
    return found


def _step(published: PublishedRun, case: Case, run: Callable[[Setting], dict[str, Any]]) -> Prediction:
    """A whole training step, in the metric of the run."""
    setting = setting_of(case)
    summary = run(setting)
    convert = _conversion(published, setting, float(summary["flops_per_step"]))
    seconds = float(summary["step_seconds"])
    value = convert(seconds)
    ends = [convert(float(summary[key])) for key in ("step_seconds_low", "step_seconds_high") if key in summary]
    low, high = (min(ends), max(ends)) if ends else (None, None)
    # All conversions are proportional to the step's seconds or to their inverse.
    rising = convert(2 * seconds) > value
    measured = seconds * (published.value / value if rising else value / published.value)
    return Prediction(value, case.assumed, low, high, setting, measured, seconds)


def _conversion(published: PublishedRun, setting: Setting, own_flops: float) -> Callable[[float], float]:
    """How seconds of a step become the run's metric; ``own_flops`` are all that the schedule computes, as a counter would see."""
    metric, unit, ranks = published.metric, published.unit, setting.mesh.ranks
    batch = setting.batch
    sequences = setting.mesh.replicas * batch.tokens / batch.seq_len
    # A batch that its replicas do not share evenly was cut: times grow with what was left out, rates do not.
    whole = (published.batch or sequences) / sequences
    flops = step_flops(setting.model, sequences, batch.seq_len, published.convention)
    match metric, unit:
        case "iteration_time", "s":
            return lambda seconds: seconds * whole
        case "iteration_time", "ms":
            return lambda seconds: seconds * whole * 1e3
        case "steps_per_second", _:
            return lambda seconds: 1 / (seconds * whole)
        case "throughput", "samples/s":
            return lambda seconds: sequences / seconds
        case "throughput", "tokens/s":
            return lambda seconds: sequences * batch.seq_len / seconds
        case "throughput_per_accel", "tokens/s":
            return lambda seconds: sequences * batch.seq_len / seconds / ranks
        case "throughput_per_accel", "samples/s":
            return lambda seconds: sequences / seconds / ranks
        case "throughput_per_accel", "TFLOP/s":
            return lambda seconds: flops / seconds / ranks / TERA
        case "aggregate_throughput", "EFLOP/s":
            return lambda seconds: own_flops / seconds / EXA
        case (("MFU" | "HFU"), "%"):
            processor = setting.machine.processor(setting.ranks_per_node)
            half = processor.peak("fp16" if "fp16" in processor.core_group.peak else "bf16")
            return lambda seconds: 100 * flops / seconds / (ranks * half)
    raise LeftOut(f"no conversion from seconds of a step to {metric} in {unit}")


def _layer(published: PublishedRun, case: Case, run: Callable[[Setting], dict[str, Any]]) -> Prediction:
    """Both passes through one layer: what a second layer adds to a step."""
    seconds = []
    for layers in (1, 2):
        model = case.model.model_copy(update={"layers": layers})
        model = type(model).model_validate({**model.model_dump(), "plan": {}})
        summary = run(setting_of(replace(case, model=model)))
        seconds.append(summary["phases"]["forward"] + summary["phases"]["backward"])
    unit = 1e3 if published.unit == "ms" else 1.0
    return Prediction((seconds[1] - seconds[0]) * unit, case.assumed)


def _collective(published: PublishedRun, machine: Machine) -> Prediction:
    """The bus bandwidth of a collective."""
    assert published.collective is not None
    assert published.accelerators is not None
    operation, ranks, told = published.collective.operation, published.accelerators, published.collective.bytes
    nbytes = told or VECTOR
    algorithm = published.collective.algorithm or ("linear" if operation == "all-to-all" else "ring")
    amount = nbytes / ranks if operation == "all-to-all" else nbytes
    found = collective(machine, operation, algorithm, ranks, amount, ranks_per_node=machine.node.core_groups)
    return Prediction(found.bus_bandwidth / 1e9, () if told else ("a vector of 1 GiB",))
