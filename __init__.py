"""Athanor: simulate, and run, the training of very large models on supercomputers.

>>> import athanor
>>> run = athanor.simulate(machine="sunway-oceanlight", model="moda-1.93t")
>>> run.summary()["step_seconds"]  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Names of the public API and where they live; loaded on first use, so that ``import athanor`` costs nothing.
_HOMES = {
    "AthanorError": ".hardware.errors",
    "DoesNotFit": ".hardware.errors",
    "InputError": ".hardware.errors",
    "Machine": ".hardware.machine",
    "list_machines": ".hardware.machine",
    "load_machine": ".hardware.machine",
    "Model": ".workloads.model",
    "list_models": ".workloads.model",
    "load_model": ".workloads.model",
    "Plan": ".workloads.plan",
    "Run": ".workloads.run",
    "Schedule": ".workloads.schedule",
    "Study": ".sim.scaling",
    "scale": ".sim.scaling",
    "collective": ".sim.collective",
    "compare": ".sim.sweep",
    "compare_runs": ".reports.compare",
    "sweep": ".sim.sweep",
    "lower": ".workloads.lowering",
    "simulate": ".sim.simulate",
    "infer": ".sim.inference",
    "plan": ".sim.planning.search",
    "execute": ".mpi_runtime.execute",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from .hardware.errors import AthanorError as AthanorError
    from .hardware.errors import DoesNotFit as DoesNotFit
    from .hardware.errors import InputError as InputError
    from .hardware.machine import Machine as Machine
    from .hardware.machine import list_machines as list_machines
    from .hardware.machine import load_machine as load_machine
    from .mpi_runtime.execute import execute as execute
    from .reports.compare import compare_runs as compare_runs
    from .sim.collective import collective as collective
    from .sim.inference import infer as infer
    from .sim.planning.search import plan as plan
    from .sim.scaling import Study as Study
    from .sim.scaling import scale as scale
    from .sim.simulate import simulate as simulate
    from .sim.sweep import compare as compare
    from .sim.sweep import sweep as sweep
    from .workloads.lowering import lower as lower
    from .workloads.model import Model as Model
    from .workloads.model import list_models as list_models
    from .workloads.model import load_model as load_model
    from .workloads.plan import Plan as Plan
    from .workloads.run import Run as Run
    from .workloads.schedule import Schedule as Schedule


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module(".hardware.version", __name__).version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
