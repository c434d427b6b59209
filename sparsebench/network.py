"""Layers that add up to a network. What a layer costs is never in here: times are records of a machine.

A layer is one product Y[m, n] = W[m, k] @ X[k, n], n per sample: tokens for a transformer, output pixels for a
convolution. Equal layers keep their own names, so that a plan can treat `blocks.3.mlp.fc1` apart; a suite merges them.
`prunable: false` marks what papers leave dense (first convolution, classifier) and grouped convolutions, whose W is
block diagonal and has no sparse kernel here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sparsebench.case import Case, Conv, DType, Layout, Math
from sparsebench.shipped import resolve_network, shipped_networks
from sparsebench.yaml_marks import Document, Loc, near, read
from sparsebench.yaml_schema import Count, Keys, Size, Text, check

__all__ = ["Layer", "Network", "resolve_network", "shipped_networks"]

Pair = Annotated[Size, BeforeValidator(lambda side: side if isinstance(side, list) else [side, side])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: W [m, k], n columns a sample, run `calls` times; `conv` (of batch 1) only where kind is conv2d."""

    name: str
    kind: Literal["linear", "conv2d"]
    m: int
    k: int
    n: int
    calls: int = 1
    prunable: bool = True
    conv: Conv | None = None

    @property
    def weights(self) -> int:
        """Entries of W, biases not counted."""
        return self.m * self.k

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense layer for one sample, all calls together."""
        return self.weights * self.n * self.calls

    def case(self, batch: int = 1, dtype: DType = "float32", math: Math = "ieee", layout: Layout = "feature") -> Case:
        """The dense question that this layer asks, for `batch` samples; a convolution's X has one layout alone."""
        layout = "feature" if self.conv else layout
        conv = replace(self.conv, batch=batch) if self.conv else None
        op: Literal["gemm", "conv2d"] = "conv2d" if conv else "gemm"
        return Case(m=self.m, k=self.k, n=self.n * batch, op=op, dtype=dtype, math=math, layout=layout, conv=conv)


@dataclass(frozen=True, slots=True)
class Network:
    """A name, where the shapes come from, and the layers in the order they run."""

    name: str
    source: str
    layers: tuple[Layer, ...]

    @classmethod
    def load(cls, path: Path) -> Network:
        """The network in a YAML file; SuiteError lists all mistakes, each at its line and column."""
        document = read(path)
        keys = check(document, NetworkKeys)
        listed = document.data.get("layers") if isinstance(document.data, dict) else None
        layers = [_layer(document, ("layers", i)) for i in range(len(listed) if isinstance(listed, list) else 0)]
        _names_once(document, layers)
        top = document.finished(keys)
        return cls(top.name, top.source, tuple(layer for layer in layers if layer))

    @property
    def weights(self) -> int:
        """Entries of all weights, biases not counted."""
        return sum(layer.weights for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of all dense layers for one sample; products of two activations are not in it."""
        return sum(layer.macs for layer in self.layers)


class NetworkKeys(Keys):
    """The top of a network; layers are checked one by one, each against the model of its kind."""

    name: Text
    source: Text
    layers: Annotated[list[Any], Field(min_length=1)]


class LayerKeys(Keys):
    """What every layer takes."""

    name: Text
    kind: str
    calls: Count = 1
    prunable: bool = True


class LinearKeys(LayerKeys):
    """A matrix product of n columns a sample."""

    m: Count
    k: Count
    n: Count


class ConvKeys(LayerKeys):
    """A convolution; kernel and size are one number or [rows, columns], size is that of the input plane."""

    in_: Count = Field(alias="in")
    out: Count
    kernel: Pair
    size: Pair
    stride: Count = 1
    padding: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    groups: Count = 1


_KINDS: dict[str, type[LayerKeys]] = {"linear": LinearKeys, "conv2d": ConvKeys}


def _layer(document: Document, loc: Loc) -> Layer | None:
    kind = data.get("kind", "") if isinstance(data := document.at(loc), dict) else None
    if isinstance(kind, str) and kind not in _KINDS:
        document.mistake((*loc, "kind"), f"kind must be linear or conv2d, found {kind!r}{near(kind, _KINDS)}")
        return None
    keys = check(document, _KINDS[kind] if isinstance(kind, str) else LayerKeys, loc)
    if isinstance(keys, LinearKeys):
        return Layer(
            name=keys.name, kind="linear", m=keys.m, k=keys.k, n=keys.n, calls=keys.calls, prunable=keys.prunable
        )
    return _convolution(document, loc, keys) if isinstance(keys, ConvKeys) else None


def _convolution(document: Document, loc: Loc, keys: ConvKeys) -> Layer | None:
    (kh, kw), (h, w) = keys.kernel, keys.size
    conv = Conv(keys.in_, h, w, kh, kw, keys.stride, keys.padding, keys.groups)
    if trouble := _trouble(keys, conv):
        document.mistake((*loc, trouble[0]), trouble[1])
        return None
    shape = {"m": keys.out, "k": keys.in_ // keys.groups * kh * kw, "n": conv.oh * conv.ow}
    return Layer(name=keys.name, kind="conv2d", **shape, calls=keys.calls, prunable=keys.prunable, conv=conv)


def _trouble(keys: ConvKeys, conv: Conv) -> tuple[str, str] | None:
    """The key that makes this convolution impossible and a sentence about it, or None."""
    if keys.in_ % keys.groups or keys.out % keys.groups:
        return "groups", f"groups must divide in {keys.in_} and out {keys.out}, found {keys.groups}; change one of them"
    if keys.groups > 1 and keys.prunable:
        return "groups", (
            f"a grouped convolution must be `prunable: false`, since no sparse kernel takes one; "
            f"found groups {keys.groups}; add that key"
        )
    if min(conv.oh, conv.ow) < 1:
        return "kernel", (
            f"kernel must fit into size {conv.h}x{conv.w} with padding {conv.padding} on each side, "
            f"found {conv.kh}x{conv.kw}; change one of them"
        )
    return None


def _names_once(document: Document, layers: list[Layer | None]) -> None:
    seen: dict[str, int] = {}
    for i, layer in enumerate(layers):
        if layer and layer.name in seen:
            first = document.place(("layers", seen[layer.name]))[0]
            text = f"every layer needs a name of its own, found {layer.name!r} again, first on line {first}; rename one"
            document.mistake(("layers", i, "name"), text)
        elif layer:
            seen[layer.name] = i
