"""Collective algorithms, executed on symbolic data and on numbers: every rank ends with exactly the right pieces."""

import math
import pickle

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.collectives import (
    ALGORITHMS,
    All,
    BinaryTree,
    Binomial,
    CoreXor,
    Fold,
    Line,
    Shift,
    Single,
    Xor,
    check,
    rounds,
    supports_uneven,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = [(1, size) for size in range(1, 34)] + [(outer, inner) for outer in range(2, 7) for inner in range(1, 7)]
CASES = [(operation, algorithm) for operation, known in ALGORITHMS.items() for algorithm in known]
VECTORS = [case for case in CASES if case[0] not in ("all-to-all", "barrier")]


def allowed(operation, algorithm, ranks):
    return not ALGORITHMS[operation][algorithm].power_of_two or ranks & (ranks - 1) == 0


def coordinate(rank, scope, inner):
    """A rank's position in a scope."""
    return {"group": rank, "inner": rank % inner, "outer": rank // inner}[scope]


def partner_of(rank, position, scope, inner):
    """The rank at another position of the same scope."""
    outer_at, inner_at = divmod(rank, inner)
    return {"group": position, "inner": outer_at * inner + position, "outer": position * inner + inner_at}[scope]


def messages(operation, algorithm, outer, inner):
    """(round, [(sender, receiver, block numbers, parts)]) of every step."""
    ranks = outer * inner
    for each in rounds(operation, algorithm, outer, inner):
        size = {"group": ranks, "inner": inner, "outer": outer}[each.scope]
        for step in range(each.steps):
            sent = []
            for rank in range(ranks):
                position = coordinate(rank, each.scope, inner)
                for partner in each.partners(position, step, size):
                    blocks = each.blocks(position, partner, step, size)
                    assert len(set(blocks.tolist())) == len(blocks)
                    sent.append((rank, partner_of(rank, partner, each.scope, inner), blocks, each.parts(size)))
            assert sent, "a step in which nothing is sent"
            yield each, size, sent


def cells_of(operation, algorithm, outer, inner):
    """Into how many cells a vector is cut for a test: one for each rank of a grid, else the finest cut of any round."""
    if ALGORITHMS[operation][algorithm].grid:
        return outer * inner
    return math.lcm(1, *(each.parts(outer * inner) for each in rounds(operation, algorithm, outer, inner)))


def cells(each, blocks, parts, count, inner):
    """The cells that blocks of a round stand for, whether or not the sender still holds them."""
    if each.scope == "group":
        return {cell for block in blocks for cell in range(block * count // parts, (block + 1) * count // parts)}
    return {cell for cell in range(count) if coordinate(cell, each.scope, inner) in blocks}


def run_vector(operation, algorithm, outer, inner):
    """``held[rank][cell]``, the set of contributions as bits; and the share of a vector that each rank sent."""
    ranks, count = outer * inner, cells_of(operation, algorithm, outer, inner)
    if operation == "all-gather":
        held = [{rank: 1 << rank} for rank in range(ranks)]
    elif operation == "broadcast":
        held = [dict.fromkeys(range(count), 1)] + [{} for _ in range(1, ranks)]
    else:
        held = [dict.fromkeys(range(count), 1 << rank) for rank in range(ranks)]
    total = np.zeros(ranks)
    for each, _, sent in messages(operation, algorithm, outer, inner):
        before = [dict(mine) for mine in held]
        arrived = set()
        for rank, _, blocks, parts in sent:
            if each.action == "reduce":
                for cell in cells(each, blocks, parts, count, inner):
                    held[rank].pop(cell, None)
        for rank, target, blocks, parts in sent:
            named = cells(each, blocks, parts, count, inner)
            moving = {cell: before[rank][cell] for cell in named if cell in before[rank]}
            assert moving.keys() == named or each.scope != "group", "a rank sends what it does not hold"
            assert len(moving) / count == pytest.approx(each.share), "bytes are not the share"
            total[rank] += each.share
            for cell, value in moving.items():
                assert (target, cell) not in arrived
                arrived.add((target, cell))
                if each.action == "gather":
                    held[target][cell] = value
                else:
                    assert cell in held[target], "added to what is spent"
                    assert not held[target][cell] & value, "a contribution is added twice"
                    held[target][cell] |= value
    return held, total, count


@pytest.mark.parametrize(("operation", "algorithm"), VECTORS)
def test_every_rank_ends_with_the_right_blocks(operation, algorithm):
    for outer, inner in SIZES:
        ranks = outer * inner
        if not allowed(operation, algorithm, ranks):
            continue
        held, _, count = run_vector(operation, algorithm, outer, inner)
        everyone = (1 << ranks) - 1
        for rank, mine in enumerate(held):
            if operation == "reduce-scatter":
                assert mine == {rank: everyone}
            elif operation == "all-gather":
                assert mine == {block: 1 << block for block in range(ranks)}
            elif operation == "broadcast":
                assert mine == dict.fromkeys(range(count), 1)
            elif operation == "all-reduce":
                assert mine == dict.fromkeys(range(count), everyone)
            elif operation == "shift":
                neighbour = (rank + (-1 if algorithm == "next" else 1)) % ranks
                assert mine == dict.fromkeys(range(count), 1 << neighbour)
            else:
                assert mine == (dict.fromkeys(range(count), everyone) if rank == 0 else {})


def run_all_to_all(algorithm, outer, inner):
    """Blocks (origin, destination) on every rank after an all-to-all, and the share of its payload that each rank sent."""
    ranks = outer * inner
    held = [{(rank, other) for other in range(ranks)} for rank in range(ranks)]
    total = np.zeros(ranks)
    for each, size, sent in messages("all-to-all", algorithm, outer, inner):
        before = [set(mine) for mine in held]
        for rank, target, blocks, parts in sent:
            named, scope = set(blocks.tolist()), each.scope
            if each.numbering == "offset":
                moving = {block for block in before[rank] if (block[1] - block[0]) % ranks in named}
            else:
                moving = {block for block in before[rank] if coordinate(block[1], scope, inner) in named}
            share = each.share / size if each.everyone else each.share
            assert len(moving) / ranks == pytest.approx(share)
            assert parts == size
            assert len(blocks) / parts == pytest.approx(share)
            total[rank] += share
            held[rank] -= moving
            held[target] |= moving
    return held, total


@pytest.mark.parametrize("algorithm", ALGORITHMS["all-to-all"])
def test_every_rank_ends_with_its_own_blocks(algorithm):
    for outer, inner in SIZES:
        ranks = outer * inner
        if allowed("all-to-all", algorithm, ranks):
            held, _ = run_all_to_all(algorithm, outer, inner)
            assert held == [{(origin, rank) for origin in range(ranks)} for rank in range(ranks)]


def test_after_a_barrier_everyone_has_heard_of_everyone():
    for ranks in range(1, 34):
        heard = [1 << rank for rank in range(ranks)]
        for each, _, sent in messages("barrier", "dissemination", 1, ranks):
            before = list(heard)
            for rank, target, blocks, _ in sent:
                assert each.share == len(blocks) == 0
                heard[target] |= before[rank]
        assert heard == [(1 << ranks) - 1] * ranks


@pytest.mark.parametrize("algorithm", ALGORITHMS["all-reduce"])
@settings(deadline=None)
@given(outer=st.integers(1, 5), inner=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_all_reduce_of_arrays_is_the_serial_sum(algorithm, outer, inner, seed):
    """The rounds as a runtime executes them: slices of arrays, nothing but what the round says."""
    ranks, count = outer * inner, cells_of("all-reduce", algorithm, outer, inner)
    values = np.random.default_rng(seed).integers(-9, 9, (ranks, count, 3))
    expected = np.broadcast_to(values.sum(axis=0), values.shape)
    for each, _, sent in messages("all-reduce", algorithm, outer, inner):
        moving = []
        for rank, target, blocks, parts in sent:
            named = cells(each, blocks, parts, count, inner)
            if each.scope == "outer":
                named = {cell for cell in named if cell % inner == rank % inner}
            at = sorted(named)
            moving.append((target, at, values[rank, at].copy()))
        for target, at, content in moving:
            values[target, at] = content if each.action == "gather" else values[target, at] + content
    assert (values == expected).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(34, 80))
def test_larger_groups(ranks):
    everyone = (1 << ranks) - 1
    for algorithm in ("recursive-doubling", "halving-doubling", "binary-tree"):
        held, _, count = run_vector("all-reduce", algorithm, 1, ranks)
        assert held == [dict.fromkeys(range(count), everyone)] * ranks
    held, _, count = run_vector("broadcast", "scatter-all-gather", 1, ranks)
    assert held == [dict.fromkeys(range(count), 1)] * ranks
    held, _ = run_all_to_all("bruck", 1, ranks)
    assert held == [{(origin, rank) for origin in range(ranks)} for rank in range(ranks)]


def volume(operation, algorithm, outer, inner):
    return sum(each.share * each.steps for each in rounds(operation, algorithm, outer, inner))


def steps(operation, algorithm, ranks):
    return sum(each.steps for each in rounds(operation, algorithm, 1, ranks))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12))
def test_volumes_of_rings(outer, inner):
    """(P-1)/P of the vector for a reduce-scatter or a gather, twice that for an all-reduce, whatever the hierarchy."""
    ranks = outer * inner
    for operation, times in (("reduce-scatter", 1), ("all-gather", 1), ("all-reduce", 2)):
        for algorithm in ("ring", "two-level"):
            assert volume(operation, algorithm, outer, inner) == pytest.approx(times * (ranks - 1) / ranks)
            if ranks < 30:
                _, sent, _ = run_vector(operation, algorithm, outer, inner)
                assert sent == pytest.approx(np.full(ranks, times * (ranks - 1) / ranks))


@given(st.integers(0, 16))
def test_volumes_and_steps_on_powers_of_two(log):
    ranks = 2**log
    rest = (ranks - 1) / ranks
    found = {case: (volume(*case, 1, ranks), steps(*case, ranks)) for case in CASES}
    assert found["all-reduce", "halving-doubling"] == (pytest.approx(2 * rest), 2 * log)
    assert found["all-reduce", "recursive-doubling"] == (log, log)
    assert found["reduce-scatter", "recursive-halving"] == (pytest.approx(rest), log)
    assert found["all-gather", "recursive-doubling"] == (pytest.approx(rest), log)
    assert found["all-gather", "bruck"] == (pytest.approx(rest), log)
    assert found["all-to-all", "bruck"] == (log / 2, log)  # P/2 blocks of 1/P at each step
    assert found["all-to-all", "pairwise-shift"] == found["all-to-all", "pairwise-xor"]
    assert found["all-to-all", "pairwise-shift"] == (pytest.approx(rest), ranks - 1)
    assert found["broadcast", "binomial"] == found["reduce", "binomial"] == (log, log)
    filling, chunks = max(0, ranks - 2), max(1, 8 * (ranks - 2))
    chain = (pytest.approx((chunks + filling) / chunks), chunks + filling) if log else (0, 0)
    assert found["broadcast", "chain"] == found["reduce", "chain"] == chain
    assert found["broadcast", "scatter-all-gather"] == (pytest.approx(2 * rest), log + ranks - 1)
    assert found["barrier", "dissemination"] == (0, log)
    assert found["shift", "next"] == found["shift", "previous"] == ((1, 1) if ranks > 1 else (0, 0))


@given(st.integers(2, 100_000))
def test_steps_on_any_number_of_ranks(ranks):
    log = (ranks - 1).bit_length()
    folds = 2 * (ranks & (ranks - 1) > 0)
    within = ranks.bit_length() - 1
    assert steps("all-to-all", "bruck", ranks) == steps("all-gather", "bruck", ranks) == log
    assert volume("all-gather", "bruck", 1, ranks) == pytest.approx((ranks - 1) / ranks)
    assert steps("barrier", "dissemination", ranks) == steps("broadcast", "binomial", ranks) == log
    assert steps("all-reduce", "recursive-doubling", ranks) == within + folds
    assert volume("all-reduce", "halving-doubling", 1, ranks) == pytest.approx(2 * (1 - 0.5**within) + folds)
    assert log + ranks - 1 <= steps("broadcast", "scatter-all-gather", ranks) <= 2 * log + ranks - 1
    assert 2 * log <= steps("all-reduce", "binary-tree", ranks) <= 4 * log


@st.composite
def patterns(draw):
    """A pattern with a size and a step for which it is meant."""
    size, step = draw(st.integers(1, 300)), draw(st.integers(0, 40))
    power = 2 ** draw(st.integers(1, 8))
    number = st.integers(0, 60)
    mask = 2 ** draw(st.integers(0, 7))
    flag = draw(st.booleans())
    return draw(
        st.sampled_from(
            [
                (Shift(draw(st.integers(-60, 60)), draw(number)), size, step),
                (Xor(draw(number) % power, 0), power, step),
                (Xor(1, stride=1), power, step % (power - 1)),
                (Fold(flag), size, step),
                (CoreXor(mask), max(size, 2 * mask), step),
                (BinaryTree(draw(st.integers(0, 8)), draw(st.booleans()), flag), size, step),
                (Binomial(mask, flag, draw(st.sampled_from([1, mask]))), size, step),
                (Line(draw(st.sampled_from(["fills", "full", "drains"])), flag), size, step),
                (Single(draw(number) % size, size - 1), size, step),
            ]
        )
    )


@given(patterns())
def test_sources_are_the_inverse_of_targets(drawn):
    pattern, size, step = drawn
    position = np.arange(size)
    targets, sources = pattern.targets(position, size, step), pattern.sources(position, size, step)
    assert targets.shape == sources.shape == position.shape
    assert targets.min() >= -1
    assert targets.max() < size
    sends, receives = targets >= 0, sources >= 0
    assert (sources[targets[sends]] == position[sends]).all()
    assert (targets[sources[receives]] == position[receives]).all()
    assert int(pattern.targets(np.asarray(size - 1), size, step)) == targets[-1], "one position alone"


@given(patterns(), st.integers(0, 300))
def test_declared_symmetries_hold(drawn, by):
    pattern, size, step = drawn
    position = np.arange(size)
    targets = pattern.targets(position, size, step)
    if pattern.symmetry == "rotation":
        moved = (position + by) % size
        expected = np.where(targets >= 0, (targets + by) % size, -1)
    elif pattern.symmetry == "xor":
        moved = position ^ (by % size)
        expected = np.where(targets >= 0, targets ^ (by % size), -1)
    else:
        return
    assert (pattern.targets(moved, size, step) == expected).all()


@given(patterns())
def test_what_repeats_does(drawn):
    pattern, size, step = drawn
    first, later = (pattern.targets(np.arange(size), size, at) for at in (0, step))
    assert not pattern.repeats or (first == later).all()


@pytest.mark.parametrize("ranks", [1, 2, 3, 6, 13, 32, 33])
def test_rounds_name_every_distinct_step(ranks):
    """Steps of a round that are made one have the same messages."""
    for case in CASES:
        for each in rounds(*case, 1, ranks) if allowed(*case, ranks) else []:
            assert sum(times for _, times in each.distinct()) == each.steps
            assert each.everyone == (each.pattern == All())
            for step, times in each.distinct():
                for later in range(step, step + times):
                    assert all(each.partners(at, step, ranks) == each.partners(at, later, ranks) for at in range(ranks))
                    assert max(len(each.partners(at, later, ranks)) for at in range(ranks)) == each.messages(ranks)


def test_rounds_of_the_whole_machine_are_a_few_numbers():
    """400 supernodes of 240: nothing grows with the number of ranks, let alone its square."""
    for operation, known in ALGORITHMS.items():
        for algorithm in known:
            if allowed(operation, algorithm, 96_000):
                assert len(pickle.dumps(rounds(operation, algorithm, 400, 240))) < 10_000


def test_two_level_all_to_all_sends_few_messages():
    def count(algorithm):
        return sum(
            each.messages({"group": 96_000, "inner": 240, "outer": 400}[each.scope]) * each.steps
            for each in rounds("all-to-all", algorithm, 400, 240)
        )

    assert (count("linear"), count("pairwise-shift"), count("two-level")) == (95_999, 95_999, 239 + 399)
    assert count("bruck") == 17


def test_all_has_no_one_target():
    for ask in (All().targets, All().sources):
        with pytest.raises(TypeError):
            ask(np.arange(3), 3, 0)


def test_unequal_blocks():
    assert [name for name in ALGORITHMS["all-to-all"] if supports_uneven("all-to-all", name)] == [
        "linear",
        "pairwise-shift",
        "pairwise-xor",
        "two-level",
    ]
    check("all-to-all", "pairwise-shift", 6, uneven=True)
    with pytest.raises(InputError, match="linear, pairwise-shift, pairwise-xor, two-level take them"):
        check("all-to-all", "bruck", 6, uneven=True)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("all-to-all", "two-levels", 2, 2), "did you mean two-level?"),
        (("all-too-all", "linear", 2, 2), "did you mean all-to-all?"),
        (("all-reduce", "bruck", 2, 2), "all-reduce bruck: no such algorithm (ring, recursive-doubling, "),
        (
            ("all-to-all", "pairwise-xor", 2, 3),
            "must be a power of two; linear, pairwise-shift, bruck run on",
        ),
        (
            ("all-gather", "recursive-doubling", 1, 12),
            "12 ranks, must be a power of two; ring, bruck run on",
        ),
        (("reduce-scatter", "recursive-halving", 1, 7), "must be a power of two; ring run on"),
        (("barrier", "dissemination", 0, 4), "0 ranks, must be at least 1"),
    ],
)
def test_bad_input_says_what_is_allowed(asked, told):
    with pytest.raises(InputError) as caught:
        rounds(*asked)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
