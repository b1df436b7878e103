"""Machine and model of the command line, read when a command needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .hardware.errors import InputError

if TYPE_CHECKING:
    from .hardware.machine import Machine
    from .workloads.model import Model


def load(machine: str, model: str, settings: tuple[str, ...]) -> tuple[Machine, Model]:
    """Machine and model of the command line, with the machine's --set values."""
    from .workloads.model import load_model

    return named_machine(machine, settings), load_model(model)


def named_machine(machine: str, settings: tuple[str, ...]) -> Machine:
    """The machine of the command line, with its --set values."""
    from .hardware.machine import load_machine

    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise InputError(f"--set {key}: write KEY=VALUE, for example fabric.taper=1/1")
    return load_machine(machine).changed({key: value for key, _, value in pairs})
