"""What to simulate for a row: machine, model and plan, and what had to be assumed because it was not published."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ....hardware.errors import InputError
from ....hardware.machine import Machine
from ....workloads.model.model import Model
from ....workloads.plan.setting import Setting
from .libraries import Library, library_of
from .rows import LeftOut, PublishedRow
from .shapes import model_of, named
from .systems import entry_of, system_of

PRECISIONS = (("fp8", "fp8"), ("bf16", "bf16"), ("fp16", "O2"), ("fp32", "O0"))
"""How a row's precision begins, and the policy that it stands for."""

MICRO_BATCHES = (1, 2, 4)
"""Sequences of a micro-batch that are tried where it was not published: users take the fastest that fits."""

SMALLEST = "micro-batches of one sequence"

RECOMPUTE = ("none", "selective", "full")

TOKENS = re.compile(r"(\d+)k tokens per GPU per micro-step")
"""What a note tells of a batch where no column does."""

SECOND_TOKEN = re.compile(r"deepseek-v3", re.IGNORECASE)
"""Models that also learn to predict the token after the next."""

WHOLE = re.compile(r"Megatron-Bridge")
"""Sources whose experts are not cut over tp (``expert_tensor_parallel_size = 1`` in all recipes)."""


@dataclass(frozen=True)
class Case:
    """A training step to simulate; ``assumed`` says what was not published."""

    machine: Machine
    model: Model
    options: dict[str, Any]
    ranks: int
    assumed: tuple[str, ...]

    def on(self, machine: Machine) -> Case:
        """The same on another machine."""
        return replace(self, machine=machine)


def cases_of(row: PublishedRow) -> list[Case]:
    """The steps that a row may stand for: one, or one for each micro-batch of a few where that was not published.

    Raises :class:`LeftOut` as :func:`case_of` does.
    """
    first = case_of(row)
    if SMALLEST not in first.assumed:
        return [first]
    found = [first]
    for micro in MICRO_BATCHES[1:]:
        try:
            more = case_of(PublishedRow({**row.fields, "micro_batch": str(micro)}))
            setting_of(more)
        except LeftOut:  # it does not divide what a replica has
            continue
        found.append(
            replace(more, assumed=(*more.assumed, f"micro-batches of {micro} sequences, the fastest that fit"))
        )
    return found


