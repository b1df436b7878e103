"""What the runtime computes for real, what it only sends, and what it refuses, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from ...hardware.errors import InputError
from ...workloads.mesh.axes import CONTEXT
from ...workloads.model.layers import ATTENTION
from ...workloads.model.number_types import TYPES
from ...workloads.pipelines import PIPELINES
from ...workloads.plan.setting import Setting
from ...workloads.routing.balancers import Padded
from ..training.transformer.attention.kernels import COMPUTED

Kind = Literal["model", "tokens", "blank"]
"""Data that a schedule is executed on: a whole model, tokens that are routed and come back, or bytes of no meaning."""


def data_of(setting: Setting, computes: bool, real: bool) -> Kind:
    """On which data a setting is executed.

    ``real``: products are computed once, as the model has them. Then the whole model is trained; what cannot be is refused with
    an :class:`InputError` that says what can. Else, where tokens can be routed by the plan, they are, and anything else sends
    bytes of no meaning.
    """
    if len(setting.plan.precisions.names) > 1:
        raise InputError(f"--precision {setting.plan.precision}: executed steps have one policy; name one")
    if real and computes:
        if wrong := _first(LIMITS, setting):
            raise InputError(f"{wrong}; --compute sleep only sends what the schedule says")
        return "model"
    routes = setting.model.experts and next(_not_routed(setting), None) is None
    return "tokens" if routes else "blank"


def require_trained(setting: Setting) -> None:
    """Raise :class:`InputError` where a model cannot be trained for real by its plan."""
    if wrong := _first(LIMITS, setting):
        raise InputError(wrong)


def _not_routed(setting: Setting) -> Iterator[str]:
    """Why tokens cannot be routed where nothing is computed."""
    model, plan = setting.model, setting.plan
    if _first(KEPT, setting) or _first((Limit("", _ways_to_experts),), setting):
        yield "the formats or the plan"
    if [
        axis
        for axis, size in zip(setting.mesh.axes, setting.mesh.shape, strict=True)
        if size > 1 and axis not in ("ep", "dp")
    ]:
        yield "the mesh"
    if plan.sharding.shards_gradients:
        yield "the plan"
    if isinstance(plan.balancing, Padded):
        yield "the balancer, which sends empty places"
    if plan.balancing.copies is not None:
        yield "the balancer, which copies experts"
    if model.gated or model.width_beside or model.moe_layers != model.depth or model.expert_width != model.ffn_hidden:
        yield "the model"


def _formats(setting: Setting) -> Iterator[str]:
    plan = setting.plan
    formats = [each for name in plan.precisions.names for each in plan.precisions.policy(name).values()]
    used = {name for each in formats for name in (each.compute, each.weight, each.gradient, each.moments)}
    used |= {plan.activations} if plan.activations else set()
    if unknown := sorted(used - set(TYPES)):
        named = [
            f" --{key} {value}" for key in ("gradients", "moments", "activations") if (value := getattr(plan, key))
        ]
        yield f"--precision {plan.precision}{''.join(named)}: nothing is kept in {unknown[0]} ({', '.join(TYPES)})"


def _offloading(setting: Setting) -> Iterator[str]:
    if setting.plan.offloads:
        yield f"--offload {setting.plan.offload}: the runtime has no second memory to keep things in"


def _quantising(setting: Setting) -> Iterator[str]:
    if setting.plan.sharding.quantises:
        yield f"--zero {setting.plan.zero}: the runtime does not quantise; it runs 0, 1, 2, 3 and hierarchical"


def _weights_that_stay(setting: Setting) -> Iterator[str]:
    sharding = setting.plan.sharding
    if sharding.shards_weights and not sharding.reshards:
        yield f"--zero {setting.plan.zero}: the runtime lets weights go behind each pass; it runs 0, 1, 2, 3 and hierarchical"


def _mixers(setting: Setting) -> Iterator[str]:
    model = setting.model
    if others := [each for each in dict.fromkeys(model.pattern) if each != ATTENTION]:
        yield f"--model {model.name}: has {' and '.join(others)} layers; executed for real is attention to all tokens"


def _frozen(setting: Setting) -> Iterator[str]:
    model = setting.model
    if model.trained != model.parts or model.lora:
        yield f"--model {model.name}: has frozen weights; executed for real are models that are trained whole"


def _more_than_decoders(setting: Setting) -> Iterator[str]:
    model = setting.model
    if model.further_tokens:
        yield f"--model {model.name}: predicts further tokens; executed for real are decoders that predict one"
    if model.encoder_layers:
        yield f"--model {model.name}: an encoder beside a decoder; executed for real are decoders"


def _parts_of_models(setting: Setting) -> Iterator[str]:
    model = setting.model
    extras = {
        "biases": bool(model.biases),
        "dropout": model.dropout,
        "latent attention": model.latent is not None,
        "learned positions": model.positions > 0,
        "norms of queries and keys": model.query_key_norm != "none",
        "gates on attention": model.gated_attention,
        "layers without an FFN": model.ffn_hidden == 0,
        "layer norms without a shift": model.norm == "layer-scale",
        "an image's patches": model.patches > 0,
        "a dense FFN beside experts": model.dense_beside > 0,
    }
    if found := [name for name, has in extras.items() if has]:
        yield f"--model {model.name}: has {' and '.join(found)}; executed for real are decoders without"


def _packed(setting: Setting) -> Iterator[str]:
    plan = setting.plan
    if plan.documents:
        yield f"--document-lengths {plan.document_lengths}: executed for real is attention to all tokens of a sequence"


def _kernels(setting: Setting) -> Iterator[str]:
    if type(setting.plan.kernel) not in COMPUTED:
        yield f"--attention {setting.plan.attention}: nothing computes this kernel for real"


def _parts_again(setting: Setting) -> Iterator[str]:
    plan = setting.plan
    if not plan.recomputation.runs_parts_again:
        return
    if setting.model.experts:
        kinds = "models with experts are executed for real with kinds that run whole layers again"
    else:
        kinds = "executed for real are kinds that run layers or their attention again"
    yield f"--recompute {plan.recompute}: {kinds}"


def _ways_to_experts(setting: Setting) -> Iterator[str]:
    model, plan = setting.model, setting.plan
    if not model.experts:
        return
    if plan.dispatch != "copies":
        yield f"--dispatch {plan.dispatch}: over MPI every copy of a token travels by itself (--dispatch copies)"
    if plan.prototypes:
        yield "--prototypes: the runtime's gates choose among all experts"
    if isinstance(plan.balancing, Padded):
        yield f"--balancer {plan.balancer}: the runtime sends no empty places; it runs capacity"


def _heads(setting: Setting) -> Iterator[str]:
    model, mesh = setting.model, setting.mesh
    width = mesh.size("tp", "col")
    if model.key_value_heads % width:
        yield f"--mesh {mesh}: {model.key_value_heads} key-value heads of {model.name} do not divide over {width} ranks"


def _pipelines(setting: Setting) -> Iterator[str]:
    plan = setting.plan
    straight = ", ".join(name for name, each in PIPELINES.items() if not each.asynchronous and not each.folded)
    if setting.folded:
        yield f"--pipeline {plan.pipeline}: its stages hand on both ways; executed for real are {straight}"
    if setting.mesh.size("pp") > 1 and PIPELINES.find(plan.pipeline).asynchronous:
        yield f"--pipeline {plan.pipeline}: has no end that could be checked; executed for real are {straight}"


def _parts_of_sequences(setting: Setting) -> Iterator[str]:
    batch, mesh = setting.batch, setting.mesh
    if batch.micro_tokens % batch.seq_len or batch.seq_len % mesh.size(*CONTEXT):
        yield (
            f"--tokens-per-rank {batch.tokens:,}: {batch.micro_tokens:,} tokens of a micro-batch are no whole sequences of"
            f" {batch.seq_len:,} (--seq-len) that cp={mesh.size('cp')} cuts evenly"
        )


class Limit(NamedTuple):
    """What is only sent, with nothing computed, and what says why a setting has it."""

    what: str
    why: Callable[[Setting], Iterator[str]]


KEPT = (
    Limit("numbers kept in fp8; products are made in it", _formats),
    Limit("weights, state or activations in host memory (--offload)", _offloading),
    Limit("numbers sent in fewer bits (--zero ++)", _quantising),
    Limit("layers without attention to all tokens: windows, chunks, linear attention, state spaces", _mixers),
    Limit("frozen weights and adapters", _frozen),
    Limit("encoders, and further tokens that are predicted", _more_than_decoders),
    Limit("weights that stay whole from forward to backward pass (--zero shard-grad-op)", _weights_that_stay),
)
"""What no numbers can be kept for, or sent."""

LIMITS = (
    *KEPT,
    Limit(
        "parts of a model: biases, dropout, latent attention, learned positions, norms of queries, gates",
        _parts_of_models,
    ),
    Limit("documents that are packed into sequences (--document-lengths)", _packed),
    Limit("attention kernels that are neither fused nor unfused", _kernels),
    Limit("recomputation of parts; with experts of less than whole layers", _parts_again),
    Limit("--dispatch node-limited, --prototypes, and balancers that send empty places", _ways_to_experts),
    Limit("key-value heads that do not divide over tp", _heads),
    Limit("pipelines without a flush, and in the shape of a V", _pipelines),
    Limit("micro-batches that are no whole sequences", _parts_of_sequences),
)
"""All that is only sent; the rest of what can be simulated is computed, and checked against one process."""


def _first(limits: Iterable[Limit], setting: Setting) -> str | None:
    """Why a setting is only sent, if it is."""
    return next((text for limit in limits for text in limit.why(setting)), None)
