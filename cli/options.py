"""The options that commands share: of a training plan, of a collective, and of where results go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..hardware.errors import InputError


def _mesh(text: str) -> dict[str, int]:
    """``axis=size,…`` as a dictionary."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if not size.lstrip("-").isdigit() or axis.strip() in sizes:
            raise InputError(f"--mesh {text}: write axis=size,..., each axis once, for example ep=400,dp=240")
        sizes[axis.strip()] = int(size)
    return sizes


PLAN_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "--mesh",
        {"type": _mesh, "metavar": "AXIS=N,...", "help": "Ranks along each axis, outermost first: ep=400,dp=240."},
    ),
    (
        "--placement",
        {
            "help": "auto, moda, megatron, grid, opposite, block:AXIS,... or AXIS=LEVEL,... (core_group, node, supernode,"
            " joined by +)."
        },
    ),
    ("--ranks-per-node", {"type": int, "help": "Ranks on a node: 1, or one a core group."}),
    ("--nodes-per-supernode", {"type": int, "help": "Nodes used of each supernode; the others stay idle."}),
    ("--tokens-per-rank", {"type": int, "help": "Tokens of a data-parallel rank in a step."}),
    ("--global-batch", {"type": int, "help": "Sequences of all ranks in a step, instead of --tokens-per-rank."}),
    ("--micro-batch", {"type": int, "help": "Sequences of a data-parallel rank in a micro-batch."}),
    ("--seq-len", {"type": int, "help": "Tokens of a sequence."}),
    ("--top-k", {"type": int, "help": "Experts that a token goes to."}),
    ("--precision", {"help": "O0, O1, O2, O3, layerwise, bf16, fp8, fp64, or a schedule such as O0:100,layerwise."}),
    (
        "--optimizer",
        {
            "metavar": "NAME[:KEY=X,...]",
            "help": "adam, adamw, sgd, adafactor, lamb, muon, adam8bit, with hyper-parameters (sgd:momentum=0.95);"
            " or MODULE:CLASS.",
        },
    ),
    ("--router", {"help": "uniform, zipf:S, table:NAME or table:FILE.csv."}),
    ("--drift", {"type": float, "help": "Share of the router's popularity that changes each step."}),
    ("--balancer", {"help": "none, capacity:F, swipe, even."}),
    ("--all-to-all", {"help": "linear, two-level, pairwise-shift, pairwise-xor, bruck."}),
    ("--tensor", {"help": "Tensor parallelism along tp: 1d (Megatron), 2d (SUMMA on a q x q grid)."}),
    (
        "--sequence-parallel/--no-sequence-parallel",
        {"default": None, "help": "Cut norms and residuals by tokens along tp."},
    ),
    (
        "--tensor-overlap/--no-tensor-overlap",
        {"default": None, "help": "Exchanges over tp run beside the products around them (simulated only)."},
    ),
    ("--pipeline", {"help": "gpipe, 1f1b, interleaved, zb-h1, zb-h2, pipedream, 2bw."}),
    ("--chunks", {"type": int, "help": "Model chunks of a stage, for --pipeline interleaved."}),
    (
        "--stage-layers",
        {
            "metavar": "WAY",
            "help": "Layers of pipeline stages: even, ends (embedding and output count as one each), or N,N,... by stage.",
        },
    ),
    (
        "--scatter-gather/--no-scatter-gather",
        {"default": None, "help": "Ranks of tp pass on a part each between stages, and gather there (simulated only)."},
    ),
    ("--expert-tensor", {"help": "Beside tp: split every expert, or keep experts whole and spread them over tp too."}),
    ("--prototypes", {"type": int, "help": "Groups of experts, of each of which a token goes to its first (M6-T)."}),
    ("--zero", {"help": "Sharded update: 0, 1, 2, 3, ++, or hierarchical (BaGuaLu)."}),
    (
        "--offload",
        {
            "help": "To host memory: optimizer, parameters, activations, experts, joined by commas, or a share of one:"
            " experts:0.5."
        },
    ),
    (
        "--offload-delay/--no-offload-delay",
        {"default": None, "help": "Update on the host beside the next step, one step late."},
    ),
    ("--recompute", {"help": "none, selective (the core of attention), products (every second one), full."}),
    ("--attention", {"help": "unfused, or fused (one kernel that keeps its scores to itself)."}),
    ("--accounting", {"help": "Memory accounting: apex-o2, or fp32 (24 bytes a parameter)."}),
    (
        "--overlap",
        {
            "help": "none; gradients (reduced, and weights fetched, beside the passes); all (updated shards gathered so too)."
        },
    ),
    ("--routing", {"help": "What the fabric knows of adaptive, static, minimal, valiant."}),
    ("--depth", {"help": "Network: bound, fluid, message, or auto by size."}),
    ("--jitter", {"type": float, "help": "Relative standard deviation of each operation's time on each node."}),
    ("--speed-spread", {"type": float, "help": "Relative standard deviation of the nodes' speeds."}),
    ("--steps", {"type": int, "help": "Training steps, one after another."}),
    ("--seed", {"type": int, "help": "Seed of routing, jitter and speeds."}),
]


