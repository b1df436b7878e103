"""``reproduce precision``: which formats of numbers learn, on a small model with several seeds, beside published signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....hardware.machine import load_machine
from ....mpi_runtime.trainer.alone import PrecisionTrial, precision_trial
from ....mpi_runtime.trainer.serial import Size
from ....workloads.model.model import Model
from ...content.figures import Series
from ...content.sections import Drawing, ReportPart, Section
from .convergence import MODEL
from .desk import Desk
from .facts import Facts
from .record import Reproduction

SEEDS = 3
TOKENS, RATE, SMALL_RATE = 256, 3e-3, 1e-4
OVERFLOWING = (40, 41, 42)
TINY = str(2.0**-16)
POLICIES = ("O0", "O1", "layerwise", "bf16", "fp8", "O2", "O3")


@dataclass(frozen=True)
class Setup:
    """A condition, the policies that are tried under it, and for how many steps and seeds."""

    about: str
    policies: tuple[str, ...]
    steps: int
    trial: PrecisionTrial = PrecisionTrial("O0")
    seeds: int = SEEDS


SETUPS = {
    "as it is": Setup(f"learning rate {RATE:g}", POLICIES, 200),
    "small rate": Setup(
        f"learning rate {SMALL_RATE:g}, as large models have",
        ("O0", "layerwise", "bf16", "O2", "O3"),
        200,
        PrecisionTrial("", learning_rate=SMALL_RATE),
    ),
    "loud": Setup(
        "rows of the embedding begin a million times larger, which norms undo",
        POLICIES,
        40,
        PrecisionTrial("", loud=1e6),
        1,
    ),
    "tiny gradients": Setup(
        "the loss is divided by 65,536 and not scaled: gradients are as small as with so many times more tokens a step",
        ("O0", "bf16", "layerwise", "O2"),
        100,
        PrecisionTrial("", TINY),
        1,
    ),
    "outliers": Setup(
        "gradients of three steps are a million times larger",
        ("O0", "O2"),
        100,
        PrecisionTrial("", outliers=tuple((step, 1e6) for step in OVERFLOWING)),
        1,
    ),
}

TEXT = (
    f"Two layers, eight experts, 96 words, {TOKENS} new tokens a step. Loss: the mean of the last tenth of the steps; ± is the"
    " deviation over seeds of the difference to O0. Still: weights that an update leaves as they are; lost: gradients that are"
    " nothing. Halves have a dynamic scale of the loss, where nothing else is said."
)
WHY = (
    (
        "O0, O1, layer-wise, bf16, fp8, O2 alike",
        "gradients of so small a model are within the range of halves, and Adam's steps of 3e-3 are many of their last digits",
    ),
    (
        "O3 is worse at a small rate",
        "a weight of 0.1 in half has steps of 6e-5; what Adam asks for is less than half of that for many, which then stay",
    ),
    (
        "O2 is not",
        "its copy of the weights in single takes every step. What O2 lacks is range beside FFN and attention: where the residual"
        " stream is loud, O1, O2 and O3 have infinities at once and layer-wise has none",
    ),
    (
        "O1 fails with O2 and O3 where it is loud",
        "here O1 computes all parts in half, norms and embedding too; libraries leave these in single, as layer-wise does",
    ),
)
COLUMNS = ("", "formats", "loss", "over O0", "±", "still", "lost", "steps skipped")


def build(desk: Desk) -> Reproduction:
    """All trials, and what they say."""
    facts = Facts("precision")
    tasks = {
        (name, policy, seed): (name, policy, seed)
        for name, setup in SETUPS.items()
        for policy in setup.policies
        for seed in range(setup.seeds)
    }
    results = desk.each(trial, tasks, lambda at: f"{at[0]}: {at[1]}, seed {at[2]}")
    found = Reproduction("precision", facts.table["title"], load_machine("laptop"))
    loss = {
        (name, policy): np.array([results[name, policy, seed]["loss"] for seed in range(setup.seeds)], dtype=float)
        for name, setup in SETUPS.items()
        for policy in setup.policies
    }

    def lags(name: str, policy: str) -> bool:
        """Whether a policy learns less than O0, by more than twice its deviation and a hundredth of a nat."""
        over = loss[name, policy] - loss[name, "O0"]
        return not np.isfinite(over).all() or float(over.mean()) > max(2 * _deviation(over), 0.01)

    outlying = results["outliers", "O2", 0]
    halved = outlying["skipped"] == len(OVERFLOWING) and outlying["scales"][-1] == outlying["scales"][0] / 2 ** len(
        OVERFLOWING
    )
    found.claims = [
        facts.truth(
            "learn",
            "O1 and layer-wise learn as O0 does",
            not any(
                lags(name, policy) for name, policy in loss if policy in ("O1", "layerwise") and name == "as it is"
            ),
        ),
        facts.truth("o2_fails", "O2 learns less", lags("as it is", "O2") or lags("small rate", "O2")),
        facts.truth("o3_fails", "O3 learns less", lags("as it is", "O3") or lags("small rate", "O3")),
        facts.truth(
            "layerwise_survives",
            "where activations are beyond 65,504 layer-wise learns and O2 has no numbers",
            not lags("loud", "layerwise") and bool(np.isnan(loss["loud", "O2"]).all()),
        ),
        facts.truth(
            "scale_reacts",
            "three steps that overflow are left out, each halves the scale, and the loss goes on falling",
            halved and outlying["loss"] < outlying["curve"][min(OVERFLOWING)],
        ),
        facts.truth(
            "small_vanish",
            "without a scale most small gradients of O2 are nothing, and it learns less",
            results["tiny gradients", "O2", 0]["lost"] > 0.5 and lags("tiny gradients", "O2"),
        ),
        facts.truth(
            "bf16_survives",
            "bf16 learns where O2 fails: loud activations, tiny gradients",
            not lags("loud", "bf16") and not lags("tiny gradients", "bf16"),
        ),
    ]
    found.parts = [
        ReportPart(Section("Trials", TEXT, COLUMNS, list(_rows(results, loss))), _drawings(results)),
        ReportPart(Section("Why", "", ("seen", "because"), list(WHY)), []),
    ]
    conditions = [(name, setup.about) for name, setup in SETUPS.items()]
    found.inputs = [
        Section("Conditions", "", ("name", "what"), conditions),
        Section("Model", "", ("key", "value"), [(key, str(value)) for key, value in MODEL.items()]),
    ]
    return found


def trial(task: tuple[str, str, int]) -> dict[str, Any]:
    """One policy under a condition from one seed; a loss that is no number is None."""
    name, policy, seed = task
    setup = SETUPS[name]
    size = Size(Model(**MODEL), {}, TOKENS, setup.steps, RATE)
    result = precision_trial(size, replace(setup.trial, precision=policy, seed=seed))
    result["curve"] = [each if np.isfinite(each) else None for each in result["curve"]]
    return {**result, "loss": result["loss"] if np.isfinite(result["loss"]) else None}


def _deviation(values: np.ndarray[Any, Any]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _rows(results: Mapping[Any, Any], loss: Mapping[Any, Any]) -> Any:
    for (name, policy), losses in loss.items():
        over = losses - loss[name, "O0"]
        of_seeds = [results[name, policy, seed] for seed in range(len(losses))]
        still, lost = (np.mean([each[key] for each in of_seeds]) for key in ("still", "lost"))
        numbers = (f"{losses.mean():.4f}", f"{over.mean():+.4f}") if np.isfinite(losses).all() else ("none", "")
        skipped = sum(each["skipped"] for each in of_seeds)
        yield (name, policy, *numbers, f"{_deviation(over):.4f}", f"{still:.2f}", f"{lost:.2f}", str(skipped))


def _drawings(results: Mapping[Any, Any]) -> list[Drawing]:
    found = []
    for name in ("small rate", "tiny gradients"):
        curves = {policy: _thinned(results[name, policy, 0]["curve"]) for policy in SETUPS[name].policies}
        drawn = Series(curves, "step", "loss, nats a word", f"Loss: {name}", logarithmic=False)
        found.append(Drawing(name.replace(" ", "-"), f"{SETUPS[name].about}: means of 10 steps, one seed.", drawn))
    return found


def _thinned(curve: list[float]) -> list[tuple[float, float]]:
    """Means of 10 steps."""
    return [(float(at + 5), float(np.mean(curve[at : at + 10]))) for at in range(0, len(curve), 10)]
