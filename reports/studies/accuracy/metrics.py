"""From a row's metric to a prediction in its unit, and back to the seconds of a step that it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....hardware.errors import AthanorError
from ....hardware.machine import Machine
from ....hardware.units import read_bytes
from ....sim.simulate import simulate
from ....sim.studies.collective import collective
from ....workloads.memory import account, sample_loads
from ....workloads.plan.setting import Setting
from .cases import Case, cases_of, setting_of
from .conventions import counts_recomputation, step_flops
from .memory_rows import is_memory, memory_of
from .rows import LeftOut, PublishedRow
from .systems import entry_of, system_of

TERA, EXA = 1e12, 1e18

COLLECTIVES = {"allreduce": "all-reduce", "alltoall": "all-to-all", "allgather": "all-gather"}

VECTOR = "1 GiB"
"""Of a collective whose size was not published: bandwidths are quoted where they no longer grow."""

NO_STEP = {
    "pipeline_p2p_bisection_bw": "a bandwidth inside a step, by a definition of its own",
    "dp_allreduce_bisection_bw": "a bandwidth inside a step, by a definition of its own",
    "checkpoint_size": "checkpoints are not simulated",
    "checkpoint_read_bw": "checkpoints are not simulated",
    "checkpoint_write_bw": "checkpoints are not simulated",
    "feasible_steps": "no throughput was published",
    "training_days": "length of the data and share of the time in training were not published",
    "normalized_throughput": "relative to a run of a model whose shape was not published",
    "alltoall_share_of_step": "shape of the model not published in the row",
}
"""Metrics that no prediction is made of, and why."""


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
    row: PublishedRow,
    run: Callable[[Setting], dict[str, Any]],
    change: Callable[[Machine], Machine] = lambda machine: machine,
) -> Prediction:
    """The prediction of a row; ``run`` simulates a setting, after ``change`` has changed its machine.

    Raises :class:`LeftOut` with the reason where none is made.
    """
    metric = row.text("measured_metric")
    if not metric:
        raise LeftOut("measured_metric is blank")
    _ = row.measured
    if metric in NO_STEP:
        raise LeftOut(NO_STEP[metric])
    if re.search(r"speedup|_ratio", metric):
        raise LeftOut("a ratio of two runs, of which at most one is described")
    try:
        for begin, operation in COLLECTIVES.items():
            if metric.startswith(f"{begin}_busbw"):
                return _collective(row, change(system_of(entry_of(row)).machine), operation, metric)
        cases = [each.on(change(each.machine)) for each in cases_of(row)]
        case = cases[0]
        if is_memory(row):
            return Prediction(*memory_of(row, case))
        if metric == "layer_fwd_bwd_time":
            return _layer(row, case, run)
        return min((_step(row, each, run) for each in _fitting(cases)), key=lambda made: made.seconds or 0.0)
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


def _step(row: PublishedRow, case: Case, run: Callable[[Setting], dict[str, Any]]) -> Prediction:
    """A whole training step, in the metric of the row."""
    setting = setting_of(case)
    summary = run(setting)
    convert = _conversion(row, case, setting, float(summary["flops_per_step"]))
    seconds = float(summary["step_seconds"])
    value = convert(seconds)
    ends = [convert(float(summary[key])) for key in ("step_seconds_low", "step_seconds_high") if key in summary]
    low, high = (min(ends), max(ends)) if ends else (None, None)
    # All conversions are proportional to the step's seconds or to their inverse.
    rising = convert(2 * seconds) > value
    measured = seconds * (row.measured / value if rising else value / row.measured)
    return Prediction(value, case.assumed, low, high, setting, measured, seconds)


def _conversion(row: PublishedRow, case: Case, setting: Setting, own_flops: float) -> Callable[[float], float]:
    """How seconds of a step become the row's metric; ``own_flops`` are all that the schedule computes, as a counter would see."""
    metric, unit, ranks = row.text("measured_metric"), row.text("unit"), case.ranks
    batch = setting.batch
    sequences = setting.mesh.replicas * batch.tokens / batch.seq_len
    # A batch that its replicas do not share evenly was cut: times grow with what was left out, rates do not.
    whole = (row.count("global_batch") or sequences) / sequences
    flops = step_flops(setting.model, sequences, batch.seq_len, counts_recomputation(row))
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


def _layer(row: PublishedRow, case: Case, run: Callable[[Setting], dict[str, Any]]) -> Prediction:
    """Both passes through one layer: what a second layer adds to a step."""
    seconds = []
    for layers in (1, 2):
        model = case.model.model_copy(update={"layers": layers})
        model = type(model).model_validate({**model.model_dump(), "plan": {}})
        summary = run(setting_of(Case(case.machine, model, case.options, case.ranks, ())))
        seconds.append(summary["phases"]["forward"] + summary["phases"]["backward"])
    unit = {"ms": 1e3, "s": 1.0}.get(row.text("unit"))
    if unit is None:
        raise LeftOut(f"unit {row.text('unit')}: neither s nor ms")
    return Prediction((seconds[1] - seconds[0]) * unit, case.assumed)


def _collective(row: PublishedRow, machine: Machine, operation: str, metric: str) -> Prediction:
    """The bus bandwidth of a collective."""
    ranks = row.needed("num_accelerators")
    size = re.search(r"_(\d+)(GiB|GB|MiB|MB)$", metric)
    nbytes = read_bytes(f"{size.group(1)} {size.group(2)}" if size else VECTOR)
    algorithm = "linear" if operation == "all-to-all" else "ring"
    amount = nbytes / ranks if operation == "all-to-all" else nbytes
    found = collective(machine, operation, algorithm, ranks, amount, ranks_per_node=machine.node.core_groups)
    assumed = () if size else (f"a vector of {VECTOR}",)
    return Prediction(found.bus_bandwidth / 1e9, assumed)
