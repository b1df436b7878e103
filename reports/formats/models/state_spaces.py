"""Models whose layers mix tokens by states instead of scores, all or some of them."""

from __future__ import annotations

from typing import Any, ClassVar

from ....workloads.model.layers import ATTENTION
from ..reading.keys import Keys
from .architecture import FREE, MOST_LAYERS, Architecture, decoder, pattern, shared, sights
from .experts import Qwen3Moe

STATES = (
    *(
        "time_step_floor",
        "time_step_init_scheme",
        "time_step_limit",
        "time_step_max",
        "time_step_min",
        "time_step_scale",
    ),
    *("use_mambapy", "use_associative_scan", "rms_norm", "ssm_cfg", "fused_add_norm", "pad_vocab_size_multiple"),
)
"""Keys that change how states begin, and which kernels are called."""


class MambaOne(Architecture):
    """Mamba: no attention, no FFN."""

    about: ClassVar[str] = "state spaces, no attention"
    version: ClassVar[str] = "mamba-1"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """All layers alike."""
        keys.free(*FREE, *STATES, "intermediate_size", "d_inner", "n_layer", "d_model")
        keys.one_of("use_bias", False, default=False, why="biases of projections cannot be carried")
        keys.one_of("use_conv_bias", True, default=True)
        hidden = keys.whole("hidden_size", "d_model")
        return {
            "layers": keys.whole("num_hidden_layers", "n_layer", most=MOST_LAYERS),
            "hidden": hidden,
            "ffn_hidden": 0,
            "norm": "rms",
            "mixers": ["mamba"],
            "recurrent": {"mamba": {"kind": self.version, **self.states(keys, hidden)}},
            "vocabulary": keys.whole("vocab_size"),
            "tied": keys.truth("tie_word_embeddings", "tie_embeddings", default=True),
            "seq_len": keys.whole("max_position_embeddings", "max_seq_len", default=2048),
        }

    def states(self, keys: Keys, hidden: int) -> dict[str, Any]:
        """Sizes of the state space."""
        found = {
            "state_size": keys.whole("state_size", default=16),
            "expand": keys.whole("expand", default=2),
            "convolution": keys.whole("conv_kernel", default=4),
        }
        rank = keys.raw("time_step_rank", default="auto")
        return found if rank == "auto" else {**found, "rank": keys.whole("time_step_rank")}


