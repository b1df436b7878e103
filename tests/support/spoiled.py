"""Files that are wrong in the ways that files are: Hypothesis's strategies, and what must hold of whoever reads one."""

import gzip
import json
import os
import re
import resource
import signal
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import tomli_w
import yaml
from athanor import AthanorError
from athanor.hardware.errors import LONGEST
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

CASES = int(os.environ.get("FUZZ", "20"))
"""Files that are tried of each kind."""

FUZZED = {
    "max_examples": CASES,
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],  # the file that is stumbled over is small, and is kept in the test's folder
    "suppress_health_check": [*HealthCheck],
}
"""Settings of Hypothesis."""

SECONDS = 10
"""Of processor time, in which a file of a few kilobytes is read or refused."""

ROOM = 2**30
"""Bytes that reading one may take."""

NUMBERS = [
    "-1", "0", "0.5", "1e999", "-1e308", "NaN", "Infinity", "9" * 30, "9" * 5000, "1_000", "0x10", "010", "½", "١", "1e-320", "10**99",
]  # fmt: skip
WORDS = [
    "", "null", "true", "None", "auto", "{", "}", "[", "]", "(", ")", '"', "'", "\\", "\n", "\t", "#", "*", "&a", "\u202e", "\x1b[31m", "é" * 9,
    "!!python/object:os.system x", "<!ENTITY a 'b'>", "&a;", "$X", "${A[@]}", "$(touch x)", "$((1/0))", "$((9**9**9**9))", "$((", "(((",
    "n[1-999999999]", "a[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]", "([0]*999999999+[1]*7)", "1/0", "../../etc/passwd", "x" * 5000,
    "module:Class", "os:system", "inf", "-", "--", "=", ":", ",", "%s", "{0}", "\x00", "\r", "\ufeff",
]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 10**30, -(10**400), 1e308, 5e-324, float("nan"), float("inf"), -float("inf"), "", "1", "a", "auto", "é\n",
    [], {}, [[]], [None], {"": 0}, [1, "a", None], {"a": {"b": {"c": []}}}, "x" * 3000, list(range(300)),
]  # fmt: skip

hostile = st.sampled_from(NUMBERS + WORDS)
value = st.one_of(st.sampled_from(VALUES), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=8))


def places(tree, most=400):
    """(container, key) of what is in a tree, from the outside inwards."""
    found, waiting = [], [tree]
    while waiting and len(found) < most:
        each = waiting.pop(0)
        keys = [*each] if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        found += [(each, key) for key in keys]
        waiting += [each[key] for key in keys]
    return found


def nested(depth, kind):
    """A value that nests deep, as a list or a table."""
    found = 0
    for _ in range(depth):
        found = [found] if kind else {"a": found}
    return found


