"""What a router is: how popular a layer's experts are."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ...hardware.registry import Policy


class Router(Policy, ABC):
    """Sorted popularity: the share of first choices that the most popular expert has, the second, and so on."""

    @abstractmethod
    def shares(self, experts: int, step: int) -> NDArray[np.float64]:
        """Shares ``[experts]`` in falling order, summing to 1, at a training step."""
