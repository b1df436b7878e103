"""What can be wrong with what the user gave: one line, one exit status."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 2000
"""Characters of the text of an error, at most."""


def one_line(text: str) -> str:
    """Text with line breaks and whatever else cannot be printed written as escapes: files do not steer the terminal."""
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class AthanorError(Exception):
    """Something that the user can mend; the command line prints it as one line, without a traceback.

    Its text is one line, whatever keys and names of files stand in it: what cannot be printed is written as an escape, and the
    middle of what no terminal shows at once is left out.
    """

    exit_status = 2

    def __str__(self) -> str:
        text = one_line(super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[5 - LONGEST // 2 :]}"


class InputError(AthanorError):
    """Bad input: the message names the file or flag, the key, what was found and what is allowed.

    ``rule`` says without numbers what was broken: a search counts by it the plans that it refuses.
    """

    def __init__(self, message: str, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule


class DoesNotFit(AthanorError):
    """The plan or the study needs more memory than there is: the message says what would make it fit."""

    exit_status = 3


class NeverDone(AthanorError):
    """A training that would not end, as faults take back what it gets done: the message says what stands in the way."""

    exit_status = 3


class Ended(AthanorError):
    """All ranks of a job know that it is over, and with which exit status; the message is empty on all but one of them."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class InternalError(RuntimeError):
    """A result that no machine can give: a fault of Athanor, not of its user. The message says of what plan it was."""


def suggestion(found: str, allowed: Iterable[str]) -> str:
    """``" (a, b, c); did you mean b?"``: what is allowed, and the nearest of it where one is near."""
    names = list(allowed)
    near = get_close_matches(found, names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f" ({', '.join(names)}){hint}"


def nearest(found: str, allowed: Iterable[str], listing: str = "") -> str:
    """``"; did you mean b? (near: c, d; all: athanor ...)"``: the names closest to ``found`` of a list too long to print."""
    names = list(allowed)
    near = get_close_matches(found, names, n=3, cutoff=0.6) or [name for name in names if found in name][:3]
    hint = f"; did you mean {near[0]}?" if near else ""
    more = [f"near: {', '.join(near[1:])}"] if near[1:] else []
    told = "; ".join([*more, *([listing] if listing else [])])
    return hint + (f" ({told})" if told else "")
