"""What commands ask of the command line: machine and model, its own text, and whether this process speaks for its job."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from ..hardware.errors import InputError
from ..mpi_runtime.job.environment import Launcher

if TYPE_CHECKING:
    from ..hardware.machine import Machine
    from ..workloads.model.model import Model


def load(machine: str, model: str, settings: tuple[str, ...]) -> tuple[Machine, Model]:
    """Machine and model of the command line, with the machine's --set values."""
    from ..workloads.model.model import load_model

    return named_machine(machine, settings), load_model(model)


def named_machine(machine: str, settings: tuple[str, ...]) -> Machine:
    """The machine of the command line, with its --set values."""
    from ..hardware.machine import load_machine

    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise InputError(f"--set {key}: write KEY=VALUE, for example nodes=512")
    return load_machine(machine).changed({key: value for key, _, value in pairs})


def command_text() -> str:
    """The command as it was typed."""
    return shlex.join(["athanor", *sys.argv[1:]])


def first() -> bool:
    """Whether this process speaks for what all ranks of a job find: it is the first, or no launcher has started it."""
    launcher = Launcher.of(os.environ)
    return launcher is None or launcher.rank == 0


def under_mpi() -> bool:
    """Whether a launcher has started several ranks."""
    launcher = Launcher.of(os.environ)
    return launcher is not None and launcher.ranks > 1
