"""What a campaign asks of a machine's site: its own tables, or what is assumed, which is said."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...hardware.machine import Machine
from ...hardware.site import assumed
from ...hardware.site.faults import Faults
from ...hardware.site.power import Power
from ...hardware.site.price import Price
from ...hardware.site.storage import Storage
from ...hardware.units import KILOWATT_HOUR, si
from .campaign_plan import CampaignPlan


@dataclass
class Site:
    """What surrounds the machine: its own, or assumed, with a warning for each that is."""

    machine: Machine
    plan: CampaignPlan
    warnings: list[str] = field(default_factory=list)

    def faults(self) -> Faults:
        """The faults of the plan, the machine's, or assumed ones."""
        plan, machine = self.plan, self.machine
        if plan.faults is not None:
            return assumed.read_faults(plan.faults)
        found = machine.faults
        if found is None:
            found = assumed.read_faults(assumed.USUAL_RATES)
            what = (
                "rates of faults, restarts and repairs" if plan.mtbf_node is None else "times of restarts and repairs"
            )
            self._assumed("faults", f"{what} as of {assumed.USUAL_RATES} (--faults)")
        return found if plan.mtbf_node_seconds is None else assumed.of_nodes(plan.mtbf_node_seconds, found)

    def power(self) -> Power:
        """The machine's power, or an assumed one."""
        if self.machine.power is not None:
            return self.machine.power
        found = assumed.assumed_power(self.machine)
        self._assumed("power", f"a node that computes draws {si(found.compute, 'W')}, PUE {found.pue:g}")
        return found

    def storage(self) -> Storage:
        """The machine's file system, or an assumed one."""
        if self.machine.storage is not None:
            return self.machine.storage
        found = assumed.assumed_storage(self.machine)
        self._assumed(
            "storage", f"a file system that writes {si(found.write, 'B/s')} and reads {si(found.read, 'B/s')}"
        )
        return found

    def price(self) -> Price:
        """The machine's prices, or assumed ones."""
        if self.machine.price is not None:
            return self.machine.price
        found = assumed.assumed_price(self.machine)
        text = f"{found.node * 3600:.3g} USD for a node-hour, energy included, and {found.carbon[0] * KILOWATT_HOUR:g} kg/kWh"
        self._assumed("price", text)
        return found

    def _assumed(self, table: str, what: str) -> None:
        self.warnings.append(f"assumed: {self.machine.name} has no [{table}]; {what}")
