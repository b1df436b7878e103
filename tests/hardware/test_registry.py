"""Registries: names, a user's own by module and class, plug-ins of installed packages; and what is said where they are not there."""

import importlib.metadata
import sys

import numpy as np
import pytest
from athanor import simulate
from athanor.hardware.errors import InputError
from athanor.hardware.registry import Policy, Registry
from athanor.sim.network.network_models import SHARING
from athanor.workloads.collectives import ALGORITHMS
from athanor.workloads.optimizers import OPTIMIZERS
from athanor.workloads.pipelines import PIPELINES
from athanor.workloads.routing.balancers import BALANCERS, Balancer
from athanor.workloads.routing.routers import ROUTERS, Router

OVERFLOW = '''
import numpy as np
from athanor.workloads.optimizers import OPTIMIZERS
from athanor.workloads.routing.balancers import Balancer, Carried


class Halved(Balancer):
    """Half of what is wanted is dropped."""

    def carry(self, wanted, tokens):
        every = wanted.sum(axis=0)
        return Carried(every // 2, moved=np.zeros(len(every), dtype=int), dropped=(every - every // 2).sum(axis=-1))


class Partly(Halved):
    def __init__(self, share):
        self.share = share

    @classmethod
    def parse(cls, argument):
        if not argument.isdigit():
            raise ValueError("takes a whole number")
        return cls(int(argument))


class Unfinished(Balancer):
    pass


class Bare:
    level = False

    def carry(self, wanted, tokens):
        return Halved().carry(wanted, tokens)

    def operations(self, ranks, tokens, top_k):
        yield from ()

    pairs = Balancer.pairs


class Other:
    level = False


not_a_class = Halved()
'''

ALL = {
    "balancer": BALANCERS,
    "router": ROUTERS,
    "pipeline": PIPELINES,
    "sharing": SHARING,
    "optimizer": OPTIMIZERS,
    **ALGORITHMS,
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module in the working directory, which is not on Python's path."""
    (tmp_path / "own_policies.py").write_text(OVERFLOW)
    (tmp_path / "own_broken.py").write_text("def (")
    (tmp_path / "own_needs.py").write_text("import nothing_of_that_name")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    yield
    for name in ("own_policies", "own_broken", "own_needs"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("kind", ALL)
def test_every_name_has_a_line_and_can_be_found(kind):
    registry = ALL[kind]
    assert list(registry)
    for name, about in registry.abouts():
        assert about
        if name not in ("table", "trace"):  # which say nothing without their argument
            assert registry.find(name) is not None
    assert registry.names()[: len(registry)] == list(registry)


@pytest.mark.parametrize("kind", ALL)
def test_an_unknown_name_is_refused_with_the_nearest(kind):
    name = next(iter(ALL[kind]))
    with pytest.raises(InputError) as caught:
        ALL[kind].find(f"{name}x")
    assert str(caught.value).startswith(f"{ALL[kind].flag} {name}x: no such {ALL[kind].kind} (")
    assert f"did you mean {name}?" in str(caught.value)
    with pytest.raises(KeyError):
        ALL[kind][f"{name}x"]


def test_registries_cannot_be_changed_from_outside():
    with pytest.raises(TypeError):
        BALANCERS["mine"] = BALANCERS["none"]
    given = {"a": Policy}
    registry = Registry("thing", given)
    given["b"] = Policy
    assert list(registry) == ["a"]


@pytest.mark.parametrize("name", ["Halved", "Bare", "not_a_class", "Partly:3"])
def test_a_users_own_is_found_by_module_and_class(own, name):
    found = BALANCERS.find(f"own_policies:{name}")
    carried = found.carry(np.full((1, 2, 4), 10), 10)
    assert (carried.tokens == 5).all()
    assert getattr(found, "share", 3) == 3
    assert not isinstance(found, type)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "swip",
            "no such balancer (none, capacity, padded, swipe, even, expert-choice, eplb, shadow); did you mean swipe?",
        ),
        (
            "swip:1.5",
            "no such balancer (none, capacity, padded, swipe, even, expert-choice, eplb, shadow); did you mean swipe?",
        ),
        ("swip:Mine", "did you mean swipe?; nor is there a module swip"),
        (
            "no.such:Mine",
            "no such balancer (none, capacity, padded, swipe, even, expert-choice, eplb, shadow); nor is there a module no",
        ),
        ("own_policies:Halfed", "module own_policies has no Halfed"),
        ("own_policies:Halfed", "did you mean Halved?"),
        ("own_policies:Other", "own_policies:Other is no balancer: it has no carry, pairs, operations"),
        ("own_policies:Halved:2", "Halved takes no argument"),
        ("own_policies:Bare:2", "Bare takes no argument"),
        ("own_policies:Partly:x", "Partly takes a whole number"),
        ("own_policies:Unfinished", "abstract"),
        ("own_broken:Mine", "module own_broken cannot be imported: SyntaxError"),
        ("own_needs:Mine", "module own_needs cannot be imported: No module named 'nothing_of_that_name'"),
        ("capacity:-1", "capacity takes a capacity factor above zero"),
        ("capacity:", None),
    ],
)
def test_what_is_wrong_is_one_line(own, text, message):
    if message is None:
        assert BALANCERS.find(text) == BALANCERS["capacity"]
        return
    with pytest.raises(InputError) as caught:
        BALANCERS.find(text)
    assert str(caught.value).startswith(f"--balancer {text}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class _Popular(Policy):
    def shares(self, experts, step):
        return np.eye(1, experts)[0]


def test_installed_packages_name_theirs_by_entry_points(monkeypatch):
    here = f"{__name__}:_Popular"
    points = {
        "athanor.routers": [("popular", here), ("broken", "no_such_module:Mine"), ("wrong", f"{__name__}:OVERFLOW")]
    }

    def entry_points(group):
        return [importlib.metadata.EntryPoint(name, value, group) for name, value in points.get(group, [])]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry = Registry("router", {"uniform": ROUTERS["uniform"]}, interface=Router)
    assert registry.group == "athanor.routers"
    assert registry.names() == ["uniform", "popular", "broken", "wrong"]
    assert registry.find("popular").shares(4, 0).tolist() == [1, 0, 0, 0]
    with pytest.raises(InputError, match=r"--router broken: the plug-in no_such_module:Mine cannot be loaded"):
        registry.find("broken")
    with pytest.raises(InputError, match=r"is no router: it has no shares"):
        registry.find("wrong")
    assert all(about for _, about in registry.abouts())


def test_a_users_balancer_and_router_are_simulated(own):
    options = {"mesh": {"ep": 4, "dp": 2}, "router": "zipf:1.0"}
    run = simulate("cluster-64", "moda-tiny", balancer="own_policies:Halved", **options)
    assert run.summary()["load_balance"]["dropped_fraction"] == pytest.approx(0.5, abs=0.01)
    plain = simulate("cluster-64", "moda-tiny", balancer="none", **options)
    assert run.summary()["step_seconds"] < plain.summary()["step_seconds"]
    assert issubclass(type(BALANCERS.find("own_policies:Halved")), Balancer)
