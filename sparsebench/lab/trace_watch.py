"""A forward pass watched at torch's dispatcher, below modules, functions and einsum: no way to multiply is missed.

Which operand is the weight: the one that comes from parameters alone, the right one where both do, as in x @ W.t(). A
folded one (see trace_origins.py) is a weight on the right of a two-dimensional product with data, else data itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

# TorchDispatchMode: what torch's flop counter is built on; it sees every operation after all wrappers are gone.
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sparsebench.lab.trace_origins import DATA, Origin, merged
from sparsebench.lab.trace_products import Product, macs_of, of_convolution, of_matrix
from sparsebench.lab.trace_weights import Parameters, Weight

aten = torch.ops.aten
_MATRIX: Mapping[Any, Callable[[Sequence[Any]], Sequence[torch.Tensor]]] = {
    aten.mm: lambda args: args[:2],
    aten.bmm: lambda args: args[:2],
    aten.mv: lambda args: args[:2],
    aten.addmm: lambda args: args[1:3],
    aten.baddbmm: lambda args: args[1:3],
    aten.addmv: lambda args: args[1:3],
}
_TORCH = ("aten", "prim", "prims")
_LIKELY = re.compile(r"mm(_|$)|conv|_trilinear|(^|_)linear|rnn|lstm|gru|attention")


class Watch(TorchDispatchMode):  # type: ignore[misc]  # torch has no types here
    """The products of one forward pass in the order they ran. A context manager; then see `products`."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.parameters = Parameters(module)
        self.origins = self.parameters.origins()
        self.products: list[Product] = []
        self.computing: set[int] = set()  # products that computed weights of other products
        self._names = {id(part): name for name, part in module.named_modules()}
        self._running = [""]

    def run(self, module: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Any:
        """The answer of `module` to `inputs`, watched."""
        self.origins.put(inputs.values(), DATA)
        with torch.no_grad(), _plain_kernels(), self._modules(), self:
            return module(**inputs)

    def answers(self, answer: Any) -> set[int]:
        """The products whose results are the answer, or parts of it, but for steps that meet no other data."""
        parts = (
            answer.values() if isinstance(answer, Mapping) else answer if isinstance(answer, list | tuple) else [answer]
        )
        found = [self.origins.of(part) for part in parts if isinstance(part, torch.Tensor)]
        return {origin.product for origin in found if origin and origin.product is not None}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and note what it was."""
        kwargs = kwargs or {}
        if func.overloadpacket not in flop_registry and func.overloadpacket not in _MATRIX:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        self._note(func, args, kwargs, out)
        return out

    def _note(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        packet, made = func.overloadpacket, list(_tensors(out))
        if packet in _MATRIX:
            self.origins.put(made, self._matrix(*_MATRIX[packet](args)))
        elif packet is aten.convolution:
            self.origins.put(made, self._convolution(args, out))
        else:
            taken = list(_tensors([*args, *kwargs.values()]))
            macs = macs_of(packet, args, kwargs, out) if packet in flop_registry else None
            if macs is not None or func.namespace not in _TORCH or _LIKELY.search(packet.__name__):
                self._unknown(func, taken, macs)
            self.origins.follow(taken, made, adds=packet in (aten.add, aten.add_))

    def _matrix(self, left: torch.Tensor, right: torch.Tensor) -> Origin | None:
        """Note a matrix product; the origin of its result."""
        at_left, at_right = self.origins.of(left), self.origins.of(right)
        if right.ndim == 1 and not (_is_data(at_left) or _is_data(at_right)):
            return merged([at_left, at_right])  # a step of spectral norm
        first = len(self.products)
        if at_right and (
            at_right.is_weight or (at_right.folded and _is_data(at_left) and left.ndim == right.ndim == 2)
        ):
            self.computing |= at_right.folded
            self._weighted(right.mT if right.ndim > 1 else right, at_right, left.shape[-2], len(left))
        elif at_left and at_left.is_weight:
            self._weighted(left, at_left, right.shape[-1] if right.ndim > 1 else 1, len(right))
        else:
            columns = right.shape[-1] if right.ndim > 1 else 1
            self.products.append(Product(macs=left.numel() * columns))
            return DATA if at_left or at_right else None
        numbers = range(first, len(self.products))
        if _is_data(at_left) or _is_data(at_right):
            return Origin(product=first if len(numbers) == 1 else None)
        return merged([at_left, at_right], frozenset(numbers))

    def _weighted(self, w: torch.Tensor, origin: Origin, columns: int, batch: int) -> None:
        """Note W [m, k] times its columns, or a batch of them: one product each, if each has a W of its own."""
        if w.ndim < 3 or batch == 1 or w.stride(0) == 0:
            one, many = (w[0], columns * batch) if w.ndim == 3 else (w, columns)
            self.products.append(of_matrix(self._weight(one, origin), one, many))
        else:
            self.products += [of_matrix(self._weight(one, origin), one, columns) for one in w.unbind()]

    def _convolution(self, args: Sequence[Any], out: torch.Tensor) -> Origin | None:
        """Note a convolution; the origin of its result."""
        at_x, at_w = self.origins.of(args[0]), self.origins.of(args[1])
        if at_w is None or at_w.is_data:
            self.products.append(Product(macs=macs_of(aten.convolution, args, {}, out)))
            return DATA if at_x or at_w else None
        self.computing |= at_w.folded
        number = len(self.products)
        self.products.append(of_convolution(self._weight(args[1], at_w), args, out))
        return Origin(product=number) if _is_data(at_x) else merged([at_x, at_w], frozenset([number]))

    def _unknown(self, func: Any, taken: Sequence[torch.Tensor], macs: int | None) -> None:
        """Note an operation that multiplies, or may: with a weight it is left out, without one only counted."""
        held = [(tensor, origin) for tensor in taken if tensor.ndim >= 2 and (origin := self.origins.of(tensor))]
        weights = [self._weight(tensor, origin) for tensor, origin in held if origin.is_weight]
        trouble = f"torch ran it as {func}, which is no product known here"
        for weight in weights:
            self.products.append(Product(macs=macs, weight=weight, trouble=trouble))
        if macs is not None and not weights:
            self.products.append(Product(macs=macs))

    def _weight(self, w: torch.Tensor, origin: Origin) -> Weight:
        return self.parameters.weight(w, origin, self._running[-1])

    @contextmanager
    def _modules(self) -> Iterator[None]:
        """Keep the name of the module that runs."""

        def enter(module: torch.nn.Module, _: Any) -> None:
            self._running.append(self._names.get(id(module), self._running[-1]))

        def leave(*_: Any) -> None:
            self._running.pop()

        with ExitStack() as hooks:
            hooks.callback(register_module_forward_pre_hook(enter).remove)
            hooks.callback(register_module_forward_hook(leave, always_call=True).remove)
            yield


def _is_data(origin: Origin | None) -> bool:
    return origin is not None and origin.is_data


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without kernels that do a whole attention or LSTM at once: on the CPU they would hide its products."""
    fast_attention, fast_cpu = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        torch.backends.mkldnn.enabled = fast_cpu


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in an argument or a result: itself, or those in lists and tuples."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
