"""The network of toy.yaml: convolutions, linear layers with and without a bias, and one layer that is called twice."""

import torch
from torch import nn


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 32, 3, padding=1, bias=False)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32, bias=False))
        self.out = nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        once = self.body(tokens)
        twice = self.body[2](self.body[0](tokens).relu())
        images = (once + twice).transpose(1, 2).reshape(len(x), 32, 8, 8)
        return self.out(images).flatten(1)


def build():
    return Toy()


def inputs(batch):
    return (torch.randn(batch, 4, 8, 8),)
