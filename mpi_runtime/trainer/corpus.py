"""What models are trained on: a made corpus of known entropy, or the bytes of a file; batches follow from step and seed alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...hardware.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MADE = "made"
SUCCESSORS = 8
"""Words that may follow a word of the made corpus."""

BYTES = 256
"""Words of a text that is read byte by byte."""


class Corpus(Protocol):
    """Sequences to train on."""

    @property
    def name(self) -> str:
        """What it is, in a line; where two have the same, so are their batches."""

    @property
    def entropy(self) -> float | None:
        """Nats a word that the best of models is left with, as far as that is known."""

    def batch(self, step: int, count: int, length: int) -> Index:
        """So many sequences of ``length`` words, ``[count, length]``: the same whoever asks."""


@dataclass(frozen=True)
class Made:
    """A Markov source of first order over the words of a model: each has eight successors, the r-th r times rarer than the first.

    Its entropy is sum over words w of p(w) H(next | w), with p the stationary distribution (Shannon 1948, theorem 5): all words
    have the same H, which is so the entropy whatever p is.
    """

    vocabulary: int
    seed: int

    @property
    def name(self) -> str:
        """Kind, words and seed."""
        return f"{MADE}: Markov source of {self.vocabulary:,} words with {self.successors.shape[1]} successors, seed {self.seed}"

    @cached_property
    def successors(self) -> Index:
        """The words that may follow each word, ``[vocabulary, successors]``, the likeliest first."""
        random, count = np.random.default_rng([self.seed, 11]), min(SUCCESSORS, self.vocabulary)
        return np.array([random.choice(self.vocabulary, count, replace=False) for _ in range(self.vocabulary)])

    @cached_property
    def chances(self) -> Array:
        """How likely each of a word's successors is."""
        weights = 1.0 / np.arange(1, self.successors.shape[1] + 1)
        found: Array = weights / weights.sum()
        return found

    @property
    def entropy(self) -> float:
        """Of a word whose predecessor is known."""
        return float(-(self.chances * np.log(self.chances)).sum())

    def batch(self, step: int, count: int, length: int) -> Index:
        """Sequences that begin with any word."""
        random = np.random.default_rng([self.seed, 12, step])
        words = np.empty((count, length), dtype=np.int64)
        words[:, 0] = random.integers(0, self.vocabulary, count)
        choices = np.searchsorted(np.cumsum(self.chances)[:-1], random.random((length, count)), side="right")
        for at in range(1, length):
            words[:, at] = self.successors[words[:, at - 1], choices[at]]
        return words


@dataclass(frozen=True)
class Text:
    """The bytes of a file; sequences begin anywhere."""

    path: str
    content: bytes
    seed: int
    entropy: float | None = None

    @classmethod
    def read(cls, path: str, vocabulary: int, seed: int) -> Text:
        """A file; raises :class:`InputError` where it cannot be read, or the model has no word for each byte."""
        try:
            content = Path(path).read_bytes()
        except OSError as reason:
            raise InputError(
                f"--data {path}: cannot be read: {reason.strerror}; or name {MADE}, a made corpus"
            ) from None
        if vocabulary < BYTES:
            raise InputError(
                f"--data {path}: is read byte by byte, and the model has {vocabulary} words; needs {BYTES}"
            )
        return cls(path, content, seed)

    @property
    def name(self) -> str:
        """The file's content, whatever it is called, and the seed."""
        return f"text of {len(self.content):,} bytes, sha256 {hashlib.sha256(self.content).hexdigest()[:16]}, seed {self.seed}"

    def batch(self, step: int, count: int, length: int) -> Index:
        """Sequences at random places; raises :class:`InputError` where the file is shorter than one."""
        last = len(self.content) - length
        if last < 0:
            raise InputError(
                f"--data {self.path}: has {len(self.content):,} bytes, a sequence with its target {length:,}"
            )
        starts = np.random.default_rng([self.seed, 12, step]).integers(0, last + 1, count)
        every = np.frombuffer(self.content, dtype=np.uint8)
        words: Index = every[starts[:, None] + np.arange(length)].astype(np.int64)
        return words


def corpus_of(data: str, vocabulary: int, seed: int) -> Corpus:
    """``made``, or the path of a file."""
    return Made(vocabulary, seed) if data == MADE else Text.read(data, vocabulary, seed)
