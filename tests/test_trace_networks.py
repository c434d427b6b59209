"""Whole networks traced: the files that ship are what their code does, and families of transformers need no memory."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import traced_networks
from test_trace import all_macs, counted_by_torch

from sparsebench.lab.trace import Trace, trace
from sparsebench.lab.trace_inputs import Input, parse_inputs
from sparsebench.network import Network, resolve_network, shipped_networks

ME = __name__
BUILDERS = sorted(path.stem for path in resolve_network("vit-b16").parent.glob("[a-z]*.py"))


@pytest.mark.parametrize(("name", "code"), [("alexnet", "AlexNet"), ("mobilenet-v1", "MobileNet")])
def test_networks_from_papers_trace_to_the_files_that_ship(name: str, code: str) -> None:
    inputs = parse_inputs(["x=1,3,224,224"])
    found = trace(f"traced_networks:{code}", inputs)
    network = Network.load(resolve_network(name))
    assert found.layers == network.layers
    assert found.products.weights == network.weights
    assert network.macs == counted_by_torch(f"traced_networks:{code}", inputs)
    with torch.device("meta"):
        module = getattr(traced_networks, code)()
    assert (
        sum(parameter.numel() for parameter in module.parameters())
        == {
            "alexnet": 61_100_840,
            "mobilenet-v1": 4_231_976,
        }[name]
    )


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_code_beside_a_network_traces_to_its_file(builder: str) -> None:
    """What `verify` builds, and what `predict` adds up, are the same layers."""
    made = __import__(f"sparsebench.suites.networks.{builder}", fromlist=["build"])
    with torch.device("meta"):
        (tensor,), module = made.inputs(1), made.build()
    name = next(iter(inspect.signature(module.forward).parameters))
    one = Input(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    found = trace(f"sparsebench.suites.networks.{builder}:build", [one])
    assert found.layers == Network.load(shipped_networks()[builder.replace("_", "-")]).layers


def test_every_network_has_been_traced() -> None:
    """All but one, whose code is nowhere here, and a list of shapes that is no network."""
    traced = {name.replace("_", "-") for name in BUILDERS} | {"alexnet", "mobilenet-v1", "llama3-8b-block"}
    assert set(shipped_networks()) - traced == {"wrn-40-4", "sweep-convs"}


def model(name: str, config: str, **sizes: Any) -> torch.nn.Module:
    """A model of transformers from its config alone."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return getattr(transformers, name)(getattr(transformers, config)(**sizes))  # type: ignore[no-any-return]


def bert() -> torch.nn.Module:
    return model("BertModel", "BertConfig")


def bert_for_tokens() -> torch.nn.Module:
    return model("BertForTokenClassification", "BertConfig", num_hidden_layers=1)


def gpt2() -> torch.nn.Module:
    return model("GPT2LMHeadModel", "GPT2Config", n_layer=2)


def llama_block() -> torch.nn.Module:
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
    return model("LlamaModel", "LlamaConfig", num_hidden_layers=1, **sizes)


def llama_7b() -> torch.nn.Module:
    return model("LlamaForCausalLM", "LlamaConfig")


def vit() -> torch.nn.Module:
    return model("ViTForImageClassification", "ViTConfig", num_labels=1000)


def t5() -> torch.nn.Module:
    return model("T5ForConditionalGeneration", "T5Config", num_layers=2)


def whisper() -> torch.nn.Module:
    return model("WhisperForConditionalGeneration", "WhisperConfig", encoder_layers=2, decoder_layers=2)


def resnet() -> torch.nn.Module:
    return model("ResNetForImageClassification", "ResNetConfig", num_labels=1000)


def convnext() -> torch.nn.Module:
    return model("ConvNextForImageClassification", "ConvNextConfig", num_labels=1000)


FAMILIES = {
    "bert": ["input_ids=1,128:int64", "token_type_ids=1,128:int64"],
    "bert_for_tokens": ["input_ids=1,16:int64"],
    "gpt2": ["input_ids=1,128:int64"],
    "llama_block": ["input_ids=1,1:int64"],
    "vit": ["pixel_values=1,3,224,224"],
    "t5": ["input_ids=1,64:int64", "decoder_input_ids=1,32:int64"],
    "whisper": ["input_features=1,80,3000", "decoder_input_ids=1,32:int64"],
    "resnet": ["pixel_values=1,3,224,224"],
    "convnext": ["pixel_values=1,3,224,224"],
}


