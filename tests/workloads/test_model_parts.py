"""Parts of a model: released models have as many parameters as they have, and each part costs what a count of its own says."""

from math import floor, log10

import numpy as np
import pytest
from athanor.workloads.model.flops import forward_flops
from athanor.workloads.model.layers import Sight, expanded
from athanor.workloads.model.model import Model, list_models, load_model
from athanor.workloads.model.tensors import tensors_of_input, tensors_of_layer, tensors_of_output
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

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
