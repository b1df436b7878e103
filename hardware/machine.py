"""A machine: its nodes, their core groups, the fabric between them, what had to be fitted, and the source of every number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field, model_validator
from pydantic.fields import FieldInfo

from .core_group import CoreGroup
from .errors import InputError, nearest, suggestion
from .fabrics import AnyFabric
from .fabrics.fabric import UNBOUNDED, LinkKind
from .message_costs import MessageCost
from .node import Node, Processor
from .records import Record, build, catalogue_names, find, parsed_toml, put, read_toml, rebuilt
from .shown import Shown
from .site.faults import Faults
from .site.power import Power
from .site.price import Price
from .site.storage import Storage
from .units import Quantity, Ratio, SecondsOrZero, Share

CATALOGUE = Path(__file__).parent / "catalogue"

FITTED = ("fitted:", "calibrated:")
"""How the source of a number begins that was fitted to published runs, or measured on the machine itself."""


class Unknowns(Record):
    """The five numbers that no data sheet gives: fitted to published runs, measured, or assumed; the sources say which."""

    gemm_efficiency: Ratio
    network_efficiency: Ratio
    message_overhead: SecondsOrZero
    update_overhead: SecondsOrZero
    tokens_per_node: int = Field(gt=0)


class Alternative(Unknowns):
    """Other values that meet the fit's targets as well; ``varies`` names the one that was moved."""

    varies: str


class Calibration(Unknowns):
    """The :class:`Unknowns` in use, and other sets that meet the fit's targets as well (its free directions).

    ``gemm_efficiency`` is the share of peak that GEMMs reach, with all losses that nothing else here accounts for;
    ``network_efficiency`` the share of the wire rate that reaches the application; ``message_overhead`` the processor's
    time for one message, sent and received; ``update_overhead`` the framework's time per held parameter and step; and
    ``tokens_per_node`` the batch that a step uses where the user names none. ``shard_overhead`` is the framework's time for
    each rank's part of each tensor that ZeRO-3 gathers or scatters; none, unless a library is known to take them one by one.

    ``link_burst`` is for how long a link that was idle sends without being held back, as a token bucket lets it: seconds at
    its own rate; real links have none. ``messages`` are measured costs of messages by size, in place of the fabric's latencies
    and of the overhead of a rank's first message.
    """

    shard_overhead: SecondsOrZero | None = None
    link_burst: SecondsOrZero | None = None
    messages: tuple[MessageCost, ...] = ()
    free_direction: tuple[Alternative, ...] = ()

    @model_validator(mode="after")
    def _messages_rise(self) -> Calibration:
        for one, other in pairwise(self.messages):
            if (one.level, one.way) == (other.level, other.way) and other.least <= one.least:
                raise ValueError(
                    f"messages: least = {other.least:g} B comes after {one.least:g} B of the same level and way"
                )
        known = dict.fromkeys((each.level, each.way) for each in self.messages)
        for level, way in known:
            first = next(each for each in self.messages if (each.level, each.way) == (level, way))
            if first.least:
                raise ValueError(f"messages: the first entry of {level}, {way} must have least = 0 B")
        return self


