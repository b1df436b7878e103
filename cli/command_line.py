"""The command line: the group ``athanor``, its commands, and how errors end it.

Only click is imported here; each command imports what it needs, so that ``athanor --help`` answers at once.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click

from ..hardware.errors import AthanorError, Ended, one_line
from ..hardware.own_code import reason_in_own_code
from .inputs import first

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


COMMANDS = {
    "calibrate": "calibrate",
    "campaign": "campaign",
    "cluster": "cluster",
    "collective": "collective",
    "compare": "compare",
    "doctor": "doctor",
    "execute": "execute",
    "export": "export",
    "fit": "fit",
    "import": "import_",
    "infer": "infer",
    "list": "catalogue",
    "lower": "lower",
    "memory": "memory",
    "plan": "plan",
    "report": "report",
    "reproduce": "reproduce",
    "scale": "scale",
    "serve": "serve",
    "show": "catalogue",
    "simulate": "simulate",
    "study": "study",
    "train": "train",
    "validate": "validate",
    "validate-runtime": "validate_runtime",
}
"""Commands and the files that have them; a file is read when its command, or the list of all of them, is asked for."""


class Commands(click.Group):
    """The commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        found = vars(import_module(f".commands.{COMMANDS[cmd_name]}", __package__)).values()
        command = next(each for each in found if isinstance(each, click.Command) and each.name == cmd_name)
        command.context_settings = {
            **CONTEXT,
            **command.context_settings,
        }  # also where it is asked without a group above it
        return command


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(package_name="athanor", prog_name="athanor")
def cli() -> None:
    """Simulate the training of very large models on supercomputers, and run the same schedules over MPI.

    Exit status: 0 success, 1 a job over MPI failed (of doctor: the core does not work), 2 bad input, 3 the plan does not fit,
    124 time limit, 130 interrupted.
    """


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Look for cycles a hundredth as often: what start-up makes stays, and looking through it takes a seventh of its time."""
    before = gc.get_threshold()
    gc.set_threshold(100 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit status."""
    try:
        with _seldom_collecting():
            cli.main(prog_name="athanor", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as wrong:
        _fail(" ".join(wrong.format_message().split()), 2, first())
    except Ended as over:
        _fail(str(over), over.exit_status)
    except AthanorError as wrong:
        _fail(str(wrong), wrong.exit_status, first())
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130, first())
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as reason:
        told = reason_in_own_code(reason)
        if not told:
            raise
        _fail(f"{told}: raised by a class of your own, not by Athanor", 2, first())


def _fail(message: str, status: int, speaks: bool = True) -> None:
    """One line on stderr, and the exit status; ranks of a job that have nothing to say only end."""
    if message and speaks:
        print(f"athanor: {one_line(message)}", file=sys.stderr)
    sys.exit(status)
