"""The formats that `athanor import` reads: one line each."""

from __future__ import annotations

from ...hardware.registry import Registry
from .kinds import Importer
from .launches.deepspeed import DeepSpeedConfiguration
from .launches.megatron import MegatronLaunch
from .launches.torchtitan import TorchtitanJob
from .machines.hwloc import HwlocNode
from .machines.nccl_tests import NcclTests
from .machines.nvidia_topology import NvidiaTopology
from .machines.osu import OsuBenchmarks
from .machines.slurm_topology import SlurmTopology
from .models.huggingface import HuggingFace
from .traces.kineto_reader import KinetoReader

IMPORTERS: Registry[Importer] = Registry(
    "importer",
    {
        "hf": HuggingFace,
        "megatron": MegatronLaunch,
        "deepspeed": DeepSpeedConfiguration,
        "torchtitan": TorchtitanJob,
        "nccl-tests": NcclTests,
        "osu": OsuBenchmarks,
        "slurm": SlurmTopology,
        "nvidia-topo": NvidiaTopology,
        "hwloc": HwlocNode,
        "kineto": KinetoReader,
    },
    flag="athanor import",
    interface=Importer,
)
"""Formats by name; a user's own as ``module:Class`` or by an entry point in ``athanor.importers``."""
