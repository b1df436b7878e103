"""Parts of a model: released models have as many parameters as they have, and each part costs what a count of its own says."""

from math import floor, log10

import numpy as np
import pytest
from athanor.hardware.errors import InputError
from athanor.mpi_runtime.execute.capabilities import data_of
from athanor.workloads.lowering import lower_step
from athanor.workloads.lowering.data_parallel.sharding import held
from athanor.workloads.lowering.inference import cache_bytes
from athanor.workloads.model.flops import forward_flops
from athanor.workloads.model.layers import Sight, expanded
from athanor.workloads.model.model import Model, list_models, load_model
from athanor.workloads.model.precision import POLICIES
from athanor.workloads.model.tensors import tensors_of_input, tensors_of_layer, tensors_of_output
from athanor.workloads.plan.setting import Setting
from athanor.workloads.schedule.operation import Role
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from support.strategies import flat

RELEASED = {
    "deepseek-v2": 235_741_434_880,
    "deepseek-v2-lite": 15_706_484_224,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-next-80b-a3b": 81_324_862_720,
    "kimi-k2": 1_026_408_232_448,
    "glm-4.5": 358_337_776_896 - 2 * 151_552 * 5_120,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "olmoe-1b-7b": 6_919_161_856,
    "falcon-180b": 179_522_565_120,
    "phi-3.5-moe": 41_873_153_344,
    "dbrx": 131_596_523_520,
    "grok-1": 316e9,
    "llama4-maverick": 400.7e9,
    "arctic-480b": 479e9,
    "jamba-1.5-large": 398.6e9,
    "jamba-1.5-mini": 51.6e9,
    "mamba-2.8b": 2_768_345_600,
    "mamba2-2.7b": 2_702_599_680,
    "mpt-7b": 6_649_286_656,
    "mpt-30b": 29_957_200_896,
    "baichuan2-13b": 13_896_668_160,
}
"""Elements of the tensors that were released; what is round is known so only. GLM's head has copies of embedding and output."""

WITHOUT_EMBEDDING = {"gpt-oss-20b", "gpt-oss-120b"}
"""Models whose authors count the output layer among active parameters, and the embedding not."""


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_as_many_parameters(name, capsys):
    """Within 0.2 %; what they leave out (sinks of attention, gates of shared experts, biases of routers) is less."""
    model = load_model(name)
    with capsys.disabled():
        print(f"\n{name:20} {model.parameters.total:20,} published {RELEASED[name]:20,.0f}", end=" ")
    assert model.parameters.total == approx(RELEASED[name], rel=2e-3)
    assert model.published_parameters == approx(RELEASED[name], rel=2e-3)


@pytest.mark.parametrize("name", [each.name for each in list_models() if each.published_active])
def test_active_parameters(name, capsys):
    """Within 0.2 %, or half of the last digit that is published."""
    model = load_model(name)
    found = model.active - model.vocabulary * model.hidden * (name in WITHOUT_EMBEDDING)
    digits = f"{model.published_active:.12g}".rstrip("0").replace(".", "")
    last = 10.0 ** (floor(log10(model.published_active)) - len(digits) + 1)
    with capsys.disabled():
        print(f"\n{name:20} {found / 1e9:8.3f} B active, published {model.published_active / 1e9:g} B", end=" ")
    assert found == approx(model.published_active, abs=max(2e-3 * model.published_active, 0.5 * last))


@pytest.mark.parametrize("name", [*RELEASED, "deepseek-v3", "t5-11b"])
def test_tensors_are_the_parameters(name):
    """Both ways to count agree, part by part, for every kind of layer and both ends."""
    model = load_model(name)
    pairs = [(model.of_layer(kind), tensors_of_layer(model, kind)) for kind in model.kinds]
    pairs += [(model.of_input, tensors_of_input(model)), (model.of_output, tensors_of_output(model))]
    for counts, tensors in pairs:
        for part in type(counts).model_fields:
            found = sum(shape.size * count for shape, count in tensors.get(part, {}).items())
            assert found == getattr(counts, part), part


SMALL = {"layers": 4, "heads": 4, "hidden": 32, "ffn_hidden": 64, "vocabulary": 64, "seq_len": 16, "tied": False}
STATE = {"fading": {"kind": "lightning", "heads": 4, "head_size": 8, "chunk": 8}}


def small(name, **keys):
    return Model.model_validate({"name": name, **SMALL, **keys})


