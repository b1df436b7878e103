"""``reproduce resilience``: interruptions and goodput of published trainings, and what a training on 96,000 nodes would reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ....hardware.machine import Machine, load_machine
from ....hardware.site.assumed import of_nodes, read_faults
from ....hardware.site.faults import Component, Faults
from ....hardware.site.storage import Storage
from ....hardware.units import DAY, HOUR, MINUTE, YEAR, duration
from ....sim.campaign.campaign import Campaign, campaign
from ....sim.campaign.faults.fault_history import FaultProcess, InUse
from ....sim.campaign.faults.renewals import play
from ....sim.campaign.intervals import daly
from ....sim.campaign.job import Job
from ....sim.campaign.optimum import best_interval
from ....workloads.model.model import load_model
from ...content.figures import Series
from ...content.inputs import inputs
from ...content.sections import Drawing, ReportPart, Section
from ..claims import Claim
from .desk import Desk
from .facts import Facts
from .record import Reproduction

LLAMA_DAYS = 54
SEEDS = 20
YEARS = (1, 2, 5, 10, 20)
"""Mean times between failures of a Sunway node."""

QUICK = {"detection": 30.0, "scheduling": 0.0, "initialisation": 30.0, "initialisation_per_rank": 0.0}
"""What the best runtimes of today take: seconds to notice a fault, and half a minute to go on (Unicron, ByteRobust, torchft)."""

TABLE_TEXT = (
    "MoDa-1.93T on 96,000 nodes. Usual: faults are noticed after 5 min, and a restart takes as long as with 16,384 GPUs and"
    " more for each rank. Quick: noticed after 30 s, restarted in 30 s, checkpoints copied to memory and written beside the"
    " steps. Intervals are Daly's; the best of those simulated stands beside."
)
COLUMNS = (
    "a node fails every",
    "the job every",
    "goodput",
    "interval",
    "best interval",
    "goodput, quick",
    "interval, quick",
)


def large_h100() -> Machine:
    """Eos with 2,048 nodes, as many as Llama 3's 16,384 GPUs fill, and a file system of 2 TB/s (Tectonic)."""
    machine = load_machine("eos-h100").changed({"fabric.tiers.2.down": 6, "nodes": 2048})
    return machine.model_copy(update={"storage": Storage(read=2e12, write=2e12)})


def build(desk: Desk) -> Reproduction:
    """Published runs one by one, then a range of rates on the Sunway machine."""
    facts, machine = Facts("resilience"), load_machine("sunway-oceanlight")
    found = Reproduction("resilience", facts.table["title"], machine)
    desk.progress("Llama 3")
    found.claims += [*_llama(facts)]
    desk.progress("clusters of Meta, MegaScale, OPT")
    found.claims += [*_meta(facts), *_megascale(facts), *_opt(facts)]
    desk.progress("BLOOM")
    found.claims += [*_bloom(facts), *_byterobust(facts), *_torchft(facts)]
    desk.progress("96,000 nodes")
    rows, curves = _bagualu(machine)
    drawing = Drawing(
        "goodput",
        "Share of the time in which steps are made that are kept.",
        Series(curves, "years between failures of a node", "goodput", "MoDa-1.93T on 96,000 nodes", False),
    )
    found.parts = [ReportPart(Section("What would 96,000 nodes reach?", TABLE_TEXT, COLUMNS, rows), [drawing])]
    found.inputs = inputs(machine, load_model("moda-1.93t"), load_model("moda-1.93t").plan)
    return found


