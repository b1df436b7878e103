"""Optimizers: one file each, and one line here."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from ...hardware.errors import InputError, suggestion
from .adafactor import Adafactor
from .adam import Adam
from .adam8bit import Adam8Bit
from .adamw import AdamW
from .lamb import Lamb
from .muon import Muon
from .optimizer import Optimizer, Rule, TensorShare
from .sgd import Sgd

OPTIMIZERS: dict[str, type[Optimizer]] = {
    each.name: each for each in (Adam, AdamW, Sgd, Adafactor, Lamb, Muon, Adam8Bit)
}

ENTRY_POINTS = "athanor.optimizers"
"""Group in which other packages register optimizers of theirs."""


@cache
def parse_optimizer(spec: str) -> Optimizer:
    """The optimizer that ``spec`` names: ``adamw``, ``sgd:momentum=0.95,learning_rate=0.1``, or a user's ``module:Class``.

    Raises :class:`InputError` for an unknown one, and for hyper-parameters that it does not have.
    """
    name, settings = spec, ""
    if "=" in spec:
        name, _, settings = spec.rpartition(":")
    kind = _find(spec, name)
    known = [each.name for each in fields(kind)]
    values: dict[str, float] = {}
    for text in filter(None, settings.split(",")):
        key, _, value = text.partition("=")
        if key not in known:
            raise InputError(f"--optimizer {spec}: {kind.name} has no {key}{suggestion(key, known)}")
        values[key] = _number(spec, key, value)
    return kind(**values)


def _find(spec: str, name: str) -> type[Optimizer]:
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    module, colon, wanted = name.partition(":")
    if not colon:
        for each in entry_points(group=ENTRY_POINTS, name=name):
            return _checked(spec, each.load())
        raise InputError(f"--optimizer {spec}: no such optimizer{suggestion(name, OPTIMIZERS)}")
    try:
        return _checked(spec, getattr(import_module(module), wanted))
    except (ImportError, AttributeError) as reason:
        raise InputError(f"--optimizer {spec}: {reason}") from None


def _checked(spec: str, found: object) -> type[Optimizer]:
    if isinstance(found, type) and issubclass(found, Optimizer):
        return found
    raise InputError(f"--optimizer {spec}: is no subclass of athanor.workloads.optimizers.Optimizer")


def _number(spec: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InputError(f"--optimizer {spec}: {key} must be a number from 0 on")
    return number


__all__ = ["OPTIMIZERS", "Adam", "Optimizer", "Rule", "TensorShare", "parse_optimizer"]
