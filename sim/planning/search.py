"""A search: every plan ranked in closed form, the best simulated, and what limits the best of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from ...hardware.errors import DoesNotFit, InputError
from ...hardware.machine import Machine, load_machine
from ...hardware.shown import Shown
from ...workloads.memory.need import PARTS
from ...workloads.mesh.mesh_text import mesh_text
from ...workloads.model.model import Model, load_model
from ...workloads.plan.plan import Plan
from ...workloads.plan.plan_options import PlanOptions
from ...workloads.plan.run_file import resolved
from ...workloads.plan.signatures import documented
from ..workers import Here, Workers, on_cores
from .question import DIMENSIONS, Question
from .ranking import MEMORY, Ranked, RankedPlans, rank_mesh
from .sensitivity import Changes, changes
from .simulated_plans import PlayedPlan, play
from .space import MOST, Space

KEEP = 10
"""Plans that are simulated."""

FORMAT = "athanor-plan/1"

MORE = 5
"""Times as many plans are kept in closed form as are simulated."""

OFFLOADS = ("optimizer", "activations", "optimizer,activations", "optimizer,parameters")
OF_EXPERTS = ("experts", "optimizer,experts")
"""What goes to the host where nothing fits without."""

Advance = Callable[[str], None]


@dataclass
class Search(Shown):
    """A search under way and its answer.

    ``found`` is what the closed form says, ``played`` what the engine says of the plans named best (by their place in
    ``found.best``), ``changes`` what would change the best plan's step time. An interrupted search has what it has.
    ``left_out`` are the plans that were put aside where there were too many: ``question.narrowed`` are the values of open choices
    that were looked at.
    """

    question: Question
    space: Space
    found: RankedPlans = field(default_factory=RankedPlans)
    played: dict[int, PlayedPlan] = field(default_factory=dict)
    changes: Changes | None = None
    done: int = 0
    interrupted: bool = False
    left_out: int = 0

    @property
    def plans(self) -> list[tuple[Ranked, PlayedPlan | None]]:
        """Plans that were simulated, fastest first; then those that were not, in the order of the closed form."""
        every = [(each, self.played.get(place)) for place, each in enumerate(self.found.best)]
        simulated = [(each, done) for each, done in every if done and done.summary]
        simulated.sort(key=lambda pair: (step_seconds(*pair), pair[0].total))
        return simulated + [(each, done) for each, done in every if not (done and done.summary)]

    @property
    def errors(self) -> list[float]:
        """Relative error of the closed form on each plan that was simulated."""
        return [each.seconds / step_seconds(each, done) - 1 for each, done in self.plans if done and done.summary]

    def plain(self) -> dict[str, Any]:
        """The answer as plain data; ``docs/formats/plan-search.md`` defines each key."""
        question, found, plans = self.question, self.found, self.plans
        rate = found.judged / found.seconds if found.seconds else 0.0
        return {
            "format": FORMAT,
            "machine": question.machine.name,
            "model": question.model.name,
            "ranks": question.ranks,
            "ranks_per_node": question.ranks_per_node,
            "global_batch": question.plan.global_batch,
            "seq_len": question.seq_len,
            "memory_bytes": question.memory,
            "fixed": dict(question.fixed),
            "meshes": len(self.space.meshes),
            "meshes_done": self.done,
            "interrupted": self.interrupted,
            "enumerated": found.enumerated,
            "pruned": dict(found.pruned.most_common()),
            "ranked": found.ranked,
            "narrowed": {key: list(values) for key, values in question.narrowed.items()},
            "left_out": self.left_out,
            "plans_per_second": rate,
            "search_seconds": found.seconds,
            "plans": [self._plan(*each) for each in plans],
            "front": [self._plan(each, self._played_of(each)) for each in found.front],
            "by_mesh": [self._plan(each, self._played_of(each)) for each in found.by_mesh],
            "margin": self.margin,
            "margin_to_next_mesh": self.margin_to_next_mesh,
            "closed_form_error": _spread(self.errors),
            "limits": self.limits(),
            **(self.changes.plain() if self.changes else {"sensitivity": [], "changes": []}),
        }

    @property
    def margin(self) -> float | None:
        """How much longer a step of the second best plan takes, relative to the best."""
        times = [step_seconds(*pair) for pair in self.plans[:2]]
        return times[1] / times[0] - 1 if len(times) == 2 else None

    @property
    def margin_to_next_mesh(self) -> float | None:
        """The same of the best plan of any other mesh."""
        if not self.plans:
            return None
        best, done = self.plans[0]
        others = [(each, self._played_of(each)) for each in self.found.best if each.mesh != best.mesh]
        others += [(each, self._played_of(each)) for each in self.found.by_mesh if each.mesh != best.mesh]
        times = [step_seconds(*pair) for pair in others]
        return min(times) / step_seconds(best, done) - 1 if times else None

    def limits(self) -> dict[str, Any]:
        """What the best plan's step goes on, and how busy the busiest link of each kind is."""
        if not self.plans:
            return {}
        done = self.plans[0][1]
        if done is None or done.summary is None:
            return {}
        summary = done.summary
        step, memory = summary["step_seconds"], summary["memory_per_rank_bytes"]
        return {
            "breakdown": {key: seconds / step for key, seconds in summary["breakdown"].items() if seconds > 0},
            "links": {row["kind"]: row["max_utilisation"] for row in summary["links"]},
            "peak_fraction": summary["peak_fraction"],
            "memory": memory["total"] / self.question.memory,
        }

    def _played_of(self, plan: Ranked) -> PlayedPlan | None:
        return next((self.played.get(place) for place, each in enumerate(self.found.best) if each == plan), None)

    def _plan(self, plan: Ranked, done: PlayedPlan | None) -> dict[str, Any]:
        summary = done.summary if done else None
        memory = summary["memory_per_rank_bytes"] if summary else plan.memory
        return {
            "mesh": plan.mesh,
            "placement": plan.options["placement"],
            "options": {key: value for key, value in plan.options.items() if key != "placement"},
            "step_seconds": step_seconds(plan, done),
            "simulated": summary is not None,
            "closed_form_seconds": plan.seconds,
            "memory_per_rank_bytes": {part: memory[part] for part in (*PARTS, "total")} | {"host": plan.memory["host"]},
            "breakdown": summary["breakdown"] if summary else None,
            "peak_fraction": summary["peak_fraction"] if summary else None,
            "reason": done.reason if done else "",
            "command": command(self.question, plan),
        }


