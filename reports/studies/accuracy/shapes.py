"""The model of a row: its shape from the row, and what no column tells from the catalogue's model of that shape or family."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from ....hardware.errors import InputError
from ....workloads.model.model import Model, list_models, load_model
from .rows import LeftOut, PublishedRow

VOCABULARY = 51200
"""Of a GPT whose source does not say: GPT-2's 50,257 words, padded (Megatron-LM)."""

HEAD_SIZE = 128
"""Elements of a head of a GPT whose source does not say how many it has: that of Megatron-LM's large models."""

NEAR = 0.1
"""How far a catalogue's GPT may be from the published number of parameters to lend its shape."""

GATED = re.compile(r"llama|mixtral|mistral|qwen|deepseek", re.IGNORECASE)
"""Names of models with gated FFNs, RMS norms, no biases and an output layer of their own."""

LENT = "the shape of"
"""How the assumption begins that a model has the shape of one of the catalogue's."""

SHAPE = ("layers", "hidden", "heads")


def model_of(row: PublishedRow) -> tuple[Model, list[str]]:
    """The model of a row, and what was assumed about it; raises :class:`LeftOut` where its shape is not known."""
    assumed: list[str] = []
    if row.count("layers") is None or row.count("hidden") is None:
        return _by_size(row, assumed), assumed
    twin = _twin(row)
    base = dict(twin.model_dump(exclude={"plan", "sources"})) if twin else _family(row)
    heads = row.count("heads")
    if heads is None:
        heads = twin.heads if twin else max(1, row.needed("hidden") // HEAD_SIZE)
        assumed.append(f"{heads} heads")
    vocabulary = row.count("vocab")
    if vocabulary is None:
        vocabulary = int(base.get("vocabulary", VOCABULARY))
        assumed.append(f"vocabulary {vocabulary:,}")
    seq_len = row.count("seq_len") or (twin.seq_len if twin else None)
    if seq_len is None:
        raise LeftOut("seq_len was not published")
    table = {
        **base,
        "name": row.text("model") or row.id,
        "layers": row.needed("layers"),
        "hidden": row.needed("hidden"),
        "heads": heads,
        "vocabulary": vocabulary,
        "seq_len": seq_len,
        "published_parameters": None,
        **_experts(row, twin),
    }
    if base.get("positions"):
        table["positions"] = max(int(base["positions"]), seq_len)
    try:
        return Model.model_validate(table), assumed
    except ValueError as wrong:
        raise LeftOut(f"no model: {_short(wrong)}") from None


def _experts(row: PublishedRow, twin: Model | None) -> dict[str, Any]:
    """FFN and experts; a row's ``ffn_hidden`` is that of an expert, where it has some."""
    width, experts = row.count("ffn_hidden"), row.count("moe_experts")
    if experts is None:
        return {"ffn_hidden": width or 4 * row.needed("hidden"), "experts": 0, "shared_experts": 0, "dense_first": 0}
    top_k = row.count("top_k")
    if top_k is None:
        raise LeftOut("top_k was not published")
    found: dict[str, Any] = {"experts": experts, "top_k": top_k, "expert_hidden": width}
    if twin is None:
        layers, moe = row.needed("layers"), row.count("moe_layers") or row.needed("layers")
        found |= {"ffn_hidden": width or 4 * row.needed("hidden"), "moe_every": max(1, round(layers / moe))}
    return found


def _family(row: PublishedRow) -> dict[str, Any]:
    """Flags of a model that the catalogue does not have."""
    if GATED.search(row.text("model")):
        return {"gated": True, "norm": "rms", "tied": False}
    rotary = re.search(r"bloom", row.text("source") + row.text("model"), re.IGNORECASE)
    return {"biases": True, "dropout": True, "positions": 0 if rotary else 1}


def _twin(row: PublishedRow) -> Model | None:
    """The catalogue's model of the same layers and hidden size, and as many experts; of several the one with the same FFN."""
    layers, hidden, experts = row.count("layers"), row.count("hidden"), row.count("moe_experts") or 0
    gated, width = bool(GATED.search(row.text("model"))), row.count("ffn_hidden")
    alike = [
        model
        for model in _catalogue()
        if (model.layers, model.hidden, model.experts, model.gated) == (layers, hidden, experts, gated)
    ]
    return min(alike, key=lambda model: model.ffn_hidden != width, default=None)


def _by_size(row: PublishedRow, assumed: list[str]) -> Model:
    """The catalogue's GPT with about as many parameters, where a row tells only these."""
    size = row.number("params_B")
    if size is None or not row.text("model").startswith("GPT"):
        raise LeftOut("layers and hidden were not published")
    gpts = [model for model in _catalogue() if not model.experts and not model.gated and not model.encoder_layers]
    nearest = min(gpts, key=lambda model: abs(model.parameters.total / (size * 1e9) - 1))
    if abs(nearest.parameters.total / (size * 1e9) - 1) > NEAR:
        raise LeftOut(
            f"layers and hidden were not published, and the catalogue has no GPT of about {size:g} B parameters"
        )
    assumed.append(f"{LENT} {nearest.name}")
    seq_len = row.count("seq_len") or nearest.seq_len
    return nearest.model_copy(update={"seq_len": seq_len, "positions": max(nearest.positions, seq_len), "plan": {}})


@lru_cache
def _catalogue() -> list[Model]:
    return list_models()


@lru_cache
def named(name: str) -> Model | None:
    """The catalogue's model of that name, whatever its case."""
    try:
        return load_model(name.lower())
    except InputError:
        return None


def _short(wrong: ValueError) -> str:
    return " ".join(str(wrong).split())[:120]
