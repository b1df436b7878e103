"""The model that Megatron-LM's arguments describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..reading.keys import Keys
from .shell import repeated

if TYPE_CHECKING:
    from ..kinds import Asked

MOST_LAYERS = 10_000


def model_fields(keys: Keys, words: int, asked: Asked, named: bool = False) -> dict[str, Any]:
    """The fields of the :class:`~athanor.workloads.model.model.Model`; of a model that is ``named`` keys only count as read."""
    missing: Any = {"default": 1} if named else {}
    hidden = keys.whole("hidden_size", **missing)
    heads = keys.whole("num_attention_heads", **missing)
    layers = keys.whole("num_layers", most=MOST_LAYERS, **missing)
    gated = keys.truth("swiglu", default=False) or _gated(keys)
    usual = int(4 * hidden * 2 / 3) // 64 * 64 if gated else 4 * hidden
    length = keys.whole("max_position_embeddings", default=keys.whole("seq_length", default=None))
    plain = keys.truth("disable_bias_linear", default=False) or not keys.truth("add_bias_linear", default=True)
    biases = [] if plain else ["qkv", "out", "ffn", "expert"]
    if keys.truth("add_qkv_bias", default=False) and "qkv" not in biases:
        biases.append("qkv")
    untied = keys.truth("untie_embeddings_and_output_weights", default=False)
    untied = untied or not keys.truth("share_embeddings_and_output_weights", default=True)
    norm = str(keys.raw("normalization", default="LayerNorm")).lower()
    if norm not in ("layernorm", "layernorm1p", "rmsnorm"):
        raise keys.wrong("normalization", "must be LayerNorm or RMSNorm")
    kind = keys.one_of(
        "position_embedding_type", "learned_absolute", "rope", "none", "yarn", "mrope", default="learned_absolute"
    )
    rotary = keys.truth("use_rotary_position_embeddings", default=False)
    found: dict[str, Any] = {
        "layers": layers,
        "heads": heads,
        "hidden": hidden,
        "ffn_hidden": keys.whole("ffn_hidden_size", default=max(64, usual)),
        "gated": gated,
        "biases": biases,
        "norm": "rms" if norm == "rmsnorm" else "layer",
        "dropout": keys.number("hidden_dropout", default=0.1) > 0,
        "vocabulary": words,
        "tied": not untied,
        "seq_len": keys.whole("seq_length", default=length) if length else keys.whole("seq_length", **missing),
        "positions": length if kind == "learned_absolute" and not rotary and length else 0,
    }
    groups = keys.whole("num_query_groups", default=None)
    if keys.truth("group_query_attention", default=groups not in (None, heads)) and groups not in (None, heads):
        found["kv_heads"] = groups
    size = keys.whole("kv_channels", default=None)
    if size is not None and size * heads != hidden:
        found["head_size"] = size
    norms = keys.truth("qk_layernorm", default=False)
    if keys.truth("multi_latent_attention", default=False):
        found["latent"] = {
            "key_value_rank": keys.whole("kv_lora_rank", default=32),
            "plain": keys.whole("qk_head_dim", default=128),
            "rotary": keys.whole("qk_pos_emb_head_dim", default=64),
            "value": keys.whole("v_head_dim", default=128),
        }
        if (rank := keys.whole("q_lora_rank", default=None)) is not None:
            found["latent"]["query_rank"] = rank
        found.pop("head_size", None), found.pop("kv_heads", None)
    elif norms:
        found["query_key_norm"] = "head"
    window = keys.raw("window_size", default=None)
    if window is not None:
        raise keys.wrong("window_size", "a window of attention cannot be carried from here; name it in the model file")
    found["further_tokens"] = keys.whole("mtp_num_layers", default=0, least=0, most=16)
    keys.number("mtp_loss_scaling_factor", default=0.1)
    if (experts := keys.whole("num_experts", default=None)) is not None:
        found |= _experts(keys, experts, layers, found["ffn_hidden"], asked)
    return found


def _gated(keys: Keys) -> bool:
    """Whether NeMo's activation is one of a gated FFN."""
    name = keys.raw("activation", "activation_func", default="")
    return isinstance(name, str) and name.rpartition(".")[2] in (
        "swiglu",
        "fast-swiglu",
        "geglu",
        "fast-geglu",
        "reglu",
        "silu",
    )


def _experts(keys: Keys, experts: int, layers: int, inner: int, asked: Asked) -> dict[str, Any]:
    """Experts, which layers have them, and the dense FFN beside them."""
    width = keys.whole("moe_ffn_hidden_size", default=inner)
    found: dict[str, Any] = {"experts": experts, "top_k": keys.whole("moe_router_topk", default=2)}
    if width != inner:
        found["expert_hidden"] = width
    beside = keys.whole("moe_shared_expert_intermediate_size", default=0, least=0)
    if beside % width:
        raise keys.wrong("moe_shared_expert_intermediate_size", f"must be a multiple of an expert's {width}")
    found["shared_experts"] = beside // width
    told = keys.raw("moe_layer_freq", default=1)
    listed = told if isinstance(told, list) else repeated(str(told)) if isinstance(told, str) else None
    if listed is None:
        every = keys.whole("moe_layer_freq", default=1)
        if every > 1:
            found["moe_every"] = every
            asked.tell(
                f"moe_layer_freq {every}: the last of every {every} layers has experts, in Megatron-LM the first"
            )
        return found
    dense = next((at for at, each in enumerate(listed) if each), len(listed))
    if len(listed) != layers or listed != [0] * dense + [1] * (layers - dense) or dense == layers:
        raise keys.wrong("moe_layer_freq", f"must be a number, or for {layers} layers first 0 and then 1 to the end")
    if dense:
        found["dense_first"] = dense
    return found
