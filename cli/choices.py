"""What there is to choose from, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from rich.table import Table

from ..hardware.fabrics import AnyFabric
from ..hardware.machine import list_machines
from ..hardware.records import read_toml
from ..hardware.site.assumed import RATES
from ..reports.tables.runs import table
from ..sim.network.network_models import SHARING
from ..workloads.collectives import ALGORITHMS
from ..workloads.datasets import list_datasets
from ..workloads.mesh.axes import AXES
from ..workloads.mesh.placement import NAMED
from ..workloads.model.model import Model, list_models
from ..workloads.model.precision import DESCRIPTIONS
from ..workloads.plan.choices import registry_of
from ..workloads.routing.routers import CATALOGUE, ROUTERS


def listing(what: str) -> Table:
    """The table of one kind; models with their shape."""
    if what == "models":
        columns = ["name", "what it is", "parameters, 1e9", "layers", "hidden", "experts / of a token"]
        return table(what, columns, [_shape(model) for model in list_models()], text_columns=2)
    return table(what, ["name", "what it is"], entries(what), text_columns=2)


def entries(what: str) -> list[tuple[str, str]]:
    """(name, description) of one kind."""
    match what:
        case "machines":
            return [(each.name, f"{each.nodes:,} nodes. {each.description}") for each in list_machines()]
        case "axes":
            return [(name, axis.about) for name, axis in AXES.items()]
        case "placements":
            return list(NAMED.items())
        case "routers":
            tables = [(f"table:{path.stem}", _first_line(path)) for path in sorted(CATALOGUE.glob("*.csv"))]
            return [*ROUTERS.abouts(), *tables]
        case "precisions":
            return list(DESCRIPTIONS.items())
        case "collectives":
            return [
                (f"{operation} {name}", about)
                for operation, algorithms in ALGORITHMS.items()
                for name, about in algorithms.abouts()
            ]
        case "fabrics":
            return [
                (kind.model_fields["kind"].default, f"{_summary(kind)} Routing: {', '.join(kind.routings())}.")
                for kind in get_args(get_args(AnyFabric)[0])
            ]
        case "faults":
            return [(path.stem, read_toml(path)["description"]) for path in sorted(RATES.glob("*.toml"))]
        case "datasets":
            return [(each.name, each.description) for each in list_datasets()]
        case "importers" | "exporters" | "architectures":
            return _formats(what)
        case "runtime":
            return _of_runtime()
        case "network-models":
            return SHARING.abouts()
    registry = registry_of(what)
    if registry is None:
        raise ValueError(what)
    return registry.abouts()


def _of_runtime() -> list[tuple[str, str]]:
    from ..mpi_runtime.execute.capabilities import LIMITS

    computed = (
        "decoders with any experts, under dp, fsdp, ep, tp, sp, cp, pp and ZeRO 0 to 3: see athanor execute --help"
    )
    return [("computed", computed), *(("only sent", limit.what) for limit in LIMITS)]


def _formats(what: str) -> list[tuple[str, str]]:
    from ..reports.formats.exporters import EXPORTERS
    from ..reports.formats.importers import IMPORTERS
    from ..reports.formats.models.huggingface import ARCHITECTURES

    if what == "architectures":
        return ARCHITECTURES.abouts()
    return IMPORTERS.abouts() if what == "importers" else EXPORTERS.abouts()


def _shape(model: Model) -> tuple[str, ...]:
    """A model's row: the layers of an encoder stand before those of its decoder."""
    layers = f"{model.encoder_layers} + {model.layers}" if model.encoder_layers else str(model.layers)
    experts = f"{model.experts:,} / {model.top_k}" if model.experts else ""
    size = model.parameters.total / 1e9
    digits = f"{size:,.0f}" if size >= 100 else f"{size:.3g}"
    return model.name, model.description, digits, layers, f"{model.hidden:,}", experts


def _summary(kind: type) -> str:
    """The first sentence of a class's docstring."""
    return (kind.__doc__ or "").split("\n")[0]


def _first_line(path: Path) -> str:
    """What a table says of itself in its first comment."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
