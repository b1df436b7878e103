"""What a balancing policy knows beside the tokens that are wanted now: step and layer, and what was in earlier steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....hardware.errors import InputError

Tokens = NDArray[np.int64]

MOST_STEPS_AGO = 16
"""How far back a policy may look: so much is kept of a run."""


@dataclass(frozen=True)
class Past:
    """Where in a run a layer's tokens are, and the same layer's loads in earlier steps, in the same micro-batch.

    Loads are worked out when a policy asks for them, from the seed: every rank of a job gets the same. Groups are those
    that :meth:`~athanor.workloads.routing.balancers.Balancer.carry` is asked about. ``rank`` is the number of the rank that asks
    in its group; None where one asks for all, as the simulator does.

    What a policy that ``remembers`` puts into ``state`` is there in the next step of the same layer and micro-batch. Only what
    ``carry`` puts there stays.
    """

    step: int = 0
    layer: int = 0
    micro_batch: int = 0
    group: int | None = None
    loads: Callable[[int], Tokens | None] | None = field(default=None, repr=False, compare=False)
    results: Callable[[int], Tokens | None] | None = field(default=None, repr=False, compare=False)
    experts: Callable[[int], Tokens | None] | None = field(default=None, repr=False, compare=False)
    rank: int | None = None
    state: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def wanted(self, ago: int = 1) -> Tokens | None:
        """Tokens ``[choice, groups, ranks]`` that were wanted so many steps ago; None before the first step."""
        return self._before(self.loads, ago)

    def carried(self, ago: int = 1) -> Tokens | None:
        """Tokens ``[groups, ranks]`` that the policy let ranks carry so many steps ago; None before the first step."""
        return self._before(self.results, ago)

    def by_expert(self, ago: int = 1) -> Tokens | None:
        """Tokens ``[choice, groups, experts]`` that wanted each expert so many steps ago, 0: now; None before the first step."""
        if ago == 0:
            return None if self.experts is None else self._mine(self.experts(self.step))
        return self._before(self.experts, ago)

    def of_group(self, group: int) -> Past:
        """The past of one expert-parallel group."""
        return replace(self, group=group)

    def _before(self, source: Callable[[int], Tokens | None] | None, ago: int) -> Tokens | None:
        if not 1 <= ago <= MOST_STEPS_AGO:
            raise InputError(f"--balancer: asks for loads of {ago} steps ago; 1 to {MOST_STEPS_AGO} can be had")
        if source is None or ago > self.step:
            return None
        return self._mine(source(self.step - ago))

    def _mine(self, found: Tokens | None) -> Tokens | None:
        if found is None or self.group is None:
            return found
        group = min(self.group, found.shape[-2] - 1)  # where all are level, one stands for all
        return found[..., group : group + 1, :]


BEGINNING = Past()
"""The first step, before which there is nothing."""
