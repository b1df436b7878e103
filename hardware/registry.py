"""Registries: the variants of one kind by name, and a user's own by ``module:Class`` or as an installed plug-in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from .errors import InputError, suggestion
from .own_code import belongs_to_user, in_one_line

T = TypeVar("T")

_OWN_ALLOWED = ContextVar("own classes are allowed", default=True)


@contextmanager
def no_own_classes() -> Iterator[None]:
    """What is read inside names no ``module:Class``: files of results are data, and reading them imports nothing of anyone's."""
    before = _OWN_ALLOWED.set(False)
    try:
        yield
    finally:
        _OWN_ALLOWED.reset(before)


class Policy:
    """The base of what is written ``NAME`` or ``NAME:ARGUMENT`` on the command line.

    ``about`` is its line in ``athanor list``; where it is empty, the first sentence of the docstring stands for it.
    ``searched`` says that ``athanor plan`` tries it unasked: not what changes the result of training, or needs other kernels.
    """

    about: ClassVar[str] = ""
    searched: ClassVar[bool] = True

    @classmethod
    def parse(cls, argument: str) -> Self:
        """The policy with what stands behind the colon; raises ``ValueError`` that says what is allowed there."""
        if argument:
            raise ValueError("takes no argument")
        return cls()


class Registry(Mapping[str, T], Generic[T]):
    """The variants of one kind, such as balancers, by the names that an option takes.

    ``known`` has what comes with Athanor: classes with ``parse`` (see :class:`Policy`), or objects that are ready. Others are
    found beside them:

    - under a name that an installed package gives them, by an entry point in the group ``athanor.balancers``
      (``athanor.`` and the kind in the plural, with underscores);
    - as ``module:Class``, imported from Python's path or the working directory; an argument stands behind a second colon.

    A user's class must have every public name of ``interface`` that this has itself. ``flag`` begins the messages of errors.
    """

    def __init__(
        self,
        kind: str,
        known: Mapping[str, T | type[T]],
        *,
        flag: str = "",
        interface: type | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.flag = kind, flag or f"--{kind}"
        self._known, self._interface = MappingProxyType(dict(known)), interface
        self._about = MappingProxyType(dict(about or {}))

    def find(self, text: str) -> T:
        """The variant that ``text`` asks for.

        Raises :class:`InputError` for an unknown name, a module or class that is not there or not of this kind, and a wrong
        argument.
        """
        name, _, argument = text.partition(":")
        entry = self._entry(name, text)
        if entry is None:
            entry, name, argument = self._own(text)
        if not isinstance(entry, type) and not argument:
            return cast(T, entry)
        parse: Callable[[str], T] | None = getattr(entry, "parse", None)
        try:
            if argument and parse is None:
                raise ValueError("takes no argument")
            made = parse(argument) if parse is not None else cast(Callable[[], T], entry)()
            return made if name in self._known else self._checked(made, text, f"what {name} makes")
        except ValueError as reason:
            raise InputError(f"{self.flag} {text}: {name} {reason}") from None
        except TypeError as reason:  # such as: an abstract class
            raise InputError(f"{self.flag} {text}: {reason}") from None
        except (Exception, SystemExit) as reason:
            if name in self._known or isinstance(reason, InputError):
                raise
            raise InputError(f"{self.flag} {text}: cannot be made: {in_one_line(reason)}") from None

    def has(self, text: str) -> bool:
        """Whether :meth:`find` finds what ``text`` asks for."""
        try:
            self.find(text)
        except InputError:
            return False
        return True

    def names(self) -> list[str]:
        """Every name: those that come with Athanor, then those of installed plug-ins."""
        return [*self._known, *(name for name in self._installed if name not in self._known)]

    def abouts(self) -> list[tuple[str, str]]:
        """(name, one line about it) of every name."""
        return [(name, self._line(name)) for name in self.names()]

    def __getitem__(self, name: str) -> T:
        """The variant of a name that comes with Athanor, without an argument."""
        if name not in self._known:
            raise KeyError(name)
        return self.find(name)

    def __contains__(self, name: object) -> bool:
        """Whether it is a name that comes with Athanor."""
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        """Names that come with Athanor."""
        return iter(self._known)

    def __len__(self) -> int:
        """How many these are."""
        return len(self._known)

    @property
    def group(self) -> str:
        """The group of entry points in which installed packages name theirs."""
        return f"athanor.{self.kind.replace(' ', '_').replace('-', '_')}s"

    @cached_property
    def _installed(self) -> dict[str, Any]:
        """Entry points of installed packages by name; none of them is loaded."""
        from importlib.metadata import entry_points

        return {each.name: each for each in entry_points(group=self.group)}

    def _entry(self, name: str, text: str) -> Any:
        """What a name stands for; None where nobody has it."""
        if name in self._known:
            return self._known[name]
        if name not in self._installed:
            return None
        point = self._installed[name]
        try:
            return self._checked(point.load(), text, point.value)
        except InputError:
            raise
        except (Exception, SystemExit) as reason:
            raise InputError(
                f"{self.flag} {text}: the plug-in {point.value} cannot be loaded: {in_one_line(reason)}"
            ) from None

    def _own(self, text: str) -> tuple[Any, str, str]:
        """A user's own class or object by ``module:Class``, its name and the argument behind it."""
        module, _, rest = text.partition(":")
        name, _, argument = rest.partition(":")
        unknown = f"{self.flag} {text}: no such {self.kind}{suggestion(module, self.names())}"
        if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise InputError(unknown)
        if not _OWN_ALLOWED.get():
            raise InputError(
                f"{self.flag} {text}: a class of someone's own, which is not imported for a file of results"
            )
        here = str(Path.cwd())
        if here not in sys.path and "" not in sys.path:  # as `python -m` has it; an installed command does not
            sys.path.insert(0, here)
        try:
            found = import_module(module)
        except ModuleNotFoundError as missing:
            if missing.name is None or not f"{module}.".startswith(f"{missing.name}."):
                raise InputError(f"{self.flag} {text}: module {module} cannot be imported: {missing}") from None
            raise InputError(f"{unknown}; nor is there a module {missing.name}") from None
        except (Exception, SystemExit) as reason:
            raise InputError(f"{self.flag} {text}: module {module} cannot be imported: {in_one_line(reason)}") from None
        if not hasattr(found, name):
            raise InputError(f"{self.flag} {text}: module {module} has no {name}{self._offered(found, name)}")
        return self._checked(getattr(found, name), text, f"{module}:{name}"), name, argument

    def _offered(self, module: Any, name: str) -> str:
        """The classes of a module that are of this kind, and the nearest to ``name``."""
        kinds = [value for each, value in vars(module).items() if isinstance(value, type) and each[0] != "_"]
        own = [each.__name__ for each in kinds if each.__module__ == module.__name__ and not self._lacking(each)]
        return suggestion(name, own) if own else f", nor any class that is a {self.kind}"

    def _lacking(self, entry: Any) -> list[str]:
        """What a class or object lacks to be of this kind."""
        if self._interface is None:
            return []
        wanted = dict.fromkeys([*vars(self._interface), *vars(self._interface).get("__annotations__", {})])
        wanted = {each: None for each in wanted if each not in self._optional()}
        return [each for each in wanted if each[0] != "_" and not hasattr(entry, each)]

    def _optional(self) -> dict[str, Any]:
        """What a kind says of itself where nothing else is said: values, not methods, that later versions may add to."""
        return {
            name: value
            for name, value in vars(self._interface).items()
            if name[0] != "_" and isinstance(value, bool | str | int | float)
        }

    def _checked(self, entry: Any, text: str, where: str) -> Any:
        """The class or object, once it has what its kind must have."""
        if lacks := self._lacking(entry):
            raise InputError(f"{self.flag} {text}: {where} is no {self.kind}: it has no {', '.join(lacks)}")
        if self._interface is not None:
            its_class = entry if isinstance(entry, type) else type(entry)
            for name, value in self._optional().items():
                if not hasattr(its_class, name):
                    setattr(its_class, name, value)
        belongs_to_user(entry.__module__ if isinstance(entry, type) else type(entry).__module__)
        return entry

    def _line(self, name: str) -> str:
        if name in self._about:
            return self._about[name]
        if name not in self._known:
            return f"of the installed package {self._installed[name].value.partition(':')[0]}"
        entry = self._known[name]
        return str(getattr(entry, "about", "")) or (entry.__doc__ or "").partition("\n")[0]
