"""``reproduce energy``: accelerator-hours of published trainings, simulated, and the energy, carbon and cost that follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ....hardware.machine import Machine, load_machine
from ....hardware.site.power import Power
from ....hardware.units import DAY, HOUR
from ....sim.campaign.campaign import Campaign, campaign
from ....sim.campaign.energy import Draw, capped_machine, step_states
from ....sim.simulate import simulate
from ....workloads.model.model import load_model
from ....workloads.plan.setting import Setting
from ...content.figures import Beside
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ..claims import Claim
from .desk import Desk
from .facts import Facts
from .record import Reproduction
from .resilience import large_h100

SEEDS = 11

V100 = Power(idle=40.0, compute=178.0, memory=150.0, communication=100.0, checkpoint=60.0)
"""Of one V100 of 250 W in training: fitted to what a cap at 150 W adds to a step's time; other states are assumed."""

TEXT = (
    "Hours are those of all accelerators over the whole campaign, faults and checkpoints included. Energy and carbon are"
    " counted as each source counts them: by the accelerators' TDP (BLOOM, Llama 3.1, OPT), with a PUE of 1.1 (LLaMA), or by"
    " measured watts of the whole system (GPT-3). The last column is what the machine file's [power] says of the site."
)
COLUMNS = ("training", "hours, published", "hours", "MWh, published", "MWh", "MWh of the site")


@dataclass(frozen=True)
class PublishedTraining:
    """A published training: its machine, model and options of its campaign."""

    name: str
    machine: str
    model: str
    options: dict[str, Any]

    def play(self) -> Campaign:
        """Its campaign."""
        machine: str | Machine = large_h100() if self.machine == "eos-h100" else self.machine
        return campaign(machine, self.model, seeds=SEEDS, allow_overcommit=True, **self.options)


TRAININGS = (
    PublishedTraining("bloom-176b", "jean-zay-a100", "bloom-176b", {"tokens": 3.66e11, "faults": "bloom"}),
    PublishedTraining("llama3-405b", "eos-h100", "llama3-405b", {"tokens": 15.6e12, "faults": "llama3", "spares": 64}),
    PublishedTraining(
        "llama-65b",
        "selene",
        "llama-65b",
        {
            "tokens": 1.4e12,
            "faults": "opt",
            "mesh": "pp=4,dp=128,tp=4",
            "global_batch": 2048,
            "micro_batch": 1,
            "zero": "1",
            "sequence_parallel": True,
            "overlap": "gradients",
            "attention": "fused",
        },
    ),
    PublishedTraining(
        "opt-175b",
        "selene",
        "gpt3-175b",
        {"tokens": 3e11, "faults": "opt", "mesh": "pp=8,dp=16,tp=8", "global_batch": 1024, "zero": "1"},
    ),
    PublishedTraining("gpt3-175b", "azure-gpt3", "gpt3-175b", {"tokens": 3e11, "faults": "llama3", "zero": "1"}),
)
"""Plans of LLaMA, OPT and GPT-3 are assumed: those that are usual for such models."""


def build(desk: Desk) -> Reproduction:
    """Trainings one by one, then machines, a power cap, and the claims of the source documents."""
    facts, machine = Facts("energy"), load_machine("selene")
    found = Reproduction("energy", facts.table["title"], machine)
    rows, pairs = [], {}
    for each in TRAININGS:
        desk.progress(each.name)
        run = each.play()
        hours = run.run.totals.ranks * run.middle.seconds / HOUR
        found.claims += [*_training(facts, each.name, hours)]
        published = facts.value("megawatt_hours", each.name)
        counted = hours * facts.value("kilowatts", each.name) / 1e3
        pairs[each.name] = (published, counted)
        site = run.joules(run.middle) / 3.6e9
        rows.append(
            (
                each.name,
                *(f"{value:,.4g}" for value in (facts.value("hours", each.name), hours, published, counted, site)),
            )
        )
        if each.name == "gpt3-175b":
            found.claims += [*_gpt3(facts, run, hours)]
            found.claims += [*_m6(facts, run)]
    desk.progress("machines and caps")
    found.claims += [*_machines(facts), *_cap(facts)]
    small = {name: pair for name, pair in pairs.items() if name != "llama3-405b"}
    drawing = Drawing("energy", "As each source counts it.", Beside(small, "MWh", "Energy of trainings"))
    found.parts = [ReportPart(Section("Energy of trainings", TEXT, COLUMNS, rows), [drawing])]
    found.inputs = inputs(machine, load_model("gpt3-175b"), load_model("gpt3-175b").plan)
    return found


