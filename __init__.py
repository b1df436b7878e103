"""Athanor: simulate, and run, the training of very large models on supercomputers.

>>> import athanor
>>> run = athanor.simulate(machine="sunway-oceanlight", model="moda-1.93t")
>>> run.summary()["step_seconds"]  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .hardware.shown import MAKERS

# What shows objects in notebooks: the rooms that have these objects stand below the one that shows them.
# Names of the public API and where they live; loaded on first use, so that ``import athanor`` costs nothing.
_SHOWN = {"html": ".reports.notebook:html", "plots": ".reports.notebook:plots"}
_HOMES = {
    "AthanorError": ".hardware.errors",
    "DoesNotFit": ".hardware.errors",
    "InputError": ".hardware.errors",
    "Machine": ".hardware.machine",
    "list_machines": ".hardware.machine",
    "load_machine": ".hardware.machine",
    "Model": ".workloads.model.model",
    "list_models": ".workloads.model.model",
    "load_model": ".workloads.model.model",
    "Plan": ".workloads.plan.plan",
    "PlanOptions": ".workloads.plan.plan_options",
    "RunFile": ".workloads.plan.run_file",
    "read_run_file": ".workloads.plan.run_file",
    "Run": ".workloads.results.run",
    "Schedule": ".workloads.schedule.schedule",
    "Study": ".sim.studies.scaling",
    "scale": ".sim.studies.scaling",
    "collective": ".sim.studies.collective",
    "compare": ".sim.studies.collective_sweep",
    "compare_runs": ".reports.studies.comparison.compare",
    "predicted_training": ".reports.studies.predicted_training",
    "sweep": ".sim.studies.collective_sweep",
    "lower": ".workloads.lowering",
    "simulate": ".sim.simulate",
    "study": ".sim.studies.study",
    "infer": ".sim.studies.inference",
    "Campaign": ".sim.campaign.campaign",
    "campaign": ".sim.campaign.campaign",
    "plan": ".sim.planning.search",
    "execute": ".mpi_runtime.execute.execute",
    "train": ".mpi_runtime.trainer.train",
    "TrainingRun": ".workloads.results.training_run",
    "read_hf": ".reports.formats.models.huggingface",
    "read_megatron": ".reports.formats.launches.megatron",
    "read_deepspeed": ".reports.formats.launches.deepspeed",
    "read_nccl_tests": ".reports.formats.machines.nccl_tests",
    "read_hwloc": ".reports.formats.machines.hwloc",
    "read_nvidia_topo": ".reports.formats.machines.nvidia_topology",
    "read_slurm": ".reports.formats.machines.slurm_topology",
    "read_kineto": ".reports.formats.traces.kineto_reader",
    "read_osu": ".reports.formats.machines.osu",
    "read_torchtitan": ".reports.formats.launches.torchtitan",
}

MAKERS.update({what: f"{__name__}{home}" for what, home in _SHOWN.items()})

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from .hardware.errors import AthanorError as AthanorError
    from .hardware.errors import DoesNotFit as DoesNotFit
    from .hardware.errors import InputError as InputError
    from .hardware.machine import Machine as Machine
    from .hardware.machine import list_machines as list_machines
    from .hardware.machine import load_machine as load_machine
    from .mpi_runtime.execute.execute import execute as execute
    from .mpi_runtime.trainer.train import train as train
    from .reports.formats.launches.deepspeed import read_deepspeed as read_deepspeed
    from .reports.formats.launches.megatron import read_megatron as read_megatron
    from .reports.formats.launches.torchtitan import read_torchtitan as read_torchtitan
    from .reports.formats.machines.hwloc import read_hwloc as read_hwloc
    from .reports.formats.machines.nccl_tests import read_nccl_tests as read_nccl_tests
    from .reports.formats.machines.nvidia_topology import read_nvidia_topo as read_nvidia_topo
    from .reports.formats.machines.osu import read_osu as read_osu
    from .reports.formats.machines.slurm_topology import read_slurm as read_slurm
    from .reports.formats.models.huggingface import read_hf as read_hf
    from .reports.formats.traces.kineto_reader import read_kineto as read_kineto
    from .reports.studies.comparison.compare import compare_runs as compare_runs
    from .reports.studies.predicted_training import predicted_training as predicted_training
    from .sim.campaign.campaign import Campaign as Campaign
    from .sim.campaign.campaign import campaign as campaign
    from .sim.planning.search import plan as plan
    from .sim.simulate import simulate as simulate
    from .sim.studies.collective import collective as collective
    from .sim.studies.collective_sweep import compare as compare
    from .sim.studies.collective_sweep import sweep as sweep
    from .sim.studies.inference import infer as infer
    from .sim.studies.scaling import Study as Study
    from .sim.studies.scaling import scale as scale
    from .sim.studies.study import study as study
    from .workloads.lowering import lower as lower
    from .workloads.model.model import Model as Model
    from .workloads.model.model import list_models as list_models
    from .workloads.model.model import load_model as load_model
    from .workloads.plan.plan import Plan as Plan
    from .workloads.plan.plan_options import PlanOptions as PlanOptions
    from .workloads.plan.run_file import RunFile as RunFile
    from .workloads.plan.run_file import read_run_file as read_run_file
    from .workloads.results.run import Run as Run
    from .workloads.results.training_run import TrainingRun as TrainingRun
    from .workloads.schedule.schedule import Schedule as Schedule


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module(".hardware.version", __name__).version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
