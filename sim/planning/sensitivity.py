"""What would change the best plan's step time: each part of the machine twice as good, and each choice made otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...hardware.errors import AthanorError
from ...workloads.collectives import ALGORITHMS
from ...workloads.model.precision import POLICIES
from ...workloads.pipelines import find_pipeline
from ...workloads.pipelines.stage_layers import nearly_even, parse
from ...workloads.plan.plan import Plan
from ..workers import Workers
from .estimate import Estimator
from .question import Question
from .ranking import ROOMIER, Ranked
from .simulated_plans import faster_links, faster_machine, faster_parts, levels_used, play
from .space import divisors_of

TWICE = 2.0

TOGETHER = ("placement", "offload", "stage_layers", "optimizer")
"""Choices that say nothing alone (where ranks live, what goes to a host, layers of stages), or that a search does not weigh."""

CHECKED = 3
"""Changes of plan that promise most in closed form, which the engine then plays."""


@dataclass(frozen=True)
class Better:
    """A part of the machine that is twice as good, and the step with it; a latency or an overhead is halved."""

    part: str
    seconds: float
    gain: float
    note: str = ""


@dataclass(frozen=True)
class Otherwise:
    """One choice of the plan made otherwise: the step with it, and whether it fits.

    ``gain`` is relative to the best plan; ``simulated`` says that the seconds are the engine's.
    """

    option: str
    before: Any
    after: Any
    seconds: float
    gain: float
    fits: bool
    simulated: bool = False


@dataclass(frozen=True)
class Changes:
    """All of them, those that give most first."""

    machine: list[Better]
    plan: list[Otherwise]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"sensitivity": [vars(each) for each in self.machine], "changes": [vars(each) for each in self.plan]}


def changes(
    question: Question, best: Ranked, summary: Mapping[str, Any], roomier: Sequence[Ranked], workers: Workers
) -> Changes:
    """What would change the best plan's step time; ``summary`` is the engine's of it."""
    step = float(summary["step_seconds"])
    parts = _of_machine(question, best, summary, roomier, step, workers)
    return Changes(
        sorted(parts, key=lambda each: -each.gain),
        sorted(_of_plan(question, best, step, workers), key=lambda each: -each.gain),
    )


def _of_machine(
    question: Question,
    best: Ranked,
    summary: Mapping[str, Any],
    roomier: Sequence[Ranked],
    step: float,
    workers: Workers,
) -> list[Better]:
    """One run of the engine for each part; in the same order whoever of the workers was first."""
    found = []
    links, depth = levels_used(summary), summary["network"]["depth"]
    jobs = [(question, best.mesh, best.options, depth, link, TWICE) for link in links]
    for number, seconds in sorted(workers.results(faster_links, jobs)):
        if seconds is not None:
            found.append(Better(f"{links[number]} bandwidth", seconds, 1 - seconds / step))
    parts = faster_parts(question.machine, best.options["offload"] != "none")
    settings = list(parts.items())
    jobs_of_parts = [(question, best.mesh, best.options, each) for _, each in settings]
    for number, seconds in sorted(workers.results(faster_machine, jobs_of_parts)):
        if seconds is not None:
            found.append(Better(settings[number][0], seconds, 1 - seconds / step))
    if roomier:
        found.append(_memory(question, best, roomier[0], step))
    return found


def _memory(question: Question, best: Ranked, plan: Ranked, step: float) -> Better:
    """The best plan with twice the memory, which may be another one."""
    if plan.total <= question.memory:
        return Better("memory", step, 0.0, "the best plan stays the best")
    machine = question.machine.changed({"core_group.memory": ROOMIER * question.machine.core_group.memory})
    done = play((question.changed(machine=machine), plan.mesh, plan.options))
    seconds = min(step, float(done.summary["step_seconds"])) if done.summary else min(step, plan.seconds)
    text = ",".join(f"{axis}={size}" for axis, size in plan.mesh.items())
    differs = [f"{key} {value}" for key, value in plan.options.items() if value != best.options.get(key)]
    return Better("memory", seconds, 1 - seconds / step, " ".join([text, *differs]))


def _of_plan(question: Question, best: Ranked, step: float, workers: Workers) -> list[Otherwise]:
    """Every choice made otherwise, in closed form; those that promise most by the engine."""
    estimator, found = Estimator(question), []
    usual = estimator.estimate(best.mesh, best.options).seconds
    for option, before, after in _alternatives(question, best):
        options = {**best.options, option: after}
        if option == "pipeline":
            options["chunks"] = max(2, options["chunks"]) if find_pipeline(after).chunked else 1
        if parse(str(options.get("stage_layers", "even"))):  # a list is one of so many stages and chunks
            options["stage_layers"] = nearly_even(question.model.depth, best.mesh["pp"], options["chunks"])
        try:
            each = estimator.estimate(best.mesh, options)
        except AthanorError:
            continue
        seconds = each.seconds / usual * step
        found.append((Otherwise(option, before, after, seconds, 1 - seconds / step, each.memory.fits), options))
    found.sort(key=lambda pair: pair[0].seconds)
    promising = [place for place, (each, _) in enumerate(found) if each.fits and each.gain > 0][:CHECKED]
    plain = [each for each, _ in found]
    for number, done in workers.results(play, [(question, best.mesh, found[place][1]) for place in promising]):
        if done.summary:
            old, seconds = plain[promising[number]], float(done.summary["step_seconds"])
            plain[promising[number]] = Otherwise(
                old.option, old.before, old.after, seconds, 1 - seconds / step, old.fits, simulated=True
            )
    return plain


def _alternatives(question: Question, best: Ranked) -> list[tuple[str, Any, Any]]:
    """(option, value, other value) of every choice that a plan makes, searched or not."""
    plan, stages = question.plan, best.mesh.get("pp", 1)
    values: dict[str, Sequence[Any]] = {
        name: each.choices() for name, each in Plan.options().items() if each.searched and name not in TOGETHER
    }
    values = {name: each for name, each in values.items() if each} | {"precision": list(POLICIES)}
    if best.mesh.get("tp", 1) > 1:
        values["sequence_parallel"] = [False, True]
    else:
        values = {key: each for key, each in values.items() if key not in ("tensor", "expert_tensor")}
    if stages == 1:
        values.pop("pipeline")
    elif find_pipeline(best.options["pipeline"]).chunked:
        ends = 2 * (best.options.get("stage_layers", plan.stage_layers) == "ends")
        values["chunks"] = divisors_of((question.model.depth + ends) // stages)[1:]
    if size := best.options["micro_batch"]:
        values["micro_batch"] = [size // 2, 2 * size] if size > 1 else [2]
    if question.model.experts and best.mesh.get("ep", 1) > 1:
        values |= {"all_to_all": list(ALGORITHMS["all-to-all"]), "balancer": ["none", "capacity:1.25", "swipe"]}
    else:
        values.pop("expert_tensor", None)
    found = []
    for option, others in values.items():
        now = best.options.get(option, getattr(plan, option))
        found += [(option, now, other) for other in others if other != now and {now, other} != {"1", "hierarchical"}]
    return found
