"""A Model of the fields that a file describes, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....hardware.records import build
from ....workloads.model.model import Model


def described(name: str, fields: Mapping[str, Any], source: str, file: str) -> Model:
    """The model, without fields that are as usual; raises :class:`InputError` that names the ``file`` where they contradict."""
    usual = Model.model_fields
    told = {key: value for key, value in fields.items() if key == "heads" or value != usual[key].default}
    told = {key: value for key, value in told.items() if value not in ([], {})}
    return build(Model, {"name": name, **told, "sources": dict.fromkeys(told, source)}, file)
