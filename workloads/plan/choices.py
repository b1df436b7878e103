"""The names that a user may choose from, kind by kind, from the registries that have them; loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...hardware.registry import Registry


def _machines() -> Iterable[str]:
    from ...hardware.machine import CATALOGUE
    from ...hardware.records import catalogue_names

    return catalogue_names(CATALOGUE)


def _models() -> Iterable[str]:
    from ...hardware.records import catalogue_names
    from ..model.model import CATALOGUE

    return catalogue_names(CATALOGUE)


def _axes() -> Iterable[str]:
    from ..mesh.mesh import AXES

    return AXES


def _placements() -> Iterable[str]:
    from ..mesh.placement import NAMED

    return [name.partition(":")[0] for name in NAMED if "=" not in name]


def _precisions() -> Iterable[str]:
    from ..model.precision import POLICIES

    return POLICIES


def _optimizers() -> Iterable[str]:
    from ..optimizers import OPTIMIZERS

    return OPTIMIZERS.names()


def _routers() -> Iterable[str]:
    from ..routing.routers import ROUTERS

    return ROUTERS.names()


def _balancers() -> Iterable[str]:
    from ..routing.balancers import BALANCERS

    return BALANCERS.names()


def _collectives() -> Iterable[str]:
    from ..collectives import ALGORITHMS

    return ALGORITHMS


def _algorithms() -> Iterable[str]:
    from ..collectives import ALGORITHMS

    return dict.fromkeys(name for each in ALGORITHMS.values() for name in each.names())


def _all_to_alls() -> Iterable[str]:
    from ..collectives import ALGORITHMS

    return ALGORITHMS["all-to-all"].names()


def _pipelines() -> Iterable[str]:
    from ..pipelines import PIPELINES

    return PIPELINES.names()


def _shardings() -> Iterable[str]:
    from ..sharding import SHARDINGS

    return SHARDINGS.names()


def _attention_kernels() -> Iterable[str]:
    from ..attention_kernels import ATTENTION_KERNELS

    return ATTENTION_KERNELS.names()


def _recomputations() -> Iterable[str]:
    from ..recomputation import RECOMPUTATIONS

    return RECOMPUTATIONS.names()


def _stage_layers() -> Iterable[str]:
    from ..pipelines.stage_layers import WAYS

    return WAYS


def _offloads() -> Iterable[str]:
    from .plan import OFFLOADS

    return ["none", *OFFLOADS]


def _routings() -> Iterable[str]:
    from typing import get_args

    from ...hardware.fabrics import AnyFabric

    return dict.fromkeys(name for kind in get_args(get_args(AnyFabric)[0]) for name in kind.routings())


KINDS: dict[str, Callable[[], Iterable[str]]] = {
    "machines": _machines,
    "models": _models,
    "axes": _axes,
    "placements": _placements,
    "precisions": _precisions,
    "optimizers": _optimizers,
    "routers": _routers,
    "balancers": _balancers,
    "collectives": _collectives,
    "collective-algorithms": _algorithms,
    "all-to-alls": _all_to_alls,
    "pipelines": _pipelines,
    "shardings": _shardings,
    "attention-kernels": _attention_kernels,
    "recomputations": _recomputations,
    "stage-layers": _stage_layers,
    "offloads": _offloads,
    "routings": _routings,
}
"""Kinds of names."""


def names_of(kind: str) -> tuple[str, ...]:
    """All names of a kind; raises ``KeyError`` for an unknown kind."""
    return tuple(KINDS[kind]())


def _registries() -> dict[str, Registry[Any]]:
    from ..pipelines import PIPELINES
    from ..recomputation import RECOMPUTATIONS
    from ..sharding import SHARDINGS

    return {"pipelines": PIPELINES, "shardings": SHARDINGS, "recomputations": RECOMPUTATIONS}


def searched_names_of(kind: str) -> tuple[str, ...]:
    """The names of a kind that a search tries unasked, plug-ins among them; none of a kind that does not say."""
    registry = _registries().get(kind)
    return tuple(name for name in registry.names() if registry.find(name).searched) if registry else ()
