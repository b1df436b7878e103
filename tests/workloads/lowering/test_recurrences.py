"""Recurrent parts: chunks give what tokens one by one give, and cost what is charged, forward, backward and cut over tp."""

import numpy as np
import pytest
from athanor.workloads.lowering import lower_step
from athanor.workloads.memory.activations import Saved
from athanor.workloads.model.flops import forward_flops
from athanor.workloads.model.model import Model
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.model.recurrent import ChunkProducts, Projection
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Role
from athanor.workloads.schedule.work import Exchange, Gemm
from oracles.recurrences import Products, delta, delta_in_chunks, linear, linear_in_chunks, selective
from pytest import approx
from support.strategies import flat

TOKENS, CHUNK, HIDDEN = 48, 12, 16
PARTS = {
    "mamba-1": {"state_size": 3, "rank": 5},
    "mamba-2": {"state_size": 6, "head_size": 8, "groups": 2, "chunk": CHUNK},
    "lightning": {"heads": 4, "head_size": 6, "chunk": CHUNK},
    "gated-delta": {"key_heads": 2, "key_size": 6, "value_heads": 4, "value_size": 10, "chunk": CHUNK},
}


def made(kind, **more):
    """A model of two layers of a recurrent part, and of nothing else."""
    shape = {"layers": 2, "hidden": HIDDEN, "ffn_hidden": 0, "vocabulary": 20, "seq_len": TOKENS, "mixers": ["part"]}
    return Model.model_validate({"name": kind, **shape, "recurrent": {"part": {"kind": kind, **PARTS[kind]}}, **more})


def drawn(heads, key, value):
    random = np.random.default_rng(3)
    queries, keys = (random.standard_normal((TOKENS, heads, key)) / key**0.5 for _ in range(2))
    values = random.standard_normal((TOKENS, heads, value))
    return queries, keys, values, *(random.uniform(low, 1.0, (TOKENS, heads)) for low in (0.8, 0.1))


def chunks_of(part):
    return sum(step.flops for step in part.steps(HIDDEN) if isinstance(step, ChunkProducts))


@pytest.mark.parametrize(("kind", "heads", "key", "value"), [("mamba-2", 4, 6, 8), ("lightning", 4, 6, 6)])
def test_linear_attention_in_chunks(kind, heads, key, value):
    """The products of a chunk, FLOP for FLOP; groups share scores."""
    queries, keys, values, decays, _ = drawn(heads, key, value)
    groups = PARTS[kind].get("groups")
    if groups:
        first = np.arange(heads) // (heads // groups) * (heads // groups)
        queries, keys = queries[:, first], keys[:, first]
    times = Products()
    found = linear_in_chunks(queries, keys, values, decays, CHUNK, times, groups)
    assert found == approx(linear(queries, keys, values, decays))
    assert times.flops == TOKENS * chunks_of(made(kind).recurrent["part"])


def test_the_delta_rule_in_chunks():
    """The same; of the triangle's inverse a chunk's third power, of which tokens themselves are left out."""
    queries, keys, values, decays, rates = drawn(4, 6, 10)
    times = Products()
    found = delta_in_chunks(queries, keys, values, decays, rates, CHUNK, times)
    assert found == approx(delta(queries, keys, values, decays, rates))
    assert times.flops == approx(TOKENS * chunks_of(made("gated-delta").recurrent["part"]) - TOKENS * 4 / 3)


def test_a_selective_scan():
    """What comes of it is a sum over all tokens before; the authors count nine FLOPs, with skip and gate."""
    random = np.random.default_rng(2)
    inputs, steps = random.standard_normal((TOKENS, 8)), random.uniform(0, 1, (TOKENS, 8))
    decays, (into, out_of) = -random.uniform(0, 1, (8, 3)), random.standard_normal((2, TOKENS, 3))
    found, flops = selective(inputs, steps, decays, into, out_of)
    since = np.exp(decays[None] * (steps.sum(axis=0) - np.cumsum(steps, axis=0))[:, :, None])
    state = (since * steps[:, :, None] * into[:, None] * inputs[:, :, None]).sum(axis=0)
    assert found[-1] == approx(state @ out_of[-1])
    part = made("mamba-1").recurrent["part"]
    (scan,) = [step for step in part.steps(HIDDEN) if step.operand == "scan"]
    assert flops <= scan.each / part.state_size <= flops + 2


