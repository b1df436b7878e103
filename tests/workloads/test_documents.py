"""Documents packed into sequences: how much attention they leave, what of a step changes with it, and what is refused."""

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.execute.capabilities import data_of
from athanor.workloads.memory import account, sample_loads
from athanor.workloads.model.flops import forward_flops
from athanor.workloads.model.layers import Sight
from athanor.workloads.plan.setting import Setting
from support.strategies import DENSE, flat, lowered, plan

LENGTH = DENSE.seq_len


def here(**options):
    return Setting.of(flat(), DENSE, plan(mesh={"dp": 2}, attention="fused", **options))


def kernels(**options):
    """FLOPs of each fused kernel of a step."""
    found = (
        each.work
        for each in lowered(DENSE, **{"attention": "fused", "mesh": {"dp": 2}, **options}).operations
        if hasattr(each.work, "products")
    )
    return [float(np.max(work.flops)) for work in found]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("limit", [{}, {"window": 3}, {"chunk": 4}])
@pytest.mark.parametrize("documents", [(12,), (24,), (5, 7), (1, 3, 8), (1,)])
def test_pairs_are_those_of_a_mask_made_element_by_element(causal, limit, documents):
    tokens, seen = 24, 0
    if limit and not causal:
        return  # models that read both ways have neither
    of, place = [], []
    while len(of) < tokens:
        for length in documents:
            of += [len(set(of))] * length if of else [0] * length
            place += range(length)
    for query in range(tokens):
        for key in range(tokens):
            near = query - key < limit.get("window", tokens)
            near &= place[query] // limit.get("chunk", tokens) == place[key] // limit.get("chunk", tokens)
            seen += of[query] == of[key] and near and (key <= query or not causal)
    share = Sight(causal, **limit, documents=documents).share(float(tokens), float(tokens))
    assert share == pytest.approx(seen / tokens**2, rel=1e-12)


def test_one_document_a_sequence_changes_nothing():
    assert kernels(document_lengths=f"{LENGTH}") == pytest.approx(kernels(), rel=1e-12)


def test_attention_grows_with_the_mean_of_the_squared_lengths():
    """Over the mean length; the rest of the step stays what it is."""
    half, quarter = LENGTH // 2, LENGTH // 4
    mixed = (half, quarter, quarter)

    def expected(lengths):
        return sum(each * (each + 1) / 2 for each in lengths) * LENGTH / sum(lengths) / (LENGTH * (LENGTH + 1) / 2)

    whole = kernels()
    for lengths in ((half,), (quarter,), mixed):
        text = ",".join(map(str, lengths))
        assert kernels(document_lengths=text) == pytest.approx([each * expected(lengths) for each in whole])
    forward = [
        forward_flops(DENSE, LENGTH, LENGTH, documents=each).layers for each in ((), (LENGTH,), (half,), (quarter,))
    ]
    assert forward[0] == pytest.approx(forward[1], rel=1e-12)
    scores = 2 * DENSE.layers * DENSE.heads * (DENSE.query_size + DENSE.value_size)
    saved = LENGTH * (LENGTH + 1) / 2 * (1 - expected((half,)))
    assert forward[0] - forward[2] == pytest.approx(scores * saved)


def test_under_cp_every_rank_has_its_part_of_what_is_left():
    whole, packed = (kernels(mesh={"cp": 2}, **each) for each in ({}, {"document_lengths": f"{LENGTH // 2}"}))
    assert sum(packed) < sum(whole) and len(packed) == len(whole)
    assert sum(packed) == pytest.approx(sum(kernels(mesh={"dp": 1}, document_lengths=f"{LENGTH // 2}")) / 2)


def test_memory_stays_what_it_is():
    """Kernels that are told where documents begin keep no mask."""

    def lines(**options):
        setting = here(**options)
        return [(line.name, line.what, float(line.nbytes[0])) for line in account(setting, sample_loads(setting)).lines]

    assert lines() == lines(document_lengths=f"{LENGTH // 2}")


@pytest.mark.parametrize("text", ["0", "-1", "a", "3,", "1.5"])
def test_wrong_lengths(text):
    with pytest.raises(InputError, match=r"--document-lengths .*: write lengths in tokens"):
        here(document_lengths=text)


def test_documents_that_do_not_fill_a_sequence_are_refused():
    with pytest.raises(InputError, match=f"3 tokens do not divide the {LENGTH} of a sequence"):
        here(document_lengths="1,2")


def test_the_runtime_says_that_it_knows_no_documents():
    packed = here(document_lengths=f"{LENGTH // 2}")
    with pytest.raises(InputError, match="--document-lengths"):
        data_of(packed, True, True)
    assert data_of(packed, False, False) in ("tokens", "blank")
