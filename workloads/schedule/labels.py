"""How a task is spelled for people, as in ``attention.qkv.wgrad.1``. Nothing reads it back."""

from __future__ import annotations

from .operation import Gradient, ModelPart, Role, Task

PARTS: dict[ModelPart | None, str | None] = {
    "decoder embedding": "embedding.decoder",
    "cross attention": "cross",
    "shared experts": "shared",
    "further token": "further",
    "ends": "embedding",
}
"""Parts that are spelled otherwise."""

WORDS: dict[Role, str] = {
    Role.GATE_CHOICE: "top_k",
    Role.TOKEN_COUNTS: "counts",
    Role.TOKEN_COLLECT: "collect",
    Role.OUTPUT_SUM: "reduce",
    Role.STAGE_GATHER: "gather",
}
"""Roles that are spelled otherwise."""

BEHIND: dict[Role, tuple[str, str]] = {
    Role.NORM_SUM: ("norm", "reduce"),
    Role.LOSS_SUM: ("loss", "reduce"),
}
"""Exchanges that belong to an operator: its word, and theirs behind it."""

BLOCKS: dict[Role, str] = {
    Role.PRODUCT: "",
    Role.BLOCK_OF_INPUT: "a",
    Role.BLOCK_OF_WEIGHT: "b",
    Role.BLOCK_SUM: "reduce",
}
"""A product and the exchanges of its blocks on a grid."""

OF_PRODUCTS: dict[Gradient | None, str] = {None: "", "input": "dgrad", "weight": "wgrad"}


def spelled(task: Task) -> str:
    """The label of a task, without its place (:attr:`Task.place`)."""
    words = [PARTS.get(task.part, task.part), *_words(task), None if task.step is None else str(task.step)]
    return ".".join(word for word in words if word)


def _words(task: Task) -> list[str]:
    grad = "grad" if task.gradient else ""
    operand = task.operand or ""
    match task.role:
        case Role.PRODUCT | Role.BLOCK_OF_INPUT | Role.BLOCK_OF_WEIGHT | Role.BLOCK_SUM:
            return [operand, OF_PRODUCTS[task.gradient] if operand else grad, BLOCKS[task.role]]
        case Role.NORM_SUM | Role.LOSS_SUM:
            operator, behind = BEHIND[task.role]
            return [operator, grad, behind]
        case Role.SCORES | Role.CONTEXT:
            return [task.role, f"d{operand}" if operand else grad]
        case Role.LAUNCHES:
            return ["launches", OF_PRODUCTS[task.gradient]]
        case Role.NORM | Role.RECURRENCE:
            return [operand, "" if task.role is Role.RECURRENCE else task.role, grad]
        case Role.LOOKUP:
            return [grad or "lookup"]
        case Role.INPUT_GATHER:
            return [operand, "gather", "again" if task.of_weights else grad]
        case Role.RING_SHIFT:
            return [operand, "again" if grad else ""] if operand else ["ring", grad]
        case Role.RING_SUM:
            return [operand, "reduce"]
        case _:
            return [WORDS.get(task.role, task.role), grad]
