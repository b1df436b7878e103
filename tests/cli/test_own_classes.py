"""A user's own classes that do not do what their kind must: one line that says which and what, never a traceback or a number."""

import sys

import pytest
from athanor.cli import main

OWN = """
import sys
import numpy as np
from athanor.workloads.pipelines import PIPELINES
from athanor.workloads.pipelines.pipeline import Pipeline
from athanor.workloads.routing.balancers import Balancer, Carried, Unbalanced
from athanor.workloads.routing.routers import Router


def nothing(wanted):
    return np.zeros(wanted.shape[1], dtype=int)


class Raises(Balancer):
    def carry(self, wanted, tokens):
        return {}["absent"]


class Loses(Balancer):
    def carry(self, wanted, tokens):
        return Carried(wanted.sum(axis=0) // 2, nothing(wanted), nothing(wanted))


class Borrows(Balancer):
    def carry(self, wanted, tokens):
        every = wanted.sum(axis=0)
        every[:, 0], every[:, 1] = every[:, 0] - 10**9, every[:, 1] + 10**9
        return Carried(every, nothing(wanted), nothing(wanted))


class Unsure(Balancer):
    def carry(self, wanted, tokens):
        return Carried(wanted.sum(axis=0) * np.nan, nothing(wanted), nothing(wanted))


class Flat(Balancer):
    def carry(self, wanted, tokens):
        return Carried(wanted.sum(axis=(0, 1)), nothing(wanted), nothing(wanted))


class Forgets(Balancer):
    def carry(self, wanted, tokens):
        pass


class Pretends(Unbalanced):
    level = True


class Talks(Unbalanced):
    def operations(self, ranks, tokens, top_k):
        yield "counts"


class Leaves(Unbalanced):
    @classmethod
    def parse(cls, argument):
        sys.exit(7)


class Stumbles(Unbalanced):
    def __init__(self):
        raise RuntimeError("no licence\\nfound")


class Empty(Unbalanced):
    @classmethod
    def parse(cls, argument):
        pass


class Double(Router):
    def shares(self, experts, step):
        return np.full(experts, 2.0)


class Short(Router):
    def shares(self, experts, step):
        return [0.5, 0.5]


class Below(Router):
    def shares(self, experts, step):
        return np.array([2.0, -1.0, 0.0, 0.0])


class Idle(Pipeline):
    name, about = "idle", "does nothing"

    def orders(self, stages, micro_batches, chunks=1):
        return [[] for _ in range(stages)]


class Hasty(Idle):
    def orders(self, stages, micro_batches, chunks=1):
        return [order[:-1] for order in PIPELINES["gpipe"].orders(stages, micro_batches)]


class Lonely(Idle):
    def orders(self, stages, micro_batches, chunks=1):
        return PIPELINES["gpipe"].orders(1, micro_batches)


class Absent(Idle):
    def orders(self, stages, micro_batches, chunks=1):
        pass


class Backwards(Idle):
    def orders(self, stages, micro_batches, chunks=1):
        return [order[::-1] for order in PIPELINES["gpipe"].orders(stages, micro_batches)]
"""

MOE = ["--model", "moda-tiny", "--mesh", "ep=4,dp=2"]
DENSE = ["--model", "gpt-tiny", "--mesh", "pp=2", "--global-batch", "4", "--micro-batch", "1"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module in the working directory."""
    (tmp_path / "own_mistakes.py").write_text(OWN)
    (tmp_path / "own_exit.py").write_text("import sys; sys.exit(5)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_mistakes", "own_exit"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("balancer", "Raises", "own_mistakes.py, line 16, in carry: KeyError: 'absent'"),
        (
            "balancer",
            "Loses",
            "tokens that a group of 4 ranks wants carried: the two must sum to these",
        ),
        ("balancer", "Borrows", "Borrows.carry gives -"),
        ("balancer", "Unsure", "Unsure.carry gives nan tokens, must be counts from 0 on"),
        ("balancer", "Flat", "Flat.carry gives tokens of shape (4,), must be (2, 4)"),
        ("balancer", "Forgets", "Forgets.carry gives NoneType, must give Carried"),
        ("balancer", "Pretends", "Pretends.carry gives ranks different loads, though the class says level = True"),
        ("balancer", "Talks", "Talks.operations gives 'counts', must give (name, work)"),
        ("balancer", "Leaves", "--balancer own_mistakes:Leaves: cannot be made: SystemExit: 7"),
        ("balancer", "Stumbles", "--balancer own_mistakes:Stumbles: cannot be made: RuntimeError: no licence found"),
        ("balancer", "Empty", "what Empty makes is no balancer"),
        ("router", "Double", "Double.shares(4, 0) gives shape (4,), from 2, sum 8"),
        ("router", "Short", "Short.shares(4, 0) gives shape (2,)"),
        ("router", "Below", "Below.shares(4, 0) gives shape (4,), from -1"),
        ("pipeline", "Idle", "orders(2, 4, 1) gives 2 stages, 1 micro-batches, 1 chunks"),
        ("pipeline", "Hasty", "stage 0 has no B3"),
        ("pipeline", "Lonely", "gives 1 stages, 4 micro-batches, 1 chunks"),
        ("pipeline", "Absent", "must give a list of Slots for each stage"),
        ("pipeline", "Backwards", "stages wait for each other"),
    ],
)
def test_what_a_users_class_does_wrong_is_one_line(own, flag, text, message, monkeypatch, capsys):
    what = DENSE if flag == "pipeline" else [*MOE, "--balancer", "none", "--router", "zipf:1.0"]
    given = ["simulate", "--machine", "cluster-64", *what, f"--{flag}", f"own_mistakes:{text}", "--out", "results"]
    monkeypatch.setattr(sys, "argv", ["athanor", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert message in told
    assert told.startswith("athanor: ") and told.count("\n") == 1
    assert not (own / "results").exists()


def test_a_module_that_exits_is_not_the_end(own, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["athanor", "simulate", "--machine", "cluster-64", *MOE, "--balancer", "own_exit:Mine"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "module own_exit cannot be imported: SystemExit: 5" in capsys.readouterr().err