class Multiples(Record):
    """Between which multiples of the predicted step nine of ten measured ones lie."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Multiples:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} exceeds high = {self.high}")
        return self


class Interval(Multiples):
    """The multiples of dense models, from the errors of published runs, and of those with ``experts``, where they differ."""

    experts: Multiples | None = None

    def of(self, experts: int) -> Multiples:
        """The multiples of a model with so many experts."""
        return self.experts if experts and self.experts else self


class Machine(Record, Shown):
    """A machine as its file describes it, in SI; ``sources`` maps a dotted key, or a prefix of it, to where it is from.

    ``plan`` has options of plans, such as ``ranks_per_node``, that hold here where neither the user nor the model names them.
    ``faults``, ``power``, ``storage`` and ``price`` are what campaigns ask for; most files say nothing of some of them.
    """

    name: str
    description: str = ""
    nodes: int = Field(gt=0)
    core_group: CoreGroup
    node: Node
    fabric: AnyFabric
    calibration: Calibration
    interval: Interval | None = None
    faults: Faults | None = None
    power: Power | None = None
    storage: Storage | None = None
    price: Price | None = None
    plan: dict[str, Any] = {}
    sources: dict[str, str] = {}

    @model_validator(mode="after")
    def _nodes_fit_the_fabric(self) -> Machine:
        self.fabric.check(self.nodes)
        return self

    @property
    def defaults(self) -> dict[str, Any]:
        """Options of plans on this machine: its own ``plan``, and the mixed precision that its core groups have."""
        peak = self.core_group.peak
        mixed = "bf16" if "bf16" in peak else "O2" if "fp16" in peak and "fp32" in peak else "O0"
        return {"precision": mixed, **self.plan}

    @property
    def accelerators_per_node(self) -> int:
        """Accelerators of a node: its core groups where a switch or links join them, else the one chip that they are on."""
        return self.node.core_groups if self.node.ports else 1

    @property
    def supernode(self) -> int:
        """Nodes of a supernode: the fabric's first domain, or all nodes where it has no bounds."""
        return self.nodes if self.fabric.supernode == UNBOUNDED else self.fabric.supernode

    @property
    def supernodes(self) -> int:
        """Supernodes of the machine, the last perhaps partly filled."""
        return self.fabric.supernodes(self.nodes)

    @property
    def injection(self) -> float:
        """Bytes per second and direction that a node really sends: the wire rate times the network's efficiency."""
        return self.node.injection * self.calibration.network_efficiency

    def fabric_links(self, nodes: int) -> list[LinkKind]:
        """The fabric's own links over the first ``nodes`` nodes, at the rates that reach the application."""
        return self.fabric.kinds(nodes, self.injection, self.calibration.network_efficiency)

    def processor(self, ranks_per_node: int, present: int | None = None) -> Processor:
        """What one of ``ranks_per_node`` ranks of a node computes on; only ``present`` of them are there to share its host."""
        groups, rest = divmod(self.node.core_groups, ranks_per_node)
        if rest or not groups:
            raise InputError(
                f"{self.name}: {ranks_per_node} ranks a node do not divide its {self.node.core_groups} core groups evenly"
            )
        node, share = self.node, 1.0 / (present or ranks_per_node)
        return Processor(
            self.core_group,
            groups,
            node.ring_bandwidth * (groups if node.ports else 1),
            self.calibration.gemm_efficiency,
            host_link=None if node.host_link is None else groups * node.host_link,
            host_bandwidth=None if node.host_memory_bandwidth is None else share * node.host_memory_bandwidth,
            host_memory=None if node.host_memory is None else share * node.host_memory,
        )

    def changed(self, settings: Mapping[str, Any]) -> Machine:
        """The same machine with other values at dotted keys, such as ``{"fabric.taper": "1/1"}``.

        Raises :class:`InputError` for a key that the machine does not have or a value that it does not allow.
        """
        table = self.model_dump(mode="json")  # lists, not tuples: their items have keys as well
        for key, value in settings.items():
            if not put(table, key, value):
                near = nearest(key, [name for name, _, _ in self.numbers()], f"all: athanor show machine {self.name}")
                raise InputError(f"--set {key}: {self.name} has no such key{near}")
            table["sources"] = {**table["sources"], key: "set by the user"}
        return rebuilt(Machine, table, settings, "--set ")

    def with_routing(self, routing: str | None) -> Machine:
        """The machine with another routing, or itself where none is asked for.

        Raises :class:`InputError` that lists what its fabric has, where that one is not among them.
        """
        if routing is None:
            return self
        if routing not in (known := self.fabric.routings()):
            raise InputError(
                f"--routing {routing}: no such routing on the {self.fabric.kind} of {self.name}{suggestion(routing, known)}"
            )
        return self.changed({"fabric.routing": routing})

    def with_supernodes_of(self, nodes: int | None) -> Machine:
        """The machine with supernodes of another size, or itself where none is asked for.

        A trunk stays the same share of what its nodes inject. Where the fabric's shape limits the nodes, there are as many
        supernodes as before at most. Raises :class:`InputError` where the fabric has no such size or cannot have this one.
        """
        if nodes is None:
            return self
        flag, settings = f"--nodes-per-supernode {nodes}", self.fabric.resized(nodes, self.nodes)
        if not settings:
            raise InputError(f"{flag}: the {self.fabric.kind} of {self.name} has no supernodes whose size can be set")
        try:
            return self.changed(settings)
        except InputError as wrong:
            raise InputError(f"{flag}: {str(wrong).partition(': ')[2]}") from None

    def numbers(self) -> Iterator[tuple[str, str, str]]:
        """(dotted key, value with unit, source) of every number and choice that describes the machine."""
        yield from ((key, text, self.source(key)) for key, text in _leaves(self, ""))

    def source(self, key: str) -> str:
        """The source of a dotted key, its own or that of the nearest prefix; empty where none is given."""
        parts = key.split(".")
        return next((s for n in range(len(parts), 0, -1) if (s := self.sources.get(".".join(parts[:n])))), "")

    def fitted(self) -> list[str]:
        """The dotted keys whose values were fitted to runs or measured by ``athanor calibrate``, as their sources say."""
        return [key for key, _, source in self.numbers() if source.startswith(FITTED)]

    def unsourced(self) -> list[str]:
        """The dotted keys that have no source."""
        return [key for key, _, source in self.numbers() if not source]


