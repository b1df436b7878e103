"""Every command that a page tells people to type is executed by a test, by ``make howtos``, or nowhere for a reason."""

import json
import re
import tomllib
from textwrap import dedent

import pytest
from support.paths import ROOT
from support.scripts import script

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.fixture(scope="module")
def howtos():
    return script("docs/howtos.py")


def test_every_line_of_code_that_begins_like_a_command_is_one(howtos):
    """So that none is overlooked: words of the shell that are not yet known to begin a command would show here."""
    known = (*howtos.STARTS, "#SBATCH")
    for page in howtos.pages():
        text = re.sub(r"^```(?!sh).*?^```$", "", (ROOT / page).read_text().replace("\\\n", " "), flags=re.M | re.S)
        for line in re.findall(r"^    (?! )(.+)$", text, re.MULTILINE):
            if re.match(r"[\w.-]+( .*)? (--?\w|[\w./-]+\.(toml|json))", line) and ": " not in line:
                assert line.startswith(known), f"{page}: {line}"


def test_every_page_with_commands_is_executed_somewhere(howtos):
    pages = howtos.pages()
    assert {"README.md", "docs/howto/train.md", "docs/formats/memory.md"} <= {*pages}
    for pattern, tests in howtos.BY_TESTS.items():
        assert [page for page in pages if howtos.fnmatch(page, pattern)], pattern
        for test in re.findall(r"tests/[\w/]+\.py", tests):
            assert (ROOT / test).exists()
    every = [command for page in pages for command in howtos.commands(page)]
    for begin, why in howtos.LEFT_OUT.items():
        assert why and [command for command in every if command.startswith(begin)], begin
    mine = [command for page in pages if not howtos.by_tests(page) for command in howtos.commands(page)]
    assert len(mine) > 40
    for long in howtos.SMALLER:
        assert [command for command in mine if long in command], f"no page has {long}"
    assert {*howtos.STATUS} <= {*mine}
    for page in (*howtos.MADE, *howtos.FILES):
        assert page in pages


def test_commands_of_a_page_are_executed_and_failures_told(howtos, monkeypatch):
    page = "docs/formats/memory.md"
    assert len(howtos.commands(page)) == 2
    assert list(howtos.execute(page)) == [(command, "") for command in howtos.commands(page)]
    monkeypatch.setattr(
        howtos, "commands", lambda page: ["athanor memory --machine nowhere --model moda-tiny", "pip install x"]
    )
    ((_, why),) = howtos.execute(page)
    assert re.match("failed: status 2: athanor: .*nowhere", why)
    assert howtos.main([page]) == 1
    monkeypatch.setattr(howtos, "missing_here", lambda command: "no network namespaces")
    ((_, why),) = howtos.execute(page)
    assert why == "not executed: no network namespaces"


def python(text):
    """Statements, or entries of a dictionary."""
    try:
        compile(dedent(text), "a page", "exec")
    except SyntaxError:
        compile(f"{{{text}}}", "a page", "eval")


def json_or_lines_of_it(text):
    try:
        json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line)


READERS = {"python": python, "toml": tomllib.loads, "json": json_or_lines_of_it}
OTHERS = ("", "sh", "bash", "diff", "csv")
"""Languages of blocks; what a program prints has none."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_code_are_of_their_language(page):
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        assert language in (*READERS, *OTHERS), language
        READERS.get(language, str)(text)


@pytest.mark.parametrize(("language", "text"), [("python", "def f(:\n"), ("toml", "a = \n"), ("json", "{,}")])
def test_blocks_that_are_wrong_would_be_found(language, text):
    with pytest.raises((SyntaxError, ValueError)):
        READERS[language](text)
