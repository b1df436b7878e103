"""The names that a user may choose from, kind by kind, from the registries that have them; loaded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
    from ..mesh.axes import AXES

    return AXES


def _placements() -> Iterable[str]:
    from ..mesh.placement import NAMED

    return [name.partition(":")[0] for name in NAMED if "=" not in name]


def _precisions() -> Iterable[str]:
    from ..model.precision import POLICIES

    return POLICIES


def _optimizers() -> Registry[Any]:
    from ..optimizers import OPTIMIZERS

    return OPTIMIZERS


def _routers() -> Registry[Any]:
    from ..routing.routers import ROUTERS

    return ROUTERS


def _balancers() -> Registry[Any]:
    from ..routing.balancers import BALANCERS

    return BALANCERS


def _collectives() -> Iterable[str]:
    from ..collectives import ALGORITHMS

    return ALGORITHMS


def _algorithms() -> Iterable[str]:
    from ..collectives import ALGORITHMS

    return dict.fromkeys(name for each in ALGORITHMS.values() for name in each.names())


def _all_to_alls() -> Registry[Any]:
    from ..collectives import ALGORITHMS

    return ALGORITHMS["all-to-all"]


def _pipelines() -> Registry[Any]:
    from ..pipelines import PIPELINES

    return PIPELINES


def _shardings() -> Registry[Any]:
    from ..sharding import SHARDINGS

    return SHARDINGS


def _attention_kernels() -> Registry[Any]:
    from ..attention_kernels import ATTENTION_KERNELS

    return ATTENTION_KERNELS


def _frameworks() -> Registry[Any]:
    from ..frameworks import FRAMEWORKS

    return FRAMEWORKS


def _recomputations() -> Registry[Any]:
    from ..recomputation import RECOMPUTATIONS

    return RECOMPUTATIONS


def _recomputed_layers() -> Iterable[str]:
    from ..recomputation.recomputed_layers import WAYS

    return WAYS


def _stage_layers() -> Iterable[str]:
    from ..pipelines.stage_layers import WAYS

    return WAYS


def _expert_tensors() -> Iterable[str]:
    from .expert_axes import TENSOR_WAYS

    return TENSOR_WAYS


def _expert_contexts() -> Iterable[str]:
    from .expert_axes import CONTEXT_WAYS

    return CONTEXT_WAYS


def _offloads() -> Iterable[str]:
    from .plan import OFFLOADS

    return ["none", *OFFLOADS]


def _routings() -> Iterable[str]:
    from typing import get_args

    from ...hardware.fabrics import AnyFabric

    return dict.fromkeys(name for kind in get_args(get_args(AnyFabric)[0]) for name in kind.routings())


def _faults() -> Iterable[str]:
    from ...hardware.records import catalogue_names
    from ...hardware.site.assumed import RATES

    return catalogue_names(RATES)


def _datasets() -> Iterable[str]:
    from ...hardware.records import catalogue_names
    from ..datasets import CATALOGUE

    return catalogue_names(CATALOGUE)


KINDS: dict[str, Callable[[], Registry[Any] | Iterable[str]]] = {
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
    "frameworks": _frameworks,
    "recomputed-layers": _recomputed_layers,
    "stage-layers": _stage_layers,
    "expert-tensors": _expert_tensors,
    "expert-contexts": _expert_contexts,
    "offloads": _offloads,
    "routings": _routings,
    "faults": _faults,
    "datasets": _datasets,
}
"""Kinds of names."""


def names_of(kind: str) -> tuple[str, ...]:
    """All names of a kind; raises ``KeyError`` for an unknown kind."""
    found = KINDS[kind]()
    return tuple(found.names() if isinstance(found, Registry) else found)


def registry_of(kind: str) -> Registry[Any] | None:
    """The registry of a kind, which also finds a user's own; None where there are only names."""
    found = KINDS[kind]() if kind else None
    return found if isinstance(found, Registry) else None


def searched_names_of(kind: str) -> tuple[str, ...]:
    """The names of a kind that a search tries unasked, plug-ins among them; none of a kind that does not say."""
    registry = registry_of(kind)
    if registry is None:
        return ()
    return tuple(name for name in registry.names() if getattr(registry.find(name), "searched", False))
