"""campaign(): machine, model, plan and budget in; wall clock, goodput, ledger, energy and cost out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ...hardware.errors import InputError, NeverDone
from ...hardware.machine import Machine, load_machine
from ...hardware.shown import Shown
from ...hardware.site.price import Price
from ...hardware.site.storage import Storage
from ...hardware.units import duration
from ...workloads.datasets import load_dataset
from ...workloads.model.model import Model, load_model
from ...workloads.plan.run_file import resolved
from ...workloads.results.run import Run
from .budget import steps_of
from .campaign_options import CampaignOptions
from .campaign_plan import CampaignPlan
from .energy import Draw, capped_machine, phase_states, step_states, swings
from .faults.events import play_events
from .faults.fault_history import FaultProcess, InUse
from .faults.renewals import play
from .intervals import daly, daly_first_order, young
from .job import Job
from .ledger import Outcome
from .optimum import best_interval
from .site import Site
from .steps import CampaignSteps
from .storage.checkpoints import Checkpoints
from .storage.data_loading import DataLoading, load_steps


@dataclass(frozen=True)
class Campaign(Shown):
    """What :func:`campaign` found: the job, its steps, and an outcome for each seed.

    ``intervals`` are seconds of work between checkpoints: used, and by each rule. ``middle`` is the outcome of the seed with the
    median wall clock: the ledger, energy and cost of a campaign are that seed's.
    """

    plan: CampaignPlan
    run: Run
    steps: int
    step_seconds: tuple[float, ...]
    nodes: int
    job: Job
    process: FaultProcess
    outcomes: tuple[Outcome, ...]
    intervals: Mapping[str, float]
    checkpoint: Mapping[str, Any]
    draw: Draw
    price: Price
    warnings: tuple[str, ...]
    first_seed: int = 0
    states: Mapping[str, float] = field(default_factory=dict)
    loading: DataLoading | None = None
    held_spares: int = 0
    swings: tuple[tuple[float, float, str, float], ...] = ()
    """(start, end, what, watts) of some steps by phase and of a checkpoint."""

    @property
    def order(self) -> list[int]:
        """The seeds' places, the shortest campaign first."""
        return sorted(range(len(self.outcomes)), key=lambda at: (self.outcomes[at].seconds, at))

    def at(self, share: float) -> Outcome:
        """The outcome of the seed that a share of all seeds do not exceed in wall clock."""
        return self.outcomes[self.order[max(0, ceil(share * len(self.outcomes)) - 1)]]

    @property
    def middle(self) -> Outcome:
        """The outcome of the median seed."""
        return self.at(0.5)

    def days(self, faults: int = 40) -> Outcome:
        """The median seed event by event, as far as some faults, or all of it where it has no more."""
        seed = self.first_seed + self.outcomes.index(self.middle)
        return play_events(self.job, self.process.history(seed), max(faults * self.process.mtbf, 4.0 * self.job.cycle))

    def joules(self, outcome: Outcome) -> float:
        """Energy of a seed's campaign."""
        return self.draw.joules(outcome.ledger)

    def dollars(self, outcome: Outcome) -> float:
        """Cost of a seed's campaign."""
        held = self.nodes + self.held_spares
        return held * outcome.seconds * self.price.node + self.joules(outcome) * self.price.energy

    def kilograms(self, outcome: Outcome) -> float:
        """Carbon dioxide of a seed's campaign."""
        return self.joules(outcome) * self.price.carbon_over(outcome.seconds, self.plan.start_hour)

    def summary(self) -> dict[str, Any]:
        """As plain data; ``docs/formats/campaign.md`` defines each key."""
        middle, totals = self.middle, self.run.totals
        goodputs = np.sort([each.goodput for each in self.outcomes])

        def spread(values: Sequence[float]) -> dict[str, float]:
            ordered = sorted(values)
            places = {"median": 0.5, "p5": 0.05, "p95": 0.95}
            return {name: ordered[max(0, ceil(share * len(ordered)) - 1)] for name, share in places.items()}

        names = [each.name for each in self.process.components]
        return {
            "machine": totals.machine,
            "model": totals.model,
            "mesh": totals.mesh,
            "nodes": self.nodes,
            "ranks": totals.ranks,
            "steps": self.steps,
            "tokens": self.steps * totals.tokens_per_second * totals.step_seconds,
            "step_seconds": float(np.mean(self.step_seconds)),
            "sampled_step_seconds": list(self.step_seconds),
            "step_states": dict(self.states),
            "ideal_seconds": self.job.work,
            "wall_clock_seconds": spread([each.seconds for each in self.outcomes]),
            "goodput": middle.goodput,
            "goodput_percentiles": {**spread(goodputs.tolist()), "mean": float(goodputs.mean())},
            "ledger": dict(middle.ledger),
            "ledger_seed": self.first_seed + self.outcomes.index(middle),
            "interruptions": middle.interruptions,
            "interruptions_percentiles": spread([float(each.interruptions) for each in self.outcomes]),
            "interruptions_by_component": {
                name: float(np.mean([each.by_component[kind] for each in self.outcomes]))
                for kind, name in enumerate(names)
            },
            "mtbf_seconds": self.process.mtbf,
            "policy": self.plan.policy,
            "checkpoint": dict(self.checkpoint),
            "checkpoint_interval_seconds": dict(self.intervals),
            "data": self.loading.table() if self.loading else {},
            "energy_joules": self.joules(middle),
            "mean_watts": self.joules(middle) / middle.seconds,
            "watts": dict(self.draw.watts),
            "co2_kilograms": self.kilograms(middle),
            "cost": self.dollars(middle),
            "seeds": [
                {
                    "seed": self.first_seed + number,
                    "wall_clock_seconds": each.seconds,
                    "goodput": each.goodput,
                    "interruptions": each.interruptions,
                    "ledger": dict(each.ledger),
                    "energy_joules": self.joules(each),
                }
                for number, each in enumerate(self.outcomes)
            ],
            "warnings": list(self.warnings),
        }


