"""What a pipeline schedule is: in which order each stage does its work, and what that costs it in weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ...hardware.errors import InputError
from .order import Order


class Pipeline(ABC):
    """A schedule of micro-batches over stages that hold consecutive layers of a model.

    ``asynchronous``: no flush between steps, so that weights change while micro-batches are under way and a stage keeps
    several versions of them. ``splits_backward``: gradients of inputs (B) and of weights (W) are slots of their own.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    asynchronous: ClassVar[bool] = False
    splits_backward: ClassVar[bool] = False

    @abstractmethod
    def orders(self, stages: int, micro_batches: int, chunks: int = 1) -> list[Order]:
        """The order of each stage, first stage first; asks for what :meth:`check` has let pass."""

    def weight_versions(self, stage: int, stages: int) -> int:
        """How many versions of its weights a stage keeps at once."""
        return 1

    def check(self, stages: int, micro_batches: int, chunks: int) -> None:
        """Raise :class:`InputError` where the schedule cannot run so many micro-batches or chunks."""
        if micro_batches < 1:
            raise InputError(f"--pipeline {self.name}: {micro_batches} micro-batches, must be at least 1")
        self.check_chunks(stages, chunks)

    def check_chunks(self, stages: int, chunks: int) -> None:
        """Raise :class:`InputError` where a stage cannot hold so many chunks."""
        if chunks != 1:
            raise InputError(
                f"--chunks {chunks}: --pipeline {self.name} has one chunk a stage; --pipeline interleaved takes more"
            )
