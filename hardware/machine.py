"""A machine: its nodes, their core groups, the fabric between them, what had to be fitted, and the source of every number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from .core_group import CoreGroup
from .errors import InputError, suggestion
from .fabric import PrunedFatTree, Routing
from .node import Node, Processor
from .records import Record, build, catalogue_names, find, first_error, read_toml
from .units import Quantity, Ratio, SecondsOrZero, Share

CATALOGUE = Path(__file__).parent / "catalogue"


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
    ``tokens_per_node`` the batch that a step uses where the user names none.
    """

    free_direction: tuple[Alternative, ...] = ()


class Machine(Record):
    """A machine as its file describes it, in SI; ``sources`` maps a dotted key, or a prefix of it, to where it is from."""

    name: str
    description: str = ""
    nodes: int = Field(gt=0)
    core_group: CoreGroup
    node: Node
    fabric: PrunedFatTree
    calibration: Calibration
    sources: dict[str, str] = {}

    @property
    def supernodes(self) -> int:
        """Supernodes of the machine, the last perhaps partly filled."""
        return self.fabric.supernodes(self.nodes)

    @property
    def injection(self) -> float:
        """Bytes per second and direction that a node really sends: the wire rate times the network's efficiency."""
        return self.node.injection * self.calibration.network_efficiency

    def processor(self, ranks_per_node: int) -> Processor:
        """What one of ``ranks_per_node`` ranks of a node computes on."""
        groups, rest = divmod(self.node.core_groups, ranks_per_node)
        if rest or not groups:
            raise InputError(
                f"{self.name}: {ranks_per_node} ranks a node do not divide its {self.node.core_groups} core groups evenly"
            )
        return Processor(self.core_group, groups, self.node.ring_bandwidth, self.calibration.gemm_efficiency)

    def changed(self, settings: Mapping[str, Any]) -> Machine:
        """The same machine with other values at dotted keys, such as ``{"fabric.taper": "1/1"}``.

        Raises :class:`InputError` for a key that the machine does not have or a value that it does not allow.
        """
        table = self.model_dump()
        for key, value in settings.items():
            *path, last = key.split(".")
            here: Any = table
            for part in path:
                here = here.get(part) if isinstance(here, dict) else None
            if not isinstance(here, dict) or last not in here:
                raise InputError(f"--set {key}: no such key{suggestion(key, [name for name, _, _ in self.numbers()])}")
            here[last] = value
            table["sources"] = {**table["sources"], key: "set by the user"}
        try:
            return Machine.model_validate(table)
        except ValidationError as wrong:
            key, value, reason = first_error(Machine, wrong)
            raise InputError(f"--set {key}={value}: {reason}") from None

    def with_routing(self, routing: Routing | None) -> Machine:
        """The machine with another routing, or itself where none is asked for."""
        return self if routing is None else self.changed({"fabric.routing": routing})

    def numbers(self) -> Iterator[tuple[str, str, str]]:
        """(dotted key, value with unit, source) of every number and choice that describes the machine."""
        yield from ((key, text, self.source(key)) for key, text in _leaves(self, ""))

    def source(self, key: str) -> str:
        """The source of a dotted key, its own or that of the nearest prefix; empty where none is given."""
        parts = key.split(".")
        return next((s for n in range(len(parts), 0, -1) if (s := self.sources.get(".".join(parts[:n])))), "")

    def unsourced(self) -> list[str]:
        """The dotted keys that have no source."""
        return [key for key, _, source in self.numbers() if not source]


def load_machine(machine: str | Path | Machine) -> Machine:
    """A machine from a catalogue name, a TOML file, or as it is; raises :class:`InputError` that says what is wrong."""
    if isinstance(machine, Machine):
        return machine
    path = find("machine", CATALOGUE, str(machine))
    return build(Machine, read_toml(path), str(machine))


def list_machines() -> list[Machine]:
    """All machines of the catalogue."""
    return [load_machine(name) for name in catalogue_names(CATALOGUE)]


def _leaves(record: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    """(dotted key, readable value) of each number in a record; alternatives of a fit are left out."""
    for name, field in type(record).model_fields.items():
        value, key = getattr(record, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{key}.")
        elif name == "peak":
            yield from ((f"{key}.{kind}", Quantity("", "", "", "FLOP/s").show(rate)) for kind, rate in value.items())
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and prefix):
            shows = [extra for extra in field.metadata if isinstance(extra, Quantity | Share)]
            yield key, shows[0].show(float(value)) if shows else str(value)
