"""Lists of hosts as Slurm writes them: ``node[01-04,7],gpu[1-2]``."""

from __future__ import annotations

import re

MOST = 1_000_000
"""Hosts of a list."""

BRACKET = re.compile(r"\[([^\[\]]*)\]")


def hosts(text: str) -> list[str]:
    """The names of a list in its order; raises ``ValueError`` that says what is wrong in it."""
    found: list[str] = []
    for part in _parts(text):
        found += _expanded(part, MOST - len(found))
    return found


def _parts(text: str) -> list[str]:
    """Parts between commas outside brackets."""
    parts, depth, begin = [], 0, 0
    for at, letter in enumerate(text):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth not in (0, 1):
            raise ValueError(f"brackets do not match in {text[:60]!r}")
        if letter == "," and not depth:
            parts.append(text[begin:at])
            begin = at + 1
    if depth:
        raise ValueError(f"brackets do not match in {text[:60]!r}")
    return [part.strip() for part in [*parts, text[begin:]] if part.strip()]


def _expanded(part: str, room: int) -> list[str]:
    bracket = BRACKET.search(part)
    if bracket is None:
        if not re.fullmatch(r"[\w.\-]+", part):
            raise ValueError(f"{part[:60]!r} is no name of a host")
        if room < 1:
            raise ValueError(f"names more than {MOST:,} hosts")
        return [part]
    before, after = part[: bracket.start()], part[bracket.end() :]
    ends = _expanded(f"x{after}", room) if after else ["x"]
    found: list[str] = []
    for piece in bracket[1].split(","):
        first, dash, last = (word.strip() for word in piece.partition("-"))
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and len(first) < 10 and len(last) < 10) or int(last) < int(
            first
        ):
            raise ValueError(f"[{piece[:40]}] must be a number or a range such as 01-16")
        count = int(last) - int(first) + 1
        if (len(found) + count) * len(ends) > room:
            raise ValueError(f"names more than {MOST:,} hosts")
        found += [f"{before}{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    if not re.fullmatch(r"[\w.\-]*", before):
        raise ValueError(f"{before[:60]!r} is no name of a host")
    return [f"{name}{end[1:]}" for name in found for end in ends]
