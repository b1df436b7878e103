"""Collectives whose messages never hold each other back: each takes as long as it takes alone, and ranks only wait for ranks."""

from __future__ import annotations

import numpy as np

from ..network.links import Array
from .message_tables import MessageSteps

STEADY = 1e-12
"""Relative difference of what ranks take for a step, below which all take the same."""


def contention_free(steps: MessageSteps, start: Array) -> Array:
    """When each orbit of ranks is through, in seconds, given when it comes.

    A message begins when both ranks are there. A step that repeats and takes all ranks equally long will do so again, since
    what comes later only depends on differences; so the rest of its round is not played.
    """
    ready, step = np.array(start, dtype=np.float64), 0
    while step < steps.total:
        window = steps.window(step)
        each = window.messages
        seconds = each.wait + each.nbytes / each.limit
        for row in range(len(window.source)):
            target, source = each.receiver[row], window.source[row]
            begin = np.maximum(ready, np.where(target >= 0, ready[target], ready))
            end = np.where(target >= 0, begin + seconds[row], ready)
            after = np.maximum(end, np.where(source >= 0, end[source], ready))
            gain = after - ready
            ready, step = after, step + 1
            if step < window.high and len(window.source) == 1 and np.ptp(gain) <= STEADY * gain.max():
                ready, step = ready + (window.high - step) * gain, window.high
    return ready
