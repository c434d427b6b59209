"""Shipped networks against published counts, and every mistake a network file can make."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import mistakes, spots, survived, told

from sparsebench.case import Case, Conv
from sparsebench.errors import SuiteError
from sparsebench.network import Layer, Network, resolve_network, shipped_networks

# (layers, convolutions, weights, other parameters, published parameters, multiply-adds, others, published)
#
# vit-b16      torchvision, vit_b_16: num_params 86567656, 17.564 GFLOPs of a multiply-add each. Others: biases, norms,
#              class token, positions; the products of queries with keys and with values, 12 x 2 x 197 x 197 x 768.
# resnet50-v2  torchvision, resnet50: num_params 25557032, 4.089 G. Others: 2 x 26560 of batch norm, the bias of fc.
# vgg19-cifar  NeuralFuse (arXiv 2306.16869, table 7): 20,040,522 and 399.47 M (pooling, norms counted there).
# wrn-40-4     Wide Residual Networks (arXiv 1605.07146, table 4): 8.9 M. Others: batch norm, one bias.
# alexnet      torchvision, alexnet: num_params 61100840, 0.714 G. Others: biases.
# mobilenet-v1 MobileNets (arXiv 1704.04861, table 8): 4.2 M, 569 M. Others: batch norm, one bias.
# bert-base    BertModel(BertConfig()): 109,482,240; TinyBERT (arXiv 1909.10351, table 1): 22.5 G flops. Others:
#              embeddings, pooler, biases, norms; the products of activations, 12 x 2 x 128 x 128 x 768.
# llama3-8b-block  a 32nd of the released model's 8,030,261,248. Others: a 32nd of embeddings, head (128256 x 4096 each)
#              and 65 norms.
PUBLISHED = {
    "vit-b16": (50, 1, 86_292_480, 275_176, 86_567_656, 16_848_500_736, 715_327_488, 17.564e9),
    "resnet50-v2": (54, 53, 25_502_912, 54_120, 25_557_032, 4_089_184_256, 0, 4.089e9),
    "vgg19-cifar": (17, 16, 20_024_000, 16_522, 20_040_522, 398_136_320, 0, 399.47e6),
    "wrn-40-4": (41, 40, 8_938_416, 10_794, 8.9e6, 1_298_582_016, 0, 1_298_582_016),
    "alexnet": (8, 5, 61_090_496, 10_344, 61_100_840, 714_188_480, 0, 0.714e9),
    "mobilenet-v1": (28, 27, 4_209_088, 22_888, 4.2e6, 568_740_352, 0, 569e6),
    "bert-base": (72, 0, 84_934_656, 24_547_584, 109_482_240, 10_871_635_968, 301_989_888, 22.5e9 / 2),
    "llama3-8b-block": (7, 0, 218_103_808, 32_841_856, 8_030_261_248 / 32, 218_103_808, 0, 218_103_808),
}


def shipped(name: str) -> Network:
    return Network.load(resolve_network(name))


def test_every_shipped_network_is_held_to_published_counts() -> None:
    assert set(shipped_networks()) - {"sweep-convs"} == set(PUBLISHED)  # that one is drawn for a suite


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts(name: str) -> None:
    network = shipped(name)
    layers, convolutions, weights, others, parameters, macs, other_macs, published_macs = PUBLISHED[name]
    assert network.name == name
    assert (len(network.layers), sum(layer.kind == "conv2d" for layer in network.layers)) == (layers, convolutions)
    assert (network.weights, network.macs) == (weights, macs)
    assert weights + others == pytest.approx(parameters, rel=0.01)
    assert macs + other_macs == pytest.approx(published_macs, rel=0.01)


@pytest.mark.parametrize(
    ("name", "dense"),
    [
        ("vit-b16", {"patch_embed.proj", "head"}),
        ("resnet50-v2", {"conv1", "fc"}),
        ("vgg19-cifar", {"features.0", "classifier"}),
        ("wrn-40-4", {"conv1", "linear"}),
        ("alexnet", {"features.0", "classifier.6"}),
        ("bert-base", set()),
        ("llama3-8b-block", set()),
    ],
)
def test_what_stays_dense(name: str, dense: set[str]) -> None:
    assert {layer.name for layer in shipped(name).layers if not layer.prunable} == dense


def test_planes_of_a_network_join_up() -> None:
    """Each 3x3 convolution of resnet50-v2 takes the plane that the 1x1 before it makes."""
    layers = {layer.name: layer for layer in shipped("resnet50-v2").layers}
    for name, layer in layers.items():
        if name.endswith("conv2") and layer.conv:
            before, after = layers[name[:-1] + "1"].conv, layers[name[:-1] + "3"].conv
            assert before is not None
            assert after is not None
            assert (layer.conv.h, layer.conv.c) == (before.oh, layers[name[:-1] + "1"].m)
            assert (after.h, after.c) == (layer.conv.oh, layer.m)


def test_the_case_of_a_linear_layer() -> None:
    layer = Layer(name="fc1", kind="linear", m=3072, k=768, n=197)
    assert layer.case(32, "float16", "ieee", "batch") == Case(m=3072, k=768, n=6304, dtype="float16", layout="batch")


def test_the_case_of_a_convolution(tmp_path: Path) -> None:
    (layer,) = one_layer(tmp_path, "in: 6, out: 8, kernel: [3, 5], size: [10, 12], stride: 2, padding: 1")
    conv = Conv(c=6, h=10, w=12, kh=3, kw=5, stride=2, padding=1, batch=4)
    assert layer.case(4) == Case(m=8, k=6 * 3 * 5, n=4 * 5 * 5, op="conv2d", conv=conv)
    assert layer.macs == 8 * 90 * 25


def test_a_grouped_convolution_is_kept_dense(tmp_path: Path) -> None:
    keys = "in: 32, out: 32, kernel: 3, size: 8, padding: 1, groups: 32, prunable: false, calls: 2"
    (layer,) = one_layer(tmp_path, keys)
    assert (layer.m, layer.k, layer.n) == (32, 9, 64)
    assert layer.macs == 2 * 32 * 9 * 64


def one_layer(tmp_path: Path, keys: str) -> tuple[Layer, ...]:
    """The layers of a network of one convolution."""
    (tmp_path / "net.yaml").write_text(f"name: a\nsource: b\nlayers: [{{name: c, kind: conv2d, {keys}}}]\n")
    return Network.load(tmp_path / "net.yaml").layers


@pytest.mark.parametrize(("marked", "message"), told("networks"))
def test_each_mistake_and_its_place(tmp_path: Path, marked: str, message: str) -> None:
    text, (place,) = spots(marked)
    (found,) = mistakes(Network.load, tmp_path / "net.yaml", text)
    assert found.startswith(f"{place}: {message}")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text, places = spots("^nam: a\nlayers:\n- {name: c, kind: linear, m: ^0, k: ^1.5, n: 1}\n- ^3\n")
    found = mistakes(Network.load, tmp_path / "net.yaml", text)
    assert [line.split(": ")[0] for line in found] == places


def test_an_existing_file_wins_over_a_shipped_name(tmp_path: Path) -> None:
    assert resolve_network("vit-b16", tmp_path) == shipped_networks()["vit-b16"]
    (tmp_path / "vit-b16").write_text("mine")
    assert resolve_network("vit-b16", tmp_path) == tmp_path / "vit-b16"


@pytest.mark.parametrize("name", ["vit-b61", "x" * 5000, "a\0b", ""])
def test_an_unknown_network_is_named_with_what_there_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        SuiteError, match=r"network .* is neither a file below .* nor one that ships; (did you mean|there are)"
    ):
        resolve_network(name, tmp_path)


SCALARS = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(["linear", "conv2d", "a", ""])
SIDES = ["in", "out", "kernel", "stride", "padding", "groups", "size"]
LAYER_KEYS = ["name", "kind", "m", "k", "n", "calls", "prunable", *SIDES]
LAYERS = st.dictionaries(st.sampled_from(LAYER_KEYS), SCALARS | st.lists(st.integers(0, 9), max_size=3))
NETWORKS = st.fixed_dictionaries({"name": SCALARS, "source": SCALARS, "layers": st.lists(LAYERS | SCALARS, max_size=4)})


@given(NETWORKS)
def test_any_structure_is_a_network_or_a_suite_error(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    import yaml

    path = tmp_path_factory.getbasetemp() / "any-network.yaml"
    path.write_text(yaml.safe_dump(data))
    if network := survived(lambda: Network.load(path), path):
        assert [layer.case(2).flops() > 0 for layer in network.layers]
