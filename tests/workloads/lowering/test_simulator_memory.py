"""What a simulation is said to need, against what it takes."""

import tracemalloc

import pytest
from athanor import simulate
from athanor.hardware.machine import load_machine
from athanor.workloads.lowering.simulator_memory import estimate_bytes
from athanor.workloads.model.model import load_model
from athanor.workloads.plan.setting import Setting
from support.paths import MACHINE_FILES

FILES = {path.stem: path for path in MACHINE_FILES}


def needs(machine, ranks, **options):
    """Bytes that a step of so many experts took at once, and those of the estimate."""
    model, options = load_model("moda-tiny").with_experts(ranks), {"mesh": {"ep": ranks, "dp": 1}, **options}
    estimate = estimate_bytes(Setting.of(machine, model, options))
    tracemalloc.start()
    try:
        simulate(machine, model, **options)
        return tracemalloc.get_traced_memory()[1], estimate
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("algorithm", "ranks"), [("pairwise-shift", 144), ("pairwise-xor", 128)])
def test_an_all_to_all_step_by_step_takes_what_is_said(algorithm, ranks):
    """A transfer for each other rank: less than estimated, and more than a quarter of it."""
    machine = load_machine("sunway-oceanlight")
    needs(machine, 4, all_to_all=algorithm)  # what is kept for good is there
    (plain, alone), (taken, estimate) = (needs(machine, ranks, all_to_all=name) for name in ("linear", algorithm))
    assert taken - plain < estimate - alone < 4 * (taken - plain)


def test_an_all_to_all_whose_pairs_have_routes_takes_what_is_said():
    """Beside one of as many ranks on a tree, which needs no routes: to a fifth."""
    routed, level = load_machine(FILES["torus-8x8x8"]), load_machine("sunway-oceanlight")
    for machine in (routed, level):
        needs(machine, 4)
    (taken, estimate), (plain, alone) = needs(routed, 256), needs(level, 256)
    assert estimate - alone == pytest.approx(taken - plain, rel=0.2)


def test_steps_of_an_all_to_all_are_kept_for_each_rank():
    """Eight groups need eight times what one needs; what takes one step or two needs nothing beside."""
    model = load_model("moda-tiny").with_experts(32)

    def share(dp, algorithm):
        return [
            estimate_bytes(Setting.of("sunway-oceanlight", model, {"mesh": {"ep": 32, "dp": dp}, "all_to_all": name}))
            for name in ("linear", algorithm)
        ]

    (plain, more), (many, most) = share(1, "pairwise-shift"), share(8, "pairwise-shift")
    assert most - many == pytest.approx(8 * (more - plain)), "so many bytes a rank for each step"
    assert len(set(share(1, "two-level"))) == 1


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"steps": 3}),
        ({}, {"tokens_per_rank": 1 << 20}),
        ({}, {"balancer": "none"}),
        ({}, {"mesh": {"ep": 32, "dp": 400}}),
        ({"drift": 0.0}, {"drift": 0.5}),
        ({"top_k": 1}, {"top_k": 8}),
        ({"speed_spread": 0.0}, {"speed_spread": 0.1}),
    ],
    ids=str,
)
def test_more_of_anything_needs_more(less, more):
    """Steps, micro-batches, ranks, loads that differ, choices that drift: each has arrays or rows of its own."""
    model = load_model("moda-tiny").with_experts(1 << 10)
    base = {"mesh": {"ep": 32, "dp": 4}, "balancer": "swipe", "tokens_per_rank": 1 << 15}

    def estimate(options):
        return estimate_bytes(Setting.of("sunway-oceanlight", model, {**base, **options}))

    assert (
        estimate(more)
        > estimate(less)
        > estimate_bytes(Setting.of("sunway-oceanlight", "moda-tiny", {"mesh": {"ep": 4}}))
    )


def test_choices_of_experts_are_arrays_of_all_experts():
    """Popularity, its shares, and each choice's own: some arrays of eight bytes an expert, more with each choice and each layer that drifts."""
    few, many = (load_model("moda-tiny").with_experts(count) for count in (1 << 10, 1 << 14))

    def each(**options):
        here = {"mesh": {"ep": 4, "dp": 1}, **options}
        return (
            (
                estimate_bytes(Setting.of("sunway-oceanlight", many, here))
                - estimate_bytes(Setting.of("sunway-oceanlight", few, here))
            )
            / (many.experts - few.experts)
            / 8
        )

    one = each(top_k=1)
    assert one > 6
    assert each(top_k=3) - each(top_k=2) == pytest.approx(each(top_k=2) - one)
    assert each(top_k=2) > one
    assert each(top_k=1, drift=0.5) - one == pytest.approx(2 * few.layers)


@pytest.mark.parametrize("mesh", [{"dp": 8}, {"ep": 4}], ids=str)
def test_rows_are_told_once_where_ranks_are_alike_and_of_three_where_they_differ(mesh):
    """A step more has so many rows more of every rank that is told: the fastest, the slowest and one between, or any."""
    model = load_model("moda-tiny" if "ep" in mesh else "gpt-tiny")

    def step(**options):
        here = {"mesh": mesh, "balancer": "swipe", "tokens_per_rank": 4096, **options}
        one, two = (
            estimate_bytes(Setting.of("sunway-oceanlight", model, {**here, "steps": steps})) for steps in (1, 2)
        )
        return two - one

    assert step() > 0
    assert step(speed_spread=0.1) == pytest.approx(3 * step())
