"""Dense decoders with RMS norms and gated FFNs: Llama and what is built like it."""

from __future__ import annotations

from typing import Any, ClassVar

from ....workloads.model.layers import ATTENTION, WINDOW
from ..reading.keys import Keys
from .architecture import Architecture, biases, decoder, sights


class Llama(Architecture):
    """Llama, and others that name the same keys: Mistral with a window, Granite, InternLM2, Baichuan."""

    about: ClassVar[str] = "RMS norms, gated FFN, grouped queries, rotary positions"
    tied: ClassVar[bool] = False
    attention_bias: ClassVar[bool] = False
    output_bias: ClassVar[bool] = True
    norm_of_heads: ClassVar[str] = "none"

    def fields(self, keys: Keys) -> dict[str, Any]:
        """Layers alike."""
        found = decoder(keys, tied=self.tied, norm="rms", gated=True)
        found["ffn_hidden"] = keys.whole("intermediate_size")
        found |= biases(keys, attention=self.attention_bias, mlp=False, out=self.output_bias)
        found |= self.attention(keys, found["layers"])
        if self.norm_of_heads != "none":
            found["query_key_norm"] = self.norm_of_heads
        return found

    def attention(self, keys: Keys, layers: int) -> dict[str, Any]:
        """A window in all layers where the file has one."""
        keys.free("max_window_layers", "use_sliding_window", "use_mrope")
        windowed = keys.whole("sliding_window", default=None) is not None
        return sights(keys, [WINDOW if windowed else ATTENTION], layers)


class Qwen2(Llama):
    """Qwen2: biases of queries, keys and values; a window where ``use_sliding_window`` says so."""

    about: ClassVar[str] = "as llama, with biases of queries, keys and values"
    attention_bias: ClassVar[bool] = True
    output_bias: ClassVar[bool] = False

    def attention(self, keys: Keys, layers: int) -> dict[str, Any]:
        """By layer types, or by the number of layers without a window."""
        windowed = keys.truth("use_sliding_window", default=False)
        without = keys.whole("max_window_layers", default=layers, least=0)
        keys.free("use_mrope")
        if not windowed:
            keys.free("layer_types", "sliding_window")
            return {}
        return sights(keys, [ATTENTION if at < without else WINDOW for at in range(layers)], layers)


class Qwen3(Qwen2):
    """Qwen3: norms of queries and keys, no biases."""

    about: ClassVar[str] = "as llama, with norms of queries and keys"
    attention_bias: ClassVar[bool] = False
    output_bias: ClassVar[bool] = True
    norm_of_heads: ClassVar[str] = "head"


class Olmo2(Llama):
    """OLMo 2: norms of all queries and keys, and behind the halves of a layer instead of before them."""

    about: ClassVar[str] = "as llama, with norms over all queries and keys"
    norm_of_heads: ClassVar[str] = "all"


class Gemma(Llama):
    """Gemma: large heads, one table for words and output."""

    about: ClassVar[str] = "as llama, tied, with a head size of its own"
    tied: ClassVar[bool] = True


class Gemma2(Gemma):
    """Gemma 2: every other layer sees a window. Its norms behind each half are left out: 0.01 % of the parameters."""

    about: ClassVar[str] = "as gemma, with a window in every other layer"
    cycle: ClassVar[tuple[str, ...]] = (WINDOW, ATTENTION)

    def attention(self, keys: Keys, layers: int) -> dict[str, Any]:
        """A cycle of windows."""
        keys.free("use_bidirectional_attention")
        every = keys.whole("sliding_window_pattern", default=None, most=layers)
        cycle = [WINDOW] * (every - 1) + [ATTENTION] if every else [*self.cycle]
        return sights(keys, [cycle[at % len(cycle)] for at in range(layers)], layers)


class Gemma3(Gemma2):
    """Gemma 3's text model: five layers of six see a window, norms of queries and keys."""

    about: ClassVar[str] = "as gemma2, five of six layers with a window, norms of queries and keys"
    cycle: ClassVar[tuple[str, ...]] = (*[WINDOW] * 5, ATTENTION)
    norm_of_heads: ClassVar[str] = "head"


class Phi3(Llama):
    """Phi-3: Llama with its matrices in fewer pieces."""

    about: ClassVar[str] = "as llama; a window where the file names one"
