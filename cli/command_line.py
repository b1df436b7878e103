"""The command line: the group ``athanor``, its commands, and how errors end it.

Only click is imported here; each command imports what it needs, so that ``athanor --help`` answers at once.
"""

from __future__ import annotations

import sys

import click

from ..hardware.errors import AthanorError, Ended
from .catalogue import list_, show
from .cluster import cluster
from .collective import collective
from .compare import compare
from .fit import fit
from .infer import infer
from .inputs import first
from .lower import lower
from .memory import memory
from .plan import plan
from .reproduce import reproduce
from .runtime import calibrate, execute
from .scale import scale
from .simulate import simulate
from .validate import validate
from .validate_runtime import validate_runtime

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="athanor", prog_name="athanor")
def cli() -> None:
    """Simulate the training of very large models on supercomputers, and run the same schedules over MPI.

    Exit status: 0 success, 1 a job over MPI failed, 2 bad input, 3 the plan does not fit, 124 time limit, 130 interrupted.
    """


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit status."""
    try:
        cli.main(standalone_mode=False)
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


def _fail(message: str, status: int, speaks: bool = True) -> None:
    """One line on stderr, and the exit status; ranks of a job that have nothing to say only end."""
    if message and speaks:
        print(f"athanor: {message}", file=sys.stderr)
    sys.exit(status)


for command in (
    simulate,
    plan,
    scale,
    collective,
    infer,
    memory,
    lower,
    execute,
    calibrate,
    compare,
    cluster,
    fit,
    validate,
    validate_runtime,
    reproduce,
    list_,
    show,
):
    cli.add_command(command)
