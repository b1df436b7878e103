"""Commands that all ranks of a job run: what one of them finds wrong before the job begins, all hear of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..hardware.errors import AthanorError, Ended
from ..mpi_runtime.job.environment import Launcher, prepare
from .sections import SectionedCommand


class JobCommand(SectionedCommand):
    """A command of jobs over MPI: a rank whose words are wrong tells the others, which would wait for it."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line."""
        with refused_by_all():
            return super().make_context(info_name, args, parent, **extra)


@contextmanager
def refused_by_all() -> Iterator[None]:
    """End the whole job for what is found wrong inside, before it has begun; one rank says it."""
    try:
        yield
    except (click.ClickException, AthanorError) as wrong:
        launcher = Launcher.of(os.environ)
        if launcher is not None and launcher.ranks > 1 and not isinstance(wrong, Ended):
            prepare()
            from ..mpi_runtime.job.agreement import refuse_together

            refuse_together(*_told(wrong))
        raise


def _told(wrong: click.ClickException | AthanorError) -> tuple[str, int]:
    """An error's line and status."""
    if isinstance(wrong, click.ClickException):
        return " ".join(wrong.format_message().split()), 2
    return str(wrong), wrong.exit_status
