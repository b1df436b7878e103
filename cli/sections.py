"""Help in sections: options stand under headings, each with its choices and its default.

click has no sections. rich-click would bring rich to every ``--help`` and cloup a second decorator for each option; this is all
that is needed of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..workloads.plan.choices import names_of
from ..workloads.plan.option import Option

if TYPE_CHECKING:
    from ..workloads.plan.run_file import RunFile

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]  # generic from click 8.2 on
else:
    _ParamType = click.ParamType

RESULTS = "Results"
GENERAL = "Other options"


class Names(_ParamType):
    """A text that is, or begins with, one of some names; the shell completes them.

    What else it may be is judged by who reads it: a file, an argument after a colon, a ``module:Class`` of the user's.
    """

    name = "text"

    def __init__(self, names: Callable[[], Iterable[str]] | str, files: bool = False) -> None:
        self.names: Callable[[], Iterable[str]] = (lambda: names_of(names)) if isinstance(names, str) else names
        self.files = files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin so; after a comma the next one; files where no name does."""
        before, comma, last = incomplete.rpartition(",")
        found = [CompletionItem(f"{before}{comma}{name}") for name in self.names() if name.startswith(last)]
        return found or ([CompletionItem(incomplete, type="file")] if self.files else [])


class SectionedOption(click.Option):
    """An option that knows its section and, where it is declared (``option``), what its declaration says of it.

    ``of_plan`` is the declaration of one of a plan's.
    """

    def __init__(
        self,
        *args: Any,
        section: str = GENERAL,
        of_plan: Option | None = None,
        option: Option | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.section, self.of_plan, self.option = section, of_plan, option or of_plan

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The flags, and the help with choices, unit and default behind it."""
        record = super().get_help_record(ctx)
        if record is None or self.option is None:
            return record
        return record[0], explained(self.option)


def explained(option: Option) -> str:
    """An option's help with choices, unit, bounds and default: as the command line and pages show it."""
    text = option.help
    if option.simulated_only:
        text += " Simulated only, not executed."
    notes = []
    if choices := option.choices():
        notes.append(", ".join(choices))
    if (bounds := option.bounds()) and not (option.type is int and option.more == 0):  # counts are above 0 anyway
        notes.append(bounds)
    notes.append(f"default: {option.default_text()}")
    return f"{text}  [{'; '.join(notes)}]"


GOES_FIRST = """
What you leave out comes from the model's own plan (athanor show model NAME); the defaults below hold where that says nothing.
"""


class SectionedCommand(click.Command):
    """A command whose help shows options under their sections, in the order in which these first come."""

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; what its flags leave open in a plan, a run file says."""
        if run := run_file(ctx):
            mine = {param.name for param in self.params if getattr(param, "of_plan", None)}
            flags = {key: value for key, value in ctx.params.items() if key in mine}
            ctx.params.update({key: value for key, value in run.overridden(flags).items() if key in mine})
        return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, and where the values of a plan come from that are left out."""
        super().format_help_text(ctx, formatter)
        if any(getattr(param, "of_plan", None) for param in self.params):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(GOES_FIRST.strip())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every section with its options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", GENERAL), []).append(record)
        last = sections.pop(GENERAL, None)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
        if last:
            with formatter.section(GENERAL if sections else "Options"):
                formatter.write_dl(last)


RUN = "athanor.run_file"


def run_file(ctx: click.Context) -> RunFile | None:
    """The run file that the command was given."""
    found: RunFile | None = ctx.meta.get(RUN)
    return found
