"""The totals of a run: what ran, how fast, where its time went, what it held; ``docs/formats/json.md`` defines each key."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

OPTIONAL = (
    "step_seconds_low",
    "step_seconds_high",
    "measured",
    "bottleneck",
    "mfu",
    "hfu",
    "model_flops_per_step",
    "dropped_tokens_per_second",
    "attention_kernel",
)
"""Keys that only some runs have: of a kind, or since they began to be written."""


class Network(BaseModel):
    """How the network was looked at (``bound``, ``links``, ``fluid``, ``message`` or ``measured``), and how its fabric routes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    depth: str
    routing: str


class LinkUse(BaseModel):
    """Use of one kind of link over all steps: how many are used, their bytes, the share of the time that they are busy.

    Links of a ``level`` in one direction are a kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    kind: str
    links: int
    capacity_bytes_per_second: float
    bytes_per_step: float
    mean_utilisation: float
    max_utilisation: float
    busiest: int
    level: str = ""


class WhatIf(BaseModel):
    """A change of the machine, the step with it, and by how much that is shorter, as a share of the step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    change: str
    step_seconds: float
    gain: float


class Bottleneck(BaseModel):
    """The level of links that limits exposed communication, the use of its busiest link, and what would help, the most first.

    ``level`` is None where no faster links would shorten the step; ``exposed_seconds`` are those of all communication.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    level: str | None
    utilisation: float | None
    exposed_seconds: float
    changes: list[WhatIf]


class Totals(BaseModel):
    """A run's summary as a record: times in seconds, means over the steps where they are not of each step.

    ``breakdown`` and ``phases`` are exposed seconds, means over ranks. ``step_seconds_low`` and ``step_seconds_high`` are known
    where the machine's constants were fitted to published runs, ``measured`` where the run was executed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    machine: str
    model: str
    mesh: dict[str, int]
    placement: str | dict[str, str]
    ranks: int
    nodes: int
    supernodes: int
    step_seconds: float = Field(gt=0)
    each_step_seconds: list[float] = Field(min_length=1)
    tokens_per_second: float
    dropped_tokens_per_second: float | None = None
    flops_per_second: float
    peak_fraction: float
    mfu: float | None = None
    hfu: float | None = None
    flops_per_step: float
    model_flops_per_step: float | None = None
    attention_kernel: str | None = None
    tokens_per_rank: int
    micro_batches: int
    parameters: dict[str, int]
    breakdown: dict[str, float]
    phases: dict[str, float]
    breakdown_by_phase: dict[str, dict[str, float]]
    each_step_phases: dict[str, list[float]]
    each_step_breakdown: dict[str, list[float]]
    memory_per_rank_bytes: dict[str, float]
    fits: bool
    load_balance: dict[str, float]
    fitted_constants: list[str]
    seed: int
    step_seconds_low: float | None = None
    step_seconds_high: float | None = None
    network: Network
    links: list[LinkUse]
    events: int
    warnings: list[str]
    measured: dict[str, Any] | None = None
    bottleneck: Bottleneck | None = None
    wall_seconds: float
    peak_rss_bytes: int

    def plain(self) -> dict[str, Any]:
        """As plain data: a key for each field, without those that this run does not have."""
        found = self.model_dump()
        return {key: value for key, value in found.items() if value is not None or key not in OPTIONAL}

    def __getitem__(self, key: str) -> Any:
        """What :meth:`plain` has under a key, as in versions in which totals were a dictionary."""
        return self.plain()[key]
