"""The points of a study: combinations of list and grid, what is drawn over them, and the node counts of a scaling study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....hardware.errors import AthanorError, InputError
from ....workloads.mesh.mesh_text import mesh_text
from ....workloads.plan.setting import Setting
from ..scaling import Grow, Kind, default_nodes, growing, scaled
from .sensitivity import designed_shares
from .study_file import MOST_POINTS, Row, Sample, StudyFile
from .trials import Trial, machine_of, model_of

SCALE = ("kind", "grow", "nodes")

EQUAL, LARGER, FIXED = "weak, model fixed", "weak, model grows", "strong"
"""Names of the kinds of scaling."""


@dataclass(frozen=True)
class Point:
    """A point of a study: its place in the order of points, what it says of its keys, and its inputs.

    ``series`` is the number of the combination that a scaling study puts on several node counts. ``refused`` is why there are no
    inputs.
    """

    number: int
    row: Row
    trial: Trial
    series: int
    refused: str = ""


def points_of(study: StudyFile) -> list[Point]:
    """All points of a study that draws them in advance; raises :class:`InputError` where these are too many."""
    made: list[Point] = []
    rows = list(_drawn(study))
    if len(rows) > MOST_POINTS:
        raise InputError(f"{study.where}: {len(rows):,} points are more than {MOST_POINTS:,}")
    for series, row in enumerate(rows):
        for each, trial, refused in _scaled(study, row):
            made.append(Point(len(made), each, trial, series, refused))
    return made


def _drawn(study: StudyFile) -> Iterator[Row]:
    sample = study.sample
    if sample is None:
        yield from study.designed()
        return
    shares = shares_of(sample)
    for row in study.designed():
        yield from ({**row, **at(sample, each)} for each in shares)


def at(sample: Sample, shares: Any) -> Row:
    """The values of a sample's factors at shares of their ranges."""
    return {key: factor.at(float(share)) for (key, factor), share in zip(sample.over.items(), shares, strict=True)}


def shares_of(sample: Sample) -> Any:
    """Points of a sample in the unit cube, ``[point, factor]``: the same ones for a seed."""
    if sample.method in ("sobol", "morris"):
        return designed_shares(sample)
    draw = np.random.default_rng(sample.seed)
    count, factors = sample.points, len(sample.over)
    if sample.method == "random":
        return draw.random((count, factors))
    # Latin hypercube (McKay, Beckman and Conover 1979): one point in each of `count` equal parts of every factor's range.
    places = np.stack([draw.permutation(count) for _ in range(factors)], axis=1)
    return (places + draw.random((count, factors))) / count


def _scaled(study: StudyFile, row: Row) -> Iterator[tuple[Row, Trial, str]]:
    """A combination as it is, or on each node count of a scaling study."""
    trial = study.trial(row)
    if not study.scale:
        yield row, trial, ""
        return
    kind, grow, nodes = scale_keys(study)
    try:
        reference = Setting.of(machine_of(trial), model_of(trial), trial.plan)
        grows = growing(kind, reference, grow)
        counts = sorted(set(nodes)) if nodes else default_nodes(kind, reference, grows)
    except AthanorError as wrong:
        yield {**row, "scale.nodes": None}, trial, str(wrong)
        return
    for count in counts:
        here = {**row, "scale.nodes": count}
        try:
            grown, changed = scaled(kind, reference, count, grows)
        except InputError as wrong:
            yield here, trial, str(wrong)
            continue
        more: Mapping[str, Any] = {"experts": grown.experts} if grown.experts != reference.model.experts else {}
        plan = {**trial.plan, **{key: value for key, value in changed.items() if value is not None}}
        plan = {key: value for key, value in plan.items() if changed.get(key, value) is not None}
        yield (
            {**here, "plan.mesh": mesh_text(changed["mesh"])},
            replace(trial, plan=plan, changes={**trial.changes, **more}),
            "",
        )


def scale_keys(study: StudyFile) -> tuple[Kind, Grow | None, list[int]]:
    """Kind, growth and node counts of a scaling study, checked."""
    where, table = f"{study.where}: scale", study.scale
    for key in table:
        if key not in SCALE:
            raise InputError(f"{where}.{key}: no such key ({', '.join(SCALE)})")
    kind, grow, nodes = table.get("kind"), table.get("grow"), table.get("nodes", [])
    if kind not in ("weak", "strong"):
        raise InputError(f"{where}.kind is {kind}: must be weak or strong")
    if grow not in (None, "experts", "data"):
        raise InputError(f"{where}.grow is {grow}: must be experts or data")
    if isinstance(nodes, str):
        nodes = [int(each) if each.strip().isdecimal() else each for each in nodes.split(",")]
    if not isinstance(nodes, list) or not all(isinstance(each, int) and each > 0 for each in nodes):
        raise InputError(f"{where}.nodes is {table.get('nodes')}: must be node counts, such as [64, 128, 256]")
    return kind, grow, nodes
