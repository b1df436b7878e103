"""What a message costs beside the links that it passes, by its size and by how far it goes: measured, where somebody has."""

from __future__ import annotations

from typing import Literal

from .records import Record
from .units import BytesOrZero, BytesPerSecond, SecondsOrZero

Level = Literal["node", "supernode", "top"]
"""How far a message goes: within a node, within a supernode, anywhere."""

LEVELS: tuple[Level, ...] = ("node", "supernode", "top")

Way = Literal["one", "both", "handed"]
"""Whether its sender only sends, or receives another one meanwhile, as in most steps of collectives, or hands on what it has
computed, as a stage of a pipeline does: then both ends look for messages and for the end of what they compute."""

WAYS: tuple[Way, ...] = ("one", "both", "handed")

ONE, BOTH, HANDED = range(3)
"""Places of ways in :data:`WAYS`."""


class MessageCost(Record):
    """Messages of ``least`` bytes and more, up to the next such entry of the same level and way.

    Their first byte goes after ``start`` seconds, and however fast the links are, no message is faster than ``rate``: what
    processors need to hand bytes on. A second entry of a level is where a library changes its protocol (eager, rendezvous).
    """

    level: Level
    way: Way
    least: BytesOrZero = 0.0
    start: SecondsOrZero
    rate: BytesPerSecond | None = None