class MambaTwo(MambaOne):
    """Mamba-2: heads, and chunks by products."""

    about: ClassVar[str] = "state spaces by heads, no attention"
    version: ClassVar[str] = "mamba-2"

    def states(self, keys: Keys, hidden: int) -> dict[str, Any]:
        """Sizes of the state space."""
        keys.free("time_step_rank", "norm_before_gate")
        size, expand = keys.whole("head_dim", default=64), keys.whole("expand", default=2)
        heads = keys.whole("num_heads", default=expand * hidden // size)
        if heads * size != expand * hidden:
            raise keys.wrong("num_heads", f"times head_dim must be expand x hidden_size, {expand * hidden}")
        return {
            "state_size": keys.whole("state_size", default=128),
            "expand": expand,
            "convolution": keys.whole("conv_kernel", default=4),
            "head_size": size,
            "groups": keys.whole("n_groups", default=8),
            "chunk": keys.whole("chunk_size", default=256),
        }


class Jamba(Architecture):
    """Jamba: attention in one of eight layers, state spaces in the others, experts in every other one."""

    about: ClassVar[str] = "attention in some layers, state spaces in the others, experts"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Where layers have attention and experts is said by periods and offsets."""
        keys.free("use_mamba_kernels", "sliding_window", "max_position_embeddings")
        keys.one_of("mamba_proj_bias", False, default=False, why="biases of projections cannot be carried")
        keys.one_of("mamba_conv_bias", True, default=True)
        found = decoder(keys, tied=False, norm="rms", gated=True)
        period, offset = (
            keys.whole("attn_layer_period", default=8, most=found["layers"]),
            keys.whole("attn_layer_offset", default=4, least=0),
        )
        every, first = (
            keys.whole("expert_layer_period", default=2),
            keys.whole("expert_layer_offset", default=1, least=0),
        )
        if first != every - 1:
            raise keys.wrong("expert_layer_offset", f"must be {every - 1}, the last of its period")
        mixers = [ATTENTION if at % period == offset else "mamba" for at in range(found["layers"])]
        rank = keys.raw("mamba_dt_rank", default="auto")
        mamba = {
            "kind": "mamba-1",
            "state_size": keys.whole("mamba_d_state", default=16),
            "expand": keys.whole("mamba_expand", default=2),
            "convolution": keys.whole("mamba_d_conv", default=4),
            "inner_norms": True,
            **({} if rank == "auto" else {"rank": keys.whole("mamba_dt_rank")}),
        }
        return {
            **found,
            "ffn_hidden": keys.whole("intermediate_size"),
            "experts": keys.whole("num_experts"),
            "top_k": keys.whole("num_experts_per_tok"),
            "moe_every": every,
            "mixers": pattern(mixers),
            **({"recurrent": {"mamba": mamba}} if "mamba" in mixers else {}),
        }


class Qwen3Next(Qwen3Moe):
    """Qwen3-Next: a gated delta net in three of four layers, a gate on attention in the fourth."""

    about: ClassVar[str] = "as qwen3_moe, a gated delta net in three of four layers"

    def attention(self, keys: Keys, layers: int) -> dict[str, Any]:
        """By layer types, or every so many layers to all tokens."""
        keys.one_of("use_sliding_window", False, default=False)
        every = keys.whole("full_attention_interval", default=4)
        types = {"full_attention": ATTENTION, "linear_attention": "delta"}
        otherwise = [ATTENTION if (at + 1) % every == 0 else "delta" for at in range(layers)]
        delta = {
            "kind": "gated-delta",
            "key_heads": keys.whole("linear_num_key_heads"),
            "key_size": keys.whole("linear_key_head_dim"),
            "value_heads": keys.whole("linear_num_value_heads"),
            "value_size": keys.whole("linear_value_head_dim"),
            "convolution": keys.whole("linear_conv_kernel_dim"),
        }
        seen = sights(keys, otherwise, layers, types)
        held = {"recurrent": {"delta": delta}} if "mixers" in seen else {}
        keys.one_of("attention_bias", False, default=False)
        further = keys.whole("num_nextn_predict_layers", default=0, least=0, most=16)
        return {**seen, **held, "gated_attention": True, "further_tokens": further}


class MiniMax(Architecture):
    """MiniMax-Text-01: lightning attention in seven of eight layers, experts in all."""

    about: ClassVar[str] = "lightning attention in seven of eight layers, experts"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """0 in ``attn_type_list`` is lightning attention, 1 attention to all tokens."""
        keys.free("layernorm_full_attention_alpha", "layernorm_full_attention_beta", "layernorm_linear_attention_alpha")
        keys.free("layernorm_linear_attention_beta", "layernorm_mlp_alpha", "layernorm_mlp_beta", "postnorm")
        keys.free("shared_moe_mode", "sliding_window", "mlp_alpha_factor")
        found = decoder(keys, tied=False, norm="rms", gated=True)
        width = keys.whole("intermediate_size")
        kinds = keys.wholes("attn_type_list")
        if len(kinds) != found["layers"] or not {*kinds} <= {0, 1}:
            raise keys.wrong("attn_type_list", f"must have a 0 or 1 for each of the {found['layers']} layers")
        mixers = [ATTENTION if each else "lightning" for each in kinds]
        size = found.get("head_size", found["hidden"] // found["heads"])
        held = {"recurrent": {"lightning": {"kind": "lightning", "heads": found["heads"], "head_size": size}}}
        return {
            **found,
            "ffn_hidden": width,
            "experts": keys.whole("num_local_experts"),
            "top_k": keys.whole("num_experts_per_tok"),
            "shared_experts": shared(keys, width, "shared_intermediate_size"),
            "mixers": pattern(mixers),
            **(held if 0 in kinds else {}),
        }
