"""Claims from the published facts of one system: a fact's target and source, beside what is computed."""

from __future__ import annotations

from typing import Any

from ....hardware.machine import Machine
from ....workloads.plan.setting import Setting
from ...published import published
from ...published.read_runs import published_runs
from ...published.run import PublishedRun
from ..accuracy.libraries import library_of
from ..accuracy.metrics import predict, simulated
from ..claims import Claim, Kind


class Facts:
    """The table of one publication: ``facts``, ``parameters``, ``measured`` rows, and a source for each key."""

    def __init__(self, name: str) -> None:
        self.table = published(name)
        self.values: dict[str, Any] = {**self.table["facts"], "parameters": self.table.get("parameters", {})}

    def source(self, key: str) -> str:
        """The source of a key; "same" is that of the key before."""
        found = ""
        for name, text in self.table["sources"].items():
            found = found if text == "same" else text
            if name == key:
                return found
        raise KeyError(key)

    def value(self, key: str, at: object = None) -> float:
        """A fact, or one entry of it."""
        return float(self.values[key] if at is None else self.values[key][str(at)])

    def claim(self, key: str, name: str, simulated: float, kind: Kind = "arithmetic", at: object = None) -> Claim:
        """The fact (or its entry ``at``) as the target of what was computed."""
        return Claim(name, self.value(key, at), float(simulated), kind, self.source(key))

    def truth(self, key: str, name: str, simulated: bool, kind: Kind = "predicted", target: bool = True) -> Claim:
        """Something that the source says is so (or is not), and whether it is."""
        return Claim(name, target, bool(simulated), kind, self.source(key))

    def runs(self, key: str) -> list[PublishedRun]:
        """The published runs that stand under ``[measured]``."""
        return [published_runs()[each] for each in self.table["measured"][key]]


def predicted(run: PublishedRun, machine: Machine, library: bool = True) -> tuple[float, dict[str, Any]]:
    """What ``athanor validate`` predicts of a run, here on this machine, and the summary of the step.

    Without ``library`` the machine stays as it is, whatever the run's library did.
    """
    seen: list[dict[str, Any]] = []

    def play(setting: Setting) -> dict[str, Any]:
        seen.append(simulated(setting))
        return seen[-1]

    under = done_by.on(machine) if library and (done_by := library_of(run)) else machine
    made = predict(run, play, lambda _: under)
    return made.value, seen[-1]


def measured(run: PublishedRun, name: str, simulated: float) -> Claim:
    """A measurement as the target of what was computed; fitted, where constants in use were fitted to it."""
    kind: Kind = "fitted" if run.fitted else "predicted"
    source = run.source if run.confidence == "found" else f"{run.source} ({run.confidence})"
    return Claim(name, run.value, float(simulated), kind, source)
