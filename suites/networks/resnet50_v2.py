"""ResNet-50 for `sparsebench verify resnet50-v2`, from arXiv 1512.03385 with the stride in the 3x3 convolution.

Names are those of resnet50-v2.yaml, which are torchvision's.
"""

from __future__ import annotations

from typing import Any

# torch: what the network is built of.
import torch
from torch import nn
from torch.nn.functional import relu

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first
WIDENS = 4


class Bottleneck(nn.Module):  # type: ignore[misc]
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, c: int, width: int, stride: int) -> None:
        super().__init__()
        out = WIDENS * width
        self.conv1, self.bn1 = nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if c != out else None
        )

    def forward(self, x: Any) -> Any:
        """[batch, 4 width, h / stride, w / stride] of [batch, c, h, w]."""
        y = relu(self.bn1(self.conv1(x)), inplace=True)
        y = relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return relu(y.add_(x if self.downsample is None else self.downsample(x)), inplace=True)


def stage(c: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of one width, the first of which takes c channels."""
    wide = WIDENS * width
    return nn.Sequential(Bottleneck(c, width, stride), *(Bottleneck(wide, width, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):  # type: ignore[misc]
    """A stem, four stages, an average over the plane and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = (64, *(WIDENS * width for width, _, _ in STAGES))
        for number, (c, about) in enumerate(zip(inputs, STAGES, strict=False), 1):
            self.add_module(f"layer{number}", stage(c, *about))
        self.fc = nn.Linear(inputs[-1], 1000)

    def forward(self, x: Any) -> Any:
        """[batch, 1000] of images [batch, 3, 224, 224]."""
        x = self.maxpool(relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def build() -> nn.Module:
    """The network with torch's random weights."""
    return ResNet()


def inputs(batch: int) -> tuple[Any, ...]:
    """Random images."""
    return (torch.randn(batch, 3, 224, 224),)