def campaign(
    machine: str | Path | Machine,
    model: str | Path | Model | None = None,
    *,
    allow_overcommit: bool | None = None,
    **options: Unpack[CampaignOptions],
) -> Campaign:
    """Play the whole training of ``model`` on ``machine``: steps from the simulator, faults drawn anew for each seed.

    Options are those of ``simulate()``, and those of a campaign: a budget (``tokens``, ``train_steps`` or ``target_loss``),
    faults, checkpoints, power and money. Raises ``InputError`` for bad input, ``DoesNotFit`` where a rank's memory is too
    small, and ``NeverDone`` where the training would not end.
    """
    own = CampaignPlan.options()
    chosen = CampaignPlan.of({key: value for key, value in options.items() if key in own})
    rest = {key: value for key, value in options.items() if key not in own}
    machine, model, given, overcommit = resolved(machine, model, rest, allow_overcommit)
    return play_campaign(load_machine(machine), load_model(model), chosen, given, overcommit)


def play_campaign(
    machine: Machine, model: Model, plan: CampaignPlan, options: Mapping[str, Any], overcommit: bool
) -> Campaign:
    """A campaign of a machine, a model, a campaign's plan and the options of its steps' plan."""
    site = Site(machine, plan)
    faults, power, storage, price = site.faults(), site.power(), site.storage(), site.price()
    if plan.cap_watts is not None:
        try:
            machine, power = capped_machine(machine, power, plan.cap_watts)
        except ValueError as reason:
            raise InputError(f"--power-cap {plan.power_cap}: {reason}") from None
    times = CampaignSteps(machine, model, options, overcommit, plan.sampled_steps)
    setting, totals = times.setting, times.run.totals
    steps = steps_of(plan, model, times.tokens)
    nodes = totals.nodes
    used = InUse(nodes, nodes * machine.accelerators_per_node, nodes * machine.node.interfaces, totals.supernodes)
    process = FaultProcess(faults, used)
    spares = plan.spares if plan.spares is not None else faults.spares
    if spares is None:
        spares = machine.nodes - nodes
    saved = Checkpoints.of(plan.checkpoint, setting, storage, plan.checkpoint_bytes, process)
    scheduling = faults.scheduling if plan.policy == "restart" else 0.0
    restart = faults.restart_seconds(totals.ranks) - faults.scheduling + scheduling
    loading = _loading(plan, times, machine, storage, nodes)
    waits = loading.stall_seconds if loading else 0.0
    work = steps * (times.seconds + waits)
    job = Job(
        work,
        work,
        saved.save,
        restart,
        saved.load + (loading.fill_seconds if loading else 0.0),
        saved.commit,
        spares=float(spares),
        speeds=times.speeds_with_fewer(plan.elastic_batch == "kept") if plan.policy == "elastic" else (1.0,),
        slowed={kind: times.speed_beside(each) for kind, each in enumerate(faults.component) if each.degrades},
        planned=frozenset(kind for kind, each in enumerate(faults.component) if each.planned),
        stall=waits / (times.seconds + waits),
        levels=saved.levels,
        survives=saved.survives,
    )
    seed = setting.plan.seed
    held = spares if plan.policy == "hot-spare" else 0
    intervals = _intervals(plan, job, saved.mtbf, process, seed, times.seconds + waits)
    job = job.at(intervals["used"])
    outcomes = tuple(_ended(play(job, process.history(seed + number)), process, job) for number in range(plan.seeds))
    states = step_states(setting, times.run)
    warnings = [*site.warnings, *totals.warnings]
    if job.commit and intervals["used"] <= job.commit * 1.0001:
        warnings.append(f"checkpoints are written for {duration(job.commit)}, and no more often begun")
    return Campaign(
        plan,
        times.run,
        steps,
        tuple(times.each.tolist()),
        nodes,
        job,
        process,
        outcomes,
        intervals,
        saved.table(job),
        Draw.of(power, states, nodes, held),
        price,
        tuple(warnings),
        seed,
        states,
        loading,
        held,
        swings(power, phase_states(setting, times.run), nodes, saved.save),
    )


