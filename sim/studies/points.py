"""The points of a study, which do not depend on each other: those that are known, and the others as workers have done them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..workers import Workers, on_cores


def points(
    call: Callable[[Any], Any], tasks: Mapping[str, Any], known: Mapping[str, Any] | None, crew: Workers
) -> Iterator[tuple[str, Any]]:
    """(key, result) of every task by its key: first what an earlier study knows, then what ``call`` makes, as it is done.

    Who keeps each result as it comes has, after an interruption, all that was finished.
    """
    earlier = known or {}
    left = []
    for name, task in tasks.items():
        if name in earlier:
            yield name, earlier[name]
        else:
            left.append((name, task))
    for number, result in crew.results(call, [task for _, task in left]):
        yield left[number][0], result


def crew_of(workers: Workers | None, jobs: int) -> AbstractContextManager[Workers]:
    """The workers that there are, else ``jobs`` processes."""
    return nullcontext(workers) if workers else on_cores(jobs)
