"""What a run file asks for, of what is exported."""

from __future__ import annotations

from pathlib import Path

from ...hardware.errors import InputError
from ...workloads.plan.run_file import RunFile
from ...workloads.plan.setting import Setting
from .kinds import Wanted

RUN_FILE = "a run file, RUN.TOML"


def setting_of(source: Path, wanted: Wanted) -> Setting:
    """What a run file asks for, checked against its machine and model; raises :class:`InputError` where one is missing."""
    run = RunFile.read(source)
    machine = wanted.machine or run.machine
    model = wanted.model or run.model
    for name, value in (("machine", machine), ("model", model)):
        if value is None:
            raise InputError(f"{source}: {name} is missing; --{name} names one")
    assert machine is not None and model is not None
    from ...hardware.machine import load_machine

    return Setting.of(load_machine(machine).changed(run.settings), model, run.plan)
