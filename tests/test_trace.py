"""Tracing: every way to multiply is found and named, nothing is left out in silence, flops are what torch counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import traced
from torch.utils.flop_counter import FlopCounterMode

from sparsebench.case import Conv
from sparsebench.errors import SparsebenchError
from sparsebench.lab import trace_text
from sparsebench.lab.trace import Trace, trace
from sparsebench.lab.trace_inputs import Input, parse_inputs
from sparsebench.lab.trace_target import Target
from sparsebench.lab.trace_text import network_text, told
from sparsebench.network import Network

INPUTS = {
    "Mlp": ["x=1,8"],
    "Pixels": ["x=1,3,32,32"],
    "Functional": ["x=1,7,6"],
    "Attention": ["x=1,5,8", "memory=1,9,8"],
    "Shared": ["ids=1,6:int64", "mask=1,6"],
    "Computed": ["x=1,8"],
    "Queries": ["x=1,9,8"],
    "Inference": ["x=1,5,8"],
    "Recurrent": ["x=1,6,4"],
    "Unsayable": ["x=1,4,9,9"],
    "Reads": ["x=1,6,4"],
    "Whole": ["x=1,4"],
    "Lazy": ["x=1,4"],
}


def traced_of(name: str, *inputs: str) -> Trace:
    return trace(f"traced:{name}", parse_inputs(inputs or INPUTS[name]))


def sizes(found: Trace) -> dict[str, tuple[int, int, int, int]]:
    """(m, k, n, calls) of each layer by name."""
    return {layer.name: (layer.m, layer.k, layer.n, layer.calls) for layer in found.layers}


def counted_by_torch(text: str, inputs: Sequence[Input], device: str = "meta") -> int:
    """Multiply-adds that torch's own counter finds."""
    module = Target.find(text).build(device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(**{each.name: each.tensor(device) for each in inputs})
    return int(counter.get_total_flops()) // 2


def all_macs(found: Trace) -> int:
    """Multiply-adds of the layers and of all that is reported beside them."""
    outside = sum(each.macs or 0 for each in found.products.outside)
    return sum(layer.macs for layer in found.layers) + found.products.weightless[1] + outside


# mv is no product to torch's counter: spectral norm's are no layers here, those of Functional are.
UNCOUNTED = {"Functional": 6 * 6 + 14 * 6}


@pytest.mark.parametrize("name", [name for name in INPUTS if name not in ("Reads", "Unsayable", "Lazy")])
def test_flops_are_those_of_torch(name: str) -> None:
    inputs = parse_inputs(INPUTS[name])
    found = trace(f"traced:{name}", inputs)
    assert found.not_on_meta is None
    assert all_macs(found) == counted_by_torch(f"traced:{name}", inputs) + UNCOUNTED.get(name, 0)
    assert all_macs(found) > 0


def test_a_layer_called_twice_is_one_layer_of_two_calls() -> None:
    found = traced_of("Mlp")
    assert sizes(found) == {"first": (8, 8, 1, 2), "last": (3, 8, 1, 1)}
    assert found.products.why_dense == {"last": "classifier: its result is the answer"}
    assert found.products.weights == 64 + 24


def test_convolutions() -> None:
    found = traced_of("Pixels")
    convs = {layer.name: layer.conv for layer in found.layers}
    assert convs == {
        "stem": Conv(3, 32, 32, 3, 3, stride=2, padding=1),
        "body": Conv(8, 16, 16, 3, 5, padding=2),
        "depthwise": Conv(8, 18, 16, 3, 3, padding=1, groups=8),
        "body@2": Conv(8, 9, 8, 3, 5, padding=2),
        "line": Conv(8, 1, 88, 1, 3, stride=2),
        "head": None,
    }
    assert sizes(found)["depthwise"] == (8, 9, 18 * 16, 1)
    assert sizes(found)["line"] == (6, 24, 43, 1)
    assert found.products.weights == 8 * 27 + 8 * 8 * 15 + 8 * 9 + 6 * 24 + 60
    assert found.products.why_dense == {
        "stem": "first convolution: 3 channels",
        "depthwise": "grouped: no sparse kernel takes its 8 groups",
        "head": "classifier: its result is the answer",
    }


def test_images_of_one_sample_are_calls() -> None:
    assert sizes(traced_of("Pixels", "x=4,3,32,32"))["stem"] == (8, 27, 256, 4)


def test_functional_calls_are_found_and_parts_of_a_parameter_named() -> None:
    found = traced_of("Functional")
    assert sizes(found) == {
        "linear": (6, 6, 7, 1),
        "right": (6, 6, 7, 1),
        "left": (6, 6, 7, 1),
        "addmm": (6, 6, 7, 1),
        "einsum": (6, 6, 7, 1),
        "packed.0-5": (6, 6, 7, 1),
        "packed.6-11": (6, 6, 7, 1),
        "columns": (6, 6, 7, 1),
        "columns@2": (6, 6, 7, 1),
        "experts.0": (6, 6, 7, 1),
        "experts.1": (6, 6, 7, 1),
        "kernel": (5, 9, 5 * 4, 2),
        "mv": (6, 6, 1, 1),
        "one": (1, 6, 14, 1),
    }
    assert found.unused == {}


def test_projections_of_attention() -> None:
    found = traced_of("Attention")
    assert sizes(found) == {
        "own.in_proj": (24, 8, 5, 1),
        "own.out_proj": (8, 8, 5, 1),
        "cross.in_proj.0-7": (8, 8, 5, 1),
        "cross.in_proj.8-23": (16, 8, 9, 1),
        "cross.out_proj": (8, 8, 5, 1),
    }
    assert found.products.weightless == (4, 2 * 5 * 5 * 8 + 2 * 5 * 9 * 8)


def test_shared_weights_are_one_layer_for_each_n_and_have_the_name_of_who_multiplies() -> None:
    found = traced_of("Shared")
    assert sizes(found) == {
        "a": (8, 8, 6, 2),
        "c": (8, 8, 6, 2),
        "head": (20, 8, 6, 1),
        "c@2": (8, 8, 1, 1),
    }
    assert found.products.weights == 64 + 64 + 160
    assert set(found.products.why_dense) == {"head"}


def test_computed_weights() -> None:
    found = traced_of("Computed")
    assert sizes(found) == {
        "normed": (8, 8, 1, 1),
        "spectral": (8, 8, 1, 1),
        "pruned": (8, 8, 1, 1),
        "cast": (8, 8, 1, 1),
        "k+q+v": (24, 8, 1, 1),
        "base+down+up": (8, 8, 1, 1),
    }
    (outside,) = found.products.outside
    assert (outside.calls, outside.macs, outside.why) == (1, 8 * 8 * 2, "it computes a weight of another layer")


def test_learned_queries_are_data_once_they_are_projected() -> None:
    found = traced_of("Queries")
    assert sizes(found) == {"q": (8, 8, 5, 1), "k": (8, 8, 9, 1), "v": (8, 8, 9, 1), "out": (8, 8, 5, 1)}
    assert found.products.weightless[0] == 4
    assert found.unused == {"queries": 40}


def test_a_forward_that_says_it_is_inference() -> None:
    found = traced_of("Inference")
    assert sizes(found) == {"qkv": (24, 8, 5, 1)}
    assert found.products.weightless == (2, 2 * 5 * 5 * 8)


def test_a_recurrent_layer_is_called_every_step() -> None:
    """On the meta device torch multiplies its input step by step too; on the CPU at once (see Reads)."""
    assert sizes(traced_of("Recurrent")) == {"lstm.weight_ih_l0": (12, 4, 1, 6), "lstm.weight_hh_l0": (12, 3, 1, 6)}


def test_what_no_layer_can_say_is_left_out_aloud() -> None:
    found = traced_of("Unsayable")
    assert sizes(found) == {"fine": (4, 4, 1, 1)}
    assert {each.name: each.why for each in found.products.outside} == {
        "dilated": "its dilation is 2x2, and a network has none",
        "rows": "its padding is 0 for rows and 1 for columns, and a network has one number for both",
        "steps": "its stride is 1 for rows and 2 for columns, and a network has one number for both",
        "up": "it is a transposed convolution, and a network has none",
        "line": "it is a convolution over a line with padding 1, and a network pads rows and columns alike",
        "solid": "it is a convolution over 3 dimensions, and a network has those of planes",
        "mix": "torch ran it as aten._trilinear.default, which is no product known here",
        "turn": "its weights are complex64, and kernels here multiply floats",
    }
    assert [each.name for each in found.products.outside if each.macs is None] == ["mix"]
    lines = "\n".join(told(found))
    assert all(f"Left out: {each.name} (1 product, " in lines for each in found.products.outside)
    assert all_macs(found) == counted_by_torch("traced:Unsayable", found.inputs)


def test_what_the_meta_device_cannot_do_runs_on_the_cpu() -> None:
    """There too attention and LSTM are taken apart into their products."""
    found = traced_of("Reads")
    assert found.not_on_meta is not None
    assert told(found)[1].startswith("The meta device would not do: RuntimeError: Tensor.item() cannot be called")
    assert sizes(found) == {
        "fc": (4, 4, 6, 1),
        "attend.self_attn.in_proj": (12, 4, 6, 1),
        "attend.self_attn.out_proj": (4, 4, 6, 1),
        "attend.linear1": (8, 4, 6, 1),
        "attend.linear2": (4, 8, 6, 1),
        "lstm.weight_ih_l0": (12, 4, 6, 1),
        "lstm.weight_hh_l0": (12, 3, 1, 6),
    }
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_module_that_is_made_on_the_cpu_still_runs_without_memory() -> None:
    found = traced_of("Whole")
    assert found.not_on_meta is None
    assert sizes(found) == {"fc": (3, 4, 1, 1)}


def test_weights_that_are_made_when_first_used() -> None:
    assert sizes(traced_of("Lazy")) == {"fc": (5, 4, 1, 1)}


@pytest.mark.parametrize("name", ["made", "Zoo.mlp"])
def test_a_module_and_a_name_with_dots(name: str) -> None:
    assert sizes(traced_of(name, "x=1,8")) == sizes(traced_of("Mlp"))
    assert not any(parameter.is_meta for parameter in traced.made.parameters())


def test_a_sample_of_several_first_sizes_is_doubted() -> None:
    assert told(traced_of("Mlp", "x=32,8"))[0].endswith("; n counts all 32, so if that is a batch, trace a batch of 1")
    assert told(traced_of("Mlp"))[0].endswith("One sample is x 1x8 float32")


@pytest.mark.parametrize("name", INPUTS)
def test_the_file_is_the_network_that_was_traced(name: str, tmp_path: Path) -> None:
    found = traced_of(name)
    (tmp_path / "net.yaml").write_text(network_text(found, "null"))
    network = Network.load(tmp_path / "net.yaml")
    assert (network.name, network.layers) == ("null", found.layers)
    assert network.source.startswith(f"sparsebench trace traced:{name} --input {INPUTS[name][0]}")


def test_a_file_that_is_not_the_network_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_text, "_unless", lambda default, **keys: {})  # strides and calls are forgotten
    with pytest.raises(SparsebenchError, match="traced:Mlp: the file would not be the network that was traced"):
        network_text(traced_of("Mlp"), "mlp")


