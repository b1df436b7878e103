"""Dense models with layer norms: GPT-2 and its line, BERT, T5."""

from __future__ import annotations

from typing import Any, ClassVar

from ....workloads.model.layers import ATTENTION, WINDOW
from ..reading.keys import Keys
from .architecture import FREE, MOST_LAYERS, OTHER_DROPOUTS, Architecture, biases, decoder, sights

ALL = ["qkv", "out", "ffn"]


class GPT2(Architecture):
    """GPT-2: learned positions, biases everywhere, one table for words and output."""

    about: ClassVar[str] = "layer norms, learned positions, biases, tied"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.free("n_ctx", "summary_activation", "summary_proj_to_labels", "summary_type", "summary_use_proj")
        found = decoder(keys, tied=True, norm="layer", gated=False)
        inner = keys.whole("n_inner", default=4 * found["hidden"])
        return {**found, "ffn_hidden": inner, "biases": ALL, "positions": found["seq_len"]}


class GPTNeoX(Architecture):
    """GPT-NeoX and Pythia: attention and FFN beside each other, which costs what it does one after the other."""

    about: ClassVar[str] = "layer norms, rotary positions, biases, an output layer of its own"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.free("use_parallel_residual")
        found = decoder(keys, tied=False, norm="layer", gated=False)
        attention = biases(keys, attention=True, mlp=False).get("biases", [])
        return {**found, "ffn_hidden": keys.whole("intermediate_size"), "biases": [*attention, "ffn"]}


class OPT(Architecture):
    """OPT: learned positions with two rows before them."""

    about: ClassVar[str] = "layer norms, learned positions, biases, tied"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.one_of(
            "do_layer_norm_before", True, default=True, why="norms behind the halves of a layer cannot be carried"
        )
        keys.one_of("enable_bias", True, default=True, why="norms with a shift but matrices without cannot be carried")
        keys.one_of("layer_norm_elementwise_affine", True, default=True)
        keys.free("_remove_final_layer_norm")
        found = decoder(keys, tied=True, norm="layer", gated=False)
        narrow = keys.whole("word_embed_proj_dim", default=found["hidden"])
        if narrow != found["hidden"]:
            raise keys.wrong(
                "word_embed_proj_dim", f"a table narrower than the stream's {found['hidden']} cannot be carried"
            )
        return {**found, "ffn_hidden": keys.whole("ffn_dim"), "biases": ALL, "positions": found["seq_len"] + 2}


class Bloom(Architecture):
    """BLOOM: positions as a bias of scores (ALiBi). The norm behind its embedding is left out: two numbers an element."""

    about: ClassVar[str] = "layer norms, ALiBi, biases, tied"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.free("n_embed")
        keys.free("apply_residual_connection_post_layernorm", "slow_but_exact", "offset_alibi", "skip_bias_add")
        keys.free(
            "masked_softmax_fusion",
            "bias_dropout_fusion",
            "skip_bias_add_qkv",
            "unk_token_id",
            "attention_softmax_in_fp32",
        )
        found = decoder(keys, tied=True, norm="layer", gated=False)
        return {**found, "ffn_hidden": 4 * found["hidden"], "biases": ALL}


class Falcon(Architecture):
    """Falcon: one or a few heads of keys and values. Where halves share a norm, each is given one: below 0.01 %."""

    about: ClassVar[str] = "layer norms, few heads of keys and values, tied"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.free("alibi", "parallel_attn", "num_ln_in_parallel_attn", "apply_residual_connection_post_layernorm")
        several = keys.truth("new_decoder_architecture", default=False)
        one = keys.truth("multi_query", default=True)
        with_bias = keys.truth("bias", default=False)
        few = keys.whole("num_kv_heads", "n_head_kv", default=None)
        found = decoder(keys, tied=True, norm="layer", gated=False)
        heads = (few or found["heads"]) if several else 1 if one else found["heads"]
        if heads != found["heads"]:
            found["kv_heads"] = heads
        inner = keys.whole("ffn_hidden_size", default=4 * found["hidden"])
        return {**found, "ffn_hidden": inner, "biases": ALL if with_bias else []}


class MPT(Architecture):
    """MPT: norms without a shift where there are no biases."""

    about: ClassVar[str] = "layer norms, ALiBi, tied"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.free(
            "embedding_fraction",
            "init_config",
            "init_device",
            "learned_pos_emb",
            "norm_type",
            "verbose",
            "expansion_ratio",
        )
        keys.free(
            "emb_pdrop",
            "resid_pdrop",
            "attn_config",
            "no_bias",
            "tokenizer_name",
            "use_norm_bias",
            "fc_type",
            "ffn_config",
        )
        attention = keys.table("attn_config", default={})
        attention.free(
            "attn_pdrop", "attn_type", "attn_impl", "softmax_scale", "prefix_lm", "attn_uses_sequence_id", "alibi"
        )
        attention.free(
            "alibi_bias_max", "model_type", "clip_qkv", "rope", "rope_theta", "rope_impl", "sliding_window_size"
        )
        attention.one_of("qk_ln", False, default=False, why="norms of queries and keys of MPT cannot be carried")
        bare = keys.truth("no_bias", default=True)
        found = decoder(keys, tied=True, norm="layer-scale" if bare else "layer", gated=False)
        groups = attention.whole("kv_n_heads", default=found["heads"])
        if groups != found["heads"]:
            found["kv_heads"] = groups
        inner = round(keys.number("expansion_ratio", default=4) * found["hidden"])
        return {**found, "ffn_hidden": inner, "biases": [] if bare else ALL}


