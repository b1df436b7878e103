"""The account of a rank's memory as tables and as JSON."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ...workloads.frameworks import FRAMEWORKS
from ...workloads.memory import PARTS, Account, Memory, MemoryLine, Remedy
from ...workloads.mesh.axes import CONTEXT, TENSOR
from ..tables.runs import table

if TYPE_CHECKING:
    from rich.console import Console

MOST_STAGES = 12
"""Stages up to which the table shows all; of more, some at both ends and the fullest."""

PRINTED = {
    "peak_allocated": "peak allocated (tensors in use at once)",
    "reserved": "reserved (with idle blocks of the pool)",
    "by_the_system": "by the system (with driver and libraries)",
}
"""What frameworks and systems print, by its name in JSON."""

HEADS = ("stage", *PARTS, "total", "of capacity")


def plain(account: Account, remedies: list[Remedy]) -> dict[str, Any]:
    """The JSON object of ``athanor memory``."""
    setting, worst = account.setting, account.worst
    return {
        "machine": setting.machine.name,
        "model": setting.model.name,
        "mesh": dict(zip(setting.mesh.axes, setting.mesh.shape, strict=True)),
        "plan": setting.plan.to_plain(),
        "tokens_per_rank": setting.batch.tokens,
        "micro_batches": setting.batch.micro_batches,
        "memory_per_rank_bytes": worst.table(),
        "printed_bytes": worst.printed(),
        "framework": _framework(account),
        "host_bytes": _host(worst),
        "fits": worst.fits,
        "stage": worst.stage,
        "stages": [_stage(account, need) for need in account.by_stage],
        "lines": [_line(account, line, worst.stage) for line in account.lines if line.nbytes[worst.stage]],
        "remedies": [
            {"change": each.flags, "memory_per_rank_bytes": each.need.table(), "host_bytes": _host(each.need)}
            for each in remedies
        ],
    }


def show(console: Console, account: Account, remedies: list[Remedy]) -> None:
    """Tables by stage and by line, the verdict, and what would make it fit."""
    worst = account.worst
    title = f"{account.setting.model.name} on {account.setting.machine.name}: GB of a rank"
    host = any(need.host for need in account.by_stage)
    heads = [*HEADS, *(["host", "of host"] if host else [])]
    rows = [_stage_row(need, host) for need in _shown(account)]
    console.print(table(title, heads, rows))
    lines = sorted(account.lines, key=lambda line: (line.host, PARTS.index(line.part)))
    console.print(
        table(
            f"Stage {worst.stage}, line by line",
            ["part", "of", "what", "cut over", "kept with --recompute", "GB", "share"],
            [_line_row(account, line) for line in lines if line.nbytes[worst.stage]],
            text_columns=5,
        )
    )
    for name, size in worst.printed().items():
        console.print(f"{PRINTED[name]:42}{_gigabytes(size):>9} GB{size / 2**30:10.2f} GiB", highlight=False)
    if worst.fits:
        console.print(f"[bold]fits[/]: {escape(str(worst))}")
        return
    console.print(f"[bold red]does not fit[/]: {escape(str(worst))}")
    if remedies:
        ways = [(each.flags, *(_gigabytes(size) for size in (each.need.total, each.need.host))) for each in remedies]
        console.print(table("What would make it fit", ["change", "GB", "GB of host memory"], ways))


def _shown(account: Account) -> list[Memory]:
    """All stages, or the first and last few and the fullest."""
    every = account.by_stage
    if len(every) <= MOST_STAGES:
        return every
    few = MOST_STAGES // 3
    chosen = {*range(few), account.worst.stage, *range(len(every) - few, len(every))}
    return [every[stage] for stage in sorted(chosen)]


def _stage_row(need: Memory, host: bool) -> tuple[str, ...]:
    sizes = [_gigabytes(size) for part, size in need.table().items() if part != "capacity"]
    row = (str(need.stage), *sizes, f"{need.total / need.capacity:.1%}")
    return (*row, _gigabytes(need.host), f"{need.host / need.host_capacity:.1%}") if host else row


def _line_row(account: Account, line: MemoryLine) -> tuple[str, ...]:
    worst = account.worst
    size = float(line.nbytes[worst.stage])
    part = f"host: {line.part}" if line.host else line.part
    share = size / (worst.host if line.host else worst.total)
    over, kept = "+".join(cut_over(account, line)), ", ".join(line.kept)
    return (part, line.name, line.what, over, kept, f"{size / 1e9:.3f}", f"{share:.1%}")


def cut_over(account: Account, line: MemoryLine) -> list[str]:
    """The axes over which a line of activations is cut."""
    if not line.kept:
        return []
    setting = account.setting
    axes = {*setting.mesh.parts_of(CONTEXT), "row"}
    if line.cut == "tp" or (line.cut == "tokens" and (setting.plan.sequence_parallel or setting.mesh.size("col") > 1)):
        axes |= set(TENSOR)
    axes.add(line.cut)  # where it is a part of one
    return [axis for axis in setting.mesh.axes if axis in axes and setting.mesh.size(axis) > 1]


def _stage(account: Account, need: Memory) -> dict[str, Any]:
    stages = account.stages
    return {
        "stage": need.stage,
        "layers": sum(len(chunk) for chunk in stages.layers[need.stage]),
        "micro_batches_under_way": [int(count) for count in stages.flight[need.stage]],
        "weight_versions": int(stages.versions[need.stage]),
        "memory_per_rank_bytes": need.table(),
        "printed_bytes": need.printed(),
        "host_bytes": _host(need),
    }


def _line(account: Account, line: MemoryLine, stage: int) -> dict[str, Any]:
    return {
        "part": line.part,
        "name": line.name,
        "what": line.what,
        "bytes": float(line.nbytes[stage]),
        "host": line.host,
        "keeper": line.keeper,
        "cut_over": cut_over(account, line),
        "kept_with_recompute": list(line.kept),
    }


def _framework(account: Account) -> str | None:
    """The framework that is counted beside formulas; None where none is."""
    found = account.setting.framework if account.working else None
    names = {type(kind): name for name, kind in FRAMEWORKS.items()}
    return account.setting.plan.framework or names[type(found)] if found else None


def _host(need: Memory) -> dict[str, float | None]:
    return {"total": need.host, "capacity": need.host_capacity if isfinite(need.host_capacity) else None}


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f}"
