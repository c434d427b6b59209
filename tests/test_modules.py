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
from sparsebench.lab.movable_cpu import NetworkToolchain, SharedScratch
from sparsebench.lab.verify_build import with_layers
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
        last = case.conv is not None and y.is_contiguous(memory_format=torch.channels_last)
        assert y.is_contiguous() or last
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


# --- scratch ----------------------------------------------------------------------------------------------------------


def launch_with_scratch(keeps):
    """A kernel that adds up in scratch; where it `keeps`, what it packed into it when prepared."""

    def prepare(case, packed, x, toolchain):
        room, y = toolchain.output((1, 1, 1, case.k, case.m)), toolchain.output((case.n, case.m))
        room[0, 0, 0] = packed.values.T

        def product():
            if not keeps:
                room[0, 0, 0] = packed.values.T
            return np.matmul(x, room[0, 0, 0], out=y)

        return Launch(product, y)

    return Kernel(name="dense.scratch", format=Dense, prepare=prepare, about="", source="", layouts=("batch",))


def test_a_product_holds_copies_of_w_and_takes_them_in_turn(toolchain):
    case = replace(PATTERNS["dense"], n=4, layout="batch")
    made = moved(KERNELS["dense.numpy"], case, toolchain)
    made.hold(5)
    made.hold(3)
    x = torch.randn(4, 48)
    first = made(x)
    assert len(made.copies) == 3
    _, launch = made.copies[1]._stays
    launch.run.args[1][...] *= 2  # its W alone
    for expected in (2 * first, first, first, 2 * first):
        made.next_copy()
        assert torch.equal(made(x), expected)


def moved(kernel, case, toolchain):
    draw = case.draw()
    return movable(kernel, case, Dense.from_dense(case.weights(draw), draw.mask), toolchain)


def test_a_launch_that_needs_what_it_left_in_scratch_is_refused(toolchain):
    """Another layer would have written over it."""
    case = replace(PATTERNS["dense"], n=4, layout="batch")
    assert moved(launch_with_scratch(keeps=False), case, toolchain).way == "copies"
    with pytest.raises(MovedWrong, match=r"dense.scratch on 32x48 n=4 dense answers otherwise"):
        moved(launch_with_scratch(keeps=True), case, toolchain)


def test_scratch_of_launches_is_one_and_of_a_launch_apart():
    scratch = SharedScratch(4096)
    first, second = scratch.of((1, 1, 2, 3, 4), "float32"), scratch.of((1, 1, 1, 5, 4), "float32")
    assert scratch.of((1, 1, 2, 3, 4), "float32") is first
    assert not np.shares_memory(first, second)
    assert [array.ctypes.data % 64 for array in (first, second)] == [0, 0]
    assert np.isnan(first).all()
    first[...] = 1.0
    scratch.spoil()
    assert np.isnan(first).all()
    scratch.next_launch()
    third = scratch.of((1, 1, 3, 8, 8), "float32")
    assert third.ctypes.data == first.ctypes.data
    assert not np.shares_memory(third, scratch.of((1, 1, 1, 1, 4096), "float32")), "there is no room left"


def test_a_network_of_convolutions_has_one_scratch(toolchain):
    """Layers of other shapes in turn, each over what the others left there, and all right every time."""
    if reason := missing_need("cc"):
        pytest.skip(reason)
    small = replace(CONV, c=5, h=9, w=9, batch=1)
    cases = [
        replace(PATTERNS["bsr"], op="conv2d", conv=conv, n=conv.batch * conv.oh * conv.ow, k=conv.c * conv.kh * conv.kw)
        for conv in (CONV, small, replace(small, c=16))
    ]
    layers = [(case, *made(case, KERNELS["bsr.c"], toolchain)) for case in cases]
    layers += [
        (case, *made(case, KERNELS["bsr.c"], toolchain)) for case in [replace(PATTERNS["bsr"], n=70, layout="batch")]
    ]
    assert all(product.moved.way == "addresses" for _, _, product in layers)
    for _ in range(2):
        for case, w, product in (*layers, *reversed(layers)):
            x = torch.randn(toolchain.place(case).shape)
            assert torch.allclose(product(x).double(), exact(w, case, x), atol=1e-4)


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


@pytest.mark.parametrize("name", ["dense.torch_conv", "dense.onednn_nhwc", "bsr.c"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_images_are_brought_to_the_layout_of_the_kernel(name, memory, toolchain):
    kernel = KERNELS[name]
    if reason := next(filter(None, (missing_need(need) for need in kernel.needs)), None):
        pytest.skip(reason)
    k, n = CONV.c * CONV.kh * CONV.kw, CONV.batch * CONV.oh * CONV.ow
    case = replace(PATTERNS[kernel.format.name], op="conv2d", conv=CONV, k=k, n=n)
    w, product = made(case, kernel, toolchain)
    x = torch.randn(CONV.batch, CONV.c, CONV.h, CONV.w).to(memory_format=memory)
    y = product(x)
    assert torch.allclose(y.double(), exact(w, case, x), atol=1e-4)
    last = torch.channels_last if name == "dense.onednn_nhwc" else torch.contiguous_format
    assert y.is_contiguous(memory_format=last), "left as the kernel leaves it"
