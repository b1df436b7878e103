"""Names of operations, which the lowering gives and the runtime goes by."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...workloads.model.precision import PARTS, Part

NAME = re.compile(r"(?:m(?P<micro>\d+)\.)?(?P<again>again\.)?(?:l(?P<layer>\d+)\.)?(?P<what>.*)")


@dataclass(frozen=True)
class NamedPart:
    """What the name of an operation says: the micro-batch and layer that it belongs to, and what it does there.

    ``again``: it works out anew what was not kept. ``of_micro_batch`` is False where the name speaks of none, as for updates.
    """

    micro_batch: int
    layer: int | None
    what: str
    again: bool = False
    of_micro_batch: bool = False

    @classmethod
    def of(cls, name: str) -> NamedPart:
        """Parse a name such as ``m1.again.l3.moe.dispatch``."""
        found = NAME.fullmatch(name)
        assert found is not None
        layer = found["layer"]
        number = None if layer is None else int(layer)
        return cls(int(found["micro"] or 0), number, found["what"], bool(found["again"]), found["micro"] is not None)


def updated_part(what: str) -> Part:
    """The part of the model that an operation of an update is about: ``update.lamb.ffn.norms``."""
    word = what.split(".")[2]
    return next(part for part in PARTS if part == word)
