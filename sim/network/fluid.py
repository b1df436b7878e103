"""The fluid network: flows on links that start and end at any time, at weighted max-min fair rates."""

from __future__ import annotations

import numpy as np

from .distinct import distinct
from .links import Array, Index

TIE = 1.0 + 1e-9
"""Levels that differ by less than this factor are one."""

TOGETHER = 1.0 + 1e-12
"""Ends that differ by less than this factor are one event."""


def fill(links: Index, claims: Array, cap: Array, left: Array) -> Array:
    """Weighted max-min fair levels ``[flows]``: rates over weights, in bytes per second.

    At level 1 flow f takes ``claims[h, f]`` (its usage times its weight) of link ``links[h, f]``, of which ``left[link]``
    bytes per second are there (the last one, endless, stands for no link); its level is at most ``cap[f]``.

    Progressive filling (Bertsekas and Gallager 1992, section 6.5.2): the level rises for all flows alike until a link is
    full. Every link that is the tightest one for all flows on it is frozen in the same round, not only the globally
    tightest: the levels are the same, as they are unique, and the rounds far fewer.
    """
    levels = np.empty(len(cap))
    flows, left = np.arange(len(cap)), left.copy()
    while True:
        claimed = np.bincount(links.ravel(), claims.ravel(), len(left))
        share = np.full(len(left), np.inf)
        np.divide(left, claimed, out=share, where=claimed > 0)
        offered = share[links]
        level = np.minimum(cap, offered.min(axis=0, initial=np.inf))
        about, tight = level * TIE, np.ones(len(left), dtype=bool)
        tight[links[about < offered]] = False  # a flow on it is held back more tightly elsewhere
        done = (cap <= about) | tight[links].any(axis=0)
        if done.all():
            levels[flows] = level
            return levels
        levels[flows[done]] = level[done]
        left -= np.bincount(links[:, done].ravel(), (claims[:, done] * level[done]).ravel(), len(left))
        np.maximum(left, 0.0, out=left)
        keep = ~done
        flows, links, claims, cap = flows[keep], links[:, keep], claims[:, keep], cap[keep]


