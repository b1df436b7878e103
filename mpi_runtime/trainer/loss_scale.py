"""Loss scaling: gradients in half precision are kept from vanishing, and steps in which they overflow are skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ...hardware.errors import InputError
from ...workloads.model.precision import Formats, Part
from ...workloads.plan.setting import Setting

FIRST, FACTOR, INTERVAL, LEAST = 2.0**16, 2.0, 2000, 1.0
"""Scale to begin with, factor by which it changes, steps without overflow until it grows, and the smallest (PyTorch, APEX)."""

DYNAMIC, NONE = "dynamic", "none"


class ScaleEvent(NamedTuple):
    """A step after which the scale is another one, or which was skipped at the smallest."""

    step: int
    what: Literal["grew", "backed off", "skipped"]
    scale: float


def has_halves(formats: Mapping[Part, Formats]) -> bool:
    """Whether gradients are computed or kept in fp16, whose range is small; that of bf16 is as large as that of fp32."""
    return any("fp16" in (each.compute, each.gradient) for each in formats.values())


@dataclass
class LossScale:
    """The scale of the loss, a state machine (Micikevicius et al. 2018, section 3.2).

    After a step that overflowed, which is skipped, it is halved; after ``interval`` steps in a row that did not, doubled. A
    scale that is ``fixed`` stays, and steps that overflow are skipped as well.
    """

    value: float = FIRST
    fixed: bool = False
    interval: int = INTERVAL
    good: int = 0
    events: list[ScaleEvent] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str, setting: Setting) -> LossScale | None:
        """``dynamic``, ``none``, or a number; by itself dynamic where anything is computed or kept in half."""
        if not text:
            schedule = setting.plan.precisions
            text = DYNAMIC if any(has_halves(schedule.policy(name)) for name in schedule.names) else NONE
        if text in (DYNAMIC, NONE):
            return cls() if text == DYNAMIC else None
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise InputError(f"--loss-scale {text}: write {DYNAMIC}, {NONE} or a number above 0")
        return cls(value, fixed=True)

    def after(self, step: int, overflowed: bool) -> None:
        """A step is over."""
        if overflowed:
            self.good = 0
            if self.fixed or self.value / FACTOR < LEAST:
                self.events.append(ScaleEvent(step, "skipped", self.value))
            else:
                self.value /= FACTOR
                self.events.append(ScaleEvent(step, "backed off", self.value))
            return
        self.good += 1
        if not self.fixed and self.good == self.interval:
            self.value, self.good = self.value * FACTOR, 0
            self.events.append(ScaleEvent(step, "grew", self.value))