def _training(facts: Facts, name: str, hours: float) -> Iterator[Claim]:
    plans = {"gpt3-175b": " (a plan of today; it ran at 24.6 TFLOP/s a V100)"}
    plan = plans.get(name, " (plan assumed)" if name in ("llama-65b", "opt-175b") else "")
    yield facts.claim("hours", f"{name}: accelerator-hours{plan}", hours, "predicted", at=name)
    energy = hours * facts.value("kilowatts", name) / 1e3
    yield facts.claim("megawatt_hours", f"{name}: MWh, as its source counts", energy, "predicted", at=name)
    if name in facts.values["tonnes"]:
        tonnes = energy * facts.value("carbon", name)
        yield facts.claim("tonnes", f"{name}: t of CO2 at its grid's intensity", tonnes, "predicted", at=name)


def _gpt3(facts: Facts, run: Campaign, hours: float) -> Iterator[Claim]:
    """Published figures go with 28 TFLOP/s a V100 (dollars) and 24.6 (energy); with a plan of today it is simulated faster."""
    at_28 = 6.0 * load_model("gpt3-175b").parameters.total * 300e9 / 28e12 / HOUR
    yield facts.claim("gpt3_dollars", "GPT-3: dollars at 1.5 USD an hour, at 28 TFLOP/s a V100", at_28 * 1.5)
    dollars = run.dollars(run.middle)
    yield facts.claim("gpt3_dollars", "GPT-3: dollars at 1.5 USD an hour, simulated", dollars, "predicted")
    yield facts.claim("gpt3_days", "GPT-3: days on 10,000 V100, at 28 TFLOP/s", at_28 / 10_000 / 24)
    yield facts.claim("gpt3_days", "GPT-3: days on 10,000 V100, simulated hours", hours / 10_000 / 24, "predicted")


def _m6(facts: Facts, gpt3: Campaign) -> Iterator[Claim]:
    """Energy of M6-T and M6-10T on V100 that draw what GPT-3's do, host and building included."""
    each = gpt3.draw.watts["productive"] / gpt3.run.totals.ranks
    whole = facts.value("megawatt_hours", "gpt3-175b")
    for name, expected in (("m6-1t", True), ("m6-10t", False)):
        energy = facts.value("m6_accelerators", name) * facts.value("m6_days", name) * DAY * each / 3.6e9
        share = facts.value("energy_share")
        text = f"{name}: below 1/100 of GPT-3's energy, at {each:.0f} W a GPU ({energy / whole:.2%})"
        yield facts.truth("energy_share", text, energy < share * whole, target=expected)


def _machines(facts: Facts) -> Iterator[Claim]:
    for name in facts.values["megawatts"]:
        machine = load_machine(name)
        assert machine.power
        power = machine.nodes * (machine.power.compute + machine.power.switches) / 1e6
        yield facts.claim("megawatts", f"{name}: MW when all nodes compute", power, "fitted", at=name)


def _cap(facts: Facts) -> Iterator[Claim]:
    """BERT-large on one V100, as it is and at 150 W: what is bound by arithmetic slows, and all draws less."""
    one = load_machine("dgx1-v100").changed({"nodes": 1})
    lower, capped = capped_machine(one, V100, 150.0)
    settings = [Setting.of(each, "bert-large", {"mesh": {"dp": 1}, "ranks_per_node": 8}) for each in (one, lower)]
    runs = [
        simulate(each, "bert-large", mesh={"dp": 1}, ranks_per_node=8, allow_overcommit=True) for each in (one, lower)
    ]
    seconds = [run.summary()["step_seconds"] for run in runs]
    joules = [
        Draw.of(power, step_states(setting, run), 1).watts["productive"] * time
        for power, setting, run, time in zip((V100, capped), settings, runs, seconds, strict=True)
    ]
    yield facts.claim("cap_time", "V100 at 150 W: time of a step more", seconds[1] / seconds[0] - 1, "fitted")
    yield facts.claim("cap_energy", "V100 at 150 W: energy of a step less", joules[1] / joules[0] - 1, "predicted")
