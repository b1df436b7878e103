"""Backbones: convolutional networks that make features of an image's patches before the Transformer sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

FIRST, POOLED, WIDTHS, WIDER = 64, 2, (64, 128, 256, 512), 4
"""Channels of the first convolution; its pooling; channels within blocks of each stage, and how many times as wide these end."""


@dataclass(frozen=True)
class Convolution:
    """``count`` convolutions that are alike: ``channels`` of ``inputs`` numbers each (kernel times incoming channels).

    As a product of matrices each has ``pixels`` rows an image.
    """

    pixels: int
    channels: int
    inputs: int
    count: int

    @property
    def flops(self) -> float:
        """Two for each weight and pixel."""
        return 2.0 * self.pixels * self.channels * self.inputs * self.count

    @property
    def elements(self) -> int:
        """Elements that they make."""
        return self.pixels * self.channels * self.count


@dataclass(frozen=True)
class ResNet:
    """A residual network of bottleneck blocks, so many in each of four stages, without its classifier.

    Source: He et al. 2016, Deep residual learning for image recognition, table 1: a block is a 1x1, a 3x3 and a 1x1 convolution;
    the first block of a stage has a 1x1 beside it, and of all but the first stage halves the image.
    """

    blocks: tuple[int, int, int, int]

    @property
    def values(self) -> int:
        """Numbers that it makes of an image."""
        return WIDTHS[-1] * WIDER

    def convolutions(self, edge: int) -> list[Convolution]:
        """All of an image of ``edge`` x ``edge`` pixels, equal ones together."""
        found: dict[tuple[int, int, int], int] = {}
        for pixels, channels, inputs in self._each(edge):
            found[pixels, channels, inputs] = found.get((pixels, channels, inputs), 0) + 1
        return [Convolution(*shape, count) for shape, count in found.items()]

    def flops(self, edge: int) -> float:
        """FLOPs of a forward pass of one image."""
        return sum(each.flops for each in self.convolutions(edge))

    @property
    def weights(self) -> int:
        """Weights of all convolutions."""
        return sum(each.channels * each.inputs * each.count for each in self.convolutions(32))

    def _each(self, edge: int) -> Iterator[tuple[int, int, int]]:
        edge = -(-edge // 2)
        yield edge * edge, FIRST, 7 * 7 * 3
        edge, incoming = -(-edge // POOLED), FIRST
        for stage, (count, width) in enumerate(zip(self.blocks, WIDTHS, strict=True)):
            for block in range(count):
                if stage and not block:
                    edge = -(-edge // 2)
                pixels = edge * edge
                yield pixels, width, incoming
                yield pixels, width, 9 * width
                yield pixels, WIDER * width, width
                if not block:
                    yield pixels, WIDER * width, incoming
                incoming = WIDER * width


BACKBONES = {"resnet50": ResNet((3, 4, 6, 3)), "resnet101": ResNet((3, 4, 23, 3)), "resnet152": ResNet((3, 8, 36, 3))}
"""By name, as model files and studies write it."""


@lru_cache(maxsize=16)
def convolutions(name: str, edge: int) -> tuple[Convolution, ...]:
    """Those of a backbone on patches of ``edge`` x ``edge`` pixels."""
    return tuple(BACKBONES[name].convolutions(edge))
