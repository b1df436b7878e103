"""A published run: what ran on what, what was measured, and how its source counts. Every field is a key, a number or a choice.

Texts for people are ``source``, ``at``, ``assumed``, ``explained`` and ``notes``; nothing is decided by them.
``docs/formats/published-runs.md`` has every key.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, model_validator

from ...hardware.machine import Machine, load_machine
from ...hardware.records import Record, build
from ...hardware.units import Bytes
from ...workloads.model.model import Model, load_model

Reading = Literal["allocated", "reserved", "system", "formula"]
"""What a number about memory is: what tensors took at most, what the allocator had reserved for them, what the system shows of
the card, or what the source computed."""

UNITS: dict[str, tuple[str, ...]] = {
    "iteration_time": ("s", "ms"),
    "layer_fwd_bwd_time": ("s", "ms"),
    "steps_per_second": ("steps/s",),
    "throughput": ("samples/s", "tokens/s"),
    "throughput_per_accel": ("samples/s", "tokens/s", "TFLOP/s"),
    "aggregate_throughput": ("EFLOP/s",),
    "MFU": ("%",),
    "HFU": ("%",),
    "bus_bandwidth": ("GB/s",),
    "mem_total": ("GiB", "GB", "MiB", "MB"),
    "mem_activations": ("GiB", "GB", "MiB", "MB"),
    "mem_params_optimizer": ("GiB", "GB", "MiB", "MB"),
}
"""Metrics that predictions are made of, and the units of each."""

MEMORY = frozenset(metric for metric in UNITS if metric.startswith("mem_"))
COLLECTIVE = "bus_bandwidth"
LAYER = "layer_fwd_bwd_time"


class Convention(Record):
    """How a source counts.

    FLOPs: with ``recomputation`` what the backward pass works out again too; ``causal``, of attention only what the mask leaves;
    with a ``vocabulary`` of its own (0: no output layer). Memory: which ``reading`` it is, and whether it has the ``embedding``.
    """

    recomputation: bool = False
    causal: bool = False
    vocabulary: int | None = Field(default=None, ge=0)
    reading: Reading = "system"
    embedding: bool = True


class CollectiveRun(Record):
    """A collective measured by itself; ``bytes`` of a rank's vector, where they were published."""

    operation: Literal["all-reduce", "all-to-all", "all-gather", "reduce-scatter"]
    bytes: Bytes | None = None
    algorithm: str | None = None


class MemoryReading(Record):
    """The memory of the fullest accelerator in the same run; ``left_out`` says why it is not predicted, where it is not."""

    value: float = Field(gt=0)
    unit: Literal["GiB", "GB", "MiB", "MB"]
    reading: Reading
    fitted: bool = False
    left_out: str = ""


class PublishedRun(Record):
    """One measurement and the configuration that was measured.

    ``publication`` is what runs have in common that cannot stand on both sides of a split; ``source`` the table or page
    by which statistics are listed. ``machine`` and ``model`` are names of the catalogue or files, changed by ``set``
    (keys of the machine file) and ``shape`` (keys of the model file); a model that stands in no file has no ``base``, and
    all of its keys in ``shape``, which was ``shape_published`` or is assumed. ``plan`` has the keys of a run file, and
    what it does not say is as ``library`` has it; with ``catalogue_plan`` it changes the one that the catalogue's model
    recommends. ``fitted``: a constant that the prediction uses was, or may be, fitted to this run. ``left_out`` is the
    reason for which a run is kept and not predicted; ``explained`` what is known of why its prediction is far off.
    ``beside`` marks the memory of a run that is about something else.
    """

    id: str = Field(min_length=1)
    publication: str = Field(min_length=1)
    source: str = Field(min_length=1)
    at: str = ""
    confidence: Literal["found", "recalled", "recalled, unsure"] = "found"
    machine: str | None = None
    set: dict[str, Any] = {}
    accelerators: int | None = Field(default=None, gt=0)
    model: str | None = None
    base: str | None = None
    shape: dict[str, Any] = {}
    shape_published: bool = True
    library: str | None = None
    plan: dict[str, Any] = {}
    catalogue_plan: bool = False
    collective: CollectiveRun | None = None
    metric: str
    value: float = Field(gt=0)
    unit: str
    convention: Convention = Convention()
    memory: MemoryReading | None = None
    beside: bool = False
    fitted: bool = False
    assumed: tuple[str, ...] = ()
    explained: str = ""
    left_out: str = ""
    notes: str = ""

    @model_validator(mode="after")
    def _tells_what_is_needed(self) -> PublishedRun:
        if self.left_out:
            return self
        if self.metric not in UNITS:
            raise ValueError(
                f"metric {self.metric} is none of {', '.join(UNITS)}; a run that is not predicted says why, left_out"
            )
        if self.unit not in UNITS[self.metric]:
            raise ValueError(f"unit {self.unit}: {self.metric} is in {' or '.join(UNITS[self.metric])}")
        if self.machine is None:
            raise ValueError("machine is missing; needs a name of the catalogue (athanor list machines) or a TOML file")
        if self.metric == COLLECTIVE:
            if self.collective is None or self.accelerators is None:
                raise ValueError(f"{COLLECTIVE} needs accelerators, and collective = {{ operation = ... }}")
        elif self.model is None:
            raise ValueError("model is missing; needs a name of the catalogue, a TOML file, or a table of [models]")
        return self

    @property
    def is_memory(self) -> bool:
        """Whether it is about memory."""
        return self.metric in MEMORY

    @property
    def is_formula(self) -> bool:
        """Whether its source computed what it tells of memory, which is no measurement."""
        return self.is_memory and self.convention.reading == "formula"

    @property
    def batch(self) -> int | None:
        """Sequences of a step, as published."""
        return self.plan.get("global_batch")

    @property
    def machine_used(self) -> Machine:
        """The machine with its changes; raises :class:`InputError` where there is none."""
        assert self.machine is not None
        return _machine(self.machine, _text(self.set))

    @property
    def model_used(self) -> Model:
        """The model of the run; raises :class:`InputError` with what is wrong with it."""
        assert self.model is not None
        return _model(self.model, self.base, _text(self.shape))


def _text(table: dict[str, Any]) -> str:
    return json.dumps(table, sort_keys=True)


@lru_cache(maxsize=256)
def _machine(name: str, changes: str) -> Machine:
    settings = json.loads(changes)
    machine = load_machine(name)
    return machine.changed(settings) if settings else machine


@lru_cache(maxsize=1024)
def _model(name: str, base: str | None, shape: str) -> Model:
    changes = json.loads(shape)
    lent = load_model(base) if base else None
    if lent and not changes:
        return lent
    table = lent.model_dump(exclude={"plan", "sources", "published_parameters"}, exclude_none=True) if lent else {}
    table |= {"name": name, **changes}
    return build(Model, table, f"model {name}")