def step_seconds(plan: Ranked, done: PlayedPlan | None) -> float:
    """What the engine says, else the closed form."""
    return float(done.summary["step_seconds"]) if done and done.summary else plan.seconds


def search(
    question: Question,
    *,
    limit: int | None = None,
    simulated: int = KEEP,
    workers: Workers | None = None,
    known: Mapping[str, dict[str, Any]] | None = None,
    on_mesh: Callable[[str, RankedPlans, Search], None] | None = None,
    advance: Advance = lambda text: None,
) -> Iterator[Search]:
    """Search; the same object again and again as it comes to know more, so that an interruption leaves what there is.

    ``known`` are meshes that an earlier search has done, by the key with which ``on_mesh`` was called. Raises
    :class:`InputError` where there are more plans than ``limit``, or none, and :class:`DoesNotFit` where none fits. Without a
    limit, open choices are narrowed where there are more plans than :data:`~athanor.sim.planning.space.MOST`, and the answer
    says to what.
    """
    crew = workers or Here()
    spaces = [Space(question)]
    if "offload" not in question.fixed and "offload" not in question.tries and question.machine.node.host_memory:
        away = OFFLOADS + (OF_EXPERTS if question.model.experts else ())
        spaces.append(Space(question, away))
    this = Search(question, spaces[0])
    for number, every in enumerate(spaces):
        if number and this.found.best:
            break
        space = every.narrowed(MOST) if limit is None else every
        space.require_few(limit or MOST)
        question = space.question
        if number:
            advance(f"nothing fits without a host: {space.size:,} plans that offload")
        if question.narrowed:
            advance(f"{every.size:,} plans: {space.size:,} of usual {', '.join(question.narrowed)}")
        before = RankedPlans(pruned=this.found.pruned, enumerated=this.found.enumerated)
        this = Search(question, space, before, left_out=this.left_out + every.size - space.size)
        yield from _rank(
            this, crew, simulated * MORE, known or {}, on_mesh, advance, f"offload{number}" if number else ""
        )
    require_some(this)
    yield from _simulate(this, crew, simulated, advance)
    advance("what limits the best")
    best, done = this.plans[0]
    if done and done.summary:
        this.changes = changes(question, best, done.summary, this.found.roomier, crew)
    yield this


