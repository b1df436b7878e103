"""The plan: everything that a user chooses about a run, from the mesh to the seed, checked against the model and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from ..hardware.errors import InputError, suggestion
from ..hardware.fabric import Routing
from ..hardware.machine import Machine
from ..hardware.records import Record
from .balancers import Balancer, parse_balancer
from .mesh import Mesh
from .model import Model
from .precision import PrecisionSchedule
from .routers import Router, parse_router


class Plan(Record):
    """The choices for a run, under the names that the command line gives them; what is None is derived.

    Batch: either ``tokens_per_rank``, or ``global_batch`` sequences of ``seq_len`` over all ranks, or the machine's
    own ``tokens_per_node``. A step is cut into micro-batches of ``micro_batch`` sequences; where none is named, into
    as few as keep each below the machine's ``tokens_per_node``.
    """

    mesh: dict[str, int]
    placement: str | dict[str, str] = "moda"
    ranks_per_node: int | None = Field(default=None, gt=0)
    nodes_per_supernode: int | None = Field(default=None, gt=0)
    tokens_per_rank: int | None = Field(default=None, gt=0)
    global_batch: int | None = Field(default=None, gt=0)
    micro_batch: int | None = Field(default=None, gt=0)
    seq_len: int | None = Field(default=None, gt=0)
    top_k: int | None = Field(default=None, gt=0)
    precision: str = "layerwise"
    router: str = "uniform"
    drift: float = Field(default=0.0, ge=0, le=1)
    balancer: str = "swipe"
    all_to_all: Literal["linear", "two-level"] = "linear"
    zero: Literal["0", "hierarchical"] = "hierarchical"
    recompute: Literal["none", "full"] = "none"
    accounting: Literal["apex-o2", "fp32"] = "apex-o2"
    overlap: Literal["none", "gradients"] = "none"
    routing: Routing | None = None
    depth: Literal["auto", "bound", "fluid"] = "auto"
    jitter: float = Field(default=0.0, ge=0, lt=1)
    speed_spread: float = Field(default=0.0, ge=0, lt=1)
    steps: int = Field(default=1, gt=0)
    seed: int = Field(default=0, ge=0)

    @classmethod
    def of(cls, model: Model, options: Mapping[str, Any]) -> Plan:
        """The model's recommended plan with a user's options in place of its own; options that are None do not count.

        Raises :class:`InputError` naming the flag (or, for the model's own plan, its key) and what is allowed.
        """
        given = {key: value for key, value in options.items() if value is not None}
        if given.get("mesh") and "placement" not in given:
            given["placement"] = model.plan.get("placement", "moda")
        table = {**model.plan, **given}
        if "zero" in table:
            table["zero"] = str(table["zero"])
        if "mesh" not in table:
            raise InputError(f"--mesh: {model.name} recommends no plan; write for example --mesh ep=4,dp=2")
        try:
            plan = cls.model_validate(table)
        except ValidationError as wrong:
            raise InputError(_reason(wrong, model, given)) from None
        plan.check()
        if (plan.top_k or model.top_k) > model.experts:
            raise InputError(f"--top-k {plan.top_k}: {model.name} has {model.experts} experts a layer")
        return plan

    def check(self) -> None:
        """Parse what is text; raises :class:`InputError` for unknown names."""
        _ = self.router_policy, self.balancing, self.precisions, Mesh.of(self.mesh)

    @property
    def router_policy(self) -> Router:
        """The router."""
        return parse_router(self.router)

    @property
    def balancing(self) -> Balancer:
        """The balancing policy."""
        return parse_balancer(self.balancer)

    @property
    def precisions(self) -> PrecisionSchedule:
        """Precision policies by iteration."""
        return PrecisionSchedule.parse(self.precision)

    def changed(self, **options: Any) -> Plan:
        """The same plan with other options."""
        return self.model_copy(update=options)


def _reason(wrong: ValidationError, model: Model, given: Mapping[str, Any]) -> str:
    """One line for the first error of a plan."""
    first = wrong.errors()[0]
    key = str(first["loc"][0])
    where = f"--{key.replace('_', '-')}" if key in given else f"{model.name}: plan.{key}"
    value = first["input"]
    match first["type"]:
        case "extra_forbidden":
            return f"{where}: no such option{suggestion(key, Plan.model_fields)}"
        case "literal_error":
            allowed = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return f"{where} {value}: no such choice{suggestion(str(value), allowed)}"
        case _:
            message = first["msg"]
            return f"{where} {value}: {message[0].lower()}{message[1:]}"


@dataclass(frozen=True)
class Batch:
    """Tokens of one rank: in a step, and in each of its ``micro_batches``; and the length of a sequence."""

    tokens: int
    micro_batches: int
    seq_len: int

    @property
    def micro_tokens(self) -> int:
        """Tokens of a rank in one micro-batch."""
        return self.tokens // self.micro_batches

    @classmethod
    def of(cls, plan: Plan, model: Model, machine: Machine, mesh: Mesh, ranks_per_node: int) -> Batch:
        """The batch of a plan; raises :class:`InputError` where sizes contradict or do not divide, with the numbers."""
        seq_len = plan.seq_len or model.seq_len
        usual = max(1, machine.calibration.tokens_per_node // ranks_per_node)
        if plan.tokens_per_rank and plan.global_batch:
            raise InputError("--tokens-per-rank and --global-batch: give one of the two")
        if plan.global_batch:
            tokens, rest = divmod(plan.global_batch * seq_len, mesh.ranks)
            if rest:
                raise InputError(
                    f"--global-batch {plan.global_batch:,}: its {plan.global_batch * seq_len:,} tokens"
                    f" (--seq-len {seq_len:,}) do not divide over {mesh.ranks:,} ranks"
                )
        else:
            tokens = plan.tokens_per_rank or (plan.micro_batch * seq_len if plan.micro_batch else usual)
        if plan.micro_batch:
            count, rest = divmod(tokens, plan.micro_batch * seq_len)
            if rest:
                raise InputError(
                    f"--micro-batch {plan.micro_batch}: {plan.micro_batch * seq_len:,} tokens do not divide the rank's {tokens:,}"
                )
        else:
            count = next(parts for parts in range(-(-tokens // usual), tokens + 1) if tokens % parts == 0)
        return cls(tokens, count, seq_len)
