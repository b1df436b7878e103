"""config.json of Hugging Face: parameters as published, every key carried or refused, and the file of the model reads back equal."""

import json

import pytest
from athanor import InputError, load_model, read_hf
from athanor.reports.formats.models.architecture import pattern
from athanor.reports.formats.models.huggingface import ARCHITECTURES
from athanor.reports.formats.writing import files_of
from athanor.workloads.model.layers import expanded
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import athanor
from support.paths import ROOT

PUBLISHED = json.loads((ROOT / "tests" / "data" / "huggingface.json").read_text())
"""Configurations of the shape that is released, and the parameters of the released weights."""


def written(folder, config):
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_released_weights(name, tmp_path):
    config, published = PUBLISHED[name]["config"], PUBLISHED[name]["parameters"]
    model = read_hf(written(tmp_path, config), name=name)
    assert model.parameters.total == pytest.approx(published, rel=2e-3)
    (target, text), *_ = files_of(model, tmp_path / "model.toml").items()
    target.write_text(text)
    assert load_model(target) == model


def test_at_least_twenty_architectures_are_held_to_published_counts():
    seen = {(each["config"].get("text_config") or each["config"])["model_type"] for each in PUBLISHED.values()}
    assert seen <= {*ARCHITECTURES}
    assert len(seen) >= 20


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_key_that_nobody_knows_is_refused_by_its_name(name, tmp_path):
    config = PUBLISHED[name]["config"]
    inner = "text_config" in config
    changed = (
        {**config, "text_config": {**config["text_config"], "novel_part": 3}} if inner else {**config, "novel_part": 3}
    )
    key = "text_config.novel_part" if inner else "novel_part"
    with pytest.raises(InputError, match=f"{key}: .* cannot carry it; --ignore {key}"):
        read_hf(written(tmp_path, changed), name=name)
    assert read_hf(tmp_path, name=name, ignore=[key]) == read_hf(written(tmp_path, config), name=name)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("opt-6.7b", {"word_embed_proj_dim": 512}, "word_embed_proj_dim is 512"),
        ("opt-6.7b", {"do_layer_norm_before": False}, "do_layer_norm_before is false"),
        ("mamba-2.8b", {"use_bias": True}, "use_bias is true"),
        ("gpt-oss-20b", {"layer_types": ["dreaming"] * 24}, "dreaming cannot be carried"),
        ("gpt-oss-20b", {"layer_types": ["full_attention"]}, "must have one for each of the 24 layers"),
        ("Qwen1.5-MoE-A2.7B", {"shared_expert_intermediate_size": 5000}, "must be a multiple of an expert's 1408"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [3]}, "dense layers can only be the first ones"),
        ("DeepSeek-V3", {"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ("jamba-1.5-mini", {"expert_layer_offset": 0}, "expert_layer_offset is 0"),
        ("Llama-2-7b", {"num_hidden_layers": 0}, "num_hidden_layers is 0: must be a whole number from 1"),
        ("Llama-2-7b", {"num_hidden_layers": 10**9}, "must be a whole number from 1 to 10,000"),
        ("Llama-2-7b", {"hidden_size": "wide"}, 'hidden_size is "wide"'),
        ("Llama-2-7b", {"num_attention_heads": 31}, "hidden = 4096 is no multiple of heads = 31"),
        ("Llama-2-7b", {"model_type": "lama"}, "did you mean llama"),
        ("Llama-4-Scout-text", {"vision_config": {"hidden_size": 1408}}, "vision_config: llama4_text cannot carry it"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_in_one_line(name, change, said, tmp_path):
    file = written(tmp_path, {**PUBLISHED[name]["config"], **change})
    done = athanor("import", "hf", file, "-o", tmp_path / "out.toml")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.toml").exists()


def test_the_command_writes_a_model_that_simulates(tmp_path):
    config = {**PUBLISHED["Llama-3.2-1B"]["config"], "num_hidden_layers": 2, "max_position_embeddings": 512}
    file, out = written(tmp_path, config), tmp_path / "small.toml"
    assert athanor("import", "hf", file, "-o", out, "--name", "small").returncode == 0
    run = athanor("simulate", "--machine", "cluster-64", "--model", out, "--mesh", "dp=4", "--depth", "bound")
    assert run.returncode == 0, run.stderr


@given(st.lists(st.sampled_from(["attention", "window", "chunk"]), min_size=1, max_size=4), st.integers(1, 5))
def test_patterns_of_layers_are_the_layers(cycle, times):
    layers = cycle * times
    short = expanded(pattern(layers))
    assert [short[at % len(short)] for at in range(len(layers))] == layers
    assert len(short) <= len(cycle)