@documented(lambda option: option.fixable)
def plan(
    machine: str | Path | Machine,
    model: str | Path | Model | None = None,
    *,
    gpus: int | None = None,
    nodes: int | None = None,
    max_memory: float | None = None,
    tries: Sequence[str] = (),
    limit: int | None = None,
    simulated: int = KEEP,
    jobs: int = 1,
    **options: Unpack[PlanOptions],
) -> Search:
    """Search the fastest plan of ``model`` on ``machine``, as ``athanor plan`` does.

    Options of a plan that are given hold for all plans, the others are searched; ``global_batch`` has to be given, and either
    ``gpus`` or ``nodes``. ``tries`` are values of choices and sizes of axes to search (``"pipeline=1f1b,zb-h1"``, ``"tp=4,8"``),
    ``max_memory`` is in bytes, ``limit`` the most plans (see :func:`search`), ``simulated`` how many of the best the engine
    runs, ``jobs`` processes. A run file may stand for machine and model, as in ``simulate()``. Raises what :meth:`Question.of`
    and :func:`search` raise.
    """
    machine, model, given, _ = resolved(machine, model, options, None)
    asked = Question.of(load_machine(machine), load_model(model), given, tries, gpus, nodes, max_memory)
    with on_cores(jobs) as crew:
        *_, last = search(asked, limit=limit, simulated=simulated, workers=crew)
    return last


def _rank(
    this: Search,
    crew: Workers,
    keep: int,
    known: Mapping[str, dict[str, Any]],
    on_mesh: Callable[[str, RankedPlans, Search], None] | None,
    advance: Advance,
    which: str,
) -> Iterator[Search]:
    """Rank all meshes, those of earlier searches first."""
    keys = [f"{this.question.digest}{which}.{keep}:{mesh_text(mesh)}" for mesh in this.space.meshes]
    left = []
    for key, mesh in zip(keys, this.space.meshes, strict=True):
        if key in known:
            this.found.add(RankedPlans.from_plain(known[key]), keep)
            this.done += 1
        else:
            left.append((key, mesh))
    yield this
    for number, part in crew.results(rank_mesh, [(this.space, mesh, keep) for _, mesh in left]):
        key, mesh = left[number]
        this.found.add(part, keep)
        this.done += 1
        if on_mesh:
            on_mesh(key, part, this)
        best = f", best {this.found.best[0].seconds:.4g} s" if this.found.best else ""
        advance(f"{mesh_text(mesh)} ({this.done:,} of {len(keys):,} meshes, {this.found.enumerated:,} plans{best})")
        yield this


def _simulate(this: Search, crew: Workers, count: int, advance: Advance) -> Iterator[Search]:
    """The best plans by the engine, and the best of another mesh where these are all of one."""
    chosen = this.found.best[:count]
    chosen += [
        each
        for each in this.found.by_mesh
        if each.mesh != chosen[0].mesh and {str(one.mesh) for one in chosen} == {str(chosen[0].mesh)}
    ][:1]
    this.found.best = [*chosen, *(each for each in this.found.best if each not in chosen)]
    for number, done in crew.results(play, [(this.question, each.mesh, each.options) for each in chosen]):
        this.played[number] = done
        seconds = step_seconds(chosen[number], done)
        advance(f"simulated {len(this.played)} of {len(chosen)}: {mesh_text(chosen[number].mesh)} {seconds:.4g} s")
        yield this


def require_some(this: Search) -> None:
    """Raise :class:`DoesNotFit` where no plan fits, and :class:`InputError` where there is none at all."""
    if this.found.best:
        return
    question, pruned = this.question, this.found.pruned
    what = f"{question.model.name} on {question.ranks:,} ranks of {question.machine.name}"
    if pruned[MEMORY]:
        roomy = (
            f"; the least that was seen needs {this.found.roomier[0].total / 1e9:.1f} GB" if this.found.roomier else ""
        )
        raise DoesNotFit(
            f"{what}: none of {this.found.enumerated:,} plans fits {question.memory / 1e9:.1f} GB a rank{roomy};"
            " more ranks, a larger --max-memory or a smaller --global-batch"
            + (f"; {this.left_out:,} plans were not searched, a larger --limit does" if this.left_out else "")
        )
    why = ", ".join(f"{count:,} {text}" for text, count in pruned.most_common(3))
    raise InputError(f"{what}: none of {this.found.enumerated:,} plans can be: {why}")


def command(question: Question, plan: Ranked) -> str:
    """The command that simulates a plan."""
    said = question.said or ("--machine", question.machine.name, "--model", question.model.name)
    words = ["athanor", "simulate", *said, "--mesh", mesh_text(plan.mesh)]
    options = {**question.fixed, **plan.options, "ranks_per_node": question.ranks_per_node}
    for key, value in options.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None and not (key in DIMENSIONS and _usual(question, key, value)):
            words += [flag, str(value)]
    return shlex.join(words)


def _usual(question: Question, key: str, value: Any) -> bool:
    """Whether an option says what the defaults say, and the model's own plan nothing else."""
    return key not in question.model.plan and Plan.options()[key].default == value


def _spread(errors: Sequence[float]) -> dict[str, float] | None:
    """Mean of the absolute errors, and the worst one with its sign."""
    if not errors:
        return None
    return {"mean_absolute": sum(map(abs, errors)) / len(errors), "worst": max(errors, key=abs)}
