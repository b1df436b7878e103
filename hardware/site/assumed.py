"""What is assumed of a machine whose file says nothing of faults, power, storage or price; rates of faults by name or file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..records import build, find, read_toml
from ..units import HOUR, KILOWATT_HOUR
from .faults import Component, Faults
from .power import Power
from .price import Price
from .storage import Storage

if TYPE_CHECKING:
    from ..machine import Machine

RATES = Path(__file__).parent / "rates"
"""Rates that others have published, a file each."""

USUAL_RATES = "llama3"

GIGABYTES_EACH, MOST_STORAGE = 0.125e9, 2e12
"""Bytes per second of an accelerator's share of the file system, and of all: BLOOM's 57.5 GB/s for 384 GPUs, Llama 3's 2 TB/s."""

WATTS_EACH, WATTS_HOST = 400.0, 100.0
"""Of an accelerator that computes (an A100's 400 W), and what its share of host, cards and fans adds."""

IDLE, MEMORY_BOUND, COMMUNICATING, SAVING = 0.25, 0.85, 0.6, 0.35
"""Shares of a node's power when it computes that other states draw; OLMo saw 15 % of a GPU's power while it saved."""

DOLLARS_AN_HOUR, WATTS_RENTED = 2.0, 950.0
"""An accelerator's rent, its energy included: H100 went for 1.70 to 2.35 USD (SemiAnalysis, 2025 to 2026); and what it draws with
its share of a node that computes. Nodes whose power is known cost in proportion: an A100 1.13 USD, a node of Fugaku 0.38."""

CARBON = 0.4 / KILOWATT_HOUR
"""Kilograms a joule; 0.41 kg/kWh are behind Llama 3.1's model card."""


def read_faults(named: str) -> Faults:
    """Rates by the name of a published set, or of a TOML file that holds what ``[faults]`` of a machine file does.

    Raises :class:`InputError` that says what is wrong.
    """
    table = read_toml(find("faults", RATES, named))
    table = table["faults"] if isinstance(table.get("faults"), dict) else table
    return build(Faults, {key: value for key, value in table.items() if key not in ("description", "sources")}, named)


def of_nodes(mtbf: float, faults: Faults) -> Faults:
    """Faults of nodes alone, each after so many seconds on average; what follows them is as in ``faults``."""
    return faults.model_copy(update={"component": (Component(name="node", mtbf=mtbf),)})


def assumed_power(machine: Machine) -> Power:
    """Watts of a node by the number of its accelerators."""
    most = machine.accelerators_per_node * (WATTS_EACH + WATTS_HOST)
    shares = {"idle": IDLE, "memory": MEMORY_BOUND, "communication": COMMUNICATING, "checkpoint": SAVING}
    return Power(compute=most, switches=0.05 * most, pue=1.2, **{name: most * share for name, share in shares.items()})


def assumed_storage(machine: Machine) -> Storage:
    """A file system whose bandwidth goes with the number of accelerators, up to that of the largest that is known."""
    write = min(machine.nodes * machine.accelerators_per_node * GIGABYTES_EACH, MOST_STORAGE)
    return Storage(read=2 * write, write=write)


def assumed_price(machine: Machine) -> Price:
    """The rent of its accelerators, or of a node that draws so much, and a grid as most are."""
    rented = machine.power.compute / WATTS_RENTED if machine.power else machine.accelerators_per_node
    return Price(node=rented * DOLLARS_AN_HOUR / HOUR, carbon=(CARBON,))
