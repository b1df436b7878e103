"""What a user's own classes do wrong: which modules are a user's, and what is said of an exception in one of them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

_MODULES: set[str] = set()

_KEPT = "_raised_in_own_code"


def belongs_to_user(module: str) -> None:
    """Remember that a registry has taken a class of this module, which does not come with Athanor."""
    _MODULES.add(module)


def reason_in_own_code(reason: BaseException) -> str:
    """``balancers.py, line 12, in carry: KeyError: 3`` of an exception that a user's own class has raised; empty for others."""
    told = _place(reason)
    return f"{told}: {in_one_line(reason)}" if told else ""


def keep_reason(reason: BaseException) -> None:
    """Keep with an exception where a user's own class has raised it: its traceback does not reach another process."""
    if told := _place(reason):
        setattr(reason, _KEPT, told)


def _place(reason: BaseException) -> str:
    """Module, line and function of a user's own class, the innermost of those that a traceback has."""
    told = str(getattr(reason, _KEPT, ""))
    trace: TracebackType | None = reason.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_globals.get("__name__") in _MODULES:
            told = f"{Path(code.co_filename).name}, line {trace.tb_lineno}, in {code.co_name}"
        trace = trace.tb_next
    return told


def in_one_line(reason: BaseException) -> str:
    """The kind of an exception and its text, without line ends."""
    text = " ".join(str(reason).split())
    return f"{type(reason).__name__}: {text}" if text else type(reason).__name__
