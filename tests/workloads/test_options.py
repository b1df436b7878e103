"""Plan's fields are the one list of options: what is made from them says the same, and what they refuse they refuse clearly."""

from typing import Literal, get_args, get_origin, get_type_hints

import athanor
import click
import numpy as np
import pytest
from athanor.cli import cli
from athanor.hardware.errors import InputError
from athanor.workloads.plan.option import Group
from athanor.workloads.plan.plan import Plan
from athanor.workloads.plan.plan_options import PlanOptions

OPTIONS = Plan.options()
NAMES = list(OPTIONS)


def flags(command):
    """The options of a command by parameter name."""
    found = cli.get_command(click.Context(cli), command)
    return {param.name: param for param in found.params}


def test_every_field_is_an_option_with_a_meaning_and_a_group():
    assert [*Plan.__dataclass_fields__] == NAMES
    for option in OPTIONS.values():
        assert option.help.endswith((".", ")")) and option.help[0].isupper(), option.name
        assert option.group in get_args(Group)
        assert option.default_text(), f"{option.name}: a reader has to know what holds where nothing is said"


@pytest.mark.parametrize("command", ["simulate", "lower", "scale", "memory", "execute"])
def test_the_command_line_has_every_option(command):
    assert set(NAMES) <= set(flags(command))


def test_commands_with_fewer_options_have_those_that_mean_something_there():
    for command, chosen in (("plan", lambda each: each.fixable), ("infer", lambda each: each.inference)):
        theirs = {name for name, param in flags(command).items() if getattr(param, "of_plan", None)}
        assert theirs - {"global_batch"} == {each.name for each in OPTIONS.values() if chosen(each)} - {"global_batch"}


def test_the_types_are_those_of_the_fields():
    """In the same order, with every choice of a literal."""
    typed = get_type_hints(PlanOptions)
    assert list(typed) == NAMES
    for name, option in OPTIONS.items():
        kinds = get_args(typed[name])
        if get_origin(option.type) is Literal:
            allowed = {value for kind in kinds for value in get_args(kind)}
            assert {str(value) for value in allowed} == set(option.choices())
        elif name not in ("mesh", "placement"):
            assert option.type in kinds


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.default not in (None,)])
def test_defaults_are_values_that_are_allowed(name):
    option = OPTIONS[name]
    if name != "mesh":
        assert option.read(option.default) == option.default


@pytest.mark.parametrize("function", ["simulate", "lower", "scale", "plan", "execute", "infer"])
def test_help_tells_the_options(function):
    """Of ``plan`` and ``infer`` those that they take."""
    text = getattr(athanor, function).__doc__
    chosen = {
        "plan": lambda each: each.fixable,
        "infer": lambda each: each.inference,
        "execute": lambda each: not each.simulated_only,
    }.get(function, lambda each: True)
    told = [line.strip().partition(":")[0] for line in text.splitlines() if line.startswith("  ")]
    for option in OPTIONS.values():
        assert (option.name in told) == chosen(option), option.name


WRONG = [
    ("top_k", 0, "--top-k 0: must be above 0"),
    ("top_k", "2", "--top-k 2: must be a whole number"),
    ("top_k", 2.5, "--top-k 2.5: must be a whole number"),
    ("top_k", True, "--top-k True: must be a whole number"),
    ("jitter", 1, "--jitter 1: must be from 0 to below 1"),
    ("jitter", float("nan"), "--jitter nan: must be from 0 to below 1"),
    ("drift", 1.5, "--drift 1.5: must be from 0 to 1"),
    ("steps", 0, "--steps 0: must be above 0"),
    ("sequence_parallel", "yes", "--sequence-parallel yes: must be true or false"),
    ("tensor", "3d", "--tensor 3d: no such choice (1d, 2d)"),
    ("router", 1.5, "--router 1.5: must be a text"),
    ("mesh", 4, "--mesh 4: must be a text such as ep=400,dp=240, or sizes by axis"),
    ("mesh", "ep=2,ep=2", "--mesh ep=2,ep=2: write axis=size,..., each axis once, for example ep=400,dp=240"),
    ("mesh", {"ep": 2.5}, "--mesh ep=2.5: must be a whole number"),
    ("placement", 3, "--placement 3: must be a text such as megatron or ep=supernode,dp=node, or levels by axis"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=lambda value: str(value))
def test_a_wrong_value_is_one_line(name, value, message):
    model = athanor.load_model("moda-tiny")
    with pytest.raises(InputError) as refused:
        Plan.of(model, {"mesh": {"ep": 2}, name: value})
    assert str(refused.value) == message


def test_an_option_that_is_none_names_the_nearest():
    with pytest.raises(InputError, match=r"^--sequence-paralel: no such option; did you mean sequence_parallel\?"):
        athanor.simulate("cluster-64", "moda-tiny", sequence_paralel=True)  # type: ignore[call-arg]


def test_a_plan_made_by_hand_is_checked_as_well():
    assert Plan(mesh="ep=2,dp=2").mesh == {"ep": 2, "dp": 2}
    with pytest.raises(InputError, match="--steps 0"):
        Plan(mesh={"dp": 2}, steps=0)


def test_meshes_and_placements_are_the_same_as_text_and_by_axis():
    model = athanor.load_model("moda-tiny")
    text = Plan.of(model, {"mesh": "ep=2,dp=4", "placement": "ep=supernode,dp=node"})
    by_axis = Plan.of(model, {"mesh": {"ep": np.int64(2), "dp": 4}, "placement": {"ep": "supernode", "dp": "node"}})
    assert text.mesh == by_axis.mesh
    runs = [
        athanor.simulate("cluster-64", "moda-tiny", **plan.to_plain()).summary()["step_seconds"]
        for plan in (text, by_axis)
    ]
    assert runs[0] == runs[1]


def test_a_plan_as_plain_data_makes_the_same_plan():
    model = athanor.load_model("moda-tiny")
    plan = Plan.of(model, {"mesh": "ep=2,dp=2", "zero": 1, "jitter": 0.1})
    assert Plan.of(model, plan.to_plain()) == plan
    assert plan.changed(steps=3) == Plan.of(model, {**plan.to_plain(), "steps": 3})