def _gpus(accelerators: int) -> InUse:
    """So many GPUs in nodes of eight."""
    nodes = accelerators // 8
    return InUse(nodes, accelerators, accelerators, max(1, nodes // 32))


def _count(process: FaultProcess, seconds: float, seeds: int = 100) -> list[int]:
    """Interruptions within a time, of each seed."""
    return [len(process.history(seed).until(seconds).time) for seed in range(seeds)]


def _goodput(process: FaultProcess, job: Job, interval: float | None = None) -> float:
    """Mean over seeds of the productive share, with Daly's interval where none is given."""
    job = job.at(interval or daly(job.save, process.mtbf))
    return float(np.mean([play(job, process.history(seed)).goodput for seed in range(SEEDS)]))


def _llama(facts: Facts) -> Iterator[Claim]:
    process = FaultProcess(read_faults("llama3"), _gpus(16384))
    counts = _count(process, LLAMA_DAYS * DAY)
    name = f"Llama 3: unexpected interruptions in {LLAMA_DAYS} days on 16,384 H100"
    yield facts.claim("llama3_interruptions", name, float(np.mean(counts)), "fitted")
    low, high = np.percentile(counts, [2.5, 97.5])
    within = low <= facts.value("llama3_interruptions") <= high
    name = f"Llama 3: 419 lie within 95 of 100 seeds ({low:.0f} to {high:.0f})"
    yield facts.truth("llama3_interruptions", name, bool(within), "fitted")
    run = campaign(
        large_h100(), "llama3-405b", train_steps=600_000, faults="llama3", spares=64, seeds=SEEDS, allow_overcommit=True
    )
    goodput = run.middle.goodput
    name = f"Llama 3: more than 90 % of the time is training (simulated {goodput:.1%})"
    yield facts.truth("llama3_goodput", name, goodput > facts.value("llama3_goodput"))


def _meta(facts: Facts) -> Iterator[Claim]:
    hours = {}
    for name in facts.values["rsc_rate"]:
        faults = read_faults(name)
        process = FaultProcess(faults, _gpus(8000))
        mean = float(np.mean(_count(process, 100 * DAY))) / (process.used.nodes * 100) * 1000
        yield facts.claim("rsc_rate", f"{name}: faults for 1,000 node-days", mean, "fitted", at=name)
        hours[name] = 1 / FaultProcess(faults, _gpus(1024)).rates.sum() / HOUR
        hardware = read_faults("llama3").component[:-1]
        from_llama = FaultProcess(faults.model_copy(update={"component": hardware}), _gpus(8000))
        text = f"{name}: faults for 1,000 node-days, from Llama 3's rates of hardware"
        yield facts.claim("rsc_rate", text, DAY * 1000 / (from_llama.mtbf * 1000), "predicted", at=name)
    first = hours["meta-rsc1"]
    text = "meta-rsc1: hours between faults of a job on 1,024 GPUs, by the rate of its nodes"
    yield facts.claim("rsc_mttf_hours", text, first, "arithmetic", at="by rate")
    text = "meta-rsc1: the same, as measured: a job's own faults come on top"
    yield facts.claim("rsc_mttf_hours", text, first, "contradiction", at="measured")
    own = 1 / (1 / facts.value("rsc_mttf_hours", "measured") - 1 / first)
    both = with_own_faults(read_faults("meta-rsc1"), own * HOUR)
    large = [FaultProcess(each, _gpus(16384)).mtbf / HOUR for each in (read_faults("meta-rsc1"), both)]
    text = "meta-rsc1: hours between faults of a job on 16,384 GPUs, by the rate of its nodes"
    yield facts.claim("rsc_mttf_hours", text, large[0], "arithmetic", at="16384")
    text = f"meta-rsc1: the same, with a job's own faults every {own:.1f} h beside"
    yield facts.claim("rsc_mttf_hours", text, large[1], "predicted", at="16384")
    wanted = facts.value("rsc_ettr")
    for rate, save, expected in ((6.5, 5 * MINUTE, False), (1.0, 5 * MINUTE, True), (6.5, 10.0, True)):
        nodes = of_nodes(1000 / rate * DAY, read_faults("meta-rsc1"))
        process = FaultProcess(nodes.model_copy(update={"detection": 0.0}), _gpus(16384))
        reached = _goodput(process, Job(30 * DAY, DAY, save, 5 * MINUTE, 0.0))
        text = (
            f"16,384 GPUs, {rate:g} faults for 1,000 node-days, checkpoints of {duration(save)}: productive 90 % of the"
            f" time (simulated {reached:.1%})"
        )
        yield facts.truth("rsc_ettr", text, reached >= wanted, target=expected)


def with_own_faults(faults: Faults, mtbf: float) -> Faults:
    """The same faults, and those that a job has whatever its size."""
    own = Component(name="job", per="job", mtbf=mtbf, takes="nothing")
    return faults.model_copy(update={"component": (*faults.component, own)})


def _megascale(facts: Facts) -> Iterator[Claim]:
    process = FaultProcess(read_faults("llama3"), _gpus(12288))
    count = float(np.mean(_count(process, 28 * DAY)))
    least = facts.value("megascale_restarts")
    text = f"MegaScale: more than 100 restarts in four weeks on 12,288, by Llama 3's rates (simulated {count:.0f})"
    yield facts.truth("megascale_restarts", text, count > least)
    own = with_own_faults(read_faults("llama3"), 28 * DAY / least)
    own = own.model_copy(update={"component": own.component[-1:], "detection": 10 * MINUTE})
    reached = _goodput(FaultProcess(own, _gpus(12288)), Job(28 * DAY, DAY, 10.0, 10 * MINUTE, 5 * MINUTE))
    text = (
        "MegaScale: productive more than 90 % with a hundred restarts in four weeks, noticed in 10 min, caught up in 15"
        f" (simulated {reached:.1%})"
    )
    yield facts.truth("megascale_goodput", text, reached > facts.value("megascale_goodput"))


def _opt(facts: Facts) -> Iterator[Claim]:
    run = campaign(
        "selene", "gpt3-175b", tokens=3e11, mesh="pp=8,dp=16,tp=8", global_batch=1024, zero="1", faults="opt", seeds=5
    )
    text = "OPT-175B: days of steps alone on 1,024 A100 (plan assumed)"
    yield facts.claim("opt_ideal_days", text, run.job.work / DAY, "predicted")
    count = float(np.mean(_count(FaultProcess(read_faults("opt"), _gpus(992)), 60 * DAY)))
    text = "OPT-175B: restarts in two months, from the rate of the week without people"
    yield facts.claim("opt_restarts", text, count, "predicted")


def _bloom(facts: Facts) -> Iterator[Claim]:
    run = campaign("jean-zay-a100", "bloom-176b", tokens=3.66e11, faults="bloom", seeds=SEEDS)
    middle, size = run.middle, run.checkpoint
    yield facts.claim("bloom_days", "BLOOM: days of the training", middle.seconds / DAY, "predicted")
    yield facts.claim("bloom_goodput", "BLOOM: share of the time that is productive", middle.goodput, "predicted")
    yield facts.claim("bloom_terabytes", "BLOOM: TB of a checkpoint", size["bytes"] / 1e12, "arithmetic")
    seconds = size["write_seconds"]
    yield facts.claim("bloom_write_seconds", "BLOOM: seconds that writing it takes", seconds, "fitted")
    hundred = play(run.job.at(100 * run.run.totals.step_seconds), run.process.history(0)).ledger
    share = hundred["checkpoint"] / (hundred["checkpoint"] + hundred["productive"])
    yield facts.claim("bloom_saving", "BLOOM: share of saving every 100 iterations", share, "predicted")


def _byterobust(facts: Facts) -> Iterator[Claim]:
    shares = facts.values["byterobust_share"]
    first = next(iter(shares))
    share, stop = float(shares[first]), float(first)
    step = stop * share / (1 - share)
    for text in shares:
        job = Job(1000 * step, step, float(text), 0.0, 0.0)
        never = FaultProcess(of_nodes(1e6 * YEAR, read_faults("llama3")), _gpus(2048))
        reached = play(job, never.history(0)).goodput
        name = f"ByteRobust: speed with a checkpoint each step that stops it {text} s, over that without"
        yield facts.claim("byterobust_share", name, reached, "fitted" if text == first else "predicted", at=text)


def _torchft(facts: Facts) -> Iterator[Claim]:
    """Faults were injected at regular times: what one costs follows from the first row."""
    shares = facts.values["torchft_steps"]
    first = next(iter(shares))
    lost = (1 - float(shares[first])) * float(first)
    for text in shares:
        regular = Component(name="injected", per="job", mtbf=float(text), shape=30.0, takes="nothing")
        faults = read_faults("llama3").model_copy(update={"component": (regular,), "detection": 0.0})
        reached = _goodput(FaultProcess(faults, _gpus(304)), Job(HOUR, 0.2, 1e-6, lost, 0.0), 0.2)
        name = f"torchft: steps committed with a fault every {text} s, each of which costs {lost:.1f} s"
        yield facts.claim("torchft_steps", name, reached, "fitted" if text == first else "predicted", at=text)


def _bagualu(machine: Machine) -> tuple[list[tuple[str, ...]], dict[str, Sequence[tuple[float, float]]]]:
    """A row for each rate, and curves of goodput over it."""
    run = campaign(machine, "moda-1.93t", train_steps=100_000, seeds=1, mtbf_node="20y")
    rows, curves = list[tuple[str, ...]](), {"usual": list[Any](), "quick": list[Any]()}
    faults = read_faults("llama3")
    quick_faults = faults.model_copy(update=QUICK)
    usual = replace(run.job, work=5 * DAY)
    quick = _asynchronous(run, quick_faults.restart_seconds(96_000))
    for years in YEARS:
        cells = []
        for name, job, base in (("usual", usual, faults), ("quick", quick, quick_faults)):
            process = FaultProcess(of_nodes(years * YEAR, base), run.process.used)
            interval = max(daly(job.save, process.mtbf), job.commit, run.run.totals.step_seconds)
            reached = _goodput(process, job, interval)
            curves[name].append((float(years), reached))
            cells.append((process, job, interval, reached))
        process, job, interval, reached = cells[0]
        best = best_interval(job, process, 0, interval, run.run.totals.step_seconds)
        rows.append(
            (
                duration(years * YEAR),
                duration(process.mtbf),
                f"{reached:.1%}",
                duration(interval),
                duration(best),
                f"{cells[1][3]:.1%}",
                duration(cells[1][2]),
            )
        )
    return rows, {name: tuple(points) for name, points in curves.items()}


def _asynchronous(run: Campaign, restart: float) -> Job:
    """The same job with checkpoints beside its steps, and a quick restart."""
    names = run.run.totals.machine, run.run.totals.model
    other = campaign(*names, train_steps=1000, seeds=1, checkpoint="asynchronous", mtbf_node="20y")
    return replace(other.job, work=5 * DAY, restart=restart)
