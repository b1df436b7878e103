"""Which layers the stages of a pipeline have: as many as every other, with embedding and output counted, or as one says."""

from __future__ import annotations

from functools import cache
from itertools import accumulate

from ...hardware.errors import InputError, suggestion

WAYS = ("even", "ends")
"""Words for what ``--stage-layers`` may be beside a list."""

OTHERWISE = "N,N,... says how many each has"

UNDIVIDED = "layers do not divide over the stages"
"""The rule that a way to divide layers breaks."""


def parse(how: str) -> tuple[int, ...]:
    """The numbers of a list such as ``5,6,6,5``, none for a word; raises :class:`InputError` for anything else."""
    if how in WAYS:
        return ()
    parts = [part.strip() for part in how.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(
            f"--stage-layers {how}: write even, ends, or layers of each stage as 5,6,6,5{suggestion(how, WAYS)}"
        )
    return tuple(int(part) for part in parts)


def nearly_even(layers: int, stages: int, chunks: int) -> str:
    """The list that divides layers over parts as evenly as they can be.

    Parts that have one layer more stand behind the first one, which has the embedding and most micro-batches under way, and
    before the last one, which has the output layer. Raises :class:`InputError` for fewer layers than parts.
    """
    parts = stages * chunks
    each, more = divmod(layers, parts)
    if not each:
        raise InputError(f"--stage-layers: {layers} layers are fewer than {_parts(stages, chunks)}", UNDIVIDED)
    longer = (*range(1, parts - 1), 0)[:more]
    return ",".join(str(each + (part in longer)) for part in range(parts))


@cache
def layers_by_part(how: str, layers: int, stages: int, chunks: int) -> tuple[range, ...]:
    """The layers of each part of a model: chunk c of stage s is part c · stages + s.

    ``even``: all parts have as many. ``ends``: embedding and output count as a layer each, so that the first and the last part
    have one layer fewer (Llama 3, Grattafiori et al. 2024, section 3.3.2; in Megatron-LM
    ``--account-for-embedding-in-pipeline-split`` and ``--account-for-loss-in-pipeline-split``). A list has the layers of each
    stage, which its chunks share evenly, or of each part in the order of the model. Only the first and the last part may have
    none: they have embedding and output.

    Raises :class:`InputError` where numbers do not divide or add up.
    """
    if how == "even":
        counts = _even(layers, stages, chunks)
    elif how == "ends":
        counts = _ends(layers, stages, chunks)
    else:
        counts = _listed(how, layers, stages, chunks)
    ends = list(accumulate(counts))
    return tuple(range(end - count, end) for end, count in zip(ends, counts, strict=True))


def _even(layers: int, stages: int, chunks: int) -> list[int]:
    each, rest = divmod(layers, stages * chunks)
    if rest:
        would = f"ends would, with embedding and output as a layer each: {layers + 2}"
        raise InputError(
            f"--stage-layers even: {layers} layers do not divide over {_parts(stages, chunks)};"
            f" {OTHERWISE if (layers + 2) % (stages * chunks) else would}",
            UNDIVIDED,
        )
    return [each] * (stages * chunks)


def _ends(layers: int, stages: int, chunks: int) -> list[int]:
    parts = stages * chunks
    each, rest = divmod(layers + 2, parts)
    if rest:
        raise InputError(
            f"--stage-layers ends: {layers} layers with embedding and output are {layers + 2}, which do not divide over"
            f" {_parts(stages, chunks)}; {OTHERWISE}",
            UNDIVIDED,
        )
    return [each - (part == 0) - (part == parts - 1) for part in range(parts)]


def _listed(how: str, layers: int, stages: int, chunks: int) -> list[int]:
    counts = list(parse(how))
    parts = stages * chunks
    if len(counts) not in (stages, parts):
        wanted = f"{stages}, one a stage" + (f", or {parts}, one for each of its chunks" if chunks > 1 else "")
        raise InputError(f"--stage-layers {how}: {len(counts)} numbers, must be {wanted}")
    if sum(counts) != layers:
        raise InputError(f"--stage-layers {how}: {sum(counts)} layers in all, the model has {layers}")
    if len(counts) < parts:
        if odd := [count for count in counts if count % chunks]:
            raise InputError(f"--stage-layers {how}: {odd[0]} layers do not divide over the {chunks} chunks of a stage")
        counts = [count // chunks for count in counts] * chunks
    if 0 in counts[1:-1]:
        at = counts.index(0, 1)
        raise InputError(
            f"--stage-layers {how}: stage {at % stages} has {'a chunk without' if chunks > 1 else 'no'} layers;"
            " only the first and the last, with embedding and output, may have none"
        )
    return counts


def _parts(stages: int, chunks: int) -> str:
    return f"pp={stages} stages" + (f" of {chunks} chunks" if chunks > 1 else "")
