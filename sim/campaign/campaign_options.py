"""The options of a campaign as types: made by `make pages` from the fields of CampaignPlan, not by hand."""

from __future__ import annotations

from typing import Literal

from ...workloads.plan.plan_options import PlanOptions


class CampaignOptions(PlanOptions, total=False):
    """Options of a campaign, as ``athanor.campaign()`` takes them; None is the same as leaving one out."""

    # Budget
    tokens: float | None
    """Train on so many tokens.  [tokens; above 0; default: none]"""
    train_steps: int | None
    """Train for so many steps.  [above 0; default: from --tokens]"""
    target_loss: float | None
    """Train to this loss, in nats a token, by the scaling law of Hoffmann et al. 2022 (Chinchilla) for the
    parameters that a token activates.  [above 0; default: from --tokens]"""
    sampled_steps: int | None
    """Steps that are simulated; a campaign's steps take their mean.  [above 0; default: 1, or 3 where steps differ]"""

    # Faults and restarts
    seeds: int | None
    """Campaigns that are played, each with faults of its own.  [above 0; default: 100]"""
    faults: str | None
    """Rates of faults: a published set by name, or a TOML file with what a machine file has under [faults].
    [default: the machine's own, else llama3]"""
    mtbf_node: str | None
    """Mean time between failures of a node, such as 5y; then nothing else breaks.  [default: from --faults]"""
    policy: Literal["restart", "hot-spare", "elastic"] | None
    """What follows a fault: restart the job, waiting for nodes where none are left; hot-spare, the same without the
    scheduler, as the job holds its spares; or elastic, go on with fewer data-parallel groups where none are left.
    [default: restart]"""
    spares: int | None
    """Nodes that can take the place of lost ones.  [from 0 on; default: as the faults say, else the machine's nodes
    that the job does not use]"""
    elastic_batch: Literal["kept", "smaller"] | None
    """With fewer groups, --policy elastic keeps the batch, so that each has more to do, or makes it smaller.
    [default: kept]"""

    # Checkpoints
    checkpoint: Literal["blocking", "asynchronous", "multi-level"] | None
    """Stop for the whole writing; only to copy, and write beside the next steps; or save often to memory, less often
    to a neighbour's, and seldom to the file system.  [default: blocking]"""
    checkpoint_interval: str | None
    """Work between checkpoints: a time such as 30min, or by rule: daly (higher order), young, or optimum (the best
    of those that are simulated).  [default: daly]"""
    checkpoint_bytes: float | None
    """Size of a checkpoint.  [bytes; above 0; default: weights and optimizer state, each once]"""

    # Data
    dataset: str | None
    """What is read while steps run: a data set of the catalogue, or a TOML file; each sequence is one sample.
    [default: none, data are there]"""
    prefetch: int | None
    """Batches that are read ahead of their step.  [from 0 on; default: 2]"""
    workers: int | None
    """Workers of a node that decode samples.  [above 0; default: 8]"""
    shuffle: int | None
    """Samples that each node reads before its first step, to shuffle them.  [from 0 on; default: 0]"""

    # Power and money
    power_cap: str | None
    """Most that a node may draw, such as 300W; its frequency, and so the steps, follow.  [default: none]"""
    start_hour: float | None
    """Hour of the day at which it begins; grids emit more or less by the hour.  [from 0 to below 24; default: 0.0]"""
