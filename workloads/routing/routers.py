"""Routers: how popular each expert is, layer by layer and step by step, and the choices that follow from it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError
from ...hardware.frozen_dict import FrozenDict
from ...hardware.records import find
from ...hardware.registry import Registry
from .choices import choices
from .drift import Places, walk
from .router import Router
from .trace import Trace

__all__ = ["ROUTERS", "Recorded", "Router", "Uniform", "Zipf", "choices", "popularity"]

Array = NDArray[np.float64]
CATALOGUE = Path(__file__).parent / "popularity"


@dataclass(frozen=True)
class Uniform(Router):
    """Every expert is as popular as any other; what remains is the noise of sampling."""

    about: ClassVar[str] = "all experts equally popular"

    def shares(self, experts: int, step: int) -> Array:
        """1/experts each."""
        return np.full(experts, 1.0 / experts)


@dataclass(frozen=True)
class Zipf(Router):
    """The r-th most popular expert has a share proportional to r**-exponent."""

    exponent: float
    about: ClassVar[str] = "zipf:S, the r-th expert as popular as r**-S"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """The exponent; 1 where none is given."""
        try:
            exponent = float(argument or "1.0")
        except ValueError:
            exponent = -1.0
        if not 0 <= exponent < 20:
            raise ValueError("takes an exponent from 0 to 20")
        return cls(exponent)

    def shares(self, experts: int, step: int) -> Array:
        """Zipf's law, normalised."""
        weights: Array = np.arange(1, experts + 1, dtype=np.float64) ** -self.exponent
        return weights / float(weights.sum())


@dataclass(frozen=True)
class Recorded(Router):
    """Popularity as a table recorded it: sorted shares at some iterations, the nearest earlier one counting.

    A table of another number of experts is read as a distribution over the experts' quantiles and integrated over the
    new ones, so that the most popular twentieth of the experts keeps its share of the tokens.
    """

    table: Mapping[int, Array] = field(repr=False)
    first: int = 0
    about: ClassVar[str] = "table:NAME or table:FILE.csv, popularity as recorded; @ITERATION says where to start"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """The name or path of a table, and behind an @ the iteration of step 0."""
        name, _, first = argument.partition("@")
        if not name:
            raise ValueError("takes the name or the path of a table")
        if not first.isdigit() and first:
            raise ValueError("takes a number of an iteration behind the @")
        return cls.load(name, int(first) if first else None)

    @classmethod
    def load(cls, name_or_path: str, first: int | None = None) -> Self:
        """Read a CSV with columns ``iteration, rank, share``; ``first`` is the iteration of step 0."""
        path = find("router table", CATALOGUE, name_or_path, suffix=".csv")
        rows: dict[int, list[tuple[int, float]]] = {}
        try:
            with path.open(newline="", encoding="utf-8") as lines:
                for row in csv.DictReader(line for line in lines if not line.startswith("#")):
                    share = float(row["share"])
                    if not 0 <= share < float("inf"):
                        raise ValueError(f"share {row['share']}")
                    rows.setdefault(int(row["iteration"]), []).append((int(row["rank"]), share))
        except (OSError, UnicodeDecodeError, csv.Error) as reason:
            raise InputError(f"{name_or_path}: cannot be read: {reason}") from None
        except KeyError as column:
            raise InputError(f"{name_or_path}: has no column {column} (iteration, rank, share)") from None
        except (TypeError, ValueError) as reason:
            raise InputError(f"{name_or_path}: not a table of numbers: {reason}") from None
        table = {iteration: np.array([share for _, share in sorted(pairs)]) for iteration, pairs in rows.items()}
        if not table or any((shares < 0).any() or shares.sum() <= 0 for shares in table.values()):
            raise InputError(
                f"{name_or_path}: needs rows with shares of zero or more, some above zero, at every iteration"
            )
        return cls(
            FrozenDict({i: _fixed(shares / shares.sum()) for i, shares in sorted(table.items())}),
            min(table) if first is None else first,
        )

    def shares(self, experts: int, step: int) -> Array:
        """The recorded shares of ``first + step``, for this number of experts."""
        earlier = [iteration for iteration in self.table if iteration <= self.first + step]
        recorded = self.table[earlier[-1] if earlier else min(self.table)]
        if len(recorded) == experts:
            return recorded
        quantiles = np.linspace(0.0, 1.0, len(recorded) + 1)
        reached = np.concatenate([[0.0], np.cumsum(recorded)])
        return np.diff(np.interp(np.linspace(0.0, 1.0, experts + 1), quantiles, reached))


def _fixed(values: Array) -> Array:
    """The array, which nobody can change any more."""
    values.setflags(write=False)
    return values


ROUTERS: Registry[Router] = Registry(
    "router", {"uniform": Uniform, "zipf": Zipf, "table": Recorded, "trace": Trace}, interface=Router
)
"""Routers; :meth:`~athanor.hardware.registry.Registry.find` also takes a user's own."""


def popularity(router: Router, experts: int, layer: int, step: int, drift: float, seed: int) -> Array:
    """Probability ``[experts]`` of each expert to be a token's first choice.

    Which expert is popular differs from layer to layer, and from step to step as ``drift`` says (:mod:`.drift`).
    """
    return popularity_of(router, step, walk(experts, layer, drift, seed).at(step)[0])


def popularity_of(router: Router, step: int, places: Places) -> Array:
    """The same of experts that have these places in the order of popularity."""
    experts = len(places)
    shares = np.asarray(router.shares(experts, step), dtype=np.float64)
    if shares.shape != (experts,) or not np.isfinite(shares).all() or shares.min() < 0 or abs(shares.sum() - 1) > 1e-6:
        raise InputError(
            f"--router: {type(router).__name__}.shares({experts}, {step}) gives shape {shares.shape}, from"
            f" {shares.min(initial=np.inf):g}, sum {shares.sum():g}: must be {experts} shares from 0 on that sum to 1"
        )
    chances = shares[places]
    return chances / float(chances.sum())
