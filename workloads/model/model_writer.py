"""A model as the text of its file: what was imported or built in code is written down and read back unchanged."""

from __future__ import annotations

from typing import Any

from .model import Model


def model_toml(model: Model) -> str:
    """The text of a model file that :func:`~.model.load_model` reads back as an equal model; defaults are left out."""
    import tomli_w

    return tomli_w.dumps(_plain(model))


def _plain(model: Model) -> dict[str, Any]:
    found = model.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    if model.attends:
        found["heads"] = model.heads  # it has to be there, also where it is 1
    if model.recurrent:
        found["recurrent"] = {
            name: {"kind": part.kind, **part.model_dump(mode="json", exclude_defaults=True, exclude_none=True)}
            for name, part in model.recurrent.items()
        }
    order = [key for key in found if not isinstance(found[key], dict)]
    return {key: found[key] for key in (*order, *(key for key in found if key not in order))}
