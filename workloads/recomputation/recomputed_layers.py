"""Of which layers something is worked out again: all, every n-th, or the first n of each stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from ...hardware.errors import InputError, suggestion

WAYS = ("all", "every", "first")
"""Words that ``--recompute-layers`` begins with; the last two have a number behind a colon."""


@dataclass(frozen=True)
class RecomputedLayers:
    """Layers by their numbers: every ``count``-th of the model, or the ``first`` ``count`` of a part of a pipeline.

    The latter is Megatron-LM's ``--recompute-method block --recompute-num-layers N``; the other layers keep everything.
    """

    way: Literal["every", "first"]
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``every:N`` or ``first:N``; raises :class:`InputError` for anything else."""
        begin, _, count = text.partition(":")
        ways: dict[str, Literal["every", "first"]] = {"every": "every", "first": "first"}
        if begin not in ways or not count.isdecimal() or int(count) < 1:
            raise InputError(f"--recompute-layers {text}: write all, every:N or first:N{suggestion(begin, WAYS)}")
        return cls(ways[begin], int(count))

    def of(self, part: range) -> Iterator[int]:
        """The layers of a part of the model (a stage, or one of its chunks) of which something is worked out again."""
        yield from part[: self.count] if self.way == "first" else (at for at in part if at % self.count == 0)
