"""A trace of PyTorch's profiler (Kineto) as a measured Run, operation by operation, beside its prediction.

Kernels have names of their own; which operation of a schedule they belong to is said by ranges. A kernel belongs to the range
on its GPU (``gpu_user_annotation``, made by ``torch.profiler.record_function`` around it) whose name is that of an operation of
the prediction, or, in traces that Athanor wrote, to the operation in its arguments. Steps are ``ProfilerStep#N`` ranges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....workloads.results.run import Run
from ....workloads.results.totals import Network
from ....workloads.results.trace import TraceRow
from ....workloads.schedule.operation import COMPUTE
from ..kinds import Asked, Importer, Makes
from ..reading.files import TRACE
from ..reading.trees import read_json
from .kineto_writer import OURS, STEP

MICRO = 1e-6

NESTED = 16
"""How many ranges back from a kernel the one is looked for that it lies in: ranges nest, and few deep."""

KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")

HOST = ("cpu_op",)
"""What a host does: an operation where its arguments say so, as in traces that Athanor wrote."""


@dataclass(frozen=True)
class TimedRange:
    """A range or a kernel: seconds from the trace's own zero."""

    name: str
    begin: float
    end: float


def read_kineto(path: str | Path, asked: Asked | None = None) -> Run:
    """The measured run of a trace; ``asked.defined`` has ``run``, the file of the predicted run of the same plan.

    From the prediction come model, mesh and plan, and what each operation is; from the trace, when operations began and ended,
    and how long steps took. Where its exposed time went is told by the compute stream and, in its gaps, by what was under way
    beside it. Raises :class:`InputError` for what is no trace, and where no kernel belongs to any operation.
    """
    asked, name = asked or Asked(), str(path)
    if "run" not in asked.defined:
        raise InputError(
            f"{name}: does not say what ran; --define run=FILE names the predicted run of the same plan (simulate -o)"
        )
    predicted = Run.load(asked.defined["run"])
    table = read_json(path, TRACE)
    events = table.get("traceEvents") if isinstance(table, dict) else table
    if not isinstance(events, list):
        raise InputError(f"{name}: has no list traceEvents")
    rank = (
        table.get("distributedInfo", {}).get("rank", 0)
        if isinstance(table, dict) and isinstance(table.get("distributedInfo"), dict)
        else 0
    )
    if isinstance(table, dict) and OURS in table:  # several ranks are processes of one trace
        events = [event for event in events if isinstance(event, dict) and event.get("pid") == rank]
    ranks = _class_of(predicted, rank, name)
    pattern = {row.operation: row for row in predicted.trace if row.ranks == ranks}
    steps = _steps(events, name)
    rows = _rows(events, steps, pattern, name)
    if not rows:
        raise InputError(f"{name}: no kernel lies in a range with the name of an operation of {asked.defined['run']}")
    return _measured(predicted, ranks, rows, [step.end - step.begin for step in steps])


class KinetoReader(Importer):
    """trace of PyTorch's profiler: a measured run for athanor compare (--define run=FILE has its prediction)."""

    makes: ClassVar[Makes] = "run"

    def read(self, path: Path, asked: Asked) -> Run:
        """The run."""
        return read_kineto(path, asked)


def _class_of(predicted: Run, rank: Any, name: str) -> str:
    """The observed class whose rank has this number, or the only one."""
    from .tracks import Tracks

    numbers = Tracks(predicted).ranks
    found = next((each for each, number in numbers.items() if number == rank), None)
    if found is None and len(numbers) == 1:
        return next(iter(numbers))
    if found is None:
        known = ", ".join(str(number) for number in numbers.values())
        raise InputError(f"{name}: is of rank {str(rank)[:20]}; the prediction observes {known}")
    return found


def _spans(events: list[Any], categories: tuple[str, ...], name: str) -> Iterator[tuple[TimedRange, Mapping[str, Any]]]:
    for number, event in enumerate(events):
        if not isinstance(event, dict) or event.get("ph") != "X" or event.get("cat") not in categories:
            continue
        begin, length = _number(event.get("ts")), _number(event.get("dur", 0))
        if begin is None or length is None or length < 0:
            raise InputError(f"{name}: traceEvents[{number}]: ts and dur must be numbers of microseconds")
        args = event.get("args")
        yield (
            TimedRange(str(event.get("name", "")), begin * MICRO, (begin + length) * MICRO),
            args if isinstance(args, dict) else {},
        )


def _number(value: Any) -> float | None:
    """A finite number that is no larger than a clock gives; None for anything else."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18 and isfinite(value)
    return float(value) if right else None


def _steps(events: list[Any], name: str) -> list[TimedRange]:
    """Steps by their ranges; else by the number in kernels' arguments, or all as one."""
    named = [span for span, _ in _spans(events, ("gpu_user_annotation",), name) if span.name.startswith(STEP)]
    named = named or [span for span, _ in _spans(events, ("user_annotation",), name) if span.name.startswith(STEP)]
    if named:
        return sorted(named, key=lambda span: span.begin)
    ends: dict[int, list[float]] = defaultdict(list)
    for span, args in _spans(events, KERNELS, name):
        step = args.get("step", 0)
        ends[step if isinstance(step, int) else 0] += [span.begin, span.end]
    if not ends:
        raise InputError(f"{name}: has no kernels of a GPU")
    found, begin = [], min(ends[min(ends)])
    for step in sorted(ends):
        found.append(TimedRange(str(step), begin, max(begin, *ends[step])))
        begin = found[-1].end
    if any(step.end <= step.begin for step in found):
        raise InputError(f"{name}: a step of it takes no time")
    return found


