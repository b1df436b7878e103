"""The model of a row of the older table: the catalogue's of its name or shape, and what the columns have otherwise."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ....workloads.model.model import Model, list_models, load_model
from .columns import MORE, NEEDED, PEOPLE, Row, Unreadable
from .names import model_named

VOCABULARY = 51200
"""Of a GPT whose source does not say: GPT-2's 50,257 words, padded (Megatron-LM)."""

HEAD_SIZE = 128
"""Elements of a head of a GPT whose source does not say how many it has: that of Megatron-LM's large models."""

COLUMNS = {"layers": "layers", "hidden": "hidden", "heads": "heads", "vocab": "vocabulary", "seq_len": "seq_len"}
"""Columns that are keys of a model file by another name or their own."""


def model_of(row: Row) -> tuple[str, dict[str, Any], list[str]]:
    """Its name, its keys in a file of runs (a ``base``, or all of them), and what was assumed.

    Raises :class:`Unreadable` where its shape is not known.
    """
    assumed: list[str] = []
    own = _further(row)
    name = model_named(row.text("model"))
    if name is None:
        twin = _twin(row)
        if twin is None:
            return row.text("model") or row.text("id"), {**_from_columns(row, assumed), **own}, assumed
        name = twin.name
        assumed.append(f"beside its columns the parts of {name}")
    base = load_model(name)
    changes = {**_changes(row, base), **own}
    if not changes:
        return name, {}, assumed
    return row.text("model") or row.text("id"), {"base": name, **changes}, assumed


def _changes(row: Row, base: Model) -> dict[str, Any]:
    """Keys in which the columns differ from the catalogue's model."""
    given: dict[str, Any] = {key: row.count(column) for column, key in COLUMNS.items()}
    if base.experts:
        given |= {"experts": row.count("moe_experts"), "top_k": row.count("top_k")}
    table = base.model_dump()
    if base.experts and row.count("moe_experts"):
        table["expert_hidden"] = base.expert_hidden or base.ffn_hidden
        given["expert_hidden"] = row.count("ffn_hidden")
    elif not base.experts:
        given["ffn_hidden"] = row.count("ffn_hidden")
    found = {key: value for key, value in given.items() if value is not None and value != table[key]}
    if base.positions and found.get("seq_len", 0) > base.positions:
        found["positions"] = found["seq_len"]
    return found


def _from_columns(row: Row, assumed: list[str]) -> dict[str, Any]:
    """All keys of a model that the catalogue does not have: a GPT with what its columns say."""
    if row.count("layers") is None or row.count("hidden") is None:
        raise Unreadable(f"layers and hidden were not published, and the catalogue has no model {row.text('model')!r}")
    layers, hidden = row.needed("layers"), row.needed("hidden")
    heads, vocabulary = row.count("heads"), row.count("vocab")
    if heads is None:
        heads = max(1, hidden // HEAD_SIZE)
        assumed.append(f"{heads} heads")
    if vocabulary is None:
        vocabulary = VOCABULARY
        assumed.append(f"vocabulary {vocabulary:,}")
    width, seq_len = row.count("ffn_hidden") or 4 * hidden, row.needed("seq_len")
    table: dict[str, Any] = {
        "layers": layers,
        "heads": heads,
        "hidden": hidden,
        "ffn_hidden": width,
        "vocabulary": vocabulary,
        "seq_len": seq_len,
    }
    if experts := row.count("moe_experts"):
        every = max(1, round(layers / (row.count("moe_layers") or layers)))
        table |= {"experts": experts, "expert_hidden": width, "top_k": row.needed("top_k"), "moe_every": every}
    plain = {**table, "biases": True, "dropout": True, "positions": seq_len}
    gated = {**table, "gated": True, "norm": "rms", "tied": False}
    billions = row.number("params_B")
    if billions is not None and _far(gated, billions) < _far(plain, billions):
        assumed.append("gated FFNs, as its number of parameters is theirs")
        return gated
    return plain


def _far(table: dict[str, Any], billions: float) -> float:
    """How far the parameters of a model are from those that were published; infinite where it is no model."""
    try:
        return abs(float(Model.model_validate({"name": "a", **table}).parameters.total) / (billions * 1e9) - 1)
    except ValueError:
        return float("inf")


def _twin(row: Row) -> Model | None:
    """The catalogue's model with gated FFNs that has the same layers, widths, heads and experts.

    Of several the one of the same vocabulary. A GPT with plain FFNs is what its columns say.
    """
    width, experts = row.count("ffn_hidden"), row.count("moe_experts") or 0
    wanted = (row.count("layers"), row.count("hidden"), experts)
    if None in wanted or width is None:
        return None
    heads, vocabulary, length = row.count("heads"), row.count("vocab"), row.count("seq_len")
    alike = [
        model
        for model in _decoders()
        if (model.layers, model.hidden, model.experts) == wanted
        and (model.expert_hidden or model.ffn_hidden if experts else model.ffn_hidden) == width
        and heads in (None, model.heads)
    ]
    return min(
        alike, key=lambda model: (model.vocabulary != vocabulary, model.seq_len != length, model.name), default=None
    )


@lru_cache
def _decoders() -> list[Model]:
    return [model for model in list_models() if model.causal and not model.encoder_layers and model.gated]


def _further(row: Row) -> dict[str, Any]:
    """Columns of the user's own that are keys of a model file, such as ``kv_heads``."""
    taken = {*NEEDED, *MORE, *PEOPLE}
    found: dict[str, Any] = {}
    for key in Model.model_fields:
        text = "" if key in taken else row.text(key)
        if text:
            found[key] = _value(text)
    return found


def _value(text: str) -> bool | int | str:
    """A field as yes or no, a whole number, or a text."""
    lower = text.casefold()
    if lower in ("yes", "true", "no", "false"):
        return lower in ("yes", "true")
    return int(text) if text.isdigit() else text
