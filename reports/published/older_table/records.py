"""Rows of the older table as the tables of a file of runs: what each column becomes, and what a row cannot do without."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import Any

from ....hardware.machine import load_machine
from ....workloads.model.model import Model, load_model
from ....workloads.plan.expert_axes import folded
from ....workloads.plan.plan import Plan
from ..run import UNITS
from .columns import MORE, NEEDED, PEOPLE, Row, Unreadable, read_rows
from .names import Publication, RowPlace, model_named, place_of, publication_of, word
from .shapes import model_of

AXES = ("dp", "tp", "pp", "ep", "cp")

OF_A_PLAN = (*AXES, "global_batch", "micro_batch", "zero_stage", "interleave", "recompute")
"""Columns that say how a model was run."""

RECOMPUTE = ("none", "selective", "full")

LONG = 2048
"""Tokens of a sequence up to which runs on older accelerators had unfused attention; longer ones had FlashAttention."""

FLASH = ("A100", "A800", "MI250X", "MI300X")
"""Accelerators of that time that it was written for, as machines of the catalogue call them."""

FSDP = "torchtitan"
"""The library of a run with ZeRO 3 and without stages whose publication is not known: PyTorch's FSDP."""


def read_table(path: Path) -> dict[str, Any]:
    """A CSV table as the table of a file of runs; a row that is no record is left out, with the reason."""
    models: dict[str, dict[str, Any]] = {}
    return {"publication": path.stem, "models": models, "run": [_run(row, models) for row in read_rows(path)]}


