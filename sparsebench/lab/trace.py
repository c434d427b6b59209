"""Any torch module as a network: one sample goes through it, and every product with a weight becomes a layer.

What is given as inputs is one sample, so n counts all of its columns: tokens, pixels, or rows of a batch that is larger
than one. Nothing is left out in silence: products of two activations, weights that no layer can say, and parameters
that took part in no product are all counted in the Trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.parameter import is_lazy

from sparsebench.errors import BadInput
from sparsebench.lab.trace_inputs import Input, check_inputs
from sparsebench.lab.trace_layers import Sorted, sort_out
from sparsebench.lab.trace_target import Target, told
from sparsebench.lab.trace_watch import Watch
from sparsebench.network import Layer


@dataclass(frozen=True, slots=True)
class Trace:
    """What one sample of `inputs` showed of a module: its products sorted, and parameters that were in none of them.

    `not_on_meta` says why the meta device would not do, None where it did.
    """

    target: str
    inputs: tuple[Input, ...]
    products: Sorted
    unused: Mapping[str, int]
    not_on_meta: str | None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in the order they first ran."""
        return self.products.layers


def trace(text: str, inputs: Sequence[Input]) -> Trace:
    """What MODULE:CALLABLE does with `inputs`; BadInput where it cannot be built or run, or multiplies no weight."""
    target = Target.find(text)
    try:
        watch, answers = _watched(target, inputs, "meta")
        not_on_meta = None
    except BadInput:
        raise
    except Exception as error:  # a mistake in the code or its inputs, or what the meta device cannot do
        not_on_meta = told(error)
        watch, answers = _on_cpu(target, inputs, not_on_meta)
    products = sort_out(watch.products, watch.computing, answers)
    if not products.layers:
        left_out = "; ".join(f"{each.name}: {each.why}" for each in products.outside)
        raise BadInput(
            f"{text} has no layer that a network can say{' (' + left_out + ')' if left_out else ''}; trace a module "
            f"that multiplies its weights, in linear layers or convolutions"
        )
    used = (name for product in watch.products if product.weight for name in product.weight.parameters)
    return Trace(text, tuple(inputs), products, watch.parameters.in_none(used), not_on_meta)


def _on_cpu(target: Target, inputs: Sequence[Input], on_meta: str) -> tuple[Watch, set[int]]:
    target.need_room(on_meta)
    try:
        return _watched(target, inputs, "cpu")
    except BadInput:
        raise
    except Exception as error:
        also = "" if told(error) == on_meta else f" (on the meta device: {on_meta})"
        raise BadInput(
            f"{target.text} failed on {', '.join(map(str, inputs))}: {told(error)}{also}; give inputs that fit it"
        ) from None


def _watched(target: Target, inputs: Sequence[Input], device: str) -> tuple[Watch, set[int]]:
    module = target.build(device)
    check_inputs(target.text, module, inputs)
    tensors = {each.name: each.tensor(device) for each in inputs}
    if any(map(is_lazy, module.parameters())):
        with torch.no_grad():
            module(**tensors)  # only now it makes its weights
    watch = Watch(module)
    return watch, watch.answers(watch.run(module, tensors))
