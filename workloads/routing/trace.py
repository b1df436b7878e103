"""A recorded trace of routing, replayed: how many tokens each expert of each layer had in each step."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...hardware.records import parsed_json
from .router import Router

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

DIGITS = 18
"""Of the largest number that counts tokens."""

COLUMNS = ("step", "layer", "expert", "tokens")


@dataclass(frozen=True)
class Trace(Router):
    """Counts ``[steps, layers, experts]`` of a file (``docs/formats/routing-trace.md``), in the order of their steps.

    Training steps replay the recorded ones in order, and begin again after the last. Counts are scaled to the plan's tokens.
    """

    name: str
    layers: tuple[int, ...]
    steps: tuple[int, ...]
    counts: Counts = field(repr=False, compare=False)
    about: ClassVar[str] = "trace:FILE, recorded tokens of each step, layer and expert, replayed"
    searched: ClassVar[bool] = False

    @classmethod
    def parse(cls, argument: str) -> Self:
        """The path of a trace."""
        if not argument:
            raise ValueError("takes the path of a trace of routing")
        return cls.load(argument)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a trace as CSV or JSON lines; raises :class:`InputError` with the line that is wrong."""
        try:
            known = Path(path).stat()
            layers, steps, counts = _read(str(path), known.st_mtime_ns, known.st_size)
        except (OSError, UnicodeDecodeError) as reason:
            raise InputError(f"--router trace:{path}: cannot be read: {reason}") from None
        return cls(str(path), layers, steps, counts)

    def at(self, layer: int, step: int) -> Counts:
        """Recorded tokens ``[experts]`` that a layer's experts have in a training step."""
        found: Counts = self.counts[step % len(self.steps), self.layers.index(layer)]
        return found

    def shares(self, experts: int, step: int) -> Array:
        """The recorded shares of a step in falling order, over all its layers."""
        every = self.counts[step % len(self.steps)]
        ordered = np.sort(every, axis=1)[:, ::-1].sum(axis=0).astype(np.float64)
        found: Array = ordered / float(ordered.sum())
        return found

    def require_fit(self, experts: int, layers: Sequence[int], top_k: int, prototypes: int, drift: float) -> None:
        """Raise :class:`InputError` where the trace is of another model, or no token could have chosen so."""
        of = f"--router trace:{self.name}"
        if self.counts.shape[2] != experts:
            raise InputError(f"{of}: has {self.counts.shape[2]:,} experts a layer, the model has {experts:,}")
        if lacking := sorted(set(layers).difference(self.layers)):
            raise InputError(
                f"{of}: has no layer {lacking[0]}; layers count from 0 and the model has experts in {len(layers)} from"
                f" {min(layers)} to {max(layers)}"
            )
        if drift:
            raise InputError(f"{of}: says itself how loads move, --drift {drift:g} cannot")
        if prototypes:
            groups = np.array_split(self.counts, prototypes, axis=2)
            if not all(each.sum(axis=2).all() for each in groups):
                raise InputError(
                    f"{of}: no expert of one of the {prototypes} --prototypes has a token; each needs some"
                )
            return
        totals = self.counts.sum(axis=2)
        if (worst := self.counts.max(axis=2) * top_k > totals).any():
            step, layer = (int(place) for place in np.argwhere(worst)[0])
            most = self.counts[step, layer].max() / totals[step, layer]
            raise InputError(
                f"{of}: step {self.steps[step]}, layer {self.layers[layer]}: an expert has {most:.1%} of the tokens;"
                f" each goes to it once, which with {top_k} choices is at most {1 / top_k:.1%}"
            )


@lru_cache(maxsize=8)
def _read(path: str, changed: int, size: int) -> tuple[tuple[int, ...], tuple[int, ...], Counts]:
    """Layers, steps and counts of a file as it is now."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        lines = [(number, line) for number, line in enumerate(file, 1) if line.strip() and line[0] != "#"]
    where = f"--router trace:{path}"
    if not lines:
        raise InputError(f"{where}: is empty; needs {', '.join(COLUMNS)} as CSV, or JSON lines")
    of_json = lines[0][1].lstrip().startswith("{")
    rows: dict[tuple[int, int], dict[int, int]] = {}
    for number, step, layer, expert, tokens in (_of_json if of_json else _of_csv)(where, lines):
        found = rows.setdefault((step, layer), {})
        if expert in found:
            raise InputError(f"{where}, line {number}: step {step}, layer {layer}, expert {expert} stands here again")
        found[expert] = tokens
    if not rows:
        raise InputError(f"{where}: has no row")
    steps, layers = (tuple(sorted({key[place] for key in rows})) for place in (0, 1))
    experts = 1 + max(max(each) for each in rows.values())
    every = [
        [_complete(where, step, layer, rows.get((step, layer), {}), experts) for layer in layers] for step in steps
    ]
    counts = np.array(every, dtype=np.int64)
    counts.setflags(write=False)
    return layers, steps, counts


def _complete(where: str, step: int, layer: int, found: dict[int, int], experts: int) -> list[int]:
    """The tokens of all experts of a step and layer."""
    if missing := set(range(experts)).difference(found):
        raise InputError(
            f"{where}: has no expert {min(missing)} of step {step}, layer {layer}; needs 0 to {experts - 1}"
        )
    if not any(found.values()):
        raise InputError(f"{where}: step {step}, layer {layer}: no expert has a token")
    return [found[expert] for expert in range(experts)]


def _of_csv(where: str, lines: list[tuple[int, str]]) -> Iterator[tuple[int, int, int, int, int]]:
    """Line, step, layer, expert and tokens of each row of a CSV."""
    numbers = [number for number, _ in lines]
    table = csv.reader([line for _, line in lines])
    header = [name.strip() for name in next(table)]
    if lacking := [name for name in COLUMNS if name not in header]:
        raise InputError(f"{where}, line {numbers[0]}: has no column {lacking[0]} ({', '.join(COLUMNS)})")
    places = [header.index(name) for name in COLUMNS]
    for number, row in zip(numbers[1:], table, strict=False):
        if len(row) != len(header):
            raise InputError(f"{where}, line {number}: has {len(row)} values, the header names {len(header)}")
        step, layer, expert, tokens = (
            _whole(f"{where}, line {number}: {name}", row[place].strip())
            for name, place in zip(COLUMNS, places, strict=True)
        )
        yield number, step, layer, expert, tokens


def _of_json(where: str, lines: list[tuple[int, str]]) -> Iterator[tuple[int, int, int, int, int]]:
    """The same of JSON lines, each a step and layer with the tokens of all experts."""
    for number, line in lines:
        here = f"{where}, line {number}"
        try:
            found = parsed_json(line)
        except ValueError as reason:
            raise InputError(f"{here}: no JSON: {reason}") from None
        if not isinstance(found, dict) or not isinstance(found.get("tokens"), list) or not found["tokens"]:
            raise InputError(f'{here}: must be {{"step": 0, "layer": 0, "tokens": [tokens of each expert]}}')
        step, layer = (_whole(f"{here}: {name}", found.get(name)) for name in ("step", "layer"))
        for expert, tokens in enumerate(found["tokens"]):
            yield number, step, layer, expert, _whole(f"{here}: tokens of expert {expert}", tokens)


def _whole(what: str, value: Any) -> int:
    """A whole number from 0 on, of a text or of JSON."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InputError(f"{what}: {value!r}, must be a whole number from 0 on")
