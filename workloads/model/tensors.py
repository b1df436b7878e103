"""The weights of a model as tensors, part by part: for optimizers that look at whole rows, columns or matrices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .layers import Layer
from .model import Biased, Model
from .precision import Part


@dataclass(frozen=True)
class Tensor:
    """A matrix of ``rows`` x ``columns``, which a product adds up over its rows' index; a vector has one row."""

    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.rows * self.columns

    @property
    def matrix(self) -> bool:
        """Whether it has rows and columns."""
        return self.rows > 1 and self.columns > 1


Tensors = dict[Part, Counter[Tensor]]
"""How many tensors of each shape a part has; their elements are the :class:`~.model.Parameters` of the part."""


def tensors_of_layer(model: Model, layer: Layer) -> Tensors:
    """The weights of one layer.

    Queries, keys and values are one matrix, and so are both first matrices of a gated FFN (as Megatron-LM keeps them); scale and
    shift of a norm are two vectors, biases one for each matrix.
    """
    h, recurrent = model.hidden, model.recurrent_of(layer)
    expert = _feed_forward(model, model.expert_width, "expert")
    experts = {shape: model.experts * count for shape, count in expert.items()}
    shared = Counter({shape: model.shared_experts * count for shape, count in expert.items()})
    shared.update(_feed_forward(model, model.dense_beside, "ffn"))
    ffn = Counter(shared) if layer.moe else _feed_forward(model, model.ffn_hidden, "ffn")
    norms = [h] * model.halves(layer) + model.inner_norms(layer)
    if layer.ahead:
        ffn, norms = ffn + Counter([Tensor(2 * h, h)]), [*norms, h, h, h]
    attention = {shape: count * (2 if layer.cross else 1) for shape, count in tensors_of_attention(model).items()}
    found: Tensors = {
        "ffn": ffn,
        "attention": Counter(Tensor(*shape) for shape in recurrent.weights(h)) if recurrent else Counter(attention),
        "norm": _norms(model, norms),
    }
    if model.lora:
        rank = model.lora.rank
        pairs = ((Tensor(rows, rank), Tensor(rank, columns)) for rows, columns in model.adapted(layer).values())
        found["adapter"] = Counter(each for pair in pairs for each in pair)
    if layer.moe:
        gate = Counter([Tensor(h, model.experts), *([Tensor(1, model.experts)] if "gate" in model.biases else [])])
        found |= {"expert": Counter(experts), "gate": gate}
    return found


def tensors_of_input(model: Model) -> Tensors:
    """Words, learned positions, the projection of patches."""
    rows = [model.vocabulary, model.positions, model.patch_values * (model.patches > 0)]
    return {"embedding": Counter(Tensor(each, model.hidden) for each in rows if each)}


def tensors_of_output(model: Model, table: bool | None = None) -> Tensors:
    """The final norms, and the output layer's ``table``, where it has one (by default: of its own), with its biases."""
    found: Tensors = {"norm": _norms(model, (2 if model.encoder_layers else 1) * [model.hidden])}
    tables = [Tensor(model.vocabulary, model.hidden)] if (not model.tied if table is None else table) else []
    if "output" in model.biases:
        tables.append(Tensor(1, model.vocabulary))
    if tables:
        found["embedding"] = Counter(tables)
    return found


def _feed_forward(model: Model, width: int, part: Biased) -> Counter[Tensor]:
    if not width:
        return Counter()
    up = (model.matrices - 1) * width
    found = Counter([Tensor(model.hidden, up), Tensor(width, model.hidden)])
    if part in model.biases:
        found.update([Tensor(1, up), Tensor(1, model.hidden)])
    return found


def tensors_of_attention(model: Model) -> Counter[Tensor]:
    """Matrices and biases of one attention."""
    hidden, heads = model.hidden, model.heads
    out = Tensor(heads * model.value_size, hidden)
    if at := model.latent:
        whole = heads * model.query_size
        queries = (
            [Tensor(hidden, whole)]
            if at.query_rank is None
            else [Tensor(hidden, at.query_rank), Tensor(at.query_rank, whole)]
        )
        return Counter(
            [
                *queries,
                Tensor(hidden, at.key_value_rank + at.rotary),
                Tensor(at.key_value_rank, heads * (at.plain + at.value)),
                out,
            ]
        )
    wide = (heads + 2 * model.key_value_heads) * model.query_size + heads * model.value_size * model.gated_attention
    found = Counter([Tensor(hidden, wide), out])
    if "qkv" in model.biases:
        found.update([Tensor(1, wide)])
    if "out" in model.biases:
        found.update([Tensor(1, hidden)])
    return found


def _norms(model: Model, widths: list[int]) -> Counter[Tensor]:
    found = Counter(Tensor(1, width) for width in widths)
    return found + found if model.norm == "layer" else found
