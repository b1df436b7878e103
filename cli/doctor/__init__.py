"""What works on this computer: each thing that Athanor uses is tried, and what does not work says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .finding import Finding
from .mpi import ranks
from .packages import extras, libraries, python
from .small_step import simulation
from .surroundings import browser, completion, namespaces, places, system

CORE = (python, libraries, simulation)
"""Without what these find nothing works."""

CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    *CORE,
    extras,
    ranks,
    system,
    namespaces,
    places,
    browser,
    completion,
)
"""In the order in which they are told: what all else needs first."""


def examine() -> Iterator[Finding]:
    """What was found, one thing after another; a check that itself fails is a finding as well."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as reason:  # who looks for what is broken must not break by it
            why = f"cannot be looked at: {type(reason).__name__}: {reason}".splitlines()[0]
            yield Finding(check.__name__, False, why, do="install athanor anew", core=check in CORE)