def _rows(events: list[Any], steps: list[TimedRange], pattern: Mapping[str, TraceRow], name: str) -> list[TraceRow]:
    """A row for each operation of each step, in the prediction's order: from its first kernel's begin to its last one's end.

    One that no kernel belongs to takes no time: comparisons leave out what was not measured.
    """
    ranges = sorted(
        (span for span, _ in _spans(events, ("gpu_user_annotation",), name) if span.name in pattern),
        key=lambda span: span.begin,
    )
    begins = [span.begin for span in ranges]
    starts = [step.begin for step in steps]
    seen: dict[tuple[int, str], tuple[float, float]] = {}
    hosts = ((span, args) for span, args in _spans(events, HOST, name) if str(args.get("operation")) in pattern)
    for span, args in chain(_spans(events, KERNELS, name), hosts):
        operation: str | None = str(args.get("operation"))
        if operation not in pattern:
            last_range = bisect_right(begins, span.begin)
            near = reversed(ranges[max(0, last_range - NESTED) : last_range])
            operation = next((each.name for each in near if each.end >= span.end), None)
        step = bisect_right(starts, span.begin) - 1
        if operation is None or step < 0:
            continue
        first, last = seen.get((step, operation), (span.begin, span.end))
        seen[step, operation] = (min(first, span.begin), max(last, span.end))
    if not seen:
        return []
    rows = []
    for step in range(len(steps)):
        clock: dict[str, float] = defaultdict(float)
        for operation, row in pattern.items():
            begin, end = seen.get((step, operation), (starts[step] + clock[row.stream],) * 2)
            clock[row.stream] = max(clock[row.stream], end - starts[step])
            rows.append(row._replace(step=step, start=begin - starts[step], end=end - starts[step]))
    return rows


def _measured(predicted: Run, ranks: str, rows: list[TraceRow], seconds: list[float]) -> Run:
    """The prediction's run with what was measured in place of its times."""
    totals = predicted.totals
    spent = [
        _exposed([row for row in rows if row.step == step], each, totals.breakdown_by_phase)
        for step, each in enumerate(seconds)
    ]
    count = len(seconds)
    mean = {
        phase: {key: sum(each[phase][key] for each in spent) / count for key in keys}
        for phase, keys in totals.breakdown_by_phase.items()
    }
    step = sum(seconds) / count
    faster = totals.step_seconds / step
    categories = totals.breakdown
    changed = {
        "step_seconds": step,
        "each_step_seconds": seconds,
        "tokens_per_second": totals.tokens_per_second * faster,
        "flops_per_second": totals.flops_per_second * faster,
        "peak_fraction": totals.peak_fraction * faster,
        "mfu": None if totals.mfu is None else totals.mfu * faster,
        "hfu": None if totals.hfu is None else totals.hfu * faster,
        "breakdown": {key: sum(mean[phase].get(key, 0.0) for phase in mean) for key in categories},
        "phases": {phase: sum(keys.values()) for phase, keys in mean.items()},
        "breakdown_by_phase": mean,
        "each_step_phases": {phase: [sum(each[phase].values()) for each in spent] for phase in mean},
        "each_step_breakdown": {
            key: [sum(each[phase].get(key, 0.0) for phase in mean) for each in spent] for key in categories
        },
        "network": Network(depth="measured", routing=totals.network.routing),
        "links": [],
        "fitted_constants": [],
        "step_seconds_low": None,
        "step_seconds_high": None,
        "bottleneck": None,
        "warnings": [],
    }
    about = {ranks: predicted.classes[ranks]}
    totals = totals.model_copy(update=changed)
    return Run(totals, predicted.plan, about, rows, predicted.expert_load, predicted.inputs)


def _exposed(
    rows: list[TraceRow], seconds: float, kinds: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Seconds of one step by phase and category: what the compute stream did, and in its gaps what was under way beside it."""
    found = {phase: dict.fromkeys(keys, 0.0) for phase, keys in kinds.items()}
    beside = sorted((row for row in rows if row.stream != COMPUTE), key=lambda row: row.start)
    computes = sorted((row for row in rows if row.stream == COMPUTE), key=lambda row: (row.start, row.end))
    clock, at, phase = 0.0, 0, next(iter(found))

    def wait(until: float) -> None:
        """Attribute the gap from the clock on."""
        nonlocal clock, at
        while at < len(beside) and beside[at].start < until:
            row = beside[at]
            if row.end > clock:
                found[phase]["imbalance"] += max(0.0, row.start - clock)
                clock = max(clock, row.start)
                found[row.phase][row.category] += min(row.end, until) - clock
                clock = min(row.end, until)
                if row.end > until:
                    break
            at += 1
        found[phase]["imbalance"] += max(0.0, until - clock)
        clock = max(clock, until)

    for row in computes:
        if row.start > clock:
            wait(row.start)
        phase = row.phase
        found[phase][row.category] += max(0.0, row.end - clock)
        clock = max(clock, row.end)
    wait(seconds)
    return found
