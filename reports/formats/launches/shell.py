"""Flags of a launch script, found without running it: comments, continued lines, variables, arrays, arithmetic."""

from __future__ import annotations

import ast
import operator
import re
import shlex
from collections.abc import Callable, Mapping

from ....hardware.errors import InputError

ASSIGNMENT = re.compile(
    r"^\s*(?:export\s+|declare\s+(?:-\w+\s+)*|local\s+|readonly\s+)?([A-Za-z_]\w*)(\+?)=(.*)$", re.DOTALL
)
VARIABLE = re.compile(r"\$(?:\{(\w+)(?:(:?-)([^{}]*))?\}|\{(\w+)\[[@*]\]\}|(\w+))")
WHOLE = re.compile(r"\"(\$\{\w+\[@\]\})\"")
"""A quoted array, which is as many words as it has."""

ARITHMETIC = re.compile(r"\$\(\((.*?)\)\)")
BARE = re.compile(r"(?<![$\w])[A-Za-z_]\w*")
"""A variable in arithmetic, which needs no ``$`` there."""

SBATCH = re.compile(r"^#SBATCH\s+(--?[\w-]+(?:[= ]\S+)?)", re.MULTILINE)
LONGEST = 100_000
"""Characters that a value may grow to when variables are put in."""

OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}


class Script:
    """The words of a script that begin with dashes, and what stands behind each; ``defined`` are variables that the user sets."""

    def __init__(self, source: str, name: str, defined: Mapping[str, str]) -> None:
        self.name, self._variables, self._given = name, dict(defined), defined
        self.words: list[str] = []
        self._batch = SBATCH.findall(source)
        for line in _statements(source):
            self._take(line)
        if len(self.words) > LONGEST:
            raise InputError(f"{name}: has more than {LONGEST:,} words")

    def flags(self) -> dict[str, list[str]]:
        """Words behind each flag, by its name with underscores; of one that comes twice the last holds, as for argparse."""
        found: dict[str, list[str]] = {}
        last: list[str] | None = None
        for word in [*(part for each in self._batch for part in re.split(r"[= ]", each, maxsplit=1)), *self.words]:
            if re.match(r"--?[A-Za-z]", word):
                key, equals, value = word.lstrip("-").partition("=")
                last = [value] if equals else []
                found[key.replace("-", "_")] = last
            elif (
                word.endswith(".py")
                or word in ("&", "&&", "||", "|", ";", "2>&1", ">", ">>", "<")
                or re.match(r"\d?>", word)
            ):
                last = None
            elif last is not None:
                last.append(word)
        return found

    def _take(self, line: str) -> None:
        assigned = ASSIGNMENT.match(line)
        if assigned:
            name, more, value = assigned[1], assigned[2], assigned[3].strip()
            if value.startswith("("):
                value = value[1:].removesuffix(")")
            elif value[:1] in ("'", '"') and value[-1:] == value[:1]:
                value = value[1:-1]
            value = self._filled(value)
            before = self._variables.get(name, "") + " " if more else ""
            if name not in self._given:
                self._variables[name] = (before + value)[:LONGEST]
            return
        if "--" in line or "$" in line:
            self.words += _split(self._filled(line))

    def _filled(self, value: str) -> str:
        """A text with variables and arithmetic put in; what nobody sets stays as it stands."""

        def variable(match: re.Match[str]) -> str:
            name = match[1] or match[4] or match[5]
            if name in self._variables:
                return self._variables[name]
            return match[3] if match[2] else match[0]

        def bare(match: re.Match[str]) -> str:
            return self._variables.get(match[0], match[0])

        value = WHOLE.sub(r"\1", value)
        for _ in range(8):
            before = value
            value = VARIABLE.sub(variable, value)
            value = ARITHMETIC.sub(lambda match: arithmetic(BARE.sub(bare, match[1])), value)
            if len(value) > LONGEST:
                raise InputError(f"{self.name}: variables make a text of more than {LONGEST:,} characters")
            if value == before:
                break
        return value


def _statements(source: str) -> list[str]:
    """Lines without comments, joined where they go on: behind a backslash, and inside brackets and quotes of an assignment."""
    found: list[str] = []
    held = ""
    for raw in source.splitlines():
        line = raw.rstrip()
        if line.lstrip().startswith("#"):
            continue
        line = re.sub(r"\s#\s.*$", "", line)
        goes_on = line.endswith("\\")
        held = f"{held} {line[:-1] if goes_on else line}" if held else line[:-1] if goes_on else line
        inside = ASSIGNMENT.match(held)
        value = inside[3].strip() if inside else ""
        opened = value[:1] == "(" and value.count("(") > value.count(")")
        quoted = value[:1] in ("'", '"') and value.count(value[:1]) % 2 == 1
        if goes_on or ((opened or quoted) and len(held) < LONGEST):
            continue
        found.append(held.strip())
        held = ""
    return [*found, held.strip()] if held.strip() else found


def _split(line: str) -> list[str]:
    """Words as a shell has them; on a line whose quotes do not close, as blanks part them. Blanks in arithmetic part none."""
    line = ARITHMETIC.sub(lambda match: f"$(({match[1].replace(' ', '')}))", line)
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def arithmetic(text: str) -> str:
    """The result of whole-number arithmetic, or the text itself where it is none."""
    try:
        return str(_whole(ast.parse(text.replace("$", "").strip(), mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return f"$(({text}))"


def _whole(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) < 10**12:
        return int(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_whole(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        found = OPERATIONS[type(node.op)](_whole(node.left), _whole(node.right))
        if abs(found) < 10**12:
            return found
    raise ValueError("no whole number")


def repeated(text: str, most: int = 10_000) -> list[int] | None:
    """The list of ``([0]*3+[1]*58)``, as Megatron-LM writes patterns of layers; None where the text is none."""
    try:
        return _list(ast.parse(text.strip().strip("'\""), mode="eval").body, most)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _list(node: ast.expr, most: int) -> list[int]:
    found: list[int] = []
    if isinstance(node, ast.List | ast.Tuple):
        found = [_whole(each) for each in node.elts]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        found = _list(node.left, most) + _list(node.right, most)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        items, times = _list(node.left, most), _whole(node.right)
        if len(items) * max(times, 0) > most:
            raise ValueError("too long")
        found = items * times
    else:
        raise ValueError("no list")
    if len(found) > most:
        raise ValueError("too long")
    return found
