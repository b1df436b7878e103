"""The space of plans: meshes against every tuple of sizes, choices against each other, and what narrows it."""

import re
from itertools import product
from math import prod

import pytest
from athanor.hardware.errors import InputError
from athanor.sim.planning.space import OUTERMOST_FIRST, Space, divisors_of, placements
from athanor.workloads.pipelines import PIPELINES
from hypothesis import given
from hypothesis import strategies as st
from support.small_searches import FEW, asked, sized


@given(st.integers(1, 500))
def test_divisors_rise_and_are_all(number):
    assert divisors_of(number) == [part for part in range(1, number + 1) if number % part == 0]


EXPERTS = sized("moda-tiny", experts=6)


@pytest.mark.parametrize(
    ("model", "gpus", "tries", "options"),
    [
        (sized(), 8, (), {}),
        (sized(), 1, (), {}),
        (sized(heads=4), 32, (), {}),
        (sized(layers=5), 8, (), {}),
        (sized(layers=6), 16, (), {"stage_layers": "ends"}),
        (sized(heads=4), 32, ("tensor=1d,2d",), {}),
        (sized(heads=4), 32, (), {"tensor": "2d"}),
        (EXPERTS, 12, (), {}),
        (sized(), 8, ("cp=1,2,8",), {}),
        (sized(), 8, ("fsdp=2,3",), {}),
        (sized(), 8, ("ep=1,2",), {}),
        (EXPERTS, 12, ("ep=4", "tp=1,3"), {}),
        (sized(), 12, ("dp=2,3",), {}),
        (sized(), 12, ("pp=3,5",), {}),
    ],
)
def test_meshes_are_all_ways_to_spread_the_ranks(model, gpus, tries, options):
    question = asked(model=model, gpus=gpus, tries=tries, **options)
    grid = "2d" in (options.get("tensor"), *question.tries.get("tensor", ()))
    ends = 2 * (options.get("stage_layers") == "ends")

    def may(axis, size):
        if axis in question.axes:
            return size in question.axes[axis]
        match axis:
            case "dp":
                return True
            case "tp":
                return model.heads ** (2 if grid else 1) % size == 0
            case "pp":
                layers = model.depth + ends
                return layers % size == 0 or (not ends and layers > size)
            case "ep":
                return model.experts % size == 0 if model.experts else size == 1
            case _:
                return size == 1

    axes = ("dp", "fsdp", "ep", "cp", "tp", "pp")
    sizes = [[size for size in range(1, gpus + 1) if gpus % size == 0 and may(axis, size)] for axis in axes]
    expected = [
        {axis: size for axis, size in zip(axes, chosen, strict=True) if size > 1} or {"dp": 1}
        for chosen in product(*sizes)
        if prod(chosen) == gpus
    ]
    space = Space(question)
    assert sorted(map(sorted_items, space.meshes)) == sorted(map(sorted_items, expected))
    for mesh in space.meshes:
        assert list(mesh) == [axis for axis in OUTERMOST_FIRST if axis in mesh]
        plans = list(space.plans(mesh))
        assert space.count(mesh) == len(plans)
        assert len({str(sorted(each.items(), key=str)) for each in plans}) == len(plans), "each once"
    assert space.size == sum(space.count(mesh) for mesh in space.meshes)


def sorted_items(mesh):
    return sorted(mesh.items())


def values(space, mesh, *names):
    return {tuple(plan.get(name) for name in names) for plan in space.plans(mesh)}


@pytest.mark.parametrize(
    ("batch", "mesh", "sizes"),
    [
        (8, {"dp": 4}, {1, 2}),
        (8, {"pp": 2, "dp": 2}, {1, 2, 4}),
        (6, {"dp": 4}, {None}),
        (4, {"dp": 4}, {1}),
        (3, {"dp": 4}, {None}),
        (8, {"ep": 2, "dp": 2}, {1, 2}),
    ],
)
def test_micro_batches_divide_a_replica_s_sequences(batch, mesh, sizes):
    assert values(Space(asked(batch=batch, tries=())), mesh, "micro_batch") == {(size,) for size in sizes}


def test_choices_that_say_nothing_have_one_value():
    space = Space(asked(tries=()))
    assert values(space, {"dp": 4}, "sequence_parallel", "expert_tensor") == {(False, "split")}
    assert values(space, {"dp": 2, "tp": 2}, "sequence_parallel", "expert_tensor") == {
        (False, "split"),
        (True, "split"),
    }
    experts = Space(asked(model=EXPERTS, tries=()))
    assert values(experts, {"ep": 2, "tp": 2}, "expert_tensor") == {("split",), ("whole",)}
    assert values(experts, {"ep": 4}, "expert_tensor") == {("split",)}
    assert values(space, {"dp": 4}, "pipeline", "chunks") == {("1f1b", 1)}
    assert values(space, {"dp": 4}, "offload") == {("none",)}
    away = Space(space.question, ("optimizer", "activations"))
    assert values(away, {"dp": 4}, "offload") == {("optimizer",), ("activations",)}


def test_what_is_fixed_or_named_is_all_that_is_tried():
    question = asked(tries=("zero=0,3", "pipeline=interleaved,1f1b", "chunks=2"), recompute="full", micro_batch=2)
    space = Space(question)
    assert values(space, {"dp": 4}, "zero", "recompute", "micro_batch") == {("0", "full", 2), ("3", "full", 2)}
    assert values(space, {"pp": 2, "dp": 2}, "pipeline", "chunks") == {("interleaved", 2), ("1f1b", 1)}
    assert values(space, {"dp": 4}, "pipeline", "chunks") == {("1f1b", 1)}
    assert {name for block in space.blocks({"dp": 4}) for name in block.names} == set(next(space.plans({"dp": 4})))


