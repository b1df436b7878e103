"""Collective algorithms, executed on symbolic data: every rank ends with exactly the right pieces."""

import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.collectives import ALGORITHMS, rounds
from hypothesis import given
from hypothesis import strategies as st

SIZES = [(1, size) for size in range(1, 34)] + [(outer, inner) for outer in range(2, 7) for inner in range(1, 7)]
CASES = [(operation, algorithm) for operation, known in ALGORITHMS.items() for algorithm in known]


def coordinate(rank, scope, inner):
    """A rank's position in a scope."""
    return {"group": rank, "inner": rank % inner, "outer": rank // inner}[scope]


def partner_of(rank, position, scope, inner):
    """The rank at another position of the same scope."""
    outer_at, inner_at = divmod(rank, inner)
    return {"group": position, "inner": outer_at * inner + position, "outer": position * inner + inner_at}[scope]


def execute(operation, algorithm, outer, inner):
    """Blocks on every rank after the algorithm: ``{rank: {(destination, source or None): set of contributions}}``."""
    ranks = outer * inner
    if operation == "all-to-all":
        held = {rank: {(dest, rank): {rank} for dest in range(ranks)} for rank in range(ranks)}
    elif operation == "all-gather":
        held = {rank: {(rank, None): {rank}} for rank in range(ranks)}
    else:
        held = {rank: {(dest, None): {rank} for dest in range(ranks)} for rank in range(ranks)}
    sent_bytes = dict.fromkeys(range(ranks), 0.0)
    for each in rounds(operation, algorithm, outer, inner):
        size = {"group": ranks, "inner": inner, "outer": outer}[each.scope]
        for step in range(each.steps):
            messages = []
            for rank in range(ranks):
                position = coordinate(rank, each.scope, inner)
                for partner in each.partners(position, size):
                    travels = each.travels(position, partner, step, size)
                    blocks = {
                        key: set(value)
                        for key, value in held[rank].items()
                        if coordinate(key[0], each.scope, inner) == travels
                    }
                    messages.append((rank, partner_of(rank, partner, each.scope, inner), blocks))
                    sent_bytes[rank] += each.share / size if each.pattern == "all" else each.share
            for rank, target, blocks in messages:
                for key, value in blocks.items():
                    if each.action == "reduce":
                        assert not held[target][key] & value, "a contribution is added twice"
                        held[target][key] |= value
                    else:
                        held[target][key] = value
                    if each.action in ("reduce", "exchange"):
                        del held[rank][key]
    return held, sent_bytes


@pytest.mark.parametrize(("operation", "algorithm"), CASES)
def test_every_rank_ends_with_the_right_pieces(operation, algorithm):
    for outer, inner in SIZES:
        ranks = outer * inner
        everyone = set(range(ranks))
        held, _ = execute(operation, algorithm, outer, inner)
        for rank in range(ranks):
            if operation == "all-to-all":
                assert held[rank] == {(rank, source): {source} for source in everyone}
            elif operation == "reduce-scatter":
                assert held[rank] == {(rank, None): everyone}
            elif operation == "all-gather":
                assert held[rank] == {(source, None): {source} for source in everyone}
            else:
                assert held[rank] == {(block, None): everyone for block in everyone}


@given(st.integers(1, 12), st.integers(1, 12))
def test_volumes(outer, inner):
    """(P-1)/P of the vector for a reduce-scatter or a gather, twice that for an all-reduce, whatever the hierarchy."""
    ranks = outer * inner
    for operation, times in (("reduce-scatter", 1), ("all-gather", 1), ("all-reduce", 2)):
        for algorithm in ALGORITHMS[operation]:
            _, sent = execute(operation, algorithm, outer, inner) if ranks < 30 else (None, None)
            whole = sum(each.share * each.steps for each in rounds(operation, algorithm, outer, inner))
            assert whole == pytest.approx(times * (ranks - 1) / ranks)
            if sent:
                assert list(sent.values()) == pytest.approx([whole] * ranks)


def test_two_level_all_to_all_sends_few_messages():
    def messages(algorithm):
        return sum(
            each.messages({"group": 96_000, "inner": 240, "outer": 400}[each.scope]) * each.steps
            for each in rounds("all-to-all", algorithm, 400, 240)
        )

    assert (messages("linear"), messages("two-level")) == (95_999, 239 + 399)


def test_unknown_algorithm():
    with pytest.raises(InputError, match="did you mean two-level"):
        rounds("all-to-all", "two-levels", 2, 2)