def case_of(row: PublishedRow) -> Case:
    """The step of a row; raises :class:`LeftOut` with what is missing or contradicts."""
    system = system_of(entry_of(row))
    ranks = row.needed("num_accelerators")
    if (known := named(row.text("model"))) and _ranks(known) == ranks and not row.text("dp"):
        per_node = {"ranks_per_node": system.ranks_per_node}
        return Case(system.machine, known, per_node, ranks, ("the catalogue's plan for it",))
    model, assumed = model_of(row)
    model = _with_second_token(_of_length(row, model), assumed)
    library = library_of(row)
    if system.note:
        assumed.append(system.note)
    mesh, recompute = _mesh(row, ranks), _recompute(row, assumed)
    zero, more = _zero(row, mesh, assumed)
    if zero == "++":
        mesh = _sharded(mesh, system.machine)
    replicas = ranks // (mesh.get("tp", 1) * mesh.get("pp", 1) * mesh.get("cp", 1))
    if recompute == "selective" and library.selective != recompute:
        recompute = library.selective
        assumed.append(f"selective recomputation is that of {library.name}: {recompute}")
    batch, micro = _batch(row, model, replicas, mesh, assumed)
    options: dict[str, Any] = {
        "mesh": mesh,
        "placement": "megatron",
        "ranks_per_node": system.ranks_per_node,
        "global_batch": batch,
        "micro_batch": micro,
        "precision": _precision(row),
        "zero": zero,
        "recompute": recompute,
        "sequence_parallel": row.text("sequence_parallel") == "yes" and mesh.get("tp", 1) > 1,
        "attention": library.attention,
        "overlap": library.overlap,
        **({"framework": library.framework} if library.framework else {}),
        "tensor_overlap": _tensor_overlap(row, library) and mesh.get("tp", 1) > 1,
        "balancer": _balancer(model),
        "expert_tensor": "whole" if (row.count("ep") or 1) > mesh.get("ep", 1) else "split",
        **_stages(row, model, mesh, batch // replicas // micro, library, assumed),
        **more,
    }
    assumed.append(library.assumed)
    if options["tensor_overlap"]:
        assumed.append("exchanges over tp beside products")
    return Case(_with(system.machine, library), model, options, ranks, tuple(assumed))


def _with(machine: Machine, library: Library) -> Machine:
    """The machine under a library; what it says of GPUs' kernels and framework concerns no other accelerator."""
    lacks = [name for name in ("tiles", "framework") if getattr(machine.core_group, name) is None]
    changes = {key: value for key, value in library.set.items() if not any(name in key for name in lacks)}
    return machine.changed(changes) if changes else machine


def _tensor_overlap(row: PublishedRow, library: Library) -> bool:
    """Whether exchanges over tp run beside products: as the library does, or as a note says."""
    return library.tensor_overlap or "AsyncTP" in row.text("note")


def _of_length(row: PublishedRow, model: Model) -> Model:
    """The model with sequences no longer than the tokens of a GPU, where a note tells these."""
    tokens = TOKENS.search(row.text("note"))
    length = int(tokens.group(1)) * 1024 if tokens else model.seq_len
    return model.model_copy(update={"seq_len": min(model.seq_len, length)})


def _with_second_token(model: Model, assumed: list[str]) -> Model:
    """DeepSeek-V3 as it is trained: its head for a second token is about a layer more (DeepSeek-AI 2024, section 2.2)."""
    if not SECOND_TOKEN.match(model.name):
        return model
    assumed.append("the head for a second token as a layer more")
    return Model.model_validate({**model.model_dump(), "layers": model.layers + 1})  # a copy would keep cached counts


def _ranks(model: Model) -> int:
    """Ranks of the mesh that a model of the catalogue recommends; 0 where it recommends none."""
    return prod(model.plan.get("mesh", {"none": 0}).values())


def setting_of(case: Case) -> Setting:
    """The setting of a case; raises :class:`LeftOut` where the simulator has no such plan, with its reason."""
    try:
        return Setting.of(case.machine, case.model, case.options)
    except InputError as wrong:
        raise LeftOut(str(wrong)) from None


def _mesh(row: PublishedRow, ranks: int) -> dict[str, int]:
    """The mesh of a row, outermost axis first; ``dp`` counts all ranks with tokens of their own, experts' among them."""
    given = {axis: row.count(axis) for axis in ("dp", "tp", "pp", "ep")}
    if given["dp"] is None and given["tp"] is None and given["pp"] is None:
        if "3" not in row.text("zero_stage"):
            raise LeftOut("dp, tp and pp were not published")
        given["dp"] = ranks  # ZeRO-3 stands alone
    tp, pp = given["tp"] or 1, given["pp"] or 1
    dp = given["dp"] or max(1, ranks // (tp * pp))
    contexts = re.search(r"\bCP(\d+)\b", row.text("note"))
    cp = int(contexts.group(1)) if contexts else 1
    if dp * tp * pp * cp != ranks:
        if dp * tp * pp != ranks:
            degrees = f"dp={dp} x tp={tp} x pp={pp}" + (f" x cp={cp}" if cp > 1 else "")
            raise LeftOut(f"{degrees} is {dp * tp * pp * cp:,}, not the {ranks:,} of num_accelerators")
        dp //= cp
    ep = given["ep"] or 1
    if (ep > dp or WHOLE.search(row.source)) and ep % tp == 0:
        ep //= tp  # experts stay whole and are spread over tp too
    if dp % ep:
        raise LeftOut(f"ep={row.text('ep')} does not divide the {dp} data-parallel ranks")
    sizes = {"pp": pp, "dp": dp // ep, "ep": ep, "cp": cp, "tp": tp}
    return {axis: size for axis, size in sizes.items() if size > 1} or {"dp": 1}


def _sharded(mesh: dict[str, int], machine: Machine) -> dict[str, int]:
    """The mesh with the ranks of a node along ``fsdp``, along which ZeRO++ keeps its second shard."""
    node = machine.node.core_groups
    if mesh.get("dp", 1) % node:
        raise LeftOut(f"ZeRO++ keeps a second shard in each node of {node}, which do not divide dp={mesh.get('dp', 1)}")
    return {**mesh, "dp": mesh["dp"] // node, "fsdp": node}


def _zero(row: PublishedRow, mesh: dict[str, int], assumed: list[str]) -> tuple[str, dict[str, Any]]:
    """The ZeRO stage of a row, and what goes with it."""
    text, more = row.text("zero_stage"), dict[str, Any]()
    if "offload" in text.lower():
        more["offload"] = "optimizer,parameters"
    stage = text[:1] if text[:1] in "0123" else ""
    if re.search(r"zero(\+\+|pp)", row.id + row.text("model"), re.IGNORECASE) and stage == "3":
        stage = "++"
    if text == "optimizer-parallel":
        stage = "1"
    if stage == "3" and mesh.get("pp", 1) > 1:
        # PyTorch's pipelining.stage, backward_maybe_with_nosync: gradients add up, and the last micro-batch reduces them.
        stage = "1"
        assumed.append("ZeRO 1, as stages keep their weights and gradients through a step")
    if not stage:
        stage = "0"
        assumed.append("no ZeRO")
    return stage, more


def _batch(row: PublishedRow, model: Model, replicas: int, mesh: dict[str, int], assumed: list[str]) -> tuple[int, int]:
    """Sequences of a step, and those of a replica's micro-batch."""
    micro = row.count("micro_batch")
    batch = row.count("global_batch")
    if batch is None:
        if row.text("measured_metric") == "layer_fwd_bwd_time" and micro:
            return micro * replicas, micro
        tokens = TOKENS.search(row.text("note"))
        if not tokens:
            raise LeftOut("global_batch was not published")
        micro = max(1, int(tokens.group(1)) * 1024 // model.seq_len)
        batch = replicas * micro
        assumed.append("one micro-batch a step")
    batch, spare = batch // replicas * replicas, batch % replicas
    if not batch:
        raise LeftOut(f"global_batch {row.text('global_batch')} is less than its {replicas} replicas")
    if spare:
        assumed.append(f"{batch:,} of {batch + spare:,} sequences, which {replicas} replicas share evenly")
    stages = mesh.get("pp", 1)
    if micro is None and stages > 1 and library_of(row).fills_stages and (batch // replicas) % stages == 0:
        micro = batch // replicas // stages
        assumed.append("as many micro-batches as stages")
    if micro is None:
        micro = MICRO_BATCHES[0]
        assumed.append(SMALLEST)
    if (batch // replicas) % micro:
        raise LeftOut(f"micro_batch {micro} does not divide the {batch // replicas} sequences of a replica")
    return batch, micro


def _precision(row: PublishedRow) -> str:
    text = row.text("precision").lower()
    for begin, policy in PRECISIONS:
        if text.startswith(begin):
            return policy
    raise LeftOut(f"precision {text}: neither fp8, bf16, fp16 nor fp32" if text else "precision was not published")


def _recompute(row: PublishedRow, assumed: list[str]) -> str:
    text = row.text("recompute")
    if text in RECOMPUTE:
        return text
    if text:
        raise LeftOut(f"recompute {text}: neither none, selective nor full")
    found = "full" if "3" in row.text("zero_stage") and library_of(row).attention == "unfused" else "none"
    assumed.append(f"recomputation: {found}")
    return found


def _balancer(model: Model) -> str:
    """Published runs balanced their routers by an auxiliary loss, or forced them to be even."""
    return "even" if model.experts else "none"


def _stages(
    row: PublishedRow, model: Model, mesh: dict[str, int], micro_batches: int, library: Library, assumed: list[str]
) -> dict[str, Any]:
    """The schedule of the pipeline; where its chunks were not published, a library's usual number.

    Where stages cannot have equally many layers, they do with embedding and output as one layer each.
    """
    stages = mesh.get("pp", 1)
    if stages == 1:
        return {}
    chunks = row.count("interleave")
    if chunks is None:
        counted = model.layers if model.layers % stages == 0 else model.layers + 2
        even = counted % stages == 0 and micro_batches % stages == 0
        chunks = (library.chunks or counted // stages) if even else 1
        assumed.append(f"{chunks} chunks a stage" if chunks > 1 else "stages not interleaved")
    order: dict[str, Any] = {"pipeline": "interleaved", "chunks": chunks} if chunks > 1 else {"pipeline": "1f1b"}
    if model.layers % (stages * chunks) and (model.layers + 2) % (stages * chunks) == 0:
        order["stage_layers"] = "ends"
        assumed.append("embedding and output count as a layer of their stages each")
    return {**order, "scatter_gather": mesh.get("tp", 1) > 1}
