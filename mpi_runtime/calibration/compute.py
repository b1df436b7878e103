"""Computing: what products, sweeps over memory, starts of operators and serial steps do on a rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...workloads.lowering.simulator_memory import available_bytes
from ...workloads.schedule.work import Bookkeeping, Gemm, Loop, Sweep, Work
from ..devices import Computing
from ..training.transformer import functions
from .points import MIB, BenchPoint
from .samples import Action

CACHES = 4
"""A sweep passes so many times what the last caches hold, so that it comes from memory."""

SHARE = 0.05
"""Most of the free memory that one array of a rank takes."""


def action(point: BenchPoint, device: Computing) -> Action:
    """What a rank does for a point, by the device that computes its operations in an executed step."""
    if point.kind == "reduction":
        return _reduction(point.size)
    if point.kind == "operator":
        return _operator(point.detail["operator"], point.size)
    work = _work(point)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            device.compute(work, ())

    return run


def _work(point: BenchPoint) -> Work:
    """The operation of a schedule that a point is about."""
    detail = point.detail
    match point.kind:
        case "gemm":
            return Gemm(detail["m"], detail["n"], detail["k"], 1, detail["precision"])
        case "sweep":
            return Sweep(point.size // 4, detail["read"], detail["written"], 0.0, "fp32")
        case "start":
            return Sweep(1, 4, 4, 0.0, "fp32")
        case "loop":
            return Loop(point.size)
    return Bookkeeping(point.size)


def _reduction(size: int) -> Action:
    """The sum of two vectors in place of one of them, as collectives add what has arrived."""
    total, arrived = np.zeros(size // 4, dtype=np.float32), np.ones(size // 4, dtype=np.float32)
    total[...] = 0.0

    def run(repeats: int) -> None:
        for _ in range(repeats):
            np.add(total, arrived, out=total)

    return run


ROWS, KEYS = 512, 64
"""Rows of an operator's elements, and keys that a query attends to."""


def _operator(name: str, size: int) -> Action:
    """An operator of a layer as the runtime computes it, on so many elements in single precision."""
    elements = np.linspace(-2.0, 2.0, size, dtype=np.float32)
    rows, attention = elements.reshape(ROWS, -1), elements.reshape(-1, 1, KEYS, KEYS)
    width, places = rows.shape[1], np.arange(KEYS)
    parameters = np.ones((2, width), dtype=np.float32)
    sums = functions.norm_sums(rows)
    normal, inverse = functions.norm(rows, sums, width)

    def norm() -> Any:
        return functions.scaled(functions.norm(rows, functions.norm_sums(rows), width)[0], parameters)

    def norm_gradient() -> Any:
        functions.norm_wgrad(rows, normal, parameters)
        of_rows = functions.norm_grad_sums(rows, normal, parameters)
        return functions.norm_dgrad(rows, normal, inverse, parameters, of_rows, width)

    compute: Callable[[], Any] = {
        "norm": norm,
        "norm gradient": norm_gradient,
        "softmax": lambda: functions.softmax(attention, places, places),
        "softmax gradient": lambda: functions.softmax_grad(attention, attention),
        "activation": lambda: functions.activate(rows, False),
        "activation gradient": lambda: functions.activate_grad(rows, rows, False),
    }[name]

    def run(repeats: int) -> None:
        for _ in range(repeats):
            compute()

    return run


def swept_bytes(ranks: int) -> int:
    """Bytes of a sweep on each of the ranks that share this computer: several times the last caches, within its memory."""
    caches = [cache(level) for level in (2, 3)]
    wanted = max(32 * MIB, CACHES * max(caches) // ranks)
    room = int(SHARE * available_bytes() / ranks)
    return max(MIB, min(wanted, room) // MIB * MIB)


def cache(level: int) -> int:
    """Bytes of this computer's data cache of a level; 0 where the system does not say."""
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        with suppress(OSError, ValueError, KeyError):
            told = [(folder / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")]
            if told[0] == str(level) and told[1] != "Instruction":
                return int(told[2][:-1]) * {"K": 1 << 10, "M": 1 << 20}[told[2][-1]]
    return 0
