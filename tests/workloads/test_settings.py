"""Settings: what nobody typed gives way to what fits; what somebody typed holds or is refused."""

import athanor
import pytest
from athanor.hardware.errors import InputError
from athanor.workloads.plan.setting import Setting
from hypothesis import assume, given
from hypothesis import strategies as st
from support.machines import tree

MODEL = athanor.load_model("moda-tiny").with_experts(128)
DENSE = athanor.load_model("gpt-tiny")


@given(
    nodes=st.integers(1, 96),
    supernode=st.integers(1, 16),
    ep=st.sampled_from([1, 2, 4, 8, 16, 32]),
    dp=st.integers(1, 40),
    seed=st.sampled_from(["auto", "moda", "opposite"]),
)
def test_a_placement_that_nobody_typed_stops_no_mesh_for_which_there_is_room(nodes, supernode, ep, dp, seed):
    assume(ep * dp <= nodes)
    machine = tree(nodes=nodes, supernode=min(nodes, supernode))
    own = MODEL.model_copy(update={"plan": {**MODEL.plan, "placement": seed}})
    mesh = {"dp": dp, "ep": ep}
    free = Setting.of(machine, own, {"mesh": mesh})
    assert free.layout.nodes == dp * ep, "a node each"
    try:
        typed = Setting.of(machine, own, {"mesh": mesh, "placement": seed})
        assert (typed.layout.node == free.layout.node).all(), "where the model's placement holds, it stays"
        assert free.placement == seed
    except InputError as refused:
        assert "--placement" in str(refused)
        assert free.placement != seed


def test_a_models_micro_batch_gives_way_and_a_typed_one_does_not():
    """A model's plan is made for its own batch; three sequences a rank are no pairs."""
    own = DENSE.model_copy(update={"plan": {**DENSE.plan, "micro_batch": 2}})
    machine = tree(nodes=8, supernode=8, tokens_per_node=own.seq_len)
    asked = {"mesh": {"dp": 2}, "global_batch": 6}
    found = Setting.of(machine, own, asked)
    assert (found.plan.micro_batch, found.batch.micro_batches) == (None, 3)
    assert Setting.of(machine, own, {**asked, "global_batch": 8}).plan.micro_batch == 2
    with pytest.raises(InputError, match="--micro-batch 2"):
        Setting.of(machine, own, {**asked, "micro_batch": 2})


def test_a_micro_batch_that_gave_way_is_told():
    own = DENSE.model_copy(update={"plan": {**DENSE.plan, "micro_batch": 2}})
    machine = tree(nodes=8, supernode=8, tokens_per_node=own.seq_len)
    for count, told in ((6, 1), (8, 0)):
        run = athanor.simulate(machine, own, mesh="dp=2", global_batch=count, allow_overcommit=True)
        assert sum("micro-batch of 2 sequences" in warning for warning in run.summary()["warnings"]) == told


def test_a_mesh_that_fits_does_not_fail_over_a_placement_nobody_typed():
    """MoDa's own placement puts dp in supernodes, of whose 256 nodes 40 fill no whole part."""
    model = MODEL.model_copy(update={"experts": 256})
    mesh = "dp=40,ep=256"
    assert Setting.of("sunway-oceanlight", model, {"mesh": mesh}).layout.mesh.ranks == 10240


def test_a_placement_that_gave_way_is_told_and_kept():
    """Three replicas do not divide over supernodes of two nodes."""
    machine = tree(nodes=9, supernode=2)
    own = MODEL.model_copy(update={"plan": {**MODEL.plan, "placement": "dp=node,ep=supernode"}})
    run = athanor.simulate(machine, own, mesh="dp=3,ep=2", allow_overcommit=True)
    assert any("dp=node,ep=supernode, which nobody typed" in warning for warning in run.summary()["warnings"])
    assert run.plan["placement"] == run.summary()["placement"] == "megatron"
    with pytest.raises(InputError, match="--placement dp=node"):
        athanor.simulate(machine, own, mesh="dp=3,ep=2", placement="dp=node,ep=supernode")


@given(seq_len=st.sampled_from([8, 100, 4096, 1_048_576]), usual=st.integers(1, 8192))
def test_a_step_whose_size_nobody_named_cuts_no_sequence(seq_len, usual):
    """As many whole sequences as the machine's tokens hold, and one at least, however long."""
    machine = tree(nodes=8, supernode=8, tokens_per_node=usual)
    own = DENSE.model_copy(update={"plan": {}})
    batch = Setting.of(machine, own, {"mesh": {"dp": 2}, "seq_len": seq_len}).batch
    assert batch.micro_tokens == batch.tokens == max(usual // seq_len, 1) * seq_len


@given(
    sequences=st.integers(1, 64),
    seq_len=st.sampled_from([8, 100, 4096, 1_048_576]),
    usual=st.integers(1, 8192),
    dp=st.sampled_from([1, 2, 4]),
)
def test_a_micro_batch_is_at_least_one_sequence(sequences, seq_len, usual, dp):
    """Of a rank that has whole sequences; as many micro-batches as keep each at what is usual, or at one sequence.

    They are whole sequences too, unless the step divides by what is usual: 1,536 tokens are one and a half of MoDa's.
    """
    machine = tree(nodes=8, supernode=8, tokens_per_node=usual)
    batch = Setting.of(machine, DENSE, {"mesh": {"dp": dp}, "global_batch": sequences * dp, "seq_len": seq_len}).batch
    assert batch.tokens == sequences * seq_len
    assert batch.micro_tokens >= seq_len
    assert batch.micro_tokens % seq_len == 0 or batch.micro_tokens == usual
    assert batch.micro_tokens * batch.micro_batches == batch.tokens
    assert batch.micro_tokens <= max(usual, seq_len)
