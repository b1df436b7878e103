"""What a point runs: PyTorch operators on sets of operands that take turns, so that they come from memory, not a cache."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

from ...hardware.precisions import BYTES, Precision
from ..calibration.points import BenchPoint
from .device import MeasuredDevice, multiplier
from .measure import Unable
from .points import ROW

Operator = Callable[[], Any]

ROOM = 0.4
"""Most of the free memory that a point's operands and results take."""

CACHES = 2
"""All sets of operands together are so many times the last cache."""

MOST_SETS = 256

NOISE = (1 << 20) - 3
"""Random numbers that operands repeat; of no shape's length, so that rows differ."""


def operators(device: MeasuredDevice, point: BenchPoint) -> list[Operator]:
    """The point's operator on each of its sets of operands.

    Raises :class:`Unable` where memory is short, or the device has no such operator.
    """
    operands, everything = footprint(point)
    sets = min(MOST_SETS, max(1, -(-CACHES * device.last_cache // max(1, operands))))
    wanted = everything + (sets - 1) * operands
    if wanted > ROOM * device.free():
        gc.collect()  # operands of earlier points may hang in cycles
        if wanted > ROOM * device.free():
            raise Unable("too little memory")
    build = {"gemm": _gemm, "attention": _attention, "sweep": _sweep, "start": _start}[point.kind]
    return [build(device, point.detail) for _ in range(sets if point.kind != "start" else 1)]


def footprint(point: BenchPoint) -> tuple[int, int]:
    """Bytes of a point's operands, and of these with all that it makes."""
    detail = point.detail
    match point.kind:
        case "gemm":
            size = BYTES[detail["precision"]]
            operands = size * detail["k"] * (detail["m"] + detail["n"])
            return operands, operands + max(2, size) * detail["m"] * detail["n"]
        case "attention":
            size, rows = BYTES[detail["precision"]], detail["count"] * detail["length"]
            operands = 3 * size * rows * detail["size"]
            scores = 0 if detail["fused"] else 2 * size * rows * detail["length"]
            return operands, 4 * operands + scores
        case "sweep":
            vector = BYTES[detail["precision"]] * detail["elements"]
            vectors = {"add": 2, "Adam": 4}.get(detail["operator"], 1)
            return vectors * vector, (vectors + 2) * vector
    return 1, 1


def _gemm(device: MeasuredDevice, detail: dict[str, Any]) -> Operator:
    """A product as a linear layer has it: C = X Wᵀ forward, dY W for its input, dYᵀ X for its weights."""
    torch, precision = device.torch, detail["precision"]
    m, n, k = detail["m"], detail["n"], detail["k"]
    if detail["layout"] == "forward":
        a, b = _random(device, precision, m, k), _random(device, precision, n, k)
        multiply = multiplier(device, precision)
        return lambda: multiply(a, b)
    if detail["layout"] == "data":
        a, b = _random(device, precision, m, k), _random(device, precision, k, n)
        return lambda: torch.mm(a, b)
    a, b = _random(device, precision, k, m), _random(device, precision, k, n)
    return lambda: torch.mm(a.t(), b)


def _attention(device: MeasuredDevice, detail: dict[str, Any]) -> Operator:
    torch, causal = device.torch, detail["causal"]
    shape = (1, detail["count"], detail["length"], detail["size"])
    q, k, v = (_random(device, detail["precision"], *shape) for _ in range(3))
    fused = torch.nn.functional.scaled_dot_product_attention
    if detail["backward"]:
        inputs = [each.requires_grad_() for each in (q, k, v)]
        out, gradient = fused(*inputs, is_causal=causal), _random(device, detail["precision"], *shape)
        return lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True)
    if detail["fused"]:
        return lambda: fused(q, k, v, is_causal=causal)
    q, keys = (q * detail["size"] ** -0.5)[0], k[0].transpose(-1, -2)
    values = v[0]
    mask = torch.full((detail["length"],) * 2, float("-inf"), device=str(device)).triu(1).to(q.dtype)

    def run() -> Any:
        scores = torch.bmm(q, keys)
        if causal:
            scores += mask
        return torch.bmm(torch.softmax(scores, dim=-1), values)

    return run


def _sweep(device: MeasuredDevice, detail: dict[str, Any]) -> Operator:
    torch, functional = device.torch, device.torch.nn.functional
    precision, elements = detail["precision"], detail["elements"]
    x = _random(device, precision, elements)
    rows = x.view(-1, min(ROW, elements))
    match detail["operator"]:
        case "copy":
            out = torch.empty_like(x)
            return lambda: out.copy_(x)
        case "add":
            y = _random(device, precision, elements)
            return lambda: x + y
        case "sum":
            return lambda: x.sum()
        case "fill":
            return lambda: x.fill_(1.0)
        case "layer norm":
            weight, bias = (_random(device, precision, rows.shape[1]) for _ in range(2))
            return lambda: functional.layer_norm(rows, rows.shape[1:], weight, bias)
        case "GELU":
            return lambda: functional.gelu(x)
        case "softmax":
            return lambda: torch.softmax(rows, dim=-1)
    return _adam(device, x)


def _adam(device: MeasuredDevice, weight: Any) -> Operator:
    """A step of Adam in one kernel."""
    weight.requires_grad_()
    weight.grad = device.torch.ones_like(weight)
    optimizer = device.torch.optim.Adam([weight], fused=True)
    optimizer.step()  # makes the moments
    step: Operator = optimizer.step
    return step


def _start(device: MeasuredDevice, detail: dict[str, Any]) -> Operator:
    torch, x = device.torch, _random(device, detail["precision"], 1, 1)
    return {
        "add": lambda: x + x,
        "product": lambda: torch.mm(x, x),
        "softmax": lambda: torch.softmax(x, dim=-1),
    }[detail["operator"]]


def _random(device: MeasuredDevice, precision: Precision, *shape: int) -> Any:
    """Normal numbers: what a multiplier draws depends on its bits, and zeros would flatter a GPU's clock."""
    noise, elements = _noise(device, precision), prod(shape)
    made = device.torch.empty(elements, device=str(device), dtype=noise.dtype)
    for begin in range(0, elements, NOISE):
        part = made[begin : begin + NOISE]
        part.copy_(noise[: len(part)])
    return made.view(*shape)


@lru_cache(maxsize=8)
def _noise(device: MeasuredDevice, precision: Precision) -> Any:
    """A stretch of random numbers, which operands repeat."""
    torch = device.torch
    made = torch.randn(NOISE, device=str(device), generator=torch.Generator(str(device)).manual_seed(1))
    return made.to(device.dtype(precision))
