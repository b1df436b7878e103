"""What a kind of recomputation is: what of a layer is kept for its backward pass, and what is run again before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from ...hardware.registry import Policy


class SavedRow(Protocol):
    """What an operator of a layer would keep of a micro-batch.

    ``entry``: the layer's input, from which all else can be worked out again. ``core``: of the core of attention, such as scores.
    ``feed_forward``: of the feed-forward network or the experts, behind their input, from which it can be worked out again.
    ``product``: the share of it that is the output of a product with weights, or of attention. ``modules``: under which of
    Megatron-LM's modules it is dropped (:data:`~athanor.workloads.recomputation.modules.MODULES`).
    """

    @property
    def modules(self) -> tuple[str, ...]:
        """Megatron-LM's names of modules that it belongs to."""
        ...

    @property
    def entry(self) -> bool:
        """Whether it is the layer's input."""
        ...

    @property
    def core(self) -> bool:
        """Whether it is of the core of attention."""
        ...

    @property
    def feed_forward(self) -> bool:
        """Whether it is of the feed-forward network or the experts, behind their input."""
        ...

    @property
    def product(self) -> float:
        """The share that is the output of a product, or of attention."""
        ...


class RepeatedLayer(Protocol):
    """A layer of which parts of the forward pass can be run once more."""

    def whole(self) -> None:
        """All of it; tokens go to the experts that they went to."""
        ...

    def attention_core(self) -> None:
        """Queries meet keys, and values are weighted with what comes of it; nothing, where the kernel does so by itself."""
        ...

    def feed_forward(self) -> None:
        """The feed-forward network with its norm, or the experts; tokens go to the experts that they went to."""
        ...

    @property
    def moe(self) -> bool:
        """Whether it has experts."""
        ...

    def norms(self, second: bool) -> None:
        """The norms before attention, and that before the ``second`` half."""
        ...

    def latent_products(self) -> None:
        """Of latent attention, from narrow queries, keys and values to those of all heads; nothing elsewhere."""
        ...

    def expert_activation(self) -> None:
        """What experts have between their products; nothing in a layer without."""
        ...

    def shared_experts(self) -> None:
        """Shared experts; nothing in a layer without."""
        ...

    def between_products(self) -> None:
        """What is between the products that are kept, and those that are not: of keys, and of outputs."""
        ...


class Recomputation(Policy, ABC):
    """What the backward pass works out again instead of finding it kept."""

    repeats: ClassVar[bool] = True
    """Whether anything is run again."""

    repeats_layers: ClassVar[bool] = False
    """Whether whole layers are: one more forward pass."""

    keeps_products: ClassVar[bool] = False
    """Whether outputs of products are kept where others are not: then also what is sent over tp, so that it is not sent again.

    It needs a kernel of attention that keeps no scores, and says nothing of experts.
    """

    of_modules: ClassVar[bool] = False
    """Whether it is made of modules that are named with it."""

    def names_module(self, name: str) -> bool:
        """Whether a module is named with it."""
        return False

    @property
    def runs_parts_again(self) -> bool:
        """Whether operators inside of halves are run again by themselves, which the runtime does not do."""
        return self.keeps_products

    @abstractmethod
    def kept(self, row: SavedRow) -> float:
        """The share of a row that stays until the backward pass, 0 to 1."""

    @abstractmethod
    def run_again(self, layer: RepeatedLayer) -> None:
        """Run again what was not kept, before the backward pass through a layer."""
