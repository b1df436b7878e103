"""Completion in bash, zsh and fish: what the page tells to put into the start-up file works, and what it offers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from athanor.cli.doctor.surroundings import LINES
from support.command_line import athanor
from support.paths import ROOT

BEGUN = "athanor simulate --machine su"
OFFERED = ["sunway-oceanlight", "sunway-taihulight"]


def offered(shell, words, monkeypatch):
    """What is offered for the last of some words: as the shell's function asks for it, and reads it."""
    monkeypatch.setenv("_ATHANOR_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", words.split(" ")[-1] if shell == "fish" else str(words.count(" ")))
    lines = [line for line in athanor().stdout.splitlines() if line]
    if shell == "zsh":  # kind, name and what it is, a line each
        assert {*lines[::3]} <= {"plain", "file"}
        return lines[1::3]
    assert all(line.startswith(("plain,", "file,")) for line in lines)
    return [line.partition(",")[2].partition("\t")[0] for line in lines]


@pytest.mark.parametrize("shell", LINES)
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (BEGUN, OFFERED),
        ("athanor doc", ["doctor"]),
        ("athanor simulate --balancer sw", ["swipe"]),
        ("athanor simulate --mod", ["--model"]),
        ("athanor show ma", ["machine"]),
        ("athanor import hu", []),
        ("athanor import me", ["megatron"]),
    ],
)
def test_commands_options_and_names_are_offered(shell, words, names, monkeypatch):
    assert offered(shell, words, monkeypatch) == names


def test_the_page_has_the_lines_of_all_shells():
    text = (ROOT / "docs" / "howto" / "complete-in-the-shell.md").read_text().replace("\\|", "|")
    told = {
        shell: (file, line) for shell, file, line in re.findall(r"^\| (\w+)[^|]*\| `~/(\S+)` \| `(.*)` \|$", text, re.M)
    }
    assert told == LINES


ASK = {
    "bash": """{line}
COMP_WORDS=({words}); COMP_CWORD=3; complete -p athanor >/dev/null && _athanor_completion athanor && printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "fish": "{line}\ncomplete --do-complete '{words}'\n",
    # compadd works only while zle waits for a key: what the function would add is printed instead
    "zsh": """autoload -Uz compinit; compinit -u -D
{line}
(( $+functions[_athanor_completion] )) && [[ $_comps[athanor] == _athanor_completion ]] || exit 1
compadd() {{ while [[ $1 == -* ]]; do [[ $1 == -- ]] && {{ shift; break; }}; shift; done; print -l -- "${{(P@)1}}" 2>/dev/null || print -l -- "$@"; }}
_describe() {{ print -l -- "${{(P@)3}}"; }}
words=({words}); CURRENT=4; _athanor_completion
""",
}


@pytest.mark.parametrize("shell", LINES)
def test_the_line_works_in_the_shell(shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    script = tmp_path / "script"
    script.write_text(ASK[shell].format(line=LINES[shell][1], words=BEGUN))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    bare = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run([program, *bare, script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.split()] == OFFERED