def setting(model, **options):
    return Setting.of(flat(), model, {"mesh": {"dp": 1}, "precision": "O1", "tokens_per_rank": 32, **options})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mixers": ["window", "attention"], "window": 4}, "has window layers; executed for real is attention to all"),
        ({"mixers": ["fading"], "recurrent": STATE}, "has fading layers; executed for real is attention to all"),
        ({"further_tokens": 1}, "predicts further tokens; executed for real are decoders that predict one"),
        ({"query_key_norm": "head"}, "has norms of queries and keys; executed for real are decoders without"),
        ({"gated_attention": True}, "has gates on attention; executed for real are decoders without"),
        ({"experts": 4, "dense_beside": 16}, "has a dense FFN beside experts; executed for real are decoders without"),
    ],
)
def test_the_runtime_refuses_what_it_does_not_compute(keys, message):
    """In one line, and sends what the schedule says where nobody asks it to compute."""
    here = setting(small("odd", **keys), balancer="even")
    with pytest.raises(InputError, match=f"--model odd: {message}") as refused:
        data_of(here, computes=True, real=True)
    assert "\n" not in str(refused.value)
    assert data_of(here, computes=False, real=False) == "blank"


@pytest.mark.parametrize("tp", [1, 2])
def test_inference_keeps_what_later_tokens_see(tp):
    """Keys and values of a window, of a chunk, of all tokens; of linear attention a state, however long the sequence."""
    mixers = {"mixers": ["window", "chunk", "attention", "fading"], "window": 4, "chunk": 8, "recurrent": STATE}
    here, tokens = setting(small("mixed", **mixers), mesh={"tp": tp}), 100
    found = cache_bytes(here, POLICIES["O1"], 3, tokens)
    heads, state = 2 * 32 / tp, 4 * 8 * 8 / tp
    assert found == 3 * 2 * (heads * (4 + 8 + tokens) + state)


def test_layers_for_further_tokens_are_with_the_output():
    """On the last stage, whatever layers it has, with the words of the embedding, whose gradient both ends tell each other."""
    model = small("ahead", further_tokens=2)
    for how, last in (("even", 2), ("2,2,0", 0)):
        stages = 2 if how == "even" else 3
        here = setting(model, mesh={"pp": stages}, stage_layers=how, micro_batch=1)
        assert list(here.parts[-1]) == list(range(model.layers - last, model.layers + 2))
        holdings = {each.part: np.broadcast_to(each.parameters, (stages,)) for each in held(here)}
        assert holdings["embedding"][[0, -1]].tolist() == [64 * 32, 2 * 64 * 32]
        assert sum(each.sum() for each in holdings.values()) == model.parameters.total + 64 * 32
        roles = [each.task.role for each in lower_step(here)[0].operations]
        assert roles.count(Role.TIED_GRADIENT_TO_FIRST) == roles.count(Role.TIED_GRADIENT_TO_LAST) == 1


def seen(length, window=None, chunk=None):
    """Which key each query of a sequence sees, pair by pair."""
    query, key = np.arange(length)[:, None], np.arange(length)[None]
    found = key <= query
    if window:
        found &= query - key < window
    if chunk:
        found &= query // chunk == key // chunk
    return found


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.sampled_from(["", "window", "chunk"]))
def test_a_sight_is_the_share_of_pairs_that_are_seen(queries, before, size, kind):
    keys, more = queries + before, {kind: size} if kind else {}
    pairs = seen(keys, **more)
    assert Sight(**more).share(queries, keys) == approx(pairs[-queries:].mean())
    ahead = seen(keys + 1, **more)[-1, :-1]
    assert Sight(**more).reach(keys) >= ahead.sum(), "what a next token looks back at is kept"


def test_patterns():
    assert expanded(("2*window", "attention")) == ("window", "window", "attention")
    kinds = [layer.mixer for layer in load_model("jamba-1.5-large").stack]
    assert [at for at, kind in enumerate(kinds) if kind == "attention"] == list(range(4, 72, 8))
    assert [at for at, layer in enumerate(load_model("jamba-1.5-mini").stack) if layer.moe] == list(range(1, 32, 2))
    assert {layer.mixer for layer in load_model("gpt-oss-20b").stack[::2]} == {"window"}


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gpt-oss-120b"])
def test_windows_take_their_share_of_long_sequences(name):
    """At 131,072 tokens half of the layers see 128: as a count of pairs has it, and not 66 % more."""
    model, length = load_model(name), 131_072
    found = forward_flops(model, length, length)
    head = 2 * 2 * model.heads * model.head_size
    full, near = length * (length + 1) / 2, 128 * 129 / 2 + (length - 128) * 128
    scores = model.layers / 2 * head * (full + near)
    matrices = model.active - model.parameters.norm - 2 * model.vocabulary * model.hidden
    assert found.layers == approx(scores + 2 * length * matrices, rel=1e-3)
    everywhere = {key: value for key, value in model.model_dump().items() if key not in ("mixers", "window")}
    blind = forward_flops(Model.model_validate(everywhere), length, length)
    assert blind.layers / found.layers > 1.5
