"""The null model: what anyone would predict without a simulator, so that accuracy has something to be compared with.

FLOPs over peak, times one constant: the share of the peak that products reach, fitted on the other models of the same
accelerator (of all others where it has none). To that come the bubble of 1F1B, and the
volumes of rings for tensor parallelism and for gradients at the nominal speed of links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....hardware.precisions import BYTES
from ....workloads.mesh.axes import CONTEXT
from ....workloads.plan.setting import Setting
from ...published.run import Convention
from .conventions import step_flops

HALF = BYTES["fp16"]


@dataclass(frozen=True)
class Guess:
    """What the null model looks at: seconds = ``compute`` / e + ``rings``; and which model and accelerator it is."""

    model: str
    accelerator: str
    compute: float
    rings: float
    measured: float

    def seconds(self, share: float) -> float:
        """The predicted step."""
        return self.compute / share + self.rings


def guess_of(setting: Setting, accelerator: str, measured: float) -> Guess:
    """The null model's view of a setting whose step took ``measured`` seconds."""
    mesh, model, batch, plan = setting.mesh, setting.model, setting.batch, setting.plan
    replicas, stages, tp = mesh.replicas, mesh.size("pp"), mesh.size("tp", "row", "col")
    sequences = replicas * batch.tokens / batch.seq_len
    flops = step_flops(model, sequences, batch.seq_len, Convention(recomputation=plan.recomputation.repeats_layers))
    chunks = plan.chunks if stages > 1 else 1
    bubble = (stages - 1) / (batch.micro_batches * chunks)
    compute = flops / (mesh.ranks * _peak(setting)) * (1 + bubble)
    here = tp * (1 if setting.ranks_per_node >= tp else 0)
    link = setting.machine.node.ring_bandwidth if here else setting.machine.injection
    passes = (
        6 if plan.recomputation.repeats_layers else 4
    )  # all-reduces of a layer: two forward, two backward, two again
    activations = batch.tokens / mesh.size(*CONTEXT) * model.hidden * HALF * model.depth / stages
    rings = passes * 2 * (tp - 1) / tp * activations / link * (1 + bubble)
    held = model.parameters.total / (tp * stages) * HALF
    share = setting.machine.injection / min(mesh.ranks, setting.ranks_per_node)
    gradients = 2 * (replicas - 1) / replicas * held / (share if mesh.ranks > setting.ranks_per_node else link)
    return Guess(setting.model.name, accelerator, compute, rings + gradients, measured)


def _peak(setting: Setting) -> float:
    """FLOP/s of a rank in the fastest format of its products."""
    formats = setting.plan.precisions.at(0).values()
    processor = setting.machine.processor(setting.ranks_per_node)
    return max(processor.peak(each.gemm) for each in formats)


def null_predictions(guesses: Sequence[Guess]) -> list[float | None]:
    """Seconds of each step, its constant fitted on the rows of other models; None where there are none."""
    return [_prediction(guess, guesses) for guess in guesses]


def _prediction(guess: Guess, guesses: Sequence[Guess]) -> float | None:
    others = [each for each in guesses if each.model != guess.model]
    same = [each for each in others if each.accelerator == guess.accelerator] or others
    share = fitted_share(same)
    return None if share is None else guess.seconds(share)


def fitted_share(guesses: Sequence[Guess]) -> float | None:
    """The share of the peak with the least mean absolute error: one of those that meet a row exactly."""
    meets = [
        each.compute / (each.measured - each.rings)
        for each in guesses
        if each.measured > each.rings + 1e-3 * each.compute
    ]
    if not meets:
        return None
    compute, rings, measured = (
        np.array([getattr(each, name) for each in guesses]) for name in ("compute", "rings", "measured")
    )
    errors = [float(np.abs((compute / share + rings) / measured - 1).mean()) for share in meets]
    return meets[int(np.argmin(errors))]
