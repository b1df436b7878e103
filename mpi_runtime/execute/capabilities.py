"""What the runtime computes for real, what it only sends, and what it refuses, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from ...hardware.errors import InputError
from ...workloads.mesh.axes import CONTEXT
from ...workloads.model.layers import ATTENTION
from ...workloads.pipelines import PIPELINES
from ...workloads.plan.setting import Setting
from ...workloads.routing.balancers import Padded
from ..devices import TYPES
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
        if wrong := next(_not_trained(setting), None):
            raise InputError(f"{wrong}; --compute sleep only sends what the schedule says")
        return "model"
    routes = setting.model.experts and next(_not_routed(setting), None) is None
    return "tokens" if routes else "blank"


def require_trained(setting: Setting) -> None:
    """Raise :class:`InputError` where a model cannot be trained for real by its plan."""
    if len(setting.plan.precisions.names) > 1:
        raise InputError(f"--precision {setting.plan.precision}: executed steps have one policy; name one")
    if wrong := next(_not_trained(setting), None):
        raise InputError(wrong)


def _not_routed(setting: Setting) -> Iterator[str]:
    """Why tokens cannot be routed where nothing is computed."""
    model, plan = setting.model, setting.plan
    yield from _not_kept(setting)
    if [
        axis
        for axis, size in zip(setting.mesh.axes, setting.mesh.shape, strict=True)
        if size > 1 and axis not in ("ep", "dp")
    ]:
        yield "the mesh"
    if plan.sharding.shards_gradients or plan.prototypes or plan.dispatch != "copies":
        yield "the plan"
    if isinstance(plan.balancing, Padded):
        yield "the balancer, which sends empty places"
    if model.gated or model.width_beside or model.moe_layers != model.depth or model.expert_width != model.ffn_hidden:
        yield "the model"


def _not_trained(setting: Setting) -> Iterator[str]:
    """Why a model cannot be trained for real."""
    model, plan, batch, mesh = setting.model, setting.plan, setting.batch, setting.mesh
    yield from _not_kept(setting)
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
    if plan.documents:
        yield f"--document-lengths {plan.document_lengths}: executed for real is attention to all tokens of a sequence"
    if type(plan.kernel) not in COMPUTED:
        yield f"--attention {plan.attention}: nothing computes this kernel for real"
    if model.experts:
        yield from _not_with_experts(setting)
    elif plan.recomputation.runs_parts_again:
        yield f"--recompute {plan.recompute}: executed for real are kinds that run layers or their attention again"
    width = mesh.size("tp", "col")
    if model.key_value_heads % width:
        yield f"--mesh {mesh}: {model.key_value_heads} key-value heads of {model.name} do not divide over {width} ranks"
    if setting.folded:
        straight = ", ".join(name for name, each in PIPELINES.items() if not each.asynchronous and not each.folded)
        yield f"--pipeline {plan.pipeline}: its stages hand on both ways; executed for real are {straight}"
    if mesh.size("pp") > 1 and PIPELINES.find(plan.pipeline).asynchronous:
        flushing = ", ".join(name for name, each in PIPELINES.items() if not each.asynchronous and not each.folded)
        yield f"--pipeline {plan.pipeline}: has no end that could be checked; executed for real are {flushing}"
    if batch.micro_tokens % batch.seq_len or batch.seq_len % mesh.size(*CONTEXT):
        yield (
            f"--tokens-per-rank {batch.tokens:,}: {batch.micro_tokens:,} tokens of a micro-batch are no whole sequences of"
            f" {batch.seq_len:,} (--seq-len) that cp={mesh.size('cp')} cuts evenly"
        )


def _not_with_experts(setting: Setting) -> Iterator[str]:
    """What of plans with experts is only simulated and sent."""
    model, plan = setting.model, setting.plan
    if plan.recomputation.runs_parts_again:
        yield f"--recompute {plan.recompute}: models with experts are executed for real with kinds that run whole layers again"
    if plan.dispatch != "copies":
        yield f"--dispatch {plan.dispatch}: over MPI every copy of a token travels by itself (--dispatch copies)"
    if plan.prototypes:
        yield "--prototypes: the runtime's gates choose among all experts"
    if isinstance(plan.balancing, Padded):
        yield f"--balancer {plan.balancer}: the runtime sends no empty places; it runs capacity"
    if model.width_beside and plan.expert_tensor == "whole" and setting.mesh.size("tp") > 1:
        yield "--expert-tensor whole: is executed for real for models without shared experts"


def _not_kept(setting: Setting) -> Iterator[str]:
    """What no numbers can be kept for, or sent."""
    model, plan = setting.model, setting.plan
    formats = plan.precisions.at(0).values()
    used = {name for each in formats for name in (each.compute, each.gemm, each.weight, each.gradient, each.moments)}
    used |= {plan.activations} if plan.activations else set()
    if unknown := sorted(used - set(TYPES)):
        named = [
            f" --{key} {value}" for key in ("gradients", "moments", "activations") if (value := getattr(plan, key))
        ]
        yield f"--precision {plan.precision}{''.join(named)}: NumPy has no {unknown[0]} ({', '.join(TYPES)})"
    if plan.offloads:
        yield f"--offload {plan.offload}: the runtime has no second memory to keep things in"
    if plan.sharding.quantises:
        yield f"--zero {plan.zero}: the runtime does not quantise; it runs 0, 1, 2, 3 and hierarchical"
    if others := [each for each in dict.fromkeys(model.pattern) if each != ATTENTION]:
        yield f"--model {model.name}: has {' and '.join(others)} layers; executed for real is attention to all tokens"
    if model.trained != model.parts or model.lora:
        yield f"--model {model.name}: has frozen weights; executed for real are models that are trained whole"
    if model.further_tokens:
        yield f"--model {model.name}: predicts further tokens; executed for real are decoders that predict one"
    if plan.sharding.shards_weights and not plan.sharding.reshards:
        yield f"--zero {plan.zero}: the runtime lets weights go behind each pass; it runs 0, 1, 2, 3 and hierarchical"
    if model.encoder_layers:
        yield f"--model {model.name}: an encoder beside a decoder; executed for real are decoders"
