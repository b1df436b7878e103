"""Operations of a step that are filled in when they are asked for: what many layers' ranks carry is not kept all at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import overload

from .operation import Block, Operation


class FilledOnDemand(Sequence[Operation]):
    """A ``template`` of operations, some of which lack their amounts, and get them whenever somebody asks for one.

    ``origins`` say, by number, from what these amounts follow: exchanges of one origin send the same. ``fill`` makes an
    operation. ``averaged`` are all of them with the mean over ranks for amounts. What does not depend on amounts is answered by
    the template at no cost.
    """

    def __init__(
        self,
        template: Block,
        origins: Mapping[int, Hashable],
        fill: Callable[[int], Operation],
        averaged: Sequence[Operation],
    ) -> None:
        self.template, self.origins, self._fill, self.averaged = template, origins, fill, averaged

    @overload
    def __getitem__(self, place: int) -> Operation: ...

    @overload
    def __getitem__(self, place: slice) -> Block: ...

    def __getitem__(self, place: int | slice) -> Operation | Block:
        """An operation, or several."""
        if isinstance(place, slice):
            return tuple(self[number] for number in range(*place.indices(len(self.template))))
        number = place + len(self.template) if place < 0 else place
        return self._fill(number) if number in self.origins else self.template[number]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.template)

    def __iter__(self) -> Iterator[Operation]:
        """One after another."""
        return (self[number] for number in range(len(self.template)))

    def __eq__(self, other: object) -> bool:
        """The same operations, here or in a tuple."""
        return isinstance(other, FilledOnDemand | tuple) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Block], tuple[Block]]:
        """To other processes they go filled in."""
        return tuple, (tuple(self),)
