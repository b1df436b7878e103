"""Puts what ``athanor fit all`` found into the catalogue: ``python benchmarks/constants.py out/fit/fit.json [--write]``.

Values, their sources and the intervals, in the files of all machines with the accelerator or fabric, and among the libraries.
Without ``--write`` it prints the lines that would change.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from pathlib import Path
from typing import Any

from athanor.hardware.machine import CATALOGUE, load_machine
from athanor.reports.studies.accuracy.libraries import TABLE

MEANING = "nine of ten measured steps over predicted ones"

NUMBER = r'(?P<value>"[^"]*"|[-+.\deE]+)'


def shown(value: float, before: str) -> str:
    """A value as the file writes it: a share in percent, a rate in GB/s, or a plain number."""
    if not before.startswith('"'):
        return f"{value:.4g}"
    return f'"{100 * value:.3g} %"' if "%" in before else f'"{value / 1e9:.4g} GB/s"'


def section(text: str, name: str) -> tuple[int, int]:
    """Where the lines of a table begin and end."""
    head = re.search(rf"^\[{re.escape(name)}\].*\n", text, re.MULTILINE)
    if not head:
        raise KeyError(name)
    after = re.search(r"^\[", text[head.end() :], re.MULTILINE)
    return head.end(), head.end() + after.start() if after else len(text)


def with_value(text: str, key: str, value: float) -> str:
    """The text of a machine file with another value at a dotted key."""
    *path, last = key.split(".")
    for depth in range(len(path), 0, -1):
        table, inline = ".".join(path[:depth]), path[depth:]
        if not re.search(rf"^\[{re.escape(table)}\]", text, re.MULTILINE):
            continue
        begin, end = section(text, table)
        line = rf"^{inline[0]} = \{{.*?\b{last} = {NUMBER}" if inline else rf"^{last} = {NUMBER}"
        found = re.search(line, text[begin:end], re.MULTILINE)
        if found:
            at, to = (begin + place for place in found.span("value"))
            return f"{text[:at]}{shown(value, found['value'])}{text[to:]}"
    raise KeyError(key)


def with_source(text: str, key: str, source: str) -> str:
    """The text with another source for a key; at the end of the sources where there was none."""
    line = f'"{key}" = {json.dumps(source, ensure_ascii=False)}'
    changed, count = re.subn(rf'^"{re.escape(key)}" = .*$', lambda _: line, text, flags=re.MULTILINE)
    return changed if count else f"{text.rstrip()}\n{line}\n"


def with_interval(text: str, intervals: dict[str, tuple[float, float]], source: str) -> str:
    """The text with intervals by kind of plan in place of its own."""
    text = re.sub(r"^\[interval(\.\w+)?\].*\n(?:[^\[\n].*\n)*\n?", "", text, flags=re.MULTILINE)
    lines = []
    for plan, (low, high) in intervals.items():
        head = f"[interval]  # {MEANING}" if plan == "dense" else f"[interval.{plan}]"
        lines += [head, f"low = {low:.3f}", f"high = {high:.3f}", ""]
    begin = re.search(r"^\[sources\]", text, re.MULTILINE)
    assert begin
    text = text[: begin.start()] + "\n".join(lines) + "\n" + text[begin.start() :]
    return with_source(text, "interval", source)


def changes(found: dict[str, Any]) -> dict[Path, str]:
    """The texts of files that change."""
    texts: dict[Path, str] = {}
    for fit in found["fits"]:
        if fit["kind"] == "library":
            text = texts.get(TABLE, TABLE.read_text())
            head, name, rest = text.partition(f'name = "{fit["name"]}"')
            for key, value in fit["values"].items():
                rest = re.sub(rf'("{re.escape(key)}" = )[-+.\deE]+', rf"\g<1>{value:.4g}", rest, count=1)
            texts[TABLE] = head + name + rest
            continue
        for machine in fit["machines"]:
            path = CATALOGUE / f"{machine}.toml"
            for key, value in fit["values"].items():
                text = with_value(texts.get(path, path.read_text()), key, value)
                texts[path] = with_source(text, key, fit["sources"][key])
    kinds: dict[str, dict[str, tuple[float, float]]] = {}
    for each in found["intervals"]:
        kinds.setdefault(each["accelerator"], {})[each["plan"]] = (each["low"], each["high"])
    for path in sorted(CATALOGUE.glob("*.toml")):
        kind = load_machine(path).core_group.accelerator
        if kind in kinds:
            runs, covers = found["leave_one_publication_out"]["all"]["rows"], 100 * found["coverage"]
            source = f"fitted: athanor fit all, split-conformal at 90 % over {runs} runs, each without its publication;"
            source += f" such intervals cover {covers:.0f} % of these"
            texts[path] = with_interval(texts.get(path, path.read_text()), kinds[kind], source)
    return texts


def main() -> None:
    """Print or write what changes."""
    found = json.loads(Path(sys.argv[1]).read_text())
    for path, text in changes(found).items():
        before = path.read_text()
        for line in difflib.unified_diff(
            before.splitlines(), text.splitlines(), path.name, path.name, n=0, lineterm=""
        ):
            print(line)
        if "--write" in sys.argv:
            path.write_text(text)


if __name__ == "__main__":
    main()
