"""What an architecture of Hugging Face is: how its ``config.json`` becomes a Model; and what most have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ....hardware.registry import Policy
from ....workloads.model.layers import ATTENTION, CHUNK, WINDOW
from ..reading.keys import NEEDED, Keys

MOST_LAYERS = 10_000
"""More layers than any model has."""

FREE = (
    # what tools wrote it for and with
    *("architectures", "model_type", "auto_map", "transformers_version", "_name_or_path", "name_or_path"),
    *("torch_dtype", "dtype", "use_cache", "is_decoder", "is_encoder_decoder", "add_cross_attention", "id2label"),
    *("label2id", "problem_type", "return_dict", "output_attentions", "output_hidden_states", "torchscript"),
    *(
        "_attn_implementation",
        "_attn_implementation_autoset",
        "attn_implementation",
        "use_flash_attn",
        "_flash_attn_2_enabled",
    ),
    *("use_bfloat16", "gradient_checkpointing", "task_specific_params", "finetuning_task", "cache_implementation"),
    *("chunk_size_feed_forward", "pruned_heads", "num_labels", "output_router_logits", "keys_to_ignore_at_inference"),
    # tokens, and how text is generated
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"),
    *("bos_token", "eos_token", "pad_token", "tokenizer_class", "temperature", "top_p", "do_sample", "max_length"),
    *("num_logits_to_keep", "generation_config", "prefix", "max_new_tokens"),
    # numbers that scale values, and how weights begin
    *(
        "initializer_range",
        "initializer_factor",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "norm_epsilon",
        "rms_norm_eps",
    ),
    *("norm_eps", "attn_scale", "pretraining_tp", "router_aux_loss_coef", "router_jitter_noise", "aux_loss_alpha"),
    *(
        "router_jitter",
        "input_jitter_noise",
        "seq_aux",
        "routed_scaling_factor",
        "norm_topk_prob",
        "scoring_func",
        "topk_method",
    ),
    *("n_group", "topk_group", "hidden_act", "hidden_activation", "activation_function", "activation", "act_fn"),
    *("attention_softmax_in_fp32", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
    *("softmax_scale", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "logit_scale"),
    *("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling", "swiglu_limit"),
    *(
        "rescale_prenorm_residual",
        "residual_in_fp32",
        "init_method_std",
        "init_std",
        "ep_size",
        "initial_context_length",
    ),
    # positions that turn queries and keys
    *("rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq", "partial_rotary_factor", "rotary_pct"),
    *("rotary_emb_base", "rotary", "rotary_base", "rope_interleaved", "rope_interleave", "rotary_dim", "rope_pct"),
    *("original_max_position_embeddings", "rotary_emb_fraction", "rope_type", "rope_embedding_base"),
)
"""Keys that change neither parameters nor the time and memory of a step."""

DROPOUTS = (
    *("hidden_dropout", "resid_pdrop", "resid_dropout", "hidden_dropout_prob", "residual_dropout", "dropout_rate"),
    *("dropout", "embd_pdrop", "emb_pdrop", "embd_dropout", "embedding_dropout"),
)
OTHER_DROPOUTS = (
    *("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob", "activation_dropout", "classifier_dropout"),
    *("summary_first_dropout", "ffn_dropout", "attention_dropout_prob", "layerdrop"),
)
"""Dropouts of the stream, of which masks are kept, and those that kernels work out anew."""


class Architecture(Policy, ABC):
    """How configurations of one ``model_type`` are read. ``about`` is its line in ``athanor import hf --list``."""

    @abstractmethod
    def fields(self, keys: Keys) -> dict[str, Any]:
        """The fields of the :class:`~athanor.workloads.model.model.Model`; raises :class:`InputError` for what it cannot carry.

        Keys that were not read are refused after it.
        """


def decoder(keys: Keys, *, tied: bool, norm: str, gated: bool) -> dict[str, Any]:
    """What nearly all say: layers, heads, widths, words, the longest context; ``tied`` holds where the file does not say."""
    keys.free(*FREE, *OTHER_DROPOUTS)
    rates = [keys.number(name, default=0.0) for name in DROPOUTS]
    hidden = keys.whole("hidden_size", "n_embd", "d_model")
    heads = keys.whole("num_attention_heads", "n_head", "n_heads")
    groups = keys.whole("num_key_value_heads", default=None)
    size = keys.whole("head_dim", default=None)
    found = {
        "layers": keys.whole("num_hidden_layers", "n_layer", "n_layers", "num_layers", most=MOST_LAYERS),
        "heads": heads,
        "hidden": hidden,
        "gated": gated,
        "norm": norm,
        "vocabulary": keys.whole("vocab_size", "padded_vocab_size"),
        "tied": keys.truth("tie_word_embeddings", default=tied),
        "seq_len": keys.whole(
            "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", default=2048
        ),
    }
    if any(rates):
        found["dropout"] = True
    if groups not in (None, heads):
        found["kv_heads"] = groups
    if size is not None and size * heads != hidden:
        found["head_size"] = size
    return found


def biases(keys: Keys, *, attention: bool, mlp: bool, out: bool = True) -> dict[str, Any]:
    """Biases by ``attention_bias`` and ``mlp_bias``, or as usual; ``out``: that of the output goes along."""
    with_attention = keys.truth("attention_bias", "use_bias", "qkv_bias", "bias", default=attention)
    with_mlp = keys.truth("mlp_bias", "use_bias", "bias", default=mlp)
    found = [*(["qkv", *(["out"] if out else [])] if with_attention else []), *(["ffn", "expert"] if with_mlp else [])]
    return {"biases": found} if found else {}


TYPES = {"full_attention": ATTENTION, "sliding_attention": WINDOW, "chunked_attention": CHUNK}


def sights(keys: Keys, otherwise: Sequence[str], layers: int, types: Mapping[str, str] = TYPES) -> dict[str, Any]:
    """Which tokens layers see, by ``layer_types`` or else as ``otherwise`` says, with the widths of windows and chunks."""
    named = keys.items("layer_types", default=None)
    window = keys.whole("sliding_window", default=None)
    chunk = keys.whole("attention_chunk_size", default=None)
    mixers = list(otherwise)
    if named is not None:
        for each in named:
            if not isinstance(each, str) or each not in types:
                raise keys.wrong("layer_types", f"{str(each)[:40]} cannot be carried; can be {', '.join(types)}")
        if len(named) != layers:
            raise keys.wrong("layer_types", f"has {len(named)} items, must have one for each of the {layers} layers")
        mixers = [types[each] for each in named]
    found: dict[str, Any] = {"mixers": pattern(mixers)} if {*mixers} != {ATTENTION} else {}
    if WINDOW in mixers:
        found["window"] = window if window is not None else keys.whole("sliding_window", default=NEEDED)
    if CHUNK in mixers:
        found["chunk"] = chunk if chunk is not None else keys.whole("attention_chunk_size", default=NEEDED)
    return found


def pattern(mixers: Sequence[str]) -> list[str]:
    """The shortest beginning that gives all layers when it is repeated; ``3*window`` is three layers."""
    count = len(mixers)
    period = next(size for size in range(1, count + 1) if all(mixers[at] == mixers[at % size] for at in range(count)))
    runs: list[tuple[str, int]] = []
    for each in mixers[:period]:
        if runs and runs[-1][0] == each:
            runs[-1] = (each, runs[-1][1] + 1)
        else:
            runs.append((each, 1))
    return [name if times == 1 else f"{times}*{name}" for name, times in runs]


def shared(keys: Keys, width: int, *names: str) -> int:
    """How many shared experts of a routed one's ``width`` a dense part beside them is, which must be whole."""
    whole = keys.whole(*names, default=0, least=0)
    count, rest = divmod(int(whole), width)
    if rest:
        raise keys.wrong(next(name for name in names if name in keys), f"must be a multiple of an expert's {width}")
    return count