def test_names_that_yaml_would_read_as_something_else(tmp_path: Path) -> None:
    odd: Any = torch.nn.Sequential()
    for name in ("no", "1e3", "a: b", "x # y", "null", "\u00e9"):
        odd.add_module(name, torch.nn.Linear(2, 2))
    traced.odd = odd  # type: ignore[attr-defined]
    found = traced_of("odd", "input=1,2")
    (tmp_path / "net.yaml").write_text(network_text(found, "odd"))
    assert [layer.name for layer in Network.load(tmp_path / "net.yaml").layers] == list(odd._modules)


def test_a_layer_named_as_a_repetition_is_told_apart() -> None:
    """`fc@2` may be taken; then the next number is."""
    net: Any = torch.nn.Module()
    net.add_module("fc@2", torch.nn.Linear(2, 2))
    net.add_module("fc", torch.nn.Linear(2, 2))
    parts = dict(net.named_children())
    net.forward = lambda x: parts["fc"](parts["fc"](parts["fc@2"](x))[:1]) + x[:1]
    net.register_forward_pre_hook(lambda module, args: parts.update(module.named_children()))
    traced.twice = net  # type: ignore[attr-defined]
    assert list(sizes(traced_of("twice", "x=3,2"))) == ["fc@2", "fc", "fc@3"]
