"""The formats that `athanor export` writes: one line each."""

from __future__ import annotations

from ...hardware.registry import Registry
from .kinds import Exporter
from .launches.job_scripts import PbsJob, SlurmJob
from .launches.written import DeepSpeedJson, MegatronFlags, SlurmScript
from .machines.simgrid import SimGridPlatform
from .traces.chakra import ChakraTraces
from .traces.kineto_writer import KinetoTrace
from .traces.perfetto import PerfettoTrace

EXPORTERS: Registry[Exporter] = Registry(
    "exporter",
    {
        "perfetto": PerfettoTrace,
        "kineto": KinetoTrace,
        "chakra": ChakraTraces,
        "simgrid": SimGridPlatform,
        "megatron": MegatronFlags,
        "deepspeed": DeepSpeedJson,
        "slurm": SlurmScript,
        "slurm-athanor": SlurmJob,
        "pbs-athanor": PbsJob,
    },
    flag="athanor export",
    interface=Exporter,
)
"""Formats by name; a user's own as ``module:Class`` or by an entry point in ``athanor.exporters``."""
