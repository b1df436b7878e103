"""A network that carries single messages: each a flow, at max-min fair rates that are found anew at every change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import simpy

SAME = 1e-9
"""Shares of links, and ends of flows, that differ by this part of them are one."""


def fair(routes: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Max-min fair rates of flows on ``routes[flow, hop]``: the tightest link divides what it has, its flows are out; repeat.

    The last link has no end: it stands for hops that a route does not have.
    """
    rates, left, free = np.zeros(len(routes)), capacity.copy(), np.ones(len(routes), dtype=bool)
    while free.any():
        crowd = np.bincount(routes[free].ravel(), minlength=len(left))
        share = np.full(len(left), np.inf)
        used = crowd[:-1] > 0
        share[:-1][used] = left[:-1][used] / crowd[:-1][used]
        lowest = share.min()
        full = share <= lowest * (1 + SAME)
        out = free & full[routes].any(axis=1)
        rates[out] = lowest
        left -= lowest * np.bincount(routes[out].ravel(), minlength=len(left))
        np.maximum(left, 0.0, out=left)
        left[-1] = np.inf
        free &= ~out
    return rates


class Network:
    """Messages under way. ``links(source, target)`` names what one passes, ``capacity(link)`` has bytes per second."""

    def __init__(
        self,
        env: simpy.Environment,
        links: Callable[[int, int], Sequence[Hashable]],
        capacity: Callable[[Hashable], float],
    ) -> None:
        self.env, self._links, self._capacity = env, links, capacity
        self._number: dict[Hashable, int] = {}
        self._rates: list[float] = []
        self._routes: dict[tuple[int, int], list[int]] = {}
        self._coming: list[tuple[list[int], float, list]] = []
        self._route, self._left, self._rate = np.zeros((0, 1), dtype=np.int64), np.zeros(0), np.zeros(0)
        self._bundles: list[list] = []
        self._since, self._version, self._asked = 0.0, 0, False

    def send(self, messages: Sequence[tuple[int, int, float]]) -> simpy.Event:
        """The event of the last byte of all of ``(source, target, bytes)``, which begin now."""
        done, sent = self.env.event(), [each for each in messages if each[2] > 0]
        if not sent:
            return done.succeed()
        bundle = [len(sent), done]
        self._coming += [(self._path(source, target), nbytes, bundle) for source, target, nbytes in sent]
        self._ask()
        return done

    def _path(self, source: int, target: int) -> list[int]:
        """Numbers of the links of a message."""
        if (source, target) not in self._routes:
            names = self._links(source, target)
            for name in names:
                if name not in self._number:
                    self._number[name] = len(self._rates)
                    self._rates.append(self._capacity(name))
            self._routes[source, target] = [self._number[name] for name in names]
        return self._routes[source, target]

    def _ask(self) -> None:
        """Find rates anew, once for all that happens now."""
        if not self._asked:
            self._asked = True
            self.env.timeout(0).callbacks.append(lambda _: self._change())

    def _advance(self) -> None:
        self._left = self._left - self._rate * (self.env.now - self._since)
        self._since = self.env.now

    def _change(self) -> None:
        self._asked = False
        self._advance()
        if self._coming:
            width = max(self._route.shape[1], *(len(path) for path, _, _ in self._coming))
            old = np.pad(self._route, ((0, 0), (0, width - self._route.shape[1])), constant_values=-1)
            new = np.array([path + [-1] * (width - len(path)) for path, _, _ in self._coming], dtype=np.int64)
            self._route = np.concatenate([old, new])
            self._left = np.concatenate([self._left, [nbytes for _, nbytes, _ in self._coming]])
            self._bundles += [bundle for _, _, bundle in self._coming]
            self._coming = []
        self._version += 1
        if len(self._route):
            self._rate = fair(self._route % (len(self._rates) + 1), np.array([*self._rates, np.inf]))
            soonest = float((self._left / self._rate).min())
            version = self._version
            self.env.timeout(max(soonest, 0.0)).callbacks.append(lambda _: self._wake(version, soonest))

    def _wake(self, version: int, waited: float) -> None:
        """Flows end."""
        if version != self._version:
            return
        over = self._left / self._rate <= waited * (1 + SAME)
        self._advance()
        for at in np.flatnonzero(over):
            bundle = self._bundles[at]
            bundle[0] -= 1
            if not bundle[0]:
                bundle[1].succeed()
        stay = ~over
        self._route, self._left, self._rate = self._route[stay], self._left[stay], self._rate[stay]
        self._bundles = [bundle for bundle, stays in zip(self._bundles, stay, strict=True) if stays]
        self._ask()
