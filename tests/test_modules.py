"""Layers of a network by our kernels: right wherever X and Y lie, fresh answers, refusals that name what is wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from products import exact, made
from torch import nn

from sparsebench.case import Case, Conv
from sparsebench.errors import BadInput
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, load_kernels
from sparsebench.lab.build import missing_need
from sparsebench.lab.modules import SparseConv2d, SparseLinear, product_of, replacing, sparse_layer
from sparsebench.lab.movable import MovedWrong, movable
from sparsebench.lab.movable_cpu import NetworkToolchain
from sparsebench.lab.verify_bench import with_layers
from sparsebench.machine import Machine

CPU = Machine.here("cpu")
KERNELS = {kernel.name: kernel for kernel in load_kernels() if "cpu" in kernel.devices}
LEVELS = {"levels": [{"block": [4, 1], "sparsity": 0.6}, {"block": [1, 1], "sparsity": 0.9}]}
RBGP4 = {"tile": [8, 16], "row_repeat": 2, "block": [1, 1], "outer_sparsity": 0.5}
PATTERNS = {
    "dense": Case(m=32, k=48, n=1),
    "csr": Case(m=32, k=48, n=1, pattern="unstructured", sparsity=0.7),
    "bsr": Case(m=32, k=48, n=1, pattern="block", params={"block": [4, 1]}, sparsity=0.7),
    "condensed": Case(m=32, k=48, n=1, pattern="constant_fan_in", sparsity=0.75),
    "hbs": Case(m=32, k=48, n=1, pattern="hierarchical", params=LEVELS),
    "rbgp4": Case(m=32, k=64, n=1, pattern="rbgp4", params=RBGP4, sparsity=0.75),
}
COLUMNS = {"one column": 1, "few": 5, "many": 70}
CONV = Conv(c=3, h=6, w=6, kh=4, kw=4, stride=1, padding=1, batch=3)
POINTWISE = Conv(c=48, h=5, w=5, kh=1, kw=1, batch=4)


@pytest.fixture(scope="module")
def toolchain():
    with torch.no_grad():
        yield NetworkToolchain(1)


def questions():
    """A case for every kernel that takes it, in each kind of product."""
    return [entry for entry in _questions() if KERNELS[entry.values[0]].why_not(entry.values[1], CPU) is None]


def _questions():
    for name, kernel in KERNELS.items():
        case = PATTERNS.get(kernel.format.name, PATTERNS["csr"])
        if "float32" not in kernel.dtypes:
            continue
        if "gemm" in kernel.ops:
            for told, n in COLUMNS.items():
                yield pytest.param(name, replace(case, n=n, layout="batch"), id=f"{name}, {told}")
        if "conv2d" in kernel.ops:
            for conv in (CONV, POINTWISE):
                n = conv.batch * conv.oh * conv.ow
                k = case.k if case.pattern == "rbgp4" else conv.c * conv.kh * conv.kw
                if k == conv.c * conv.kh * conv.kw:
                    yield pytest.param(
                        name, replace(case, op="conv2d", conv=conv, n=n, k=k), id=f"{name}, {conv.kh}x{conv.kw}"
                    )


@pytest.mark.parametrize(("name", "case"), questions())
def test_every_kernel_answers_wherever_x_and_y_lie(name, case, toolchain):
    kernel = KERNELS[name]
    if reason := next(filter(None, (missing_need(need) for need in kernel.needs)), None):
        pytest.skip(reason)
    w, product = made(case, kernel, toolchain)
    torch.manual_seed(0)
    before = kept = None
    for _ in range(3):
        x = torch.randn(toolchain.place(case).shape)
        y = product(x)
        assert y.is_contiguous() or product.takes_any_strides
        assert torch.allclose(y.double(), exact(w, case, x), atol=1e-4)
        if before is not None:
            assert not torch.equal(before, y), "the last answer must not be overwritten"
            assert torch.equal(before, kept)
        before, kept = y, y.clone()


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("dense.torch", "arguments"),
        ("dense.onednn", "arguments"),
        ("dense.numpy", "arguments"),
        ("csr.scipy", "copies"),
        ("csr.c", "addresses"),
        ("bsr.c", "addresses"),
    ],
)
def test_how_a_launch_follows(name, way, toolchain):
    kernel = KERNELS[name]
    if reason := next(filter(None, (missing_need(need) for need in kernel.needs)), None):
        pytest.skip(reason)
    _, product = made(replace(PATTERNS[kernel.format.name], n=8, layout="batch"), kernel, toolchain)
    assert product.moved.way == way
    assert product.changes_layout == (name == "csr.scipy")
    assert product.lap.spent_s == 0
    product(torch.randn(8, 48))
    assert product.lap.spent_s > 0


def test_a_launch_that_looks_elsewhere_is_refused(toolchain):
    """It takes X as an argument and goes by its address: what moving by arguments cannot see."""

    def prepare(case, packed, x, toolchain):
        home = x.ctypes.data

        def product(given):
            return torch.from_numpy(given.numpy() @ packed.values.T) * (1.0 if given.data_ptr() == home else 2.0)

        return Launch(partial(product, torch.from_numpy(x)))

    astray = Kernel(name="dense.astray", format=Dense, prepare=prepare, about="", source="", layouts=("batch",))
    case = replace(PATTERNS["dense"], n=4, layout="batch")
    draw = case.draw()
    packed = Dense.from_dense(case.weights(draw), draw.mask)
    with pytest.raises(MovedWrong, match=r"dense.astray on 32x48 n=4 dense answers otherwise when X and Y lie elsewhe"):
        movable(astray, case, packed, toolchain)


# --- modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_a_sparse_linear_is_the_masked_layer(bias, toolchain):
    layer = nn.Linear(48, 32, bias=bias)
    case = replace(PATTERNS["csr"], n=10, layout="batch")
    draw = case.draw()
    made = sparse_layer(layer, case, KERNELS["csr.scipy"], draw, toolchain)
    assert isinstance(made, SparseLinear)
    layer.weight *= torch.from_numpy(draw.mask)
    x = torch.randn(2, 5, 48)
    assert torch.allclose(made(x), layer(x), atol=1e-5)
    assert "32x48 n=10 unstructured 70 %, csr.scipy" in repr(made)


def test_a_sparse_convolution_is_the_masked_layer(toolchain):
    layer = nn.Conv2d(3, 32, 4, padding=1)
    case = replace(PATTERNS["dense"], op="conv2d", conv=CONV, n=75, pattern="unstructured", sparsity=0.6)
    draw = case.draw()
    made = replacing(layer, product_of(layer.weight.numpy().reshape(32, -1), draw, case, dense_conv(), toolchain))
    assert isinstance(made, SparseConv2d)
    layer.weight *= torch.from_numpy(draw.mask).view(layer.weight.shape)
    x = torch.randn(3, 3, 6, 6)
    assert torch.allclose(made(x), layer(x), atol=1e-5)


def dense_conv():
    return KERNELS["dense.torch_conv"]


def test_other_shapes_are_refused(toolchain):
    layer, case = nn.Linear(48, 32), replace(PATTERNS["dense"], n=10, layout="batch")
    made = sparse_layer(layer, case, KERNELS["dense.torch"], case.draw(), toolchain)
    with pytest.raises(BadInput, match=r"SparseLinear was made for activations \[10, 48\], found \[9, 48\]"):
        made(torch.randn(9, 48))
    with pytest.raises(BadInput, match=r"the case asks for Linear with W \[32, 48\], found Linear\(in_features=32"):
        sparse_layer(nn.Linear(32, 48), case, KERNELS["dense.torch"], case.draw(), toolchain)
    with pytest.raises(BadInput, match=r"the case asks for Linear with W \[32, 48\], found Conv2d"):
        sparse_layer(nn.Conv2d(48, 32, 1), case, KERNELS["dense.torch"], case.draw(), toolchain)


def test_a_network_with_layers_shares_what_was_not_replaced():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    other = nn.Identity()
    changed = with_layers(model, {id(model[0]): other})
    assert changed[0] is other
    assert changed[2].weight is model[2].weight
    assert isinstance(model[0], nn.Linear)
    assert np.shares_memory(changed[1].weight.detach().numpy(), model[1].weight.detach().numpy())
