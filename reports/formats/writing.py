"""What was imported, as files: a model's or a machine's TOML, a run file with its model beside it, a Run as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hardware.machine import Machine
from ...workloads.model.model import Model
from ...workloads.plan.run_file import RunFile

if TYPE_CHECKING:
    from ...workloads.results.run import Run


def files_of(found: Model | RunFile | Machine | Run, out: Path) -> dict[Path, str]:
    """The text of each file by its path; the first is ``out``. A run file's own model lies beside it, as ``NAME.model.toml``."""
    if isinstance(found, Model):
        from ...workloads.model.model_writer import model_toml

        return {out: model_toml(found)}
    if isinstance(found, Machine):
        from ...hardware.machine_writer import machine_toml

        return {out: machine_toml(found)}
    if isinstance(found, RunFile):
        return _run_file(found, out)
    return {out: found.to_json() + "\n"}


def _run_file(found: RunFile, out: Path) -> dict[Path, str]:
    import tomli_w

    from ...workloads.mesh.mesh_text import mesh_text
    from ...workloads.model.model_writer import model_toml

    beside = out.with_name(f"{out.stem}.model.toml")
    table: dict[str, Any] = {} if found.machine is None else {"machine": found.machine}
    own = found.model if isinstance(found.model, Model) else None
    if found.model is not None:
        table["model"] = found.model if isinstance(found.model, str) else f"./{beside.name}"
    plan = dict(found.plan)
    if "mesh" in plan:
        plan["mesh"] = mesh_text(plan["mesh"])
    table["plan"] = plan
    return {out: tomli_w.dumps(table), **({} if own is None else {beside: model_toml(own)})}
