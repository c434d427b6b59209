"""What each tensor of a forward pass comes from: parameters alone, the inputs, or neither.

A weight reaches its product as a view (`w.t()`, a chunk of a packed in_proj), or computed (a cast, a mask, weight norm,
a `cat` of parameters). So storages are followed, not tensors: what is made of parameters and constants is a weight,
what has met an input is data. A product of two weights is *folded*, for it may be either: a weight that is computed
(B @ A of a low-rank adapter), or the first step of learned queries, which are data in all but name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class Origin:
    """What a storage holds. No parameters: data.

    parameters  it is made of these, and constants
    folded      the numbers of the products that it took to make it of them
    product     of data: the one product whose result this is, through steps that meet no other data
    """

    parameters: frozenset[str] = frozenset()
    folded: frozenset[int] = frozenset()
    product: int | None = None

    @property
    def is_data(self) -> bool:
        """Whether it depends on an input."""
        return not self.parameters

    @property
    def is_weight(self) -> bool:
        """Whether it comes from parameters without a product of two of them."""
        return bool(self.parameters) and not self.folded


DATA = Origin()


@dataclass(slots=True)
class Origins:
    """The origin of every storage met so far; one that is not in here is a constant."""

    _found: dict[int, Origin] = field(default_factory=dict)

    def of(self, tensor: torch.Tensor) -> Origin | None:
        """Where `tensor` comes from, None for a constant."""
        return self._found.get(storage_of(tensor))

    def put(self, made: Iterable[torch.Tensor], origin: Origin | None) -> None:
        """Give these tensors an origin. It replaces an older one: memory that is freed is used again."""
        for tensor in made:
            if origin:
                self._found[storage_of(tensor)] = origin
            else:
                self._found.pop(storage_of(tensor), None)

    def follow(self, taken: Iterable[torch.Tensor], made: Iterable[torch.Tensor], *, adds: bool) -> None:
        """Note what an operation made of what it took. Only one that `adds` may take a weight (a bias) and keep the
        result of a product what it is."""
        origins = [origin for tensor in taken if (origin := self.of(tensor))]
        data = [origin for origin in origins if origin.is_data]
        if data:
            products = {origin.product for origin in data}
            kept = len(products) == 1 and (adds or len(data) == len(origins))
            self.put(made, Origin(product=products.pop()) if kept else DATA)
        else:
            self.put(made, merged(origins))


def merged(origins: Iterable[Origin | None], product: frozenset[int] = frozenset()) -> Origin | None:
    """The origin of what is made of weights, by products of the numbers `product` besides; None for constants alone."""
    known = [origin for origin in origins if origin]
    parameters = frozenset(name for origin in known for name in origin.parameters)
    folded = frozenset(number for origin in known for number in origin.folded)
    return Origin(parameters, folded | product) if parameters else None


def storage_of(tensor: torch.Tensor) -> int:
    """What views of one memory share, on the meta device too; a sparse tensor has no storage and is itself."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)
