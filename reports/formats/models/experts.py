"""Decoders with mixtures of experts."""

from __future__ import annotations

from typing import Any, ClassVar

from ....workloads.model.layers import ATTENTION, CHUNK, WINDOW
from ..reading.keys import Keys
from .architecture import Architecture, biases, decoder, shared, sights


class Mixtral(Architecture):
    """Mixtral: experts in every layer, as wide as the file's one FFN."""

    about: ClassVar[str] = "as llama, experts in every layer"
    norm_of_heads: ClassVar[str] = "none"
    norm: ClassVar[str] = "rms"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """All layers with experts."""
        found = decoder(keys, tied=False, norm=self.norm, gated=True)
        found |= {
            "ffn_hidden": keys.whole("intermediate_size"),
            "experts": keys.whole("num_local_experts", "num_experts", "n_routed_experts"),
            "top_k": keys.whole("num_experts_per_tok", "num_selected_experts"),
        }
        windowed = keys.whole("sliding_window", default=None) is not None
        found |= biases(keys, attention=False, mlp=False)
        if self.norm_of_heads != "none":
            found["query_key_norm"] = self.norm_of_heads
        return found | sights(keys, [WINDOW if windowed else ATTENTION], found["layers"])


class Olmoe(Mixtral):
    """OLMoE: norms over all queries and keys."""

    about: ClassVar[str] = "as mixtral, with norms over all queries and keys"
    norm_of_heads: ClassVar[str] = "all"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """All layers with experts."""
        keys.one_of("clip_qkv", None, default=None)
        return super().fields(keys)


class PhiMoE(Mixtral):
    """Phi-3.5-MoE: layer norms, biases of attention and of the output layer."""

    about: ClassVar[str] = "as mixtral, with layer norms and biases"
    norm: ClassVar[str] = "layer"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """All layers with experts."""
        output = keys.truth("lm_head_bias", default=False)
        found = super().fields(keys)
        return {**found, "biases": [*found.get("biases", ()), *(["output"] if output else [])]}


class Qwen2Moe(Architecture):
    """Qwen2-MoE: a shared expert with a gate of one number a token, which is left out."""

    about: ClassVar[str] = "as qwen2, experts and a shared one"
    attention_bias: ClassVar[bool] = True
    norm_of_heads: ClassVar[str] = "none"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers with experts where ``decoder_sparse_step`` says so."""
        found = decoder(keys, tied=False, norm="rms", gated=True)
        width = keys.whole("moe_intermediate_size")
        dense = keys.wholes("mlp_only_layers", default=[])
        if dense != [*range(len(dense))]:
            raise keys.wrong("mlp_only_layers", "dense layers can only be the first ones")
        every = keys.whole("decoder_sparse_step", default=1)
        if dense and every > 1:
            raise keys.wrong("mlp_only_layers", "with decoder_sparse_step above 1 it cannot be carried")
        keys.free("qkv_bias")
        found |= {
            "ffn_hidden": keys.whole("intermediate_size"),
            "experts": keys.whole("num_experts", "num_local_experts", "n_routed_experts"),
            "expert_hidden": width,
            "top_k": keys.whole("num_experts_per_tok"),
            "dense_first": len(dense),
            "moe_every": every,
            "shared_experts": shared(keys, width, "shared_expert_intermediate_size"),
        }
        found |= self.attention(keys, found["layers"])
        if self.norm_of_heads != "none":
            found["query_key_norm"] = self.norm_of_heads
        return found

    def attention(self, keys: Keys, layers: int) -> dict[str, Any]:
        """To all tokens: a window is refused."""
        keys.one_of(
            "use_sliding_window", False, default=False, why="a window beside layers without cannot be carried here"
        )
        keys.free("sliding_window", "max_window_layers", "layer_types")
        return biases(keys, attention=self.attention_bias, mlp=False, out=not self.attention_bias)


class Qwen3Moe(Qwen2Moe):
    """Qwen3-MoE: norms of queries and keys, no shared expert."""

    about: ClassVar[str] = "as qwen3, with experts"
    attention_bias: ClassVar[bool] = False
    norm_of_heads: ClassVar[str] = "head"


class DeepSeek(Architecture):
    """DeepSeek-V2, V3 and Kimi K2: latent attention, shared experts, dense layers first, layers for further tokens."""

    about: ClassVar[str] = "latent attention, experts and shared ones, further tokens"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """The heads of keys and values that the file names are those that latent attention makes: all."""
        keys.one_of("moe_layer_freq", 1, default=1, why="experts in some layers only cannot be carried")
        keys.free("quantization_config", "num_key_value_heads", "head_dim", "qk_head_dim", "aux_loss_free", "dspark")
        found = decoder(keys, tied=False, norm="rms", gated=True)
        for unused in ("kv_heads", "head_size"):
            found.pop(unused, None)
        found["latent"] = {
            "key_value_rank": keys.whole("kv_lora_rank"),
            "plain": keys.whole("qk_nope_head_dim"),
            "rotary": keys.whole("qk_rope_head_dim"),
            "value": keys.whole("v_head_dim"),
        }
        if (rank := keys.whole("q_lora_rank", default=None)) is not None:
            found["latent"]["query_rank"] = rank
        found |= {
            "ffn_hidden": keys.whole("intermediate_size"),
            "experts": keys.whole("n_routed_experts"),
            "expert_hidden": keys.whole("moe_intermediate_size"),
            "top_k": keys.whole("num_experts_per_tok"),
            "shared_experts": keys.whole("n_shared_experts", default=0, least=0),
            "dense_first": keys.whole("first_k_dense_replace", default=0, least=0),
            "further_tokens": keys.whole("num_nextn_predict_layers", default=0, least=0, most=16),
        }
        return found | biases(keys, attention=False, mlp=False)


class Glm4Moe(Architecture):
    """GLM-4.5: grouped queries, shared experts, dense layers first, a layer for a further token."""

    about: ClassVar[str] = "grouped queries, experts and shared ones, further tokens"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Biases of queries, keys and values; none of the output."""
        found = decoder(keys, tied=False, norm="rms", gated=True)
        found |= {
            "ffn_hidden": keys.whole("intermediate_size"),
            "experts": keys.whole("n_routed_experts"),
            "expert_hidden": keys.whole("moe_intermediate_size"),
            "top_k": keys.whole("num_experts_per_tok"),
            "shared_experts": keys.whole("n_shared_experts", default=0, least=0),
            "dense_first": keys.whole("first_k_dense_replace", default=0, least=0),
            "further_tokens": keys.whole("num_nextn_predict_layers", default=0, least=0, most=16),
        }
        if keys.truth("use_qk_norm", default=False):
            found["query_key_norm"] = "head"
        return found | biases(keys, attention=False, mlp=False, out=False)