def _loading(
    plan: CampaignPlan, times: CampaignSteps, machine: Machine, storage: Storage, nodes: int
) -> DataLoading | None:
    """How steps get their data; None where no data set is named."""
    if plan.dataset is None:
        return None
    batch = times.setting.batch
    samples = times.tokens / batch.seq_len
    ways = {"prefetch": plan.prefetch, "workers": plan.workers, "shuffle": plan.shuffle}
    return load_steps(load_dataset(plan.dataset), samples, times.seconds, machine, storage, nodes, **ways)


def _intervals(
    plan: CampaignPlan, job: Job, mtbf: float, process: FaultProcess, seed: int, step: float
) -> dict[str, float]:
    """Work between checkpoints: by each rule, and the one in use, in whole steps."""
    least = max(step, job.commit - job.save)
    by_rule = {
        "young": young(job.save, mtbf),
        "daly": daly(job.save, mtbf),
        "daly_first_order": max(0.0, daly_first_order(job.save, mtbf)),
    }
    by_rule["optimum"] = best_interval(job, process, seed, max(by_rule["daly"], least), least)
    asked = plan.interval_seconds or by_rule[plan.checkpoint_interval]
    used = min(job.work, max(least, step * max(1, round(min(asked, job.work) / step))))
    return {"used": used, **by_rule}


def _ended(outcome: Outcome, process: FaultProcess, job: Job) -> Outcome:
    """The outcome; raises :class:`NeverDone` where the campaign does not come to its end."""
    if outcome.finished:
        return outcome
    raise NeverDone(
        f"the training does not end: with a fault every {duration(process.mtbf)}, checkpoints of {duration(job.save)} and"
        f" restarts of {duration(job.restart + job.load)}, {outcome.goodput:.2%} of the time is productive; fewer faults"
        " (--mtbf-node), faster ones of these, or more spares would help"
    )
