"""Which parameter a weight is, and what its layer is called.

A layer has the name of its weight without the last word: `blocks.0.attn.qkv`, `attn.in_proj`. Where it takes some rows
alone, they follow: `attn.in_proj.0-767`. Equal weights have equal identities, whichever module uses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from sparsebench.lab.trace_origins import Origin, Origins, storage_of

_SUFFIX = re.compile(r"(^|[._])weight(_orig|_g|_v)?$")


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of a product, and the parameters it comes from; `identity` is equal for equal weights alone."""

    identity: tuple[Any, ...]
    name: str
    parameters: frozenset[str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter with all of its names: one that two modules share has several."""

    names: tuple[str, ...]
    tensor: torch.Tensor

    def called(self, running: str) -> str:
        """The name it has in the module that runs, else its first."""
        return next((name for name in self.names if name.rpartition(".")[0] == running), self.names[0])


class Parameters:
    """The parameters of a module by the storage they are in; a storage may hold several."""

    def __init__(self, module: torch.nn.Module) -> None:
        names: dict[int, list[str]] = {}
        tensors: dict[int, torch.Tensor] = {}
        for name, tensor in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
            tensors[id(tensor)] = tensor
        self.all = [Parameter(tuple(names[key]), tensor) for key, tensor in tensors.items()]
        self._in: dict[int, list[Parameter]] = {}
        for parameter in self.all:
            self._in.setdefault(storage_of(parameter.tensor), []).append(parameter)

    def origins(self) -> Origins:
        """The origins of a forward pass that has not begun."""
        found = Origins()
        for held in self._in.values():
            names = frozenset(parameter.names[0] for parameter in held)
            found.put([held[0].tensor], Origin(names))
        return found

    def weight(self, tensor: torch.Tensor, origin: Origin, running: str) -> Weight:
        """The weight that `tensor` is, as it is called in the module `running`."""
        low, high = _extent(tensor)
        for parameter in self._in.get(storage_of(tensor), ()):
            start, end = _extent(parameter.tensor)
            if start <= low and high <= end:
                name = plain(parameter.called(running)) + _rows(tensor, parameter.tensor)
                own = parameter.names[0]
                return Weight((own, low, high, tensor.numel()), name, frozenset([own]))
        names = sorted(origin.parameters)
        return Weight((*names, tensor.storage_offset()), common(names), origin.parameters)

    def in_none(self, used: Iterable[str]) -> Mapping[str, int]:
        """Entries of the parameters of two or more dimensions that are not among `used`, largest first."""
        names = set(used)
        left = [each for each in self.all if each.tensor.ndim >= 2 and each.names[0] not in names]
        return {each.names[0]: each.tensor.numel() for each in sorted(left, key=lambda each: -each.tensor.numel())}


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first and the last place in its storage that `tensor` reaches."""
    if tensor.layout != torch.strided:
        return 0, tensor.numel() - 1
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    low = tensor.storage_offset()
    return low, low + sum((size - 1) * stride for size, stride in steps)


def _rows(part: torch.Tensor, whole: torch.Tensor) -> str:
    """Which rows of `whole` its view `part` takes, as the end of a name; "" for all of it, or for parts of rows."""
    if part.numel() == whole.numel():
        return ""
    row = whole.numel() // len(whole)
    first, last = (place // row for place in (end - whole.storage_offset() for end in _extent(part)))
    if part.numel() != (last - first + 1) * row:
        return ""
    return f".{first}" if first == last else f".{first}-{last}"


def plain(name: str) -> str:
    """A layer's name from its weight's.

    >>> plain("blocks.0.fc.weight"), plain("attn.in_proj_weight"), plain("fc.parametrizations.weight.original0")
    ('blocks.0.fc', 'attn.in_proj', 'fc')
    """
    return _SUFFIX.sub("", name.split(".parametrizations.")[0]) or name


def common(names: Iterable[str]) -> str:
    """One name for a weight that is computed from several parameters: the module they are all in, else every name.

    >>> common(["fc.weight_g", "fc.weight_v"]), common(["attn.q.weight", "attn.k.weight"]), common(["q", "k"])
    ('fc', 'attn', 'k+q')
    """
    found = sorted({plain(name) for name in names})
    if len(found) == 1:
        return found[0]
    steps = takewhile(lambda step: len(set(step)) == 1, zip(*(name.split(".") for name in found), strict=False))
    return ".".join(step[0] for step in steps) or "+".join(found)
