"""infer(): how long a model takes to read a prompt and to write tokens after it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ...hardware.errors import DoesNotFit, InputError
from ...hardware.machine import Machine
from ...workloads.lowering.inference import Pass, cache_bytes, lower_pass, weight_bytes
from ...workloads.mesh.axes import CONTEXT, STAGES
from ...workloads.model.model import Model
from ...workloads.plan.plan_options import PlanOptions
from ...workloads.plan.run_file import resolved
from ...workloads.plan.setting import Setting
from ...workloads.plan.signatures import documented
from ...workloads.schedule.work import HostCopy
from ..engine.noise import Noise
from ..engine.step_engine import Engine
from ..network.phases.transfers import Traffic

MOST_SIMULATED = 33
"""Passes that are simulated of those that follow a prompt; what lies between them is interpolated, since they differ little."""


@dataclass(frozen=True)
class Inference:
    """What :func:`infer` found; seconds, bytes of a rank.

    ``first_token_seconds`` is the pass over the prompt, ``token_seconds`` the mean of those that follow, ``breakdown`` where the
    time of all passes goes, and ``host_bytes_per_token`` what comes from the host's memory for each of the passes that follow.
    """

    machine: str
    model: str
    mesh: dict[str, int]
    sequences: int
    prompt: int
    new_tokens: int
    reuse: bool
    seconds: float
    first_token_seconds: float
    token_seconds: float
    tokens_per_second: float
    breakdown: dict[str, float]
    memory_per_rank_bytes: dict[str, float]
    host_bytes_per_token: float
    fits: bool

    def summary(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@documented(lambda option: option.inference)
def infer(
    machine: str | Path | Machine,
    model: str | Path | Model | None = None,
    *,
    prompt: int,
    new_tokens: int,
    sequences: int = 1,
    reuse: bool = True,
    prefetch: bool = True,
    allow_overcommit: bool | None = None,
    **options: Unpack[PlanOptions],
) -> Inference:
    """Simulate inference: ``sequences`` prompts at once, and ``new_tokens`` after each.

    With ``reuse`` keys and values of earlier tokens are kept; else every token computes all that there will be, padded to the
    full length. ``prefetch`` lets offloaded weights come beside the layer before. A run file may stand for machine and model,
    as in ``simulate()``. Raises ``InputError`` for bad input and ``DoesNotFit`` where weights and cache exceed a rank's memory or
    its host's.
    """
    for name, value in (("prompt", prompt), ("new-tokens", new_tokens), ("sequences", sequences)):
        if value < 1:
            raise InputError(f"--{name} {value}: must be at least 1")
    machine, model, given, overcommit = resolved(machine, model, options, allow_overcommit)
    ways = {"zero": "0", "overlap": "none", "mesh": {"dp": 1}}
    fixed = {"tokens_per_rank": sequences * prompt, "seq_len": prompt, "micro_batch": sequences}
    setting = Setting.of(machine, model, {**ways, **given, **fixed})
    if set(setting.mesh.axes) & {*STAGES, *CONTEXT, "row"} or setting.plan.sharding.shards_gradients:
        raise InputError("inference runs on meshes of tp, ep and dp, with --zero 0")
    if setting.plan.balancing.copies is not None:
        raise InputError(f"--balancer {setting.plan.balancer}: copies weights anew in every step, as training has to")
    memory = _memory(setting, sequences, prompt + new_tokens if reuse else 0)
    if not overcommit:
        _require_fit(setting, memory)
    length = prompt + new_tokens
    first = Pass(sequences, prompt if reuse else length, prompt if reuse else length)
    if reuse:
        at = np.unique(np.linspace(prompt + 1, length, min(new_tokens, MOST_SIMULATED)).astype(int))
        following = [Pass(sequences, 1, int(keys)) for keys in at]
    else:
        at, following = np.array([prompt + 1]), [first]
    traffic = Traffic(setting.machine, setting.layout, "fluid" if setting.plan.depth == "auto" else setting.plan.depth)
    seconds, parts, _ = _run(setting, traffic, first, prefetch)
    runs = [_run(setting, traffic, each, prefetch) for each in following]
    places = np.arange(prompt + 1, length)  # the first token comes from the prompt's own pass
    token = np.interp(places, at, [run[0] for run in runs])
    total = seconds + float(token.sum())
    breakdown = {
        key: value + float(np.interp(places, at, [run[1][key] for run in runs]).sum()) for key, value in parts.items()
    }
    return Inference(
        machine=setting.machine.name,
        model=setting.model.name,
        mesh=dict(zip(setting.mesh.axes, setting.mesh.shape, strict=True)),
        sequences=sequences,
        prompt=prompt,
        new_tokens=new_tokens,
        reuse=reuse,
        seconds=total,
        first_token_seconds=seconds,
        token_seconds=float(token.mean()) if len(token) else seconds,
        tokens_per_second=sequences * setting.mesh.replicas * new_tokens / total,
        breakdown=breakdown,
        memory_per_rank_bytes=memory,
        host_bytes_per_token=float(np.mean([run[2] for run in runs])),
        fits=memory["total"] <= memory["capacity"] and memory["host"] <= memory["host_capacity"],
    )


def _run(setting: Setting, traffic: Traffic, each: Pass, prefetch: bool) -> tuple[float, dict[str, float], float]:
    """Seconds of a pass, by category, and the bytes that come from the host."""
    schedule = lower_pass(setting, each, prefetch)
    noise = Noise.of(setting, 0)
    result = Engine(setting.machine, schedule, traffic, noise, {}).run()
    parts: dict[str, float] = {}
    for phase in result.exposed.values():
        for category, value in phase.items():
            parts[category] = parts.get(category, 0.0) + value
    copies = [operation.work for operation in schedule.operations if isinstance(operation.work, HostCopy)]
    return result.seconds, parts, sum((float(np.max(copy.nbytes)) for copy in copies), start=0.0)


def _memory(setting: Setting, sequences: int, kept: int) -> dict[str, float]:
    """Bytes of a rank: weights, kept keys and values, on the accelerator; and what lies with its host."""
    formats = setting.plan.precisions.at(0)
    weights, host = weight_bytes(setting, formats)
    cache = cache_bytes(setting, formats, sequences, kept)
    processor = setting.processor
    return {
        "weights": weights,
        "cache": cache,
        "total": weights + cache,
        "capacity": processor.memory,
        "host": host,
        "host_capacity": processor.host_memory or 0.0,
    }


def _require_fit(setting: Setting, memory: dict[str, float]) -> None:
    if memory["total"] > memory["capacity"]:
        away = setting.plan.offloads
        ways = "--offload experts or a mesh with tp or ep" if setting.model.experts and not away else "a mesh with tp"
        raise DoesNotFit(
            f"{setting.model.name} does not fit {setting.machine.name}: {memory['total'] / 1e9:.1f} GB a rank of"
            f" {memory['capacity'] / 1e9:.1f} GB (weights {memory['weights'] / 1e9:.1f}, cache {memory['cache'] / 1e9:.1f});"
            f" {ways} needs less"
        )
    if memory["host"] > memory["host_capacity"]:
        raise DoesNotFit(
            f"{setting.model.name} does not fit the hosts of {setting.machine.name}: {memory['host'] / 1e9:.1f} GB a rank of"
            f" {memory['host_capacity'] / 1e9:.1f} GB; more ranks along ep or tp hold less each"
        )
