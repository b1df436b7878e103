"""How long micro-batches take through the stages of a pipeline, by formula: without playing the order of its slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...workloads.pipelines import find_pipeline


@dataclass(frozen=True)
class Lane:
    """Seconds of a stage for one micro-batch through all its chunks: forward, gradients of inputs, gradients of weights."""

    forward: float
    inputs: float
    weights: float = 0.0

    @property
    def backward(self) -> float:
        """Both gradients."""
        return self.inputs + self.weights

    @property
    def all(self) -> float:
        """Forward and backward."""
        return self.forward + self.inputs + self.weights


def pipeline_seconds(name: str, lanes: Sequence[Lane], count: int, chunks: int, send: float) -> float:
    """Seconds of ``count`` micro-batches through stages whose messages take ``send`` seconds each.

    A pipeline fills, then goes on at the pace of its slowest stage or of its slowest circle (a stage waits for the gradient of
    the micro-batch that it sent as many others ago as the order lets it run ahead), then drains. For equal stages and free
    messages these are the bubbles of the sources: (p - 1)(f + b) for GPipe and 1F1B, a chunk's part of it for the interleaved
    one (Narayanan et al. 2021); (p - 1)(f + b - w) for ZB-H1 and (p - 1)(f + b - 2w) for ZB-H2, but no less than the (p - 1) f
    by which stages end apart (Qi et al. 2023). Of an endless pipeline only the pace is left (PipeDream, 2BW).
    """
    if len(lanes) == 1:
        return count * lanes[0].all
    if not find_pipeline(name).splits_backward:
        lanes = [Lane(each.forward, each.backward) for each in lanes]
    match name:
        case "gpipe":
            return _gpipe(lanes, count, send)
        case "interleaved":
            return _interleaved(lanes, count, chunks, send)
        case "zb-h1":
            return _zero_bubble(lanes, count, send, 1)
        case "zb-h2":
            return _zero_bubble(lanes, count, send, 2)
        case "1f1b":
            return _fill(lanes, send) + (count - 1) * _pace(lanes, send)
        case _:
            return count * _pace(lanes, send)


def _fill(lanes: Sequence[Lane], send: float) -> float:
    """One micro-batch there and back."""
    return sum(each.all for each in lanes) + 2 * (len(lanes) - 1) * send


def _gpipe(lanes: Sequence[Lane], count: int, send: float) -> float:
    slowest = max(each.forward for each in lanes) + max(each.backward for each in lanes)
    return _fill(lanes, send) + (count - 1) * slowest


def _pace(lanes: Sequence[Lane], send: float, ahead: int = 1) -> float:
    """Seconds a micro-batch in the steady state, where a stage runs ``ahead`` passes further ahead than the next one."""
    pace, circle = 0.0, -2 * send
    for passed, each in enumerate(reversed(lanes)):
        circle += each.forward + each.inputs + 2 * send
        pace = max(pace, each.all, circle / (ahead * passed + 1))
    return pace


def _interleaved(lanes: Sequence[Lane], count: int, chunks: int, send: float) -> float:
    """A chunk's share of the bubble; the way of one micro-batch goes through all chunks of all stages."""
    stages, slowest = len(lanes), max(each.all for each in lanes)
    fill = (sum(each.all for each in lanes) - slowest) / chunks
    return count * slowest + fill + 2 * (stages * chunks - 1) * send


def _zero_bubble(lanes: Sequence[Lane], count: int, send: float, depth: int) -> float:
    """As many micro-batches as keep all stages busy; with fewer, gradients of weights never hold others up."""
    pace = max(max(each.all for each in lanes), _pace(lanes, send, depth))
    apart = [
        max(each.forward + send, each.forward + each.inputs - depth * each.weights + 4 * send / depth)
        for each in lanes[:-1]
    ]
    fill = sum(each.forward + each.inputs for each in lanes) + 2 * (len(lanes) - 1) * send
    few = fill + (count - 1) * max(each.forward + each.inputs for each in lanes) + lanes[0].weights
    return max(count * pace + sum(apart), few)
