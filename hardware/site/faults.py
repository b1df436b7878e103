"""How a machine breaks: components with their rates, what each takes along, and how long it is until the job runs again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..records import Record
from ..units import Duration, DurationOrZero, Ratio

Per = Literal["accelerator", "node", "interface", "supernode", "job", "machine"]
"""Of what each has one: so many of a component are in use as of these."""

Takes = Literal["nothing", "nodes", "supernode", "machine"]
"""What is lost with a component until it is mended: nothing (the job restarts where it was), nodes, a whole supernode, all."""


class Component(Record):
    """One kind of component, or cause, of faults.

    There is one for each of ``per``, with the mean time between failures ``mtbf`` of one of them. Times between its failures are
    Weibull with this ``shape`` (1: exponential; below 1 most fail early). A fault ``takes`` along nothing, so many ``nodes``,
    the ``supernode``, or the machine. It is noticed after ``detection``, and what it took comes back after ``repair``.
    A ``silent`` fault corrupts what is computed from then on, so that nothing saved between it and its detection is of use.
    A ``planned`` one is announced: the job saves first. One with a ``slowdown`` or ``link_share`` ends nothing: until it is
    noticed, one node computes so many times as long, or the links of one node (``link_share``) or of one supernode to the others
    (``uplink_share``) have this share of their rate; then its node is exchanged, or its cable, at a restart that was planned.
    """

    name: str
    per: Per = "node"
    mtbf: Duration
    shape: float = Field(default=1.0, gt=0)
    takes: Takes = "nodes"
    nodes: int = Field(default=1, gt=0)
    detection: DurationOrZero | None = None
    repair: DurationOrZero | None = None
    silent: bool = False
    planned: bool = False
    slowdown: float | None = Field(default=None, gt=1)
    link_share: Ratio | None = None
    uplink_share: Ratio | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Component:
        if sum((self.silent, self.planned, self.degrades)) > 1:
            raise ValueError(
                f"{self.name}: silent, planned, and slowdown, link_share or uplink_share exclude each other"
            )
        if sum(each is not None for each in (self.slowdown, self.link_share, self.uplink_share)) > 1:
            raise ValueError(f"{self.name}: has one of slowdown, link_share and uplink_share, not both")
        return self

    @property
    def degrades(self) -> bool:
        """Whether the job goes on beside it, more slowly."""
        return any(each is not None for each in (self.slowdown, self.link_share, self.uplink_share))


class Faults(Record):
    """What breaks, and what follows a fault.

    ``detection`` and ``repair`` hold for components that say nothing else. Repair and restart are log-normal, or constant where
    the ``spread``, the mean over the median, is 1; times here are medians. A restart takes ``scheduling``, ``initialisation``,
    and ``initialisation_per_rank`` for each rank, and then loads a checkpoint. ``spares`` are nodes that a job keeps for itself;
    else it takes from those of the machine that it does not use. A ``lemon_share`` of the nodes fail ``lemon_factor`` times as
    often as the others; a node is never used again after ``lemon_after`` faults, where that is given.
    """

    component: tuple[Component, ...] = Field(min_length=1)
    detection: DurationOrZero
    repair: DurationOrZero
    repair_spread: float = Field(default=1.0, ge=1)
    scheduling: DurationOrZero
    initialisation: DurationOrZero
    initialisation_per_rank: DurationOrZero = 0.0
    restart_spread: float = Field(default=1.0, ge=1)
    spares: int | None = Field(default=None, ge=0)
    lemon_share: Ratio | None = None
    lemon_factor: float = Field(default=1.0, ge=1)
    lemon_after: int | None = Field(default=None, gt=0)

    def restart_seconds(self, ranks: int) -> float:
        """Median seconds from the end of detection until a job of so many ranks loads its checkpoint."""
        return self.scheduling + self.initialisation + self.initialisation_per_rank * ranks
