"""Where a reproduction has its steps worked out: several at once, each told when it is done, and kept for the next time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import BaseModel

from ....hardware.machine import Machine
from ....hardware.version import fingerprint, key
from ....sim.simulate import simulate
from ....sim.studies.inference import infer
from ....sim.studies.points import points
from ....sim.workers import Here, Workers
from ....workloads.model.model import Model
from ...published.run import PublishedRun
from .facts import predicted
from .record import Progress

Label = TypeVar("Label", bound=Hashable)

Step = tuple[Machine, str | Model, dict[str, Any]]
"""What ``simulate`` and ``infer`` take: machine, model, options."""


@dataclass
class Desk:
    """Works out what a reproduction asks for; ``known`` are results of earlier times by key, ``keep`` hears of each new one."""

    progress: Progress = lambda text: None
    crew: Workers = field(default_factory=Here)
    known: Mapping[str, Any] = field(default_factory=dict)
    keep: Callable[[str, Any], None] = lambda key, result: None

    def each(
        self, call: Callable[[Any], Any], tasks: Mapping[Label, Any], told: Callable[[Label], str] = str
    ) -> dict[Label, Any]:
        """The results of tasks that do not depend on each other, by label; ``call`` gives plain data."""
        labels: dict[str, list[Label]] = {}
        asked: dict[str, Any] = {}
        for label, task in tasks.items():
            name = key(fingerprint("reports"), call.__name__, _plain(task))
            asked[name] = task
            labels.setdefault(name, []).append(label)
        found: dict[Label, Any] = {}
        for name, result in points(call, asked, self.known, self.crew):
            self.keep(name, result)
            for label in labels[name]:
                found[label] = result
            self.progress(told(labels[name][0]))
        return {label: found[label] for label in tasks}


def step(task: Step) -> dict[str, Any]:
    """The summary of a simulated step."""
    machine, model, options = task
    return simulate(machine, model, **options).summary()


def whole_run(task: Step) -> dict[str, Any]:
    """A simulated run without its trace, as ``Run.from_plain`` takes it."""
    machine, model, options = task
    return replace(simulate(machine, model, **options), trace=()).to_plain()


def inference(task: Step) -> dict[str, Any]:
    """The summary of inference."""
    machine, model, options = task
    return infer(machine, model, **options).summary()


def prediction(task: tuple[PublishedRun, Machine, bool]) -> list[Any]:
    """What :func:`~.facts.predicted` says of a published run: its value, and the summary of the step."""
    run, machine, library = task
    return [*predicted(run, machine, library)]


def _plain(task: Any) -> Any:
    """A task without what is no plain data."""
    if isinstance(task, BaseModel):
        return task.model_dump()
    return [_plain(each) for each in task] if isinstance(task, tuple) else task
