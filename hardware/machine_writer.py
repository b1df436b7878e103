"""A machine as the text of its file: what was calibrated or built in code is written down and read back unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from .machine import Machine
from .units import Quantity, Share, binary, parse


def machine_toml(machine: Machine) -> str:
    """The text of a machine file that :func:`~athanor.hardware.machine.load_machine` reads back as an equal machine.

    Values carry their units and lose no digit; sources stand in their own table, as in the catalogue.
    """
    import tomli_w

    return tomli_w.dumps(_plain(machine, None))


def _plain(value: Any, annotation: Any) -> Any:
    """A value as TOML holds it; ``annotation`` is the type of its field, which knows the unit."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        shown = ((name, getattr(value, name), field) for name, field in fields.items())
        return {
            name: _plain(held, (field.annotation, *field.metadata))
            for name, held, field in shown
            if held is not None and not (isinstance(held, tuple | str | dict) and not held)
        }
    if isinstance(value, dict):
        return {key: _plain(held, annotation) for key, held in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(held, annotation) for held in value]
    if isinstance(value, float):
        return _number(value, next(_units(annotation), None))
    return value


def _units(annotation: Any) -> Iterator[Quantity | Share]:
    """The units that annotate a type, or a type inside it (``dict[Precision, FlopsPerSecond]``, ``Ratio | None``)."""
    if isinstance(annotation, Quantity | Share):
        yield annotation
    for inner in annotation if isinstance(annotation, tuple) else get_args(annotation):
        yield from _units(inner)


def _number(value: float, unit: Quantity | Share | None) -> str | float:
    """A float as text with its unit, the shortest that reads back as the same float."""
    if isinstance(unit, Share):
        text = unit.show(value)
        return text if "/" in text else value
    if unit is None:
        return value
    texts = [unit.show(value, digits) for digits in range(4, 18)]
    if unit.symbol == "B":
        texts.append(binary(value).replace(",", ""))
    exact = [text for text in texts if parse(text, unit.unit) == value]
    return min(exact, key=len) if exact else f"{value!r} {unit.symbol}"