@cache
def family(name: str, *inputs: str) -> Trace:
    pytest.importorskip("transformers", reason="transformers is not installed")
    return trace(f"{ME}:{name}", parse_inputs(inputs or FAMILIES[name]))


def kept(found: Trace) -> set[str]:
    """What the papers' habit keeps dense, grouped convolutions aside."""
    return {name for name, why in found.products.why_dense.items() if not why.startswith("grouped")}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_transformers_on_the_meta_device(name: str) -> None:
    found = family(name)
    assert found.not_on_meta is None
    assert all_macs(found) == counted_by_torch(f"{ME}:{name}", found.inputs)
    with torch.device("meta"):
        module = globals()[name]()
    whole = sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)
    outside = {"whisper": 384 * 80 * 3 + 384 * 384 * 3}.get(name, 0)
    assert found.products.weights + sum(found.unused.values()) + outside == whole  # no weight is lost


def test_bert_traces_to_the_file_that_ships() -> None:
    """All of it but the pooler, which the file leaves out."""
    found = family("bert")
    assert found.layers[:-1] == Network.load(resolve_network("bert-base")).layers
    assert found.products.why_dense == {"pooler.dense": "classifier: its result is the answer"}
    assert found.unused == {
        "embeddings.word_embeddings.weight": 30522 * 768,
        "embeddings.position_embeddings.weight": 512 * 768,
        "embeddings.token_type_embeddings.weight": 2 * 768,
    }
    assert kept(family("bert_for_tokens")) == {"classifier"}


def test_a_block_of_llama_traces_to_the_file_that_ships() -> None:
    found = family("llama_block")
    named = tuple(replace(layer, name=layer.name.removeprefix("layers.0.")) for layer in found.layers)
    assert named == Network.load(resolve_network("llama3-8b-block")).layers
    assert not kept(found)


def test_a_network_of_27_gigabytes_needs_none_of_them() -> None:
    found = family("llama_7b", "input_ids=1,128:int64")
    assert len(found.layers) == 32 * 7 + 1
    assert found.products.weights == 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 32000 * 4096
    assert kept(found) == {"lm_head"}


def test_the_transposed_weights_of_gpt2_and_its_shared_classifier() -> None:
    layers = {layer.name: (layer.m, layer.k, layer.n) for layer in family("gpt2").layers}
    assert layers["transformer.h.0.attn.c_attn"] == (3 * 768, 768, 128)
    assert layers["transformer.h.1.mlp.c_proj"] == (768, 3072, 128)
    assert layers["lm_head"] == (50257, 768, 128)
    assert kept(family("gpt2")) == {"lm_head"}


def test_resnet_and_vit_have_the_layers_that_ship() -> None:
    """Names differ; ViT's q, k and v are one layer there."""
    ours, theirs = Network.load(resolve_network("resnet50-v2")), family("resnet")
    assert {replace(layer, name="") for layer in theirs.layers} == {replace(layer, name="") for layer in ours.layers}
    assert sum(layer.macs for layer in theirs.layers) == ours.macs
    assert kept(theirs) == {"resnet.embedder.embedder.convolution", "classifier.1"}
    vit_b16, found = Network.load(resolve_network("vit-b16")), family("vit")
    assert (found.products.weights, sum(layer.macs for layer in found.layers)) == (vit_b16.weights, vit_b16.macs)
    assert found.products.weightless[1] == 12 * 2 * 197 * 197 * 768
    assert len(kept(found)) == 2


def test_depthwise_convolutions_of_convnext_stay_dense() -> None:
    found = family("convnext")
    grouped = [layer for layer in found.layers if layer.conv and layer.conv.groups > 1]
    assert len(grouped) == 18
    assert not any(layer.prunable for layer in grouped)
    assert kept(found) == {"convnext.embeddings.patch_embeddings", "classifier"}


def test_convolutions_of_whisper_that_no_layer_can_say() -> None:
    found = family("whisper")
    assert [each.name for each in found.products.outside] == ["model.encoder.conv1", "model.encoder.conv2"]
    assert all("a line with padding 1" in each.why for each in found.products.outside)
