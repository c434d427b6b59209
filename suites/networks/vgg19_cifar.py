"""VGG19 with batch norm on 32 x 32 images for `sparsebench verify vgg19-cifar`; names are those of vgg19-cifar.yaml.

Configuration E of arXiv 1409.1556, with one classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# torch: what the network is built of.
import torch
from torch import nn

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions; a pooling after each


def features() -> Iterator[nn.Module]:
    """Convolution, norm and activation again and again."""
    c = 3
    for channels, convolutions in STAGES:
        for _ in range(convolutions):
            yield from (nn.Conv2d(c, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            c = channels
        yield nn.MaxPool2d(2)


class Vgg(nn.Module):  # type: ignore[misc]
    """Features and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features()), nn.Linear(512, 10)

    def forward(self, x: Any) -> Any:
        """[batch, 10] of images [batch, 3, 32, 32]."""
        return self.classifier(self.features(x).flatten(1))


def build() -> nn.Module:
    """The network with torch's random weights."""
    return Vgg()


def inputs(batch: int) -> tuple[Any, ...]:
    """Random images."""
    return (torch.randn(batch, 3, 32, 32),)
