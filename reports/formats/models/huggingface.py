"""``config.json`` of Hugging Face: the model that it describes, or the key that cannot be carried."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from ....hardware.errors import InputError
from ....hardware.registry import Registry
from ....workloads.model.model import Model
from ..kinds import Asked, Importer, Makes
from ..reading.keys import Keys
from ..reading.trees import read_table
from .architecture import FREE, OTHER_DROPOUTS, Architecture
from .described import described
from .experts import Dbrx, DeepSeek, Glm4Moe, GptOss, Llama4, Mixtral, Olmoe, PhiMoE, Qwen2Moe, Qwen3Moe
from .layer_norm import GPT2, MPT, OPT, T5, Bert, Bloom, Cohere, Falcon, GPTNeoX, Nemotron, Phi, Starcoder2
from .rms_norm import Gemma, Gemma2, Gemma3, Llama, Olmo2, Phi3, Qwen2, Qwen3
from .state_spaces import Jamba, MambaOne, MambaTwo, MiniMax, Qwen3Next

ARCHITECTURES: Registry[Architecture] = Registry(
    "architecture",
    {
        "baichuan": Llama,
        "bert": Bert,
        "bloom": Bloom,
        "cohere": Cohere,
        "dbrx": Dbrx,
        "deepseek_v2": DeepSeek,
        "deepseek_v3": DeepSeek,
        "falcon": Falcon,
        "gemma": Gemma,
        "gemma2": Gemma2,
        "gemma3_text": Gemma3,
        "glm4_moe": Glm4Moe,
        "gpt2": GPT2,
        "gpt_neox": GPTNeoX,
        "gpt_oss": GptOss,
        "granite": Llama,
        "internlm2": Llama,
        "jamba": Jamba,
        "kimi_k2": DeepSeek,
        "llama": Llama,
        "llama4_text": Llama4,
        "mamba": MambaOne,
        "mamba2": MambaTwo,
        "minimax": MiniMax,
        "minimax_text_01": MiniMax,
        "mistral": Llama,
        "mixtral": Mixtral,
        "mpt": MPT,
        "nemotron": Nemotron,
        "olmo2": Olmo2,
        "olmoe": Olmoe,
        "opt": OPT,
        "phi": Phi,
        "phi3": Phi3,
        "phimoe": PhiMoE,
        "qwen2": Qwen2,
        "qwen2_moe": Qwen2Moe,
        "qwen3": Qwen3,
        "qwen3_moe": Qwen3Moe,
        "qwen3_next": Qwen3Next,
        "starcoder2": Starcoder2,
        "t5": T5,
    },
    flag="model_type",
    interface=Architecture,
)
"""Architectures by ``model_type``; a user's own as ``module:Class``, by an entry point, or with ``architecture``."""

BESIDE = (
    "image_token_index",
    "image_token_id",
    "boi_token_index",
    "eoi_token_index",
    "mm_tokens_per_image",
    "video_token_id",
)
"""Keys beside a text model's table that only say how images come between its words."""


def read_hf(
    path: str | Path, *, name: str | None = None, architecture: str | None = None, ignore: Collection[str] = ()
) -> Model:
    """The model of a ``config.json``, or of a folder that has one.

    ``architecture`` stands in place of the file's ``model_type``; keys of ``ignore`` may say what they like. Raises
    :class:`InputError` with the file and the key for an architecture that is not known, for a value that cannot be carried, and
    for a key that nobody knows.
    """
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    table, aside = read_table(file), frozenset(ignore)
    keys = Keys(table, str(file), aside=aside)
    called = name or _name(keys.text("_name_or_path", "name_or_path", default=""), file)
    text_model = "text_config" in keys
    inner = keys.table("text_config") if text_model else keys
    kind = architecture or inner.text("model_type", default=keys.text("model_type", default=""))
    if not kind:
        raise InputError(f"{file}: model_type is missing; --architecture names one")
    try:
        read = ARCHITECTURES.find(kind)
    except InputError as unknown:
        raise InputError(f"{file}: {unknown}") from None
    if aside:
        inner.leave_out(aside)
    fields = read.fields(inner)
    if text_model:
        keys.free(*FREE, *OTHER_DROPOUTS, *BESIDE)
    keys.finish(kind)
    return described(called, fields, f"{file.name} of Hugging Face, model_type {kind}", str(file))


class HuggingFace(Importer):
    """config.json of Hugging Face."""

    makes: ClassVar[Makes] = "model"

    def read(self, path: Path, asked: Asked) -> Model:
        """The model."""
        return read_hf(path, name=asked.name, architecture=asked.architecture, ignore=asked.ignore)


def _name(told: str, file: Path) -> str:
    """A model's name: what the file says of itself, its folder's name, or its own."""
    own = file.stem if file.stem != "config" else file.resolve().parent.name
    found: Any = re.sub(r"[^a-z0-9.]+", "-", (told.rstrip("/").rpartition("/")[2] or own).lower()).strip("-.")
    return found or "model"