@pytest.mark.parametrize(
    ("layers", "stages", "way", "expected"),
    [
        (8, 2, None, {2, 4}),
        (8, 4, None, {2}),
        (4, 4, None, {2}),
        (6, 2, None, {3}),
        (9, 2, None, {2, 4}),
        (10, 2, "ends", {2, 3, 6}),
        (10, 4, "ends", {3}),
    ],
)
def test_chunks_share_a_stage_s_layers_evenly(layers, stages, way, expected):
    options = {"stage_layers": way} if way else {}
    question = asked(model=sized(layers=layers), gpus=8, tries=("pipeline=interleaved",), **options)
    found = {chunks for _, chunks in values(Space(question), {"pp": stages, "dp": 8 // stages}, "pipeline", "chunks")}
    assert found <= expected, "counts that leave layers over make no way to share them"
    layers += 2 * (way == "ends")
    assert found == {
        count for count in expected if layers % (stages * count) == 0 or (way is None and layers > stages * count)
    }


@pytest.mark.parametrize(("layers", "way"), [(5, "2,3"), (6, None), (3, "1,2"), (2, None)])
def test_stages_have_layers_as_evenly_as_they_can_be(layers, way):
    """A list only where they do not divide, and then for every schedule."""
    space = Space(asked(model=sized(layers=layers), tries=("pipeline=1f1b",)))
    ((found,),) = values(space, {"pp": 2, "dp": 2}, "stage_layers")
    if way is None:
        assert found is None, "left as the plan has it"
    else:
        assert sorted(found.split(",")) == sorted(way.split(","))
    assert values(space, {"pp": 2, "dp": 2}, "pipeline") == {("1f1b",)}
    asked_for = Space(asked(model=sized(layers=layers), tries=("pipeline=1f1b", "stage-layers=even,ends")))
    evenly = {("even",)} if layers % 2 == 0 else set()
    ends = {("ends",)} if (layers + 2) % 2 == 0 else set()
    assert values(asked_for, {"pp": 2, "dp": 2}, "stage_layers") == evenly | ends
    fixed = Space(asked(model=sized(layers=layers), tries=("pipeline=1f1b",), stage_layers="ends"))
    assert values(fixed, {"pp": 2, "dp": 2}, "stage_layers") == ends


def test_all_schedules_that_train_alike_are_tried():
    found = values(Space(asked(tries=())), {"pp": 2, "dp": 2}, "pipeline")
    assert found == {(name,) for name, each in PIPELINES.items() if not each.asynchronous and each.searched}


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        ({"dp": 4}, ["moda"]),
        ({"ep": 4}, ["moda"]),
        ({"dp": 2, "ep": 2}, ["moda", "opposite"]),
        ({"dp": 2, "tp": 2}, ["megatron"]),
        ({"ep": 2, "tp": 2}, ["megatron"]),
        ({"pp": 2}, ["megatron"]),
        ({"pp": 2, "dp": 2, "ep": 2, "tp": 2}, ["megatron", "block:tp,dp,ep,pp"]),
        ({"dp": 2, "ep": 2, "cp": 2}, ["megatron", "block:cp,dp,ep"]),
    ],
)
def test_placements_trade_the_inside_between_experts_and_replicas(mesh, expected):
    assert placements(mesh) == expected


# --- bounds --------------------------------------------------------------------------------------------------------------


def bounds(space, most):
    with pytest.raises(InputError) as wrong:
        space.require_few(most)
    return re.findall(r"((?:--[a-z-]+ \S+ ?)+)leaves ([\d,]+)", str(wrong.value))


def test_bounds_leave_as_many_plans_as_they_say():
    space = Space(asked(batch=16, tries=("tp=1,2",)))
    space.require_few(space.size)
    found = bounds(space, space.size - 1)
    names = ["zero", "recompute", "pipeline", "overlap", "micro_batch"]
    assert [flags.split()[0] for flags, _ in found[:-1]] == [f"--{name.replace('_', '-')}" for name in names]
    assert [each.split()[0] for each in found[-1][0].strip().split(" --")] == ["--zero", *names[1:4], "micro-batch"]
    for flags, size in found:
        words = flags.split()
        fixed = {flag[2:].replace("-", "_"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
        if "micro_batch" in fixed:
            fixed["micro_batch"] = int(fixed["micro_batch"])
        assert Space(asked(batch=16, tries=("tp=1,2",), **fixed)).size == int(size.replace(",", ""))
    least = int(found[-1][1].replace(",", ""))
    single = min(int(size.replace(",", "")) for _, size in found[:-1])
    assert [flags for flags, _ in bounds(space, single - 1)] == [found[-1][0]], "only all together"
    assert [size for _, size in bounds(space, least - 1)] == [found[-1][1]]


def test_bounds_name_what_is_open():
    space = Space(asked(batch=16, tries=("zero=0,3", "recompute=none"), overlap="none", micro_batch=1))
    found = bounds(space, 1)
    assert {flag for flags, _ in found for flag in flags.split() if flag.startswith("--")} == {"--zero", "--pipeline"}
    closed = Space(asked(tries=("recompute=none", "zero=1", "pipeline=1f1b", "overlap=none", "micro-batch=1")))
    with pytest.raises(InputError, match=r"make \d+ plans; fix more of the options$"):
        closed.require_few(1)


def test_sizes_that_no_mesh_has_are_named():
    with pytest.raises(InputError, match=r"--try tp=3, --try pp=1,2: no mesh of 4 ranks"):
        Space(asked(tries=("tp=3", "pp=1,2"), **FEW)).require_few(10)