class GptOss(Architecture):
    """gpt-oss: biases everywhere, every other layer with a window. Its sinks are left out: a number a head."""

    about: ClassVar[str] = "experts with biases, a window in every other layer"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """All layers with experts."""
        keys.free("quantization_config", "experts_per_token")
        found = decoder(keys, tied=False, norm="rms", gated=True)
        found |= {
            "ffn_hidden": keys.whole("intermediate_size"),
            "experts": keys.whole("num_local_experts"),
            "top_k": keys.whole("num_experts_per_tok", "experts_per_token"),
        }
        attention = biases(keys, attention=True, mlp=False).get("biases", [])
        cycle = [WINDOW, ATTENTION]
        found |= sights(keys, [cycle[at % 2] for at in range(found["layers"])], found["layers"])
        return {**found, "biases": [*attention, "expert", "gate"]}


class Llama4(Architecture):
    """Llama 4's text model: experts in every layer or every other one, a shared expert, chunks in three of four layers."""

    about: ClassVar[str] = "experts and a shared one, chunks in three of four layers"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Norms of queries and keys have no weights here."""
        keys.free("use_qk_norm", "attn_temperature_tuning", "floor_scale", "no_rope_layers", "no_rope_layer_interval")
        keys.free("for_llm_compressor")
        found = decoder(keys, tied=False, norm="rms", gated=True)
        layers = found["layers"]
        every = keys.whole("interleave_moe_layer_step", default=1)
        listed = keys.wholes("moe_layers", default=[*range(every - 1, layers, every)])
        if listed != [*range(every - 1, layers, every)]:
            raise keys.wrong("moe_layers", f"must be every {every}. layer, as interleave_moe_layer_step says")
        found |= {
            "expert_hidden": keys.whole("intermediate_size"),
            "ffn_hidden": keys.whole("intermediate_size_mlp"),
            "experts": keys.whole("num_local_experts"),
            "top_k": keys.whole("num_experts_per_tok"),
            "moe_every": every,
            "shared_experts": 1,
        }
        cycle = [CHUNK, CHUNK, CHUNK, ATTENTION]
        found |= sights(keys, [cycle[at % 4] for at in range(layers)], layers)
        return found | biases(keys, attention=False, mlp=False)


class Dbrx(Architecture):
    """DBRX: norms without a shift, keys in tables for attention and FFN."""

    about: ClassVar[str] = "layer norms without shift, experts in every layer"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """All layers with experts."""
        attention, ffn = keys.table("attn_config"), keys.table("ffn_config")
        attention.free("model_type", "clip_qkv", "rope_theta", "attn_pdrop")
        ffn.free("model_type", "ffn_act_fn", "moe_jitter_eps", "moe_loss_weight", "moe_normalize_expert_weights")
        ffn.free("uniform_expert_assignment")
        found = decoder(keys, tied=False, norm="layer-scale", gated=True)
        groups = attention.whole("kv_n_heads", default=found["heads"])
        if groups != found["heads"]:
            found["kv_heads"] = groups
        return {
            **found,
            "ffn_hidden": ffn.whole("ffn_hidden_size"),
            "experts": ffn.whole("moe_num_experts"),
            "top_k": ffn.whole("moe_top_k"),
        }
