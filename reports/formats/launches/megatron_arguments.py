"""Megatron-LM's arguments in each form in which they come: a script, a list, a dumped namespace, YAML of NeMo and Bridge."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....hardware.errors import InputError
from ..reading.files import text
from ..reading.trees import json_of, read_yaml_table
from .shell import Script

DUMPED = re.compile(r"^(?:\S+:\s+)?\s*([a-z][a-z0-9_]*) \.{3,} (.*?)\s*$", re.MULTILINE)
"""A line of Megatron's own log of its arguments: ``num_layers ..... 32``."""

LISTS = ("recompute_modules",)
"""Flags with several words behind them; of others the first one counts."""

SPELLED = {
    # NeMo and Megatron-Bridge's words
    "encoder_seq_length": "seq_length",
    "sequence_length": "seq_length",
    "num_gpus_per_node": "nproc_per_node",
    "gpus_per_node": "nproc_per_node",
    "ntasks_per_node": "nproc_per_node",
    "devices": "nproc_per_node",
    "num_nodes": "nnodes",
    "nodes": "nnodes",
    "N": "nnodes",
    "virtual_pipeline_model_parallel_size": "num_virtual_stages_per_pipeline_rank",
    "activations_checkpoint_granularity": "recompute_granularity",
    "activations_checkpoint_method": "recompute_method",
    "activations_checkpoint_num_layers": "recompute_num_layers",
    "num_moe_experts": "num_experts",
    "gated_linear_unit": "swiglu",
    "num_layers_in_first_pipeline_stage": "decoder_first_pipeline_num_layers",
    "num_layers_in_last_pipeline_stage": "decoder_last_pipeline_num_layers",
    "tp_comm_overlap_enabled": "tp_comm_overlap",
    "fp8": "fp8_format",
    "world_size": "world_size",
    "swiglu_activation": "swiglu",
    "qk_pos_emb_head_dim": "qk_pos_emb_head_dim",
}
"""Other names of the same arguments."""

SECTIONS = (
    *("model", "trainer", "train", "training", "data", "dataset", "ddp", "optimizer", "optim", "strategy", "parallel"),
    *("comm_overlap", "mixed_precision", "overrides", "recipe", "plugins", "transformer_engine", "config"),
)
"""Tables of a YAML file whose keys are arguments; other tables say nothing of a step."""

BESIDE = (
    *(
        "logger",
        "checkpoint",
        "scheduler",
        "tokenizer",
        "rng",
        "ft",
        "dist",
        "profiling",
        "rerun_state_machine",
        "peft",
    ),
    *("exp_manager", "name", "restore_from_path", "launcher", "hydra", "run", "defaults", "validation", "straggler"),
    *("nvrx_straggler", "inprocess_restart", "log", "resume", "callbacks"),
)


def arguments(path: Path, defined: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """Arguments by name with underscores, and whether the file has all of them, defaults included (a dumped namespace).

    Values are texts where they were words of a command line, ``True`` for a flag alone. ``defined`` holds where it names one.
    """
    if path.suffix in (".yaml", ".yml"):
        found, whole = _of_yaml(path), False
    else:
        source = text(path)
        if source.lstrip().startswith("Namespace("):
            found, whole = _of_namespace(source, path), True
        elif source.lstrip().startswith("{"):
            table = json_of(source, str(path))
            found, whole = {str(key): value for key, value in table.items()}, True
        elif dumped := DUMPED.findall(source):
            found, whole = {key: _read(value) for key, value in dumped}, True
        else:
            found, whole = _of_words(source, path, defined), False
    renamed = {SPELLED.get(key, key): value for key, value in found.items()}
    keys = {key: value for key, value in defined.items() if key == key.lower()}  # others are variables of a script
    return {**renamed, **keys}, whole


def _of_words(source: str, path: Path, defined: Mapping[str, str]) -> dict[str, Any]:
    flags = Script(source, str(path), defined).flags()
    if not flags:
        raise InputError(
            f"{path}: has no flags, --name value; needs a launch script, a list or a dump of Megatron's arguments"
        )
    return {key: True if not words else words if key in LISTS else words[0] for key, words in flags.items()}


def _of_namespace(source: str, path: Path) -> dict[str, Any]:
    """The keywords of ``Namespace(num_layers=32, ...)``; what is no plain value stays text."""
    try:
        call = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"{path}: cannot be read as Namespace(key=value, ...)") from None
    if not isinstance(call, ast.Call):
        raise InputError(f"{path}: cannot be read as Namespace(key=value, ...)")
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            continue
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            found[keyword.arg] = str(ast.get_source_segment(source.strip(), keyword.value))
    return found


def _read(value: str) -> Any:
    """A value of the log as Python would write it back."""
    words = {"None": None, "True": True, "False": False}
    if value in words:
        return words[value]
    if re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    return value


def _of_yaml(path: Path) -> dict[str, Any]:
    """Leaves of the sections that say something of a step; one that two sections set differently is refused."""
    table = read_yaml_table(path)
    found: dict[str, Any] = {}

    def take(inside: Mapping[Any, Any], where: str, depth: int = 0) -> None:
        for key, value in inside.items():
            name = str(key)
            if isinstance(value, Mapping):
                if depth < 4 and (name in SECTIONS or where):
                    if name not in BESIDE:
                        take(value, f"{where}{name}.", depth + 1)
                elif name not in BESIDE and not where:
                    raise InputError(f"{path}: {name}: no such section; can be {', '.join(SECTIONS)}")
                continue
            if name in BESIDE or name.startswith("_"):
                continue
            spelled = SPELLED.get(name, name)
            if spelled in found and found[spelled] != value and None not in (found[spelled], value):
                raise InputError(f"{path}: {where}{name} is {value}, but another section says {found[spelled]}")
            found[spelled] = value if value is not None else found.get(spelled)

    take(table, "")
    return found
