"""The machine and the model of a Run: kept with it, so that it can be explained, and simulated again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...hardware.errors import InputError
from ...hardware.registry import no_own_classes

if TYPE_CHECKING:
    from ...hardware.machine import Machine
    from ..model.model import Model


@dataclass(frozen=True)
class RunInputs:
    """Machine and model, as they are or as the texts of their files, which are read when somebody asks.

    ``source`` names the file that texts come from. A file of results is data: what it names as ``module:Class`` is refused.
    """

    given: tuple[Machine, Model] | tuple[str, str]
    source: str = ""

    @cached_property
    def machine(self) -> Machine:
        """The machine; raises :class:`InputError` where the file's text is none."""
        from ...hardware.machine import Machine, read_machine

        if isinstance(self.given[0], Machine):
            return self.given[0]
        with no_own_classes():
            return read_machine(str(self.given[0]), f"{self.source}: inputs.machine")

    @cached_property
    def model(self) -> Model:
        """The model; raises :class:`InputError` where the file's text is none."""
        from ..model.model import Model, read_model

        if isinstance(self.given[1], Model):
            return self.given[1]
        with no_own_classes():
            return read_model(str(self.given[1]), f"{self.source}: inputs.model")

    def plain(self) -> dict[str, str]:
        """Both as the texts of their files."""
        from ...hardware.machine_writer import machine_toml
        from ..model.model_writer import model_toml

        machine, model = self.given
        return {
            "machine": machine if isinstance(machine, str) else machine_toml(machine),
            "model": model if isinstance(model, str) else model_toml(model),
        }

    @classmethod
    def read(cls, plain: Any, source: str) -> RunInputs:
        """What :meth:`plain` gave; raises :class:`InputError` for what is no two texts."""
        found = [plain.get(key) for key in ("machine", "model")] if isinstance(plain, dict) else [None, None]
        machine, model = found
        if not isinstance(machine, str) or not isinstance(model, str):
            raise InputError(f"{source}: inputs must be the texts of a machine file and a model file")
        return cls((machine, model), source)