@st.composite
def changed(draw, tree):
    """A copy of a tree of which keys are dropped, renamed, or have other values: of another type, huge, no numbers, nested, others'."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        every = places(tree)
        if not every:
            break
        inside, key = every[draw(st.integers(0, len(every) - 1))]
        what = draw(
            st.sampled_from(["drop", "value", "value", "value", "number", "rename", "nest", "other", "wrap", "double"])
        )
        if what == "drop":
            del inside[key]
        elif what == "rename" and isinstance(inside, dict):
            inside[draw(st.one_of(hostile, st.just(str(key) + "s")))] = inside.pop(key)
        elif what == "nest":
            inside[key] = nested(draw(st.sampled_from([3, 30, 200])), draw(st.booleans()))
        elif what == "other":
            other, name = every[draw(st.integers(0, len(every) - 1))]
            inside[key] = json.loads(
                json.dumps(other.get(name) if isinstance(other, dict) else other[name] if name < len(other) else None)
            )
        elif what == "wrap":
            inside[key] = [inside[key]]
        elif what == "double" and isinstance(inside, list):
            inside.insert(key, inside[key])
        elif what == "number" and isinstance(inside[key], int | float) and abs(inside[key]) < 1e300:
            inside[key] = float(inside[key]) * draw(st.sampled_from([-1, 0, 0.5, 3, 1e6, 1e300]))
        else:
            inside[key] = deepcopy(draw(value))
    return tree


@st.composite
def cut(draw, text):
    """A text of which lines and words are dropped, doubled, exchanged, or others; or that ends early."""
    for _ in range(draw(st.integers(0, 3))):
        what = draw(st.sampled_from(["line", "lines", "word", "word", "word", "piece", "end", "many", "key", "deep"]))
        if what in ("line", "lines"):
            lines = text.split("\n")
            at, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
            lines[at : at + 1] = draw(st.sampled_from([[], [lines[at]] * 2, [lines[other]], [lines[at]] * 200]))
            text = "\n".join(lines)
        elif what == "word":
            words = [each.span() for each in re.finditer(r"[\w.+-]+|[^\w\s]", text[:20000])]
            if words:
                begin, end = words[draw(st.integers(0, len(words) - 1))]
                text = text[:begin] + draw(hostile) + text[end:]
        elif what == "piece":
            begin = draw(st.integers(0, len(text)))
            end = draw(st.integers(begin, min(len(text), begin + 60)))
            text = (
                text[:begin]
                + draw(st.one_of(hostile, st.text(max_size=12)))
                + draw(st.sampled_from(["", text[begin:end]]))
                + text[end:]
            )
        elif what == "end":
            text = text[: draw(st.integers(0, len(text)))]
        elif what == "many":
            begin = draw(st.integers(0, len(text)))
            text = text[:begin] + text[begin : begin + draw(st.integers(1, 40))] * 500 + text[begin:]
        elif what == "key":  # twice the same, which JSON and tables of TOML must not have
            found = re.search(r'"(\w+)"\s*:', text[draw(st.integers(0, len(text))) :]) or re.search(
                r'"(\w+)"\s*:', text
            )
            text = text.replace("{", f'{{"{found[1]}": {draw(hostile) or 0}, ', 1) if found else text
        else:
            begin = draw(st.integers(0, len(text)))
            text = (
                text[:begin]
                + draw(st.sampled_from(["[", "{", '{"a":', "(", "<object>", "- ", "a = [", "[[a."])) * 3000
                + text[begin:]
            )
    return text


ENCODINGS = ["utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037"]


@st.composite
def spoiled(draw, samples):
    """The bytes of a file: of one of the samples (texts, or trees with how they are written), wrong in some way, or of anything."""
    sample = draw(st.sampled_from(samples))
    if draw(st.integers(0, 40)) == 0:
        return draw(st.binary(max_size=60))
    if isinstance(sample, bytes):
        sample = bytearray(sample)
        for _ in range(draw(st.integers(1, 4))):
            begin = draw(st.integers(0, len(sample)))
            end = draw(st.integers(begin, min(len(sample), begin + 20)))
            sample[begin:end] = draw(
                st.one_of(st.binary(max_size=8), st.just(bytes(sample[begin:end]) * 2), st.just(b"\xff" * 10))
            )
        return bytes(sample[: draw(st.sampled_from([len(sample), len(sample), len(sample) // 2]))])
    if isinstance(sample, str):
        text = draw(cut(sample))
    else:
        written, tree = sample
        text = WRITTEN[written](draw(changed(tree)))
        if draw(st.booleans()):
            text = draw(cut(text))
    content = text.encode(errors="surrogatepass")
    how = draw(st.integers(0, 30))
    if how < len(ENCODINGS):
        content = text.encode(ENCODINGS[how], errors="replace")
    elif how == 6:
        packed = gzip.compress(content, 1)
        content = packed[: draw(st.integers(0, len(packed)))]
    return content


def _toml(tree):
    """As TOML, of which what it has no word for is left out."""

    def plain(each):
        if isinstance(each, dict):
            return {str(key): plain(inner) for key, inner in each.items() if inner is not None}
        if isinstance(each, list):
            return [plain(inner) for inner in each if inner is not None]
        return each

    try:
        return tomli_w.dumps(plain(tree) if isinstance(tree, dict) else {"a": plain(tree)})
    except (RecursionError, ValueError):
        return "a = " + "[" * 3000


WRITTEN = {"json": json.dumps, "toml": _toml, "yaml": lambda tree: yaml.safe_dump(tree, width=200)}


class Endless(Exception):
    """It took more processor time than a small file may."""


@contextmanager
def bounds():
    """Little time and memory: beyond them :class:`Endless` and ``MemoryError`` are raised, which nobody who reads may catch."""

    def over(*_):
        raise Endless

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, over)
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, before[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def read_or_refused(read, file):
    """What is read of a file, None where it is refused: then in one line, within bounds of time and memory, and in no other way."""
    with bounds():
        try:
            return read(file)
        except AthanorError as wrong:
            said = str(wrong)
    assert said
    assert "\n" not in said
    assert len(said) <= LONGEST
    return None
