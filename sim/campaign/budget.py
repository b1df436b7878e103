"""How long to train: tokens, steps, or a loss by a scaling law, as steps."""

from __future__ import annotations

from math import ceil

from ...hardware.errors import InputError
from ...workloads.model.model import Model
from .campaign_plan import CampaignPlan

IRREDUCIBLE, MODEL, DATA, MODEL_POWER, DATA_POWER = 1.69, 406.4, 410.7, 0.34, 0.28
"""L(N, D) = E + A/N^α + B/D^β: Hoffmann et al. 2022 (arXiv 2203.15556), section D.3, equation 10, fitted to dense models."""


def activated_parameters(model: Model) -> float:
    """Parameters that a token passes through: all but the experts that it is not sent to."""
    share: float = model.top_k / model.experts if model.experts else 0.0
    return float(model.parameters.dense + model.parameters.expert * share)


def loss_of(parameters: float, tokens: float) -> float:
    """Loss in nats a token of a model of so many parameters, after so many tokens."""
    return float(IRREDUCIBLE + MODEL / parameters**MODEL_POWER + DATA / tokens**DATA_POWER)


def tokens_to_loss(parameters: float, loss: float) -> float:
    """Tokens to a loss; raises ``ValueError`` for one that the model does not reach on any number of them."""
    least = IRREDUCIBLE + MODEL / parameters**MODEL_POWER
    if loss <= least:
        raise ValueError(f"its {parameters:.4g} parameters do not come below {least:.4g} on any number of tokens")
    return float((DATA / (loss - least)) ** (1.0 / DATA_POWER))


def steps_of(plan: CampaignPlan, model: Model, tokens_per_step: float) -> int:
    """Steps of a campaign; raises :class:`InputError` for a loss that its model does not reach."""
    if plan.train_steps is not None:
        return plan.train_steps
    if plan.tokens is not None:
        return ceil(plan.tokens / tokens_per_step)
    assert plan.target_loss is not None
    try:
        return ceil(tokens_to_loss(activated_parameters(model), plan.target_loss) / tokens_per_step)
    except ValueError as reason:
        raise InputError(f"--target-loss {plan.target_loss:g}: {model.name}: {reason}") from None
