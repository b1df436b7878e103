"""Small models whose operators are counted."""

from athanor.workloads.model.model import Model

TOKENS, LENGTH = 32, 16
SHAPE = {"layers": 1, "heads": 4, "hidden": 48, "ffn_hidden": 80, "vocabulary": 112, "seq_len": LENGTH}
"""No two sizes are alike, so that none stands for another."""


def made(name, **keys):
    return Model(name=name, **{**SHAPE, **keys})


DENSE = made("dense", layers=2)
DROPPING = made("dropping", dropout=True, biases=True)
ODD = made("odd", vocabulary=109, dropout=True)
GATED = made("gated", gated=True, kv_heads=2, norm="rms", tied=False)
LATENT = made(
    "latent", latent={"query_rank": 40, "key_value_rank": 24, "plain": 8, "rotary": 4, "value": 6}, gated=True
)
EXPERTS = made("experts", experts=8)
SHARED = made("shared", layers=2, experts=8, shared_experts=2, top_k=2, expert_hidden=64, dense_first=1)
CHOICES = made("choices", experts=8, top_k=2, gated=True, expert_hidden=56)
BOTH = made("both", layers=2, encoder_layers=1, decoder_seq_len=8)
BOTH_DROPPING = made("both-dropping", encoder_layers=1, decoder_seq_len=8, dropout=True)
WINDOWED = made("windowed", layers=2, mixers=["window", "attention"], window=5, query_key_norm="head", kv_heads=2)
CHUNKED = made("chunked", mixers=["chunk"], chunk=6, query_key_norm="all", gated_attention=True, dropout=True)
NO_RANK = made("no-rank", latent={"key_value_rank": 24, "plain": 8, "rotary": 4, "value": 6})
BESIDE = made("beside", experts=8, top_k=2, expert_hidden=56, dense_beside=40, gated=True)
FURTHER = made("further", further_tokens=2, gated=True, norm="rms")
PATCHES = made("patches", patches=8, patch_values=36)
