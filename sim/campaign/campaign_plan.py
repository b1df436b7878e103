"""What a user chooses about a campaign, beside the plan of its steps: the one list of its options.

The command line, :class:`~athanor.sim.campaign.campaign_options.CampaignOptions` and ``docs/cli.md`` are made from these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

from ...hardware.errors import InputError
from ...workloads.plan.option import Option, option, options_of, read_options

RULES = ("daly", "young", "optimum")
"""Intervals by rule: Daly's higher order, Young's, and the best of those that are simulated."""

BUDGETS = ("tokens", "train_steps", "target_loss")


@dataclass(frozen=True, kw_only=True)
class CampaignPlan:
    """The choices for a campaign, under the names that the command line gives them; what is None follows from the others.

    Values are checked when it is made: raises :class:`InputError` with the option and what is allowed.
    """

    tokens: float | None = option("Budget", None, "Train on so many tokens.", unit="tokens", more=0, otherwise="none")
    train_steps: int | None = option("Budget", None, "Train for so many steps.", more=0, otherwise="from --tokens")
    target_loss: float | None = option(
        "Budget",
        None,
        "Train to this loss, in nats a token, by the scaling law of Hoffmann et al. 2022 (Chinchilla) for the parameters"
        " that a token activates.",
        more=0,
        otherwise="from --tokens",
    )
    sampled_steps: int | None = option(
        "Budget",
        None,
        "Steps that are simulated; a campaign's steps take their mean.",
        more=0,
        otherwise="1, or 3 where steps differ",
    )
    seeds: int = option("Faults and restarts", 100, "Campaigns that are played, each with faults of its own.", more=0)
    faults: str | None = option(
        "Faults and restarts",
        None,
        "Rates of faults: a published set by name, or a TOML file with what a machine file has under [faults].",
        form="NAME|FILE",
        names="faults",
        otherwise="the machine's own, else llama3",
    )
    mtbf_node: str | None = option(
        "Faults and restarts",
        None,
        "Mean time between failures of a node, such as 5y; then nothing else breaks.",
        form="TIME",
        otherwise="from --faults",
    )
    policy: Literal["restart", "hot-spare", "elastic"] = option(
        "Faults and restarts",
        "restart",
        "What follows a fault: restart the job, waiting for nodes where none are left; hot-spare, the same without the"
        " scheduler, as the job holds its spares; or elastic, go on with fewer data-parallel groups where none are left.",
    )
    spares: int | None = option(
        "Faults and restarts",
        None,
        "Nodes that can take the place of lost ones.",
        least=0,
        otherwise="as the faults say, else the machine's nodes that the job does not use",
    )
    elastic_batch: Literal["kept", "smaller"] = option(
        "Faults and restarts",
        "kept",
        "With fewer groups, --policy elastic keeps the batch, so that each has more to do, or makes it smaller.",
    )
    checkpoint: Literal["blocking", "asynchronous", "multi-level"] = option(
        "Checkpoints",
        "blocking",
        "Stop for the whole writing; only to copy, and write beside the next steps; or save often to memory, less often to"
        " a neighbour's, and seldom to the file system.",
    )
    checkpoint_interval: str = option(
        "Checkpoints",
        "daly",
        "Work between checkpoints: a time such as 30min, or by rule: daly (higher order), young, or optimum (the best of"
        " those that are simulated).",
        form="TIME|RULE",
    )
    checkpoint_bytes: float | None = option(
        "Checkpoints",
        None,
        "Size of a checkpoint.",
        unit="bytes",
        more=0,
        otherwise="weights and optimizer state, each once",
    )
    dataset: str | None = option(
        "Data",
        None,
        "What is read while steps run: a data set of the catalogue, or a TOML file; each sequence is one sample.",
        form="NAME|FILE",
        names="datasets",
        otherwise="none, data are there",
    )
    prefetch: int = option("Data", 2, "Batches that are read ahead of their step.", least=0)
    workers: int = option("Data", 8, "Workers of a node that decode samples.", more=0)
    shuffle: int = option("Data", 0, "Samples that each node reads before its first step, to shuffle them.", least=0)
    power_cap: str | None = option(
        "Power and money",
        None,
        "Most that a node may draw, such as 300W; its frequency, and so the steps, follow.",
        form="POWER",
        otherwise="none",
    )
    start_hour: float = option(
        "Power and money",
        0.0,
        "Hour of the day at which it begins; grids emit more or less by the hour.",
        least=0,
        less=24,
    )

    def __post_init__(self) -> None:
        known = self.options()
        table = {each.name: getattr(self, each.name) for each in fields(self)}
        given = {key: value for key, value in table.items() if value is not None or not known[key].optional}
        found, wrong = read_options(known, given, lambda key: known[key].flag)
        if wrong:
            raise InputError(wrong)
        for key, value in found.items():
            object.__setattr__(self, key, value)
        if len([key for key in BUDGETS if getattr(self, key) is not None]) != 1:
            raise InputError(
                "--tokens, --train-steps, --target-loss: give one of them; it says when the training is done"
            )
        if self.faults is not None and self.mtbf_node is not None:
            raise InputError("--faults and --mtbf-node: give one of the two")
        _ = self.mtbf_node_seconds, self.interval_seconds, self.cap_watts

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """Every option by name, in the order of the fields."""
        return _options()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> CampaignPlan:
        """From a user's options; those that are None do not count."""
        return cls(**{key: value for key, value in options.items() if value is not None})

    @property
    def mtbf_node_seconds(self) -> float | None:
        """Seconds between faults of a node, where the user says them."""
        return None if self.mtbf_node is None else _time("--mtbf-node", self.mtbf_node)

    @property
    def interval_seconds(self) -> float | None:
        """The interval in seconds; None where a rule says it."""
        if self.checkpoint_interval in RULES:
            return None
        return _time("--checkpoint-interval", self.checkpoint_interval, f", or a rule: {', '.join(RULES)}")

    @property
    def cap_watts(self) -> float | None:
        """The most that a node may draw."""
        from ...hardware.units import parse  # pydantic comes with units: the list of commands does without

        if self.power_cap is None:
            return None
        try:
            watts = parse(self.power_cap, "watt")
        except ValueError as reason:
            raise InputError(f'--power-cap {self.power_cap}: {reason}; needs a power such as "300W"') from None
        if not 0 < watts < float("inf"):
            raise InputError(f"--power-cap {self.power_cap}: must be above zero")
        return watts


def _time(flag: str, text: str, more: str = "") -> float:
    from ...hardware.units import read_duration

    try:
        return read_duration(text)
    except ValueError as reason:
        raise InputError(f"{flag} {text}: {reason}{more}") from None


@cache
def _options() -> Mapping[str, Option]:
    return options_of(CampaignPlan)


def campaign_options_source() -> str:
    """The source of ``campaign_options.py``: a TypedDict with every option of a campaign and of its steps' plan."""
    from ...workloads.plan.signatures import options_source

    about = "Options of a campaign, as ``athanor.campaign()`` takes them; None is the same as leaving one out."
    imported = "from ...workloads.plan.plan_options import PlanOptions"
    return options_source("CampaignOptions", "CampaignPlan", CampaignPlan.options(), about, "PlanOptions", imported)