class Fluid:
    """Flows in numbered slots, under way together on one network.

    :meth:`book` puts flows into free slots, :meth:`begin` lets them move (flows on no link :meth:`pass_by`), :meth:`settle`
    gives new rates, :meth:`next` says when the first flow ends, and :meth:`advance` moves the clock there and frees the slots
    of flows that end. When flows only end, no rate below theirs changes, since filling up to their level goes as before:
    those flows are left as they are.

    Links are numbered anew as flows come to them, so that the cost of an event does not grow with links that nobody uses: a
    torus has a million. Number 0 stands for no link.

    With a ``burst``, each link is a token bucket (RFC 2697): while it has tokens, nothing holds it back; they come at its own
    rate, for so many seconds at most.
    """

    def __init__(self, slots: int, width: int, capacity: Array, burst: float = 0.0) -> None:
        """``slots`` flows at once, on at most ``width`` links each; ``capacity[link]`` ends with endless, for no link."""
        self._buckets = Buckets(burst) if burst else None
        self._all, self._number = capacity, np.full(len(capacity), -1, dtype=np.int64)
        self._number[-1], self.capacity, self.now = 0, capacity[-1:], 0.0
        self.links, self.claims = np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0))
        none = np.zeros(0)
        self.weight, self.cap, self.left, self.rate, self.since, self.end = none, none, none, none, none, none
        self._level = none  # rate over weight; below zero: not under way, or on no link
        self._used = np.zeros(1)
        self._changed = np.inf  # the lowest level at which something changed since rates were settled
        self.grow(slots, width)

    def grow(self, slots: int, width: int) -> None:
        """Make room for more slots and longer routes, at least as many as there are; new slots are free."""
        more, old = slots - len(self.end), self.links.shape
        links = np.zeros((max(width, old[0]), slots), dtype=np.int64)
        claims = np.zeros(links.shape)
        links[: old[0], : old[1]], claims[: old[0], : old[1]] = self.links, self.claims
        self.links, self.claims = links, claims
        for name, blank in (("weight", 1.0), ("cap", np.inf), ("left", 0.0), ("rate", 0.0), ("since", 0.0)):
            setattr(self, name, np.append(getattr(self, name), np.full(more, blank)))
        self.end = np.append(self.end, np.full(more, np.inf))
        self._level = np.append(self._level, np.full(more, -1.0))

    def book(self, slots: Index, links: Index, usage: Array, weight: Array, limit: Array, nbytes: Array) -> None:
        """Put flows of ``nbytes`` (above zero) into free slots, on ``links[flow, hop]``; they do not move yet.

        A flow takes ``usage[flow, hop]`` of its rate on a link, gets shares in proportion to ``weight`` and is never faster than
        ``limit``.
        """
        width = links.shape[1]
        self.links[:width, slots], self.claims[:width, slots] = self._numbered(links.T), usage.T * weight
        self.links[width:, slots] = 0
        self.weight[slots], self.cap[slots], self.left[slots] = weight, limit / weight, nbytes

    def _numbered(self, links: Index) -> Index:
        """The own numbers of links, which those that no flow was on before are given now."""
        numbers = self._number[links]
        if numbers.min(initial=0) < 0:
            fresh = distinct(links[numbers < 0])
            self._number[fresh] = len(self.capacity) + np.arange(len(fresh))
            self.capacity = np.append(self.capacity, self._all[fresh])
            self._used = np.append(self._used, np.zeros(len(fresh)))
            if self._buckets:
                self._buckets.grow(self._all[fresh])
            numbers = self._number[links]
        return numbers

    def begin(self, slots: Index) -> None:
        """Let booked flows move from now on."""
        if len(slots):
            self.since[slots], self.rate[slots], self._level[slots] = self.now, 0.0, np.inf
            self._changed = 0.0  # a new flow may hold back any other

    def pass_by(self, slots: Index, seconds: Array) -> None:
        """Flows on no link, which nothing holds back: they end so many seconds from now."""
        self.end[slots] = self.now + seconds

    def settle(self) -> None:
        """Give new rates to the flows that changes can have touched."""
        if self._changed == np.inf:
            return
        moved = np.flatnonzero(self._level >= self._changed / TIE)
        links, claims, old = self.links[:, moved], self.claims[:, moved], self.rate[moved]
        if self._changed:
            self._used -= np.bincount(links.ravel(), (claims * self._level[moved]).ravel(), len(self._used))
            left = np.maximum(self.capacity - self._used, 0.0)
        else:
            if self._buckets:
                self.capacity = self._buckets.capacity()
            self._used, left = np.zeros(len(self.capacity)), self.capacity
        level = fill(links, claims, self.cap[moved], left)
        self._used += np.bincount(links.ravel(), (claims * level).ravel(), len(self._used))
        rates = level * self.weight[moved]
        left_over = self.left[moved] - old * (self.now - self.since[moved])
        self.left[moved], self.since[moved], self.rate[moved] = left_over, self.now, rates
        self._level[moved] = level
        self.end[moved] = self.now + left_over / rates
        self._changed = np.inf

    def next(self) -> float:
        """When the first flow ends or a link has used up its tokens, in seconds; endless where nothing is under way."""
        first = float(self.end[self.end.argmin()]) if len(self.end) else np.inf
        return min(first, self.now + self._buckets.lasts(self._used)) if self._buckets else first

    def advance(self, to: float) -> Index:
        """Move the clock, at most to :meth:`next`; returns the slots of the flows that end then, which are free again."""
        if self._buckets and self._buckets.pass_by(to - self.now, self._used):
            self._changed = 0.0
        self.now = to
        done = np.flatnonzero(self.end <= to * TOGETHER)
        if len(done):
            self.end[done] = np.inf
            held = done[self._level[done] >= 0]
            if len(held):
                self._changed = min(self._changed, float(self._level[held].min()))
                links = self.links[:, held]
                claimed = self.claims[:, held] * self._level[held]
                self._used -= np.bincount(links.ravel(), claimed.ravel(), len(self._used))
                self._level[held], self.rate[held] = -1.0, 0.0
        return done


FAST = 1e3
"""How much faster than its own rate a link is while it has tokens: links then hold nothing back."""

SPENT = 1e-9
"""Share of a full bucket below which it is empty."""


class Buckets:
    """The token buckets of links: ``burst`` seconds at a link's own rate, full at first. Link 0 stands for none."""

    def __init__(self, burst: float) -> None:
        self.burst, self.rate, self.tokens = burst, np.array([np.inf]), np.zeros(1)
        self.fast = np.zeros(1, dtype=np.bool_)

    def grow(self, rates: Array) -> None:
        """More links, which have been idle."""
        self.rate = np.append(self.rate, rates)
        self.tokens = np.append(self.tokens, self.burst * rates)
        self.fast = np.append(self.fast, np.ones(len(rates), dtype=np.bool_))

    def capacity(self) -> Array:
        """Bytes per second of each link from now on: those that have tokens are fast until these are used up."""
        self.fast = self.tokens > SPENT * self.burst * self.rate
        return np.where(self.fast, FAST * self.rate, self.rate)

    def lasts(self, used: Array) -> float:
        """Seconds until the first fast link is out of tokens, where so many bytes per second pass."""
        going = self.fast & (used > self.rate)
        return float((self.tokens[going] / (used[going] - self.rate[going])).min(initial=np.inf))

    def pass_by(self, seconds: float, used: Array) -> bool:
        """Let time pass; whether links that were fast have become slow."""
        own = slice(1, None)  # no link needs no tokens
        full = self.burst * self.rate[own]
        self.tokens[own] = np.clip(self.tokens[own] + (self.rate[own] - used[own]) * seconds, 0.0, full)
        empty = self.fast & (self.tokens <= SPENT * self.burst * self.rate) & (used > self.rate)
        empty[0] = False
        self.fast = self.fast & ~empty
        return bool(empty.any())
