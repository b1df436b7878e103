"""Small mistakes that can be made in a source file: where, and what the text would be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
    ast.Lt: (ast.LtE,),
    ast.LtE: (ast.Lt,),
    ast.Gt: (ast.GtE,),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
NAMES = {"max": "min", "min": "max", "sum": "max", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil"}
SYMMETRIC = {"max", "min", "maximum", "minimum"}
"""Functions that do not mind in which order their arguments come."""

UNTOUCHED = {"__str__", "__repr__", "_text"}
"""What only people read."""

BLANK = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)
"""Nothing inside these is changed: messages, and what must be there at all."""


@dataclass(frozen=True)
class Mutant:
    """One change: a span of a file, what stands there and what would."""

    path: str
    line: int
    start: int
    end: int
    before: str
    after: str
    kind: str
    at_import: bool = False

    @property
    def key(self) -> str:
        """Names it in a list of results, for as long as the file is as it is."""
        return f"{self.path}:{self.line}:{self.start}:{self.before} -> {self.after}"

    def applied(self, source: bytes) -> bytes:
        """The file's text with the change."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants(root: Path, path: Path) -> list[Mutant]:
    """All that can be changed in a file, in the order in which it stands there."""
    source = path.read_bytes()
    tree = ast.parse(source)
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found = []
    for node, new, kind, at_import in _walk(tree, False):
        start = lines[node.lineno - 1] + node.col_offset
        end = lines[node.end_lineno - 1] + node.end_col_offset
        before, after = source[start:end].decode(), new
        if after != before:
            name = path.relative_to(root).as_posix()
            found.append(Mutant(name, node.lineno, start, end, before, after, kind, at_import))
    return found


def _walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, str, str, bool]]:
    """Changes of a node and of what is in it: (node, new text, kind, whether it runs when the module is imported)."""
    if isinstance(node, ast.Module | ast.ClassDef):
        for each in node.body:
            yield from _walk(each, True)
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.name in UNTOUCHED:
            return
        for default in [*node.args.defaults, *(each for each in node.args.kw_defaults if each)]:
            yield from _walk(default, True)
        for each in node.body:
            yield from _walk(each, False)
        return
    if isinstance(node, BLANK):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.AnnAssign):
        if node.value is not None:
            yield from _walk(node.value, at_import)
        return
    for new, kind in _changes(node):
        yield node, new, kind, at_import
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "slice") or (
            field == "func" and isinstance(value, ast.Name)
        ):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from _walk(each, at_import)


def _changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case ast.BinOp(left, op, right) if not _text(left) and not _text(right):
            for other in SWAPS.get(type(op), ()):
                yield _unparsed(ast.BinOp(left, other(), right)), "operator"
        case ast.AugAssign(target, op, value):
            for other in SWAPS.get(type(op), ()):
                yield ast.unparse(ast.AugAssign(target, other(), value)), "operator"
        case ast.BoolOp(op, values):
            for other in SWAPS[type(op)]:
                yield _unparsed(ast.BoolOp(other(), values)), "operator"
        case ast.Compare(left, [op], [right]):
            for other in SWAPS.get(type(op), ()):
                yield _unparsed(ast.Compare(left, [other()], [right])), "comparison"
        case ast.UnaryOp(ast.Not(), operand):
            yield _unparsed(operand), "condition"
        case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
            yield _unparsed(operand), "operator"
        case ast.IfExp(test, body, other):
            yield _unparsed(ast.IfExp(test, other, body)), "condition"
        case ast.Constant(bool() as value):
            yield str(not value), "constant"
        case ast.Constant(int() as value):
            yield str(value + 1), "constant"
        case ast.Constant(float() as value):
            yield repr(value * 2 if value else 1.0), "constant"
        case ast.Expr(ast.Call()):
            yield "pass", "dropped call"
        case ast.Call(func, args, keywords):
            if isinstance(func, ast.Name) and func.id in NAMES:
                yield ast.unparse(ast.Call(ast.Name(NAMES[func.id]), args, keywords)), "function"
            symmetric = ast.unparse(func).removeprefix("np.") in SYMMETRIC
            if len(args) >= 2 and not symmetric and not any(isinstance(each, ast.Starred) for each in args[:2]):
                yield ast.unparse(ast.Call(func, [args[1], args[0], *args[2:]], keywords)), "swapped arguments"
            for each in keywords:
                if each.arg:
                    rest = [other for other in keywords if other is not each]
                    yield ast.unparse(ast.Call(func, args, rest)), "dropped argument"


def _unparsed(node: ast.AST) -> str:
    return f"({ast.unparse(node)})"


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
