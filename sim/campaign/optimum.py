"""The best interval between checkpoints, found by simulation: the same faults under one interval after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .faults.fault_history import FaultHistory, FaultProcess
from .faults.renewals import play
from .job import Job

SEEDS = 8
FAULTS = 1500
"""Of a search: seeds, and faults of each, after which a longer campaign would teach little more."""

AROUND = np.geomspace(0.25, 4.0, 13)
"""Intervals that are tried, over the guess."""


def best_interval(job: Job, process: FaultProcess, seed: int, guess: float, least: float) -> float:
    """Seconds of work between checkpoints with which campaigns of ``job`` are shortest, ``least`` or more, around a ``guess``.

    The time is flat around its least; a parabola through the mean times over log intervals finds it.
    """
    tried = np.unique(np.clip(guess * AROUND, least, max(job.work, least)))
    if len(tried) < 3:
        return float(tried[0])
    short = min(job.work, max(FAULTS * process.mtbf, 4.0 * float(tried[-1])))
    histories = [process.history(seed + number) for number in range(SEEDS)]
    seconds = [np.mean([_pace(job, float(each), short, history) for history in histories]) for each in tried]
    best = int(np.argmin(seconds))
    low, high = max(0, best - 2), min(len(tried), best + 3)
    near = np.log(tried[low:high])
    if high - low < 3:
        return float(tried[best])
    square, slope, _ = np.polyfit(near - near.mean(), np.array(seconds[low:high]) / seconds[best], 2)
    if square <= 0:
        return float(tried[best])
    at = np.clip(near.mean() - slope / (2.0 * square), near[0], near[-1])
    return float(np.exp(at))


def _pace(job: Job, interval: float, work: float, history: FaultHistory) -> float:
    """Seconds that a short campaign takes for each second of its work."""
    outcome = play(replace(job, work=work, interval=interval), history)
    return outcome.seconds / work if outcome.finished else 1e6
