"""AlexNet and MobileNet-v1 as torch modules, written from their papers and named as their YAML files name them."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class AlexNet(nn.Module):
    """Five convolutions and three linear layers (arXiv 1404.5997)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class MobileNet(nn.Module):
    """13 depthwise convolutions with a pointwise one each (arXiv 1704.04861, table 1)."""

    widths = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    halves = (2, 4, 6, 12)

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_0 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.norms = nn.ModuleDict({"Conv2d_0": nn.BatchNorm2d(32)})
        for i, (c, out) in enumerate(pairwise(self.widths), start=1):
            depthwise = nn.Conv2d(c, c, 3, stride=1 + (i in self.halves), padding=1, groups=c, bias=False)
            self.add_module(f"Conv2d_{i}_depthwise", depthwise)
            self.add_module(f"Conv2d_{i}_pointwise", nn.Conv2d(c, out, 1, bias=False))
            self.norms[f"Conv2d_{i}_depthwise"] = nn.BatchNorm2d(c)
            self.norms[f"Conv2d_{i}_pointwise"] = nn.BatchNorm2d(out)
        self.Logits = nn.Linear(1024, 1000)

    def forward(self, x: Tensor) -> Tensor:
        for name, norm in self.norms.items():
            x = norm(self.get_submodule(name)(x)).relu()
        return self.Logits(x.mean((2, 3)))
