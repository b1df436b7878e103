"""``reproduce convergence``: what balancing does to learning, on a small model with several seeds, beside published signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ....hardware.machine import load_machine
from ....mpi_runtime.trainer.serial import Experiment, Size, experiment
from ....mpi_runtime.training.transformer.experts import gate
from ....mpi_runtime.training.transformer.experts.gate_training import GateTraining
from ....workloads.model.model import Model
from ...content.figures import Series
from ...content.sections import Drawing, ReportPart, Section
from .desk import Desk
from .facts import Facts
from .record import Reproduction

SEEDS = 4
RANKS = 8
MODEL = {
    "name": "eight experts",
    "layers": 2,
    "heads": 2,
    "hidden": 24,
    "ffn_hidden": 24,
    "experts": RANKS,
    "vocabulary": 96,
    "seq_len": 16,
    "tied": False,
}
TOKENS, STEPS, RATE = 32, 400, 3e-3
TRIED = {
    "dropless": Experiment(),
    "capacity 1": Experiment("capacity:1"),
    "capacity 1.25": Experiment("capacity:1.25"),
    "SWIPE": Experiment("swipe"),
    "expert choice": Experiment("expert-choice"),
    "auxiliary loss": Experiment(balance_loss=0.01),
    "auxiliary loss, of 4 sequences": Experiment(balance_loss=0.01, pieces=RANKS * TOKENS // 64),
    "auxiliary loss, by sequence": Experiment(balance_loss=0.01, pieces=RANKS * TOKENS // 16),
    "z-loss": Experiment(z_loss=1e-3),
    "bias 1e-4": Experiment(gate_bias=1e-4),
    "bias 1e-3": Experiment(gate_bias=1e-3),
    "bias 1e-2": Experiment(gate_bias=1e-2),
    "a shared expert": Experiment(shape=(("shared_experts", 1),)),
}
"""One expert a rank, so that a rank's capacity is an expert's."""

TEXT = (
    f"Two layers, eight experts of which a token goes to one, 96 words, {STEPS} steps of {RANKS * TOKENS} tokens, {SEEDS} seeds."
    " Losses are of sequences that no step has seen; ± is the deviation over seeds, of the difference to dropless. Violation is"
    " the load of the fullest expert over the mean, less one, in the last quarter of the steps; settled, the step from which on"
    " it is half of what it was at first; score, the gates' largest in the last quarter. Large models were published: what"
    " differs by less than its deviation has not been reproduced, nor refuted."
)
COLUMNS = ("", "loss", "over dropless", "±", "violation", "settled", "score")
NOT_TRIED = (
    (
        "a spike of the loss (2.22 to 5.10 in 4 steps, 104 B parameters)",
        "nothing of 9,000 parameters has one to be detected",
    ),
    ("a scale at its floor (OPT-175B), fp16 that fails where bf16 passes (BLOOM)", "athanor reproduce precision"),
    ("curves of BaGuaLu with SWIPE", "no text of them could be found; SWIPE's own line is above"),
)


@dataclass(frozen=True)
class Tried:
    """What the seeds of an experiment gave, ``[seeds]`` each."""

    losses: np.ndarray[Any, np.dtype[np.float64]]
    violations: np.ndarray[Any, np.dtype[np.float64]]
    curve: list[float]
    settled: float
    score: float
    removed: float

    @property
    def loss(self) -> float:
        """The mean."""
        return float(self.losses.mean())

    @property
    def violation(self) -> float:
        """The mean."""
        return float(self.violations.mean())


def build(desk: Desk) -> Reproduction:
    """All experiments, and what they say."""
    facts = Facts("convergence")
    tasks = {(name, seed): (name, seed) for name in TRIED for seed in range(SEEDS)}
    results: dict[tuple[str, int], dict[str, Any]] = desk.each(trial, tasks, lambda at: f"{at[0]}, seed {at[1]}")
    tried = {name: _of([results[name, seed] for seed in range(SEEDS)]) for name in TRIED}
    found = Reproduction("convergence", facts.table["title"], load_machine("laptop"))
    even, one = np.zeros((128, 128)), np.zeros((128, 128))
    one[:, 0] = 100
    gates, every = GateTraining(0.01), np.arange(128)[:, None]
    losses = {name: each.loss for name, each in tried.items()}
    uneven = {name: each.violation for name, each in tried.items()}
    order = losses["dropless"] < losses["capacity 1.25"] < losses["capacity 1"]
    found.claims = [
        facts.claim("even", "auxiliary loss of 128 even experts", gates.loss(even, every)),
        facts.claim("collapsed", "the same where one has all tokens", gates.loss(one, gate.best(one, 1))),
        facts.truth("dropless", "loss: dropless below capacity 1.25 below capacity 1", order),
        facts.truth(
            "bias_levels",
            "a bias of 1e-3 divides the violation of the auxiliary loss by 5",
            uneven["auxiliary loss"] >= facts.value("bias_levels") * uneven["bias 1e-3"],
        ),
        facts.truth(
            "bias_no_worse",
            "its loss is no worse",
            losses["bias 1e-3"] <= losses["auxiliary loss"] + _noise(tried, "bias 1e-3"),
        ),
        facts.truth(
            "bias_slow",
            "a bias of 1e-4 settles later than one of 1e-3",
            tried["bias 1e-4"].settled > tried["bias 1e-3"].settled,
        ),
        facts.truth(
            "bias_swings", "a bias of 1e-2 ends less level than one of 1e-3", uneven["bias 1e-3"] < uneven["bias 1e-2"]
        ),
        facts.truth(
            "batch_scope",
            "loss: balanced over 16 sequences below balanced over 4",
            losses["auxiliary loss"] < losses["auxiliary loss, of 4 sequences"],
        ),
        facts.truth(
            "sequence_scope",
            "loss: balanced over the batch below balanced by sequence",
            losses["auxiliary loss"] < losses["auxiliary loss, by sequence"],
        ),
        facts.truth(
            "small_scores",
            "a z-loss of 1e-3 keeps the largest score of gates below that without",
            tried["z-loss"].score < tried["dropless"].score,
        ),
        facts.truth(
            "shared",
            "loss rises where the shared expert is taken out for one more of the others",
            tried["a shared expert"].removed > losses["a shared expert"],
        ),
        facts.truth(
            "collapses", "without balance the fullest expert has twice the mean and more", uneven["dropless"] > 1
        ),
    ]
    rows = [
        (
            name,
            f"{each.loss:.4f}",
            f"{each.loss - losses['dropless']:+.4f}",
            f"{_noise(tried, name):.4f}",
            f"{each.violation:.3f}",
            f"{each.settled:.0f}",
            f"{each.score:.2f}",
        )
        for name, each in tried.items()
    ]
    curves = {name: _thinned(tried[name].curve) for name in ("dropless", "SWIPE", "capacity 1", "auxiliary loss")}
    drawn = Series(curves, "step", "loss, nats a word", "Loss under balancing", logarithmic=False)
    found.parts = [
        ReportPart(
            Section("Experiments", TEXT, COLUMNS, rows),
            [Drawing("curves", "Means over seeds, of 20 steps each.", drawn)],
        ),
        ReportPart(Section("Not tried here", "", ("published", "why not"), NOT_TRIED), []),
    ]
    found.inputs = [Section("Model", "", ("key", "value"), [(key, str(value)) for key, value in MODEL.items()])]
    return found


def trial(task: tuple[str, int]) -> dict[str, Any]:
    """One experiment from one seed."""
    name, seed = task
    size = Size(Model(**MODEL), {"ep": RANKS}, TOKENS, STEPS, RATE)
    return experiment(size, Experiment(**{**asdict(TRIED[name]), "seed": seed}))


def _of(results: list[dict[str, Any]]) -> Tried:
    curve = np.mean([each["curve"] for each in results], axis=0)
    losses, violations = (np.array([each[key] for each in results]) for key in ("loss", "violation"))
    settled, score, removed = (
        float(np.mean([each[key] for each in results])) for key in ("settled", "score", "removed")
    )
    return Tried(losses, violations, [float(each) for each in curve], settled, score, removed)


def _noise(tried: Mapping[str, Tried], name: str) -> float:
    """The deviation over seeds, each a model and corpus of its own, of the difference to dropless."""
    return float((tried[name].losses - tried["dropless"].losses).std(ddof=1)) if name != "dropless" else 0.0


def _thinned(curve: list[float]) -> list[tuple[float, float]]:
    """Means of 20 steps."""
    return [(float(at + 10), float(np.mean(curve[at : at + 20]))) for at in range(0, len(curve), 20)]