def load_machine(machine: str | Path | Machine) -> Machine:
    """A machine from a catalogue name, a TOML file, or as it is; raises :class:`InputError` that says what is wrong."""
    if isinstance(machine, Machine):
        return machine
    path = find("machine", CATALOGUE, str(machine))
    return build(Machine, read_toml(path), str(machine))


def read_machine(text: str, source: str) -> Machine:
    """The machine that ``machine_toml`` wrote; raises :class:`InputError` that names the ``source`` for anything else."""
    return build(Machine, parsed_toml(text, source), source)


def list_machines() -> list[Machine]:
    """All machines of the catalogue."""
    return [load_machine(name) for name in catalogue_names(CATALOGUE)]


def _leaves(record: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    """(dotted key, readable value) of each number in a record; alternatives of a fit are left out."""
    for name, field in type(record).model_fields.items():
        value, key = getattr(record, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{key}.")
        elif name == "shapes":
            yield key, ", ".join("x".join(map(str, shape)) for shape in value)
        elif name == "precisions":
            yield from ((f"{key}.{kind}", f"{share:.4g}") for kind, share in value.items())
        elif isinstance(value, dict) and any(isinstance(held, BaseModel) for held in value.values()):
            for kind, held in value.items():
                yield from _leaves(held, f"{key}.{kind}.")
        elif name in ("peak", "forward", "backward"):
            yield from ((f"{key}.{kind}", Quantity("", "", "", "FLOP/s").show(rate)) for kind, rate in value.items())
        elif isinstance(value, tuple) and value and name != "free_direction":
            if isinstance(value[0], BaseModel):
                for number, item in enumerate(value):
                    yield from _leaves(item, f"{key}.{number}.")
            elif units := [extra for extra in _annotations(field) if isinstance(extra, Quantity)]:
                yield key, ", ".join(units[0].show(item) for item in value)
            else:
                yield key, "x".join(str(item) for item in value)
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and prefix and name != "accelerator"):
            shows = [extra for extra in _annotations(field) if isinstance(extra, Quantity | Share)]
            yield key, shows[0].show(float(value)) if shows else str(value)


def _annotations(field: FieldInfo) -> list[Any]:
    """What annotates a field's type, also where that is one of several (``Ratio | None``)."""
    return [*field.metadata, *(extra for option in get_args(field.annotation) for extra in get_args(option)[1:])]