def operations(model, tp=1, **more):
    mesh = {"tp": tp} if tp > 1 else {"dp": 1}
    options = {"mesh": mesh, "tokens_per_rank": 2 * TOKENS, "precision": "bf16", "attention": "fused", **more}
    return lower_step(Setting.of(flat(), model, options))[0].operations


def products(found, phase, again=False):
    """FLOPs of products of a phase by (operand, gradient)."""
    total = {}
    for each in found:
        if isinstance(each.work, Gemm) and each.phase == phase and each.task.part == "attention":
            key = each.task.role, each.task.operand, each.task.gradient, each.task.step == 0
            total[key] = total.get(key, 0.0) + each.work.flops
    return {key[:3]: flops for key, flops in total.items() if key[3] == again}


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("kind", PARTS)
def test_what_is_lowered_is_what_a_part_says(kind, tp, sequence):
    """Forward each step once, backward two products for each; what is marked is run again; tp halves all but few."""
    if sequence and tp == 1:
        return
    model = made(kind)
    part, tokens = model.recurrent["part"], 2 * TOKENS * model.layers
    found = operations(model, tp, sequence_parallel=sequence)
    ahead, back = products(found, "forward"), products(found, "backward")
    again = products(found, "backward", again=True)
    for step in part.steps(HIDDEN):
        if isinstance(step, Projection):
            role, grads = Role.PRODUCT, [back[Role.PRODUCT, step.operand, each] for each in ("input", "weight")]
        elif isinstance(step, ChunkProducts):
            role, grads = Role.RECURRENCE, [back[Role.RECURRENCE, step.operand, "input"] / 2] * 2
        else:
            continue
        assert ahead[role, step.operand, None] == approx(tokens * step.flops / tp)
        assert grads == [approx(ahead[role, step.operand, None])] * 2
        assert ((role, step.operand, "input") in again) == step.again
    names = [each.name for each in found]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", PARTS)
def test_flops_of_a_model(kind):
    """Two for each element of a weight and token, and what happens within chunks or scans."""
    model = made(kind)
    part = model.recurrent["part"]
    found = forward_flops(model, 7 * TOKENS, TOKENS)
    matrices = sum(rows * columns for rows, columns in part.weights(HIDDEN) if rows > 1)
    if kind == "mamba-1":
        matrices -= model.hidden * 2 * 3  # decays are no product
        matrices += 0.5 * 9 * 2 * HIDDEN * 3
    assert found.layers == approx(7 * TOKENS * model.layers * (2 * matrices + chunks_of(part)))


@pytest.mark.parametrize("kind", PARTS)
def test_what_recurrent_layers_keep(kind):
    """As many elements a token as its steps say, half of it on each rank of tp but the stream's; inputs of norms beside."""
    model = made(kind)
    rows = {}
    for tp in (1, 2):
        options = {"mesh": {"tp": tp}, "tokens_per_rank": TOKENS, "precision": "bf16"}
        setting = Setting.of(flat(), model, options)
        saved = Saved.of(setting, POLICIES["bf16"]).layer(model.stack[0])
        rows[tp] = {row.operator: row.nbytes for row in saved}
    keeps = sum(step.keeps for step in model.recurrent["part"].steps(HIDDEN))
    assert sum(rows[1].values()) == approx(2 * TOKENS * (HIDDEN + keeps))
    for operator, nbytes in rows[1].items():
        whole = operator in ("attention.norm", "attention.in")
        assert rows[2][operator] == approx(nbytes / (1 if whole else 2))


def test_partial_sums_of_steps_are_added_up():
    """Mamba's numbers of steps come from all channels, so that ranks of tp tell each other theirs, forward and backward."""
    found = [
        each for each in operations(made("mamba-1"), 2) if isinstance(each.work, Exchange) and "inner" in each.name
    ]
    assert [each.phase for each in found] == ["forward"] * 2 + ["backward"] * 2
    assert {each.work.nbytes for each in found} == {2.0 * 2 * TOKENS * (5 + 2 * 3)}