class Starcoder2(Architecture):
    """StarCoder 2: grouped queries, biases everywhere, a window where the file names one."""

    about: ClassVar[str] = "layer norms, grouped queries, biases, tied"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.one_of("norm_type", "layer_norm", default="layer_norm")
        keys.one_of("mlp_type", "default", default="default")
        keys.free("use_sliding_window", "max_window_layers")
        bias = keys.truth("use_bias", default=True)
        found = decoder(keys, tied=True, norm="layer", gated=False)
        windowed = keys.whole("sliding_window", default=None) is not None
        found |= sights(keys, [WINDOW if windowed else ATTENTION], found["layers"])
        return {**found, "ffn_hidden": keys.whole("intermediate_size"), "biases": ALL if bias else []}


class Phi(Architecture):
    """Phi-1 and 2: attention and FFN beside each other, an output layer with biases. It has one norm a layer, here two."""

    about: ClassVar[str] = "layer norms, biases everywhere, an output layer of its own"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.one_of("qk_layernorm", False, default=False, why="norms of queries and keys cannot be carried")
        found = decoder(keys, tied=False, norm="layer", gated=False)
        return {**found, "ffn_hidden": keys.whole("intermediate_size"), "biases": [*ALL, "output"]}


class Cohere(Architecture):
    """Command R: gated FFN beside attention, norms without a shift, one table. It has one norm a layer, here two."""

    about: ClassVar[str] = "layer norms without shift, gated FFN, tied"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.one_of("use_qk_norm", False, default=False, why="norms of queries and keys by head cannot be carried")
        found = decoder(keys, tied=True, norm="layer-scale", gated=True)
        found |= biases(keys, attention=False, mlp=False)
        return {**found, "ffn_hidden": keys.whole("intermediate_size")}


class Nemotron(Architecture):
    """Nemotron-4 and Minitron: FFNs of two matrices with a squared ReLU."""

    about: ClassVar[str] = "layer norms, FFN of two matrices, grouped queries"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        found = decoder(keys, tied=False, norm="layer", gated=False)
        found |= biases(keys, attention=False, mlp=False)
        return {**found, "ffn_hidden": keys.whole("intermediate_size")}


class Bert(Architecture):
    """BERT: reads both ways; positions and segments are learned. Pooler and head for masked words are left out: 1 % of base."""

    about: ClassVar[str] = "reads both ways, learned positions, biases"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        keys.one_of("position_embedding_type", "absolute", default="absolute")
        segments = keys.whole("type_vocab_size", default=2, least=0)
        found = decoder(keys, tied=True, norm="layer", gated=False)
        rows = found["seq_len"] + segments
        return {
            **found,
            "causal": False,
            "ffn_hidden": keys.whole("intermediate_size"),
            "biases": ALL,
            "positions": rows,
        }


class T5(Architecture):
    """T5: encoder and decoder. Tables of relative positions are left out: 32 numbers a head."""

    about: ClassVar[str] = "encoder and decoder, RMS norms"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """As many layers in the decoder as in the encoder, where the file does not say."""
        keys.free(*FREE, *OTHER_DROPOUTS, "relative_attention_num_buckets", "relative_attention_max_distance")
        keys.free("dense_act_fn", "feed_forward_proj", "is_gated_act", "classifier_dropout")
        form = keys.text("feed_forward_proj", default="relu")
        hidden, heads = keys.whole("d_model"), keys.whole("num_heads")
        size = keys.whole("d_kv")
        layers = keys.whole("num_layers", most=MOST_LAYERS)
        length = keys.whole("n_positions", default=512)
        return {
            "layers": keys.whole("num_decoder_layers", default=layers, most=MOST_LAYERS),
            "encoder_layers": layers,
            "heads": heads,
            "hidden": hidden,
            **({"head_size": size} if size * heads != hidden else {}),
            "ffn_hidden": keys.whole("d_ff"),
            "gated": form.startswith("gated"),
            "norm": "rms",
            "dropout": keys.number("dropout_rate", default=0.1) > 0,
            "vocabulary": keys.whole("vocab_size"),
            "tied": keys.truth("tie_word_embeddings", default=True),
            "seq_len": length,
        }
