"""Layers of a model: of which kind each is, and which tokens a query sees there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

ATTENTION, WINDOW, CHUNK = "attention", "window", "chunk"
"""Mixers that every model may have: attention to all tokens, to the last few, and within chunks of a sequence."""

ATTENTIONS = (ATTENTION, WINDOW, CHUNK)


@dataclass(frozen=True)
class Layer:
    """A kind of layer. Layers that are equal cost the same, so that all that is known of one holds for the others.

    It belongs to an ``encoder``, attends to one (``cross``), has a mixture of experts in its second half (``moe``), and mixes
    tokens by its ``mixer``: one of :data:`ATTENTIONS`, or a recurrent part of the model by name. ``ahead``: it is behind the
    stack and predicts a further token. Of one that is ``kept`` nothing is worked out again, whatever a plan recomputes in others.
    """

    encoder: bool = False
    cross: bool = False
    moe: bool = False
    mixer: str = ATTENTION
    ahead: bool = False
    kept: bool = False

    @property
    def attends(self) -> bool:
        """Whether its queries meet keys."""
        return self.mixer in ATTENTIONS


@dataclass(frozen=True)
class Sight:
    """Which keys a query meets: where it is ``causal`` those up to its own, of these the last ``window`` or its ``chunk``'s.

    ``documents`` are the lengths of those that fill a sequence, over and over: a query meets keys of its own alone.
    """

    causal: bool = True
    window: int | None = None
    chunk: int | None = None
    documents: tuple[int, ...] = ()

    def share(self, queries: float, keys: float) -> float:
        """The part of all pairs that is seen where the last ``queries`` of ``keys`` tokens look back, at themselves too.

        Of a whole causal sequence that is half of the square and half of its diagonal; of one new token, all.
        """
        if self.documents and queries == keys:
            alone = replace(self, documents=())
            pairs = sum(alone.share(length, length) * length * length for length in self.documents)
            return pairs / (sum(self.documents) * keys)
        if not self.causal:
            return 1.0
        if self.window is None and self.chunk is None:
            return 1.0 - (queries - 1.0) / (2.0 * keys)
        return (self._pairs(keys) - self._pairs(keys - queries)) / (queries * keys)

    def reach(self, tokens: float) -> float:
        """How many of so many tokens, at most, a next one still looks at: what of keys and values has to be kept for it."""
        return min(tokens, *(float(each) for each in (self.window, self.chunk) if each is not None), tokens)

    def _pairs(self, tokens: float) -> float:
        """Pairs that are seen in a sequence of so many tokens."""
        if self.window is not None:
            full = min(tokens, float(self.window))
            return full * (full + 1.0) / 2.0 + (tokens - full) * full
        assert self.chunk is not None
        whole, rest = divmod(tokens, float(self.chunk))
        return whole * self.chunk * (self.chunk + 1.0) / 2.0 + rest * (rest + 1.0) / 2.0


def one_each(stack: Iterable[Layer]) -> tuple[Layer, ...]:
    """A stack in which layers that are equal are one object, so that they are quickly told to be."""
    known: dict[Layer, Layer] = {}
    return tuple(known.setdefault(layer, layer) for layer in stack)


def expanded(pattern: Iterable[str]) -> tuple[str, ...]:
    """A pattern with what it has several times written out: ``("3*window", "attention")`` is four layers long."""
    found: list[str] = []
    for each in pattern:
        times = re.fullmatch(r"\s*(\d+)\s*\*\s*(.*\S)\s*", each)
        found += [times[2]] * int(times[1]) if times else [each.strip()]
    return tuple(found)
