"""From products to the layers of a network, in the order they first ran, and what becomes of all the others.

One weight asked for one size is one layer, and `calls` counts how often, whichever modules do it. Asked for another n,
or for a convolution of another plane, it is another layer of the same weight: `fc@2`.

What stays dense, as the papers have it: grouped convolutions (no kernel here takes one), a convolution of an image's
channels (at most 4), and a linear layer whose result is the answer of the network: the classifier. Each rule looks at
one layer alone, so that a block traced by itself is treated as it is within its network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sparsebench.lab.trace_products import Product
from sparsebench.lab.trace_weights import Weight
from sparsebench.network import Layer

IMAGE_CHANNELS = 4  # red, green, blue, and alpha or depth


@dataclass(frozen=True, slots=True)
class Outside:
    """Products of one weight that are in no layer: why, how many, and their multiply-adds (None: unknown)."""

    name: str
    why: str
    calls: int
    macs: int | None


@dataclass(frozen=True, slots=True)
class Sorted:
    """All products of a forward pass: layers, with why some stay dense; what no layer can say; those of no weight."""

    layers: tuple[Layer, ...]
    weights: int  # entries, those of a weight that is in several layers once
    why_dense: dict[str, str]
    outside: tuple[Outside, ...]
    weightless: tuple[int, int]  # products, and their multiply-adds


def sort_out(products: Sequence[Product], computing: Collection[int], answers: Collection[int]) -> Sorted:
    """Every product in its place; `computing` are those that compute a weight, `answers` those that are the answer."""
    layers: dict[object, Layer] = {}
    sizes: dict[object, int] = {}
    why_dense: dict[str, str] = {}
    outside: dict[tuple[str, str], Outside] = {}
    for number, product, weight in _weighted(products):
        trouble = product.trouble or ("it computes a weight of another layer" if number in computing else None)
        if trouble:
            _add(outside, weight.name, trouble, product)
            continue
        asked = (weight.identity, product.m, product.k, product.n, product.conv)
        sizes[weight.identity] = product.m * product.k
        if asked not in layers:
            layers[asked] = _layer(_free(weight.name, layers.values()), product)
        else:
            layers[asked] = replace(layers[asked], calls=layers[asked].calls + product.times)
        if why := _why_dense(product, number in answers):
            why_dense[layers[asked].name] = why
    dense = tuple(replace(layer, prunable=layer.name not in why_dense) for layer in layers.values())
    macs = [product.macs or 0 for product in products if product.weight is None]
    return Sorted(dense, sum(sizes.values()), why_dense, tuple(outside.values()), (len(macs), sum(macs)))


def _weighted(products: Sequence[Product]) -> Iterator[tuple[int, Product, Weight]]:
    for number, product in enumerate(products):
        if product.weight:
            yield number, product, product.weight


def _add(outside: dict[tuple[str, str], Outside], name: str, why: str, product: Product) -> None:
    before = outside.get((name, why), Outside(name, why, 0, 0))
    macs = None if before.macs is None or product.macs is None else before.macs + product.macs
    outside[name, why] = Outside(name, why, before.calls + 1, macs)


def _layer(name: str, product: Product) -> Layer:
    kind: Literal["linear", "conv2d"] = "conv2d" if product.conv else "linear"
    m, k, n, calls = product.m, product.k, product.n, product.times
    return Layer(name=name, kind=kind, m=m, k=k, n=n, calls=calls, conv=product.conv)


def _free(name: str, layers: Collection[Layer]) -> str:
    """`name`, or with @2, @3, ... behind it where a layer has it."""
    taken = {layer.name for layer in layers}
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}@{number}"
    return free


def _why_dense(product: Product, answers: bool) -> str | None:
    if product.conv and product.conv.groups > 1:
        return f"grouped: no sparse kernel takes its {product.conv.groups} groups"
    if product.conv and product.conv.c <= IMAGE_CHANNELS:
        return f"first convolution: {product.conv.c} channels"
    if answers and not product.conv:
        return "classifier: its result is the answer"
    return None
