"""The way back through one layer: gradients that are made, and what the layer kept, which goes operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .activations import SavedTensor


class Fullest(NamedTuple):
    """Bytes at the fullest moment, beyond what the layer keeps until then: of what is worked out again, and of gradients.

    Of the latter, what the layer has let go by then is taken off.
    """

    again: float
    back: float


def way_back(
    rows: Sequence[SavedTensor], kept: Callable[[SavedTensor], float], carried: float, stream: float, gathered: float
) -> Fullest:
    """The fullest moment of a layer of these rows, the last of which comes first.

    ``stream`` is the gradient of the residual stream, which stays throughout; ``gathered`` what sequence parallelism brings
    together for a product. An operator has the gradient of its output, makes that of its input, and lets its input go. Rows that
    follow each other and are not kept are worked out again together, when the way back comes to them.
    """
    found, coming, freed, again = Fullest(0.0, stream), 0.0, 0.0, 0.0
    least = len(rows)
    for place in range(len(rows) - 1, -1, -1):
        row, size = rows[place], rows[place].size(carried)
        if place < least and kept(row) < 1:
            least = place
            while least >= 0 and kept(rows[least]) < 1:
                again += (1 - kept(rows[least])) * rows[least].size(carried)
                least -= 1
        moment = Fullest(again, stream + coming + size + gathered - freed)
        if sum(moment) > sum(found):
            found = moment
        again -= (1 - kept(row)) * size
        freed += kept(row) * size
        coming = size
    return found