COLLECTIVE_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("--machine", {"required": True, "help": "Name in the catalogue, or a TOML file."}),
    ("--op", {"required": True, "help": "all-to-all, all-reduce, ...: see athanor list collectives."}),
    ("--algorithm", {"help": "linear, pairwise-shift, ring, ...; by default all that can run, fastest first."}),
    ("--ranks", {"type": int, "required": True, "help": "Ranks; with --sweep the most."}),
    (
        "--bytes",
        {
            "metavar": "SIZE",
            "help": "To each other rank for an all-to-all, else a rank's vector: 1MiB, 4096; with --sweep the most."
            "  [default: 1 MiB; 64 MiB with --sweep]",
        },
    ),
    ("--placement", {"default": "block", "show_default": True, "help": "block, or scatter over the supernodes."}),
    ("--ranks-per-node", {"type": int, "help": "Ranks on a node, which divide its core groups.  [default: 1]"}),
    ("--nodes-per-supernode", {"type": int, "help": "Make the machine's supernodes that large."}),
    ("--routing", {"help": "What the fabric knows of adaptive, static, minimal, valiant."}),
    ("--network-model", {"default": "maxmin", "show_default": True, "help": "maxmin, cm02, lv08."}),
    ("--depth", {"default": "auto", "show_default": True, "help": "bound, fluid, message, or auto by size."}),
    ("--check-symmetry", {"is_flag": True, "help": "Also simulate every rank by itself, and compare."}),
    ("--set", {"multiple": True, "metavar": "KEY=VALUE", "help": "Another value in the machine file."}),
]


def collective_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that describe a collective."""
    for name, settings in reversed(COLLECTIVE_OPTIONS):
        target = {"--set": ["settings"], "--op": ["operation"], "--bytes": ["size"]}.get(name, [])
        command = click.option(name, *target, **settings)(command)
    return command


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that describe model and plan, and change the machine."""
    for name, settings in reversed(PLAN_OPTIONS):
        command = click.option(name, **settings)(command)
    command = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value in the machine file."
    )(command)
    return click.option("--model", required=True, help="Name in the catalogue, or a TOML file.")(command)


def machine_option(default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option that names the machine, which is required where there is no default."""
    text = "Name in the catalogue, or a TOML file."
    if default is None:
        return click.option("--machine", required=True, help=text)
    return click.option("--machine", default=default, show_default=True, help=text)


def runtime_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of jobs that run over MPI."""
    command = click.option(
        "--time-limit", type=float, default=600.0, show_default=True, help="Seconds after which the job ends itself."
    )(command)
    return click.option("--expect-ranks", type=int, help="Refuse to run with another number of ranks.")(command)


def overcommit_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option to go beyond a rank's memory."""
    text = "Simulate also what does not fit a rank's memory."
    return click.option("--allow-overcommit", is_flag=True, help=text)(command)


def result_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where results go."""
    command = click.option("--out", metavar="DIR", help="Folder for JSON, CSV, plots and the HTML report.")(command)
    return click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; - for standard output.")(
        command
    )
