"""A machine with what a file says in place of its own numbers, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ....hardware.errors import InputError
from ....hardware.machine import Machine, load_machine
from ....hardware.records import describe

if TYPE_CHECKING:
    from ..kinds import Asked


def changed(asked: Asked, file: str, source: str, values: Mapping[str, Any]) -> Machine:
    """The machine of ``asked`` with whole parts (``fabric``) or single numbers (``node.interfaces``) of a file.

    Raises :class:`InputError` where no machine is named, or the file contradicts what stays of it.
    """
    if asked.machine is None:
        raise InputError(
            f"{file}: says nothing of the other numbers of a machine; --machine names one to take them from"
        )
    base = load_machine(asked.machine)
    table = base.model_dump(mode="python")
    for key, value in values.items():
        *path, last = key.split(".")
        here = table
        for part in path:
            here = here[part]
        here[last] = value
    kept = {
        key: text for key, text in base.sources.items() if not any(f"{key}.".startswith(f"{each}.") for each in values)
    }
    table |= {"sources": {**kept, **dict.fromkeys(values, source)}, "name": asked.name or base.name}
    try:
        return Machine.model_validate(table)
    except ValidationError as wrong:
        raise InputError(f"{file}: {describe(Machine, wrong)}") from None