def _run(row: Row, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One row as a run."""
    told: dict[str, Any] = {
        "id": row.text("id"),
        "source": row.text("source") or row.text("id"),
        "metric": row.text("measured_metric") or "none",
        "unit": row.text("unit") or "none",
        "notes": row.text("note"),
    }
    if publication := row.text("publication"):
        told["publication"] = publication
    elif known := publication_of(row).begins:
        told["publication"] = known
    try:
        value = row.number("measured_value")
        if value is None:
            raise Unreadable("measured_value is blank")
        told["value"] = value
        told["confidence"] = word("confidences", row.text("confidence") or "found") or "recalled, unsure"
        return {**told, **_record(row, models)}
    except Unreadable as reason:
        return {**told, "value": told.get("value", 1.0), "left_out": str(reason)}


def _record(row: Row, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What decides: machine, model, plan, metric and convention."""
    metric = _metric(row)
    place, publication = place_of(row), publication_of(row)
    found: dict[str, Any] = {**metric, "machine": place.machine, "assumed": [place.assumed] if place.assumed else []}
    if place.set:
        found["set"] = place.set
    if "collective" in metric:
        return {**found, "accelerators": row.needed("num_accelerators")}
    ranks = row.needed("num_accelerators")
    if catalogued := _catalogue_plan(row, ranks):
        own = {"ranks_per_node": place.ranks_per_node} if place.ranks_per_node else {}
        found["assumed"] += ["the catalogue's plan for it"]
        return {**found, "model": catalogued, "catalogue_plan": True, "plan": own, "accelerators": ranks}
    name, shape, assumed = model_of(row)
    if shape:
        name = _kept(models, name, shape)
    model = _model(name, shape)
    found["assumed"] += assumed
    library = _library(row, place, publication, found["assumed"])
    plan = _plan(row, model, ranks, publication, found["assumed"])
    if library:
        found["library"] = library
    elif "attention" not in plan and _fuses(place, model):
        plan["attention"] = "flash-2"
        found["assumed"] += ["no library known: flash-2, as sequences are longer than its time's unfused runs"]
    if place.ranks_per_node:
        plan["ranks_per_node"] = place.ranks_per_node
    if publication.assumed:
        found["assumed"] += [publication.assumed]
    convention = _convention(row, publication, plan, metric)
    if convention:
        found["convention"] = convention
    return {**found, "model": name, "plan": plan, "accelerators": ranks}


def _metric(row: Row) -> dict[str, Any]:
    name, unit = row.text("measured_metric"), row.text("unit")
    unit = word("units", unit) or unit
    if collective := word("metrics", name):
        return {"metric": "bus_bandwidth", "unit": unit, "collective": dict(collective)}
    if name not in UNITS:
        raise Unreadable(f"measured_metric {name!r} is not predicted")
    if unit not in UNITS[name]:
        raise Unreadable(f"unit {unit!r}: {name} is in {' or '.join(UNITS[name])}")
    return {"metric": name, "unit": unit}


def _catalogue_plan(row: Row, ranks: int) -> str | None:
    """The model of the catalogue whose recommended plan ran: it has as many ranks, and no column says how it ran."""
    if any(row.text(column) for column in OF_A_PLAN):
        return None
    name = model_named(row.text("model"))
    mesh = load_model(name).plan.get("mesh") if name else None
    return name if mesh and prod(mesh.values()) == ranks else None


def _kept(models: dict[str, dict[str, Any]], name: str, shape: dict[str, Any]) -> str:
    """The name under which a model's keys stand in the file: its own, with a number where that is another's."""
    number, found = 1, name
    while models.setdefault(found, shape) != shape:
        number += 1
        found = f"{name} ({number})"
    return found


def _model(name: str, shape: dict[str, Any]) -> Model:
    base = shape.get("base", None if shape else name)
    table = load_model(base).model_dump(exclude={"plan", "sources", "published_parameters"}) if base else {}
    try:
        return Model.model_validate(
            {**table, **{key: value for key, value in shape.items() if key != "base"}, "name": name}
        )
    except ValueError as wrong:
        raise Unreadable(f"no model: {' '.join(str(wrong).split())[:120]}") from None


def _library(row: Row, place: RowPlace, publication: Publication, assumed: list[str]) -> str | None:
    """The library that a column names, that of the publication, or what such rows mostly ran."""
    if name := row.text("library"):
        return name
    sharded = row.text("zero_stage") == "3" and (row.count("pp") or 1) == 1
    if sharded and publication.zero3_library:
        return publication.zero3_library
    if publication.begins:
        return publication.library
    if sharded:
        assumed.append("no library known: PyTorch's FSDP")
        return FSDP
    if place.library:
        assumed.append(f"no library known: {place.library}, as most on this accelerator")
    return place.library


def _fuses(place: RowPlace, model: Model) -> bool:
    """Whether a run without a known library had FlashAttention."""
    return model.seq_len > LONG and load_machine(place.machine).core_group.accelerator in FLASH


def _plan(row: Row, model: Model, ranks: int, publication: Publication, assumed: list[str]) -> dict[str, Any]:
    mesh, experts = _mesh(row, ranks, publication)
    replicas = ranks // (mesh.get("tp", 1) * mesh.get("pp", 1) * mesh.get("cp", 1))
    zero, stages = row.text("zero_stage").casefold(), mesh.get("pp", 1)
    plan: dict[str, Any] = {"mesh": mesh, **publication.plan}
    if "precision" not in plan and row.text("precision"):
        precision = word("precisions", row.text("precision"))
        if precision is None:
            raise Unreadable(f"precision {row.text('precision')}: neither fp8, bf16, fp16 nor fp32")
        plan["precision"] = precision
    elif not row.text("precision"):
        raise Unreadable("precision was not published")
    if zero:
        plan |= _zero(zero, stages, assumed)
    if recompute := row.text("recompute"):
        if recompute not in RECOMPUTE:
            raise Unreadable(f"recompute {recompute}: neither none, selective nor full")
        plan["recompute"] = publication.selective if recompute == "selective" else recompute
    else:
        plan |= {key: value for key, value in publication.blank.items() if key == "recompute"}
    if row.text("sequence_parallel") == "yes" and mesh.get("tp", 1) > 1:
        plan["sequence_parallel"] = True
    plan |= experts
    batch, micro = row.count("global_batch"), row.count("micro_batch")
    if batch is not None:
        plan["global_batch"] = batch
        share = batch // replicas
        if micro is None and stages > 1 and publication.fills_stages and share and share % stages == 0:
            micro = share // stages
            assumed.append("as many micro-batches as stages")
    if micro is not None:
        plan["micro_batch"] = micro
    if stages > 1:
        passes = (batch or 0) // replicas // (micro or 1)
        plan |= _stages(row, model, stages, passes, publication, assumed)
        if mesh.get("tp", 1) > 1:
            plan["scatter_gather"] = True
    return {**plan, **_further(row)}


def _mesh(row: Row, ranks: int, publication: Publication) -> tuple[dict[str, int], dict[str, str]]:
    """The mesh, outermost axis first, and how experts lie on it; ``dp`` counts all ranks with sequences of their own."""
    given = {axis: row.count(axis) for axis in AXES}
    if given["dp"] is None and given["tp"] is None and given["pp"] is None:
        raise Unreadable("dp, tp and pp were not published")
    tp, pp, cp = given["tp"] or 1, given["pp"] or 1, given["cp"] or 1
    dp = given["dp"] or max(1, ranks // (tp * pp * cp))
    if dp * tp * pp * cp != ranks:
        degrees = f"dp={dp} x tp={tp} x pp={pp}" + (f" x cp={cp}" if cp > 1 else "")
        raise Unreadable(
            f"{degrees} is {dp * tp * pp * cp:,}, not the {ranks:,} of num_accelerators; a column cp may say more"
        )
    ep = given["ep"] or 1
    each = _expert_tensor(row, ep, dp, tp, publication)
    try:
        way = folded(ep, each, tp, cp if ep * each > dp * tp else 1)  # over cp only what dp has no ranks for
    except ValueError as reason:
        raise Unreadable(f"ep={ep} {reason}") from None
    ep, experts = way.own, way.options(tp, cp)
    if dp % ep:
        raise Unreadable(f"ep={row.text('ep')} does not divide the {dp} data-parallel ranks")
    sizes = {"pp": pp, "dp": dp // ep, "ep": ep, "cp": cp, "tp": tp}
    return {axis: size for axis, size in sizes.items() if size > 1} or {"dp": 1}, experts


def _expert_tensor(row: Row, ep: int, dp: int, tp: int, publication: Publication) -> int:
    """Over how many ranks of tp each expert is cut: as a column ``etp`` says.

    Without one, experts are whole and lie over tp too in a publication's recipes, and where there are more of their ranks than
    have sequences of their own.
    """
    own = row.count("etp")
    if own is None:
        whole = ep > dp or (publication.experts == "whole" and ep > 1)
        return 1 if whole and ep % tp == 0 else tp
    if tp % own:
        raise Unreadable(f"etp={own} does not divide tp={tp}")
    return own


def _zero(text: str, stages: int, assumed: list[str]) -> dict[str, Any]:
    if text == "optimizer-parallel":
        return {"zero": "1"}
    if text in ("3+cpu offload", "3+offload"):
        return {"zero": "3", "offload": "optimizer,parameters"}
    if text not in ("0", "1", "2", "3", "++"):
        raise Unreadable(f"zero_stage {text}: neither 0, 1, 2, 3, ++, optimizer-parallel nor 3+CPU offload")
    if text == "3" and stages > 1:
        assumed.append("ZeRO 1, as stages keep their weights and gradients through a step")
        text = "1"
    return {"zero": text}


def _stages(
    row: Row, model: Model, stages: int, passes: int, publication: Publication, assumed: list[str]
) -> dict[str, Any]:
    """The order of a pipeline; where stages cannot have equally many layers, embedding and output count as one each."""
    chunks = row.count("interleave")
    if chunks is None:
        chunks, counted = 1, model.layers if model.layers % stages == 0 else model.layers + 2
        if publication.chunks and counted % stages == 0 and passes and passes % stages == 0:
            chunks = counted // stages if publication.chunks == "layers" else int(publication.chunks)
        assumed.append(f"{chunks} chunks a stage" if chunks > 1 else "stages not interleaved")
    order: dict[str, Any] = {"pipeline": "interleaved", "chunks": chunks} if chunks > 1 else {"pipeline": "1f1b"}
    if model.layers % (stages * chunks) and (model.layers + 2) % (stages * chunks) == 0:
        order["stage_layers"] = "ends"
        assumed.append("embedding and output count as a layer of their stages each")
    return order


def _further(row: Row) -> dict[str, Any]:
    """Columns of the user's own that are keys of run files, such as ``attention`` or ``overlap``."""
    taken = {*NEEDED, *MORE, *PEOPLE, *AXES, "mesh"}
    options = Plan.options()
    return {key: _typed(row.text(key)) for key in options if key not in taken and row.text(key)}


def _typed(text: str) -> bool | int | float | str:
    lower = text.casefold()
    if lower in ("yes", "true", "no", "false"):
        return lower in ("yes", "true")
    if text.isdigit():
        return text if lower in ("0", "1", "2", "3") else int(text)
    return float(text) if re.fullmatch(r"\d+\.\d+", text) else text


def _convention(row: Row, publication: Publication, plan: dict[str, Any], metric: dict[str, Any]) -> dict[str, Any]:
    """How FLOPs and memory are counted: a column, the metric's own name, or the publication."""
    found: dict[str, Any] = {}
    if metric["metric"].startswith("mem_"):
        if publication.reading:
            found["reading"] = publication.reading
        if not publication.embedding:
            found["embedding"] = False
        return found
    counted = row.text("convention")
    if counted not in ("", "hardware", "model", "causal"):
        raise Unreadable(f"convention {counted}: neither hardware, model nor causal FLOPs")
    if counted == "causal":
        found["causal"] = True
    if metric["unit"] == "TFLOP/s" or metric["metric"] == "HFU":
        hardware = counted == "hardware" or metric["metric"] == "HFU"
        if not counted and metric["metric"] != "HFU":
            if publication.recomputation is None and not publication.begins and plan.get("recompute") == "full":
                raise Unreadable(
                    "TFLOP/s with full recomputation count it or not; a column convention says hardware or model"
                )
            hardware = bool(publication.recomputation)
        if hardware:
            found["recomputation"] = True
    return found
