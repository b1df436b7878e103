"""The record of a training: a value a step, and what was seen of its experts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...hardware.files import write_whole
from ...hardware.shown import Shown

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "athanor-training/1"
"""The format of a training's summary."""


@dataclass
class TrainingRun(Shown):
    """What a training recorded.

    ``told`` says what was trained, on what and how; the lists have a value a step, from the first one on, also of steps
    before a checkpoint from which the run went on: this job's begin at ``first``. Of ``step_seconds`` ranks spent
    ``data_seconds`` on drawing their batch, which no schedule has. ``experts[step, layer, expert]`` counts the tokens that
    want each expert, of the layers ``moe_layers``; ``load_balance`` has the figures of a step's layers, worst and mean. Where
    the loss is scaled, ``loss_scale`` is the scale of each step, and ``scale_events`` says after which steps it changed, or
    which were skipped.
    """

    told: dict[str, Any]
    loss: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    data_seconds: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    moe_layers: list[int] = field(default_factory=list)
    experts: list[NDArray[np.int64]] = field(default_factory=list)
    load_balance: list[dict[str, float]] = field(default_factory=list)
    loss_scale: list[float] = field(default_factory=list)
    scale_events: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    first: int = 0

    @property
    def tokens(self) -> int:
        """Tokens trained on in all."""
        return len(self.loss) * int(self.told["tokens_per_step"])

    def summary(self) -> dict[str, Any]:
        """Everything but the loads of single experts, as plain data."""
        late = self.step_seconds[1:] or self.step_seconds
        median = float(np.median(late)) if late else 0.0
        return {
            "format": FORMAT,
            **self.told,
            "steps": len(self.loss),
            "first_step": self.first,
            "tokens": self.tokens,
            "loss": self.loss,
            "step_seconds": self.step_seconds,
            "data_seconds": self.data_seconds,
            "gradient_norm": self.gradient_norm,
            "median_step_seconds": median,
            "tokens_per_second": self.told["tokens_per_step"] / median if median else 0.0,
            "load_balance": self._balance(),
            **({"loss_scale": self.loss_scale, "scale_events": self.scale_events} if self.loss_scale else {}),
            "warnings": self.warnings,
        }

    def _balance(self) -> dict[str, Any]:
        """Means over all steps, and each step's worst load over mean."""
        if not self.load_balance:
            return {}
        means = {key: float(np.mean([each[key] for each in self.load_balance])) for key in self.load_balance[0]}
        return {**means, "max_over_mean_by_step": [each["max_over_mean"] for each in self.load_balance]}

    def history(self) -> dict[str, Any]:
        """What a checkpoint keeps, to go on with."""
        return {
            "loss": self.loss,
            "step_seconds": self.step_seconds,
            "data_seconds": self.data_seconds,
            "gradient_norm": self.gradient_norm,
            "experts": [each.tolist() for each in self.experts],
            "load_balance": self.load_balance,
            "loss_scale": self.loss_scale,
            "scale_events": self.scale_events,
        }

    def go_on(self, history: dict[str, Any], step: int) -> None:
        """Take over what a checkpoint kept of the steps before."""
        self.first = step
        self.loss, self.step_seconds = history["loss"][:step], history["step_seconds"][:step]
        self.data_seconds = history.get("data_seconds", [0.0] * step)[:step]  # older checkpoints have none
        self.gradient_norm, self.load_balance = history["gradient_norm"][:step], history["load_balance"][:step]
        self.loss_scale, self.scale_events = history["loss_scale"][:step], history["scale_events"]
        self.experts = [np.array(each, dtype=np.int64) for each in history["experts"][:step]]

    def to_frame(self) -> pd.DataFrame:
        """A row a step."""
        import pandas as pd

        frame = pd.DataFrame(
            {
                "step": np.arange(len(self.loss)),
                "loss": self.loss,
                "gradient_norm": self.gradient_norm,
                "step_seconds": self.step_seconds,
                "data_seconds": self.data_seconds,
            }
        )
        for key in self.load_balance[0] if self.load_balance else ():
            frame[key] = [each[key] for each in self.load_balance]
        return frame

    def loads_csv(self) -> str:
        """Tokens of each step, layer and expert, as ``--router trace:FILE`` reads them."""
        lines = ["step,layer,expert,tokens"]
        for step, every in enumerate(self.experts):
            for layer, counts in zip(self.moe_layers, every, strict=True):
                lines += [f"{step},{layer},{expert},{tokens}" for expert, tokens in enumerate(counts)]
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the summary as JSON; raises :class:`InputError` where that is impossible."""
        write_whole(path, json.dumps(self.summary()) + "\n")
