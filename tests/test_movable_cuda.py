"""GPU launches inside a network follow X and Y: CUDA bodies on the shim, libraries on tensors of the CPU."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from products import exact, made
from shim_cases import needs_shim
from torch import nn

from sparsebench.case import Case, Conv
from sparsebench.formats import Dense
from sparsebench.kernel import Kernel, Launch, load_kernels
from sparsebench.lab.cuda_build import CupyFunction, poisoned, tensor_of
from sparsebench.lab.modules import SparseConv2d, SparseLinear, sparse_layer
from sparsebench.lab.movable import MovedWrong, movable
from sparsebench.lab.movable_cuda import NetworkCudaToolchain

KERNELS = {kernel.name: kernel for kernel in load_kernels() if "cuda" in kernel.devices}
LEVELS = {"levels": [{"block": [4, 1], "sparsity": 0.6}, {"block": [1, 1], "sparsity": 0.9}]}
GEMM = {
    "dense": Case(m=32, k=48, n=5, layout="batch"),
    "csr": Case(m=32, k=48, n=5, pattern="unstructured", sparsity=0.7, layout="batch"),
    "bsr": Case(m=32, k=48, n=5, pattern="block", params={"block": [4, 1]}, sparsity=0.7, layout="batch"),
    "condensed": Case(m=32, k=48, n=5, pattern="constant_fan_in", sparsity=0.75, layout="batch"),
    "hbs": Case(m=32, k=48, n=5, pattern="hierarchical", params=LEVELS, layout="batch"),
}
CONV = Conv(c=3, h=6, w=6, kh=4, kw=4, stride=1, padding=1, batch=2)
POINTWISE = Conv(c=48, h=5, w=5, kh=1, kw=1, batch=2)
EVERY_WAY = "dense.cublas dense.cublaslt_linear dense.cudnn dense.cudnn_nhwc dense.im2col csr.torch_cuda"
OWN = "csr.cuda condensed.cuda hbs.levels"


@pytest.fixture
def toolchain(shim):
    with torch.no_grad():
        yield NetworkCudaToolchain(shim())


class Tensors:
    """What libraries ask of a toolchain; they read whole cache lines, so their tensors lie beside nothing forbidden."""

    device = "cpu"

    def tensor(self, array):
        return tensor_of(array, self.device)

    def output(self, shape, dtype="float32"):
        return poisoned(shape, dtype, self.device)

    def scratch(self, name, shape, dtype="float32"):
        return poisoned(shape, dtype, self.device)


@pytest.fixture
def without_compiler():
    with torch.no_grad():
        yield NetworkCudaToolchain(Tensors())


def asked_of(names, *convs):
    """Each kernel of `names`, for each kind of product that it makes."""
    for name in names.split():
        case = GEMM[KERNELS[name].format.name]
        if "gemm" in KERNELS[name].ops:
            yield pytest.param(name, case, id=name)
        for conv in convs if "conv2d" in KERNELS[name].ops else ():
            n, k = conv.batch * conv.oh * conv.ow, conv.c * conv.kh * conv.kw
            image = replace(case, op="conv2d", conv=conv, n=n, k=k, layout="feature")
            yield pytest.param(name, image, id=f"{name}, {conv.kh}x{conv.kw}")


def follows(name, case, toolchain, way="arguments"):
    """Three calls with other X: right answers in fresh tensors, whatever lies where, and X is not written."""
    w, product = made(case, KERNELS[name], toolchain)
    assert product.moved.way == way
    answers = []
    for turn in range(3):
        room = torch.randn(2 + turn, *toolchain.place(case).shape)
        x = room[turn]  # starts anywhere
        before = x.clone()
        answers.append((product(x), exact(w, case, x)))
        assert torch.equal(x, before)
    for y, want in answers:  # none was written over by a later call
        assert y.is_contiguous()
        assert torch.allclose(y.double(), want, atol=1e-4)
    assert len({y.data_ptr() for y, _ in answers}) == 3


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize(("name", "case"), [*asked_of(EVERY_WAY, CONV, POINTWISE)])
def test_libraries_are_called_with_todays_tensors(name, case, without_compiler):
    follows(name, case, without_compiler)


@pytest.mark.parametrize("name", ["dense.cublas_mv", "csr.torch_cuda"])
def test_one_column_is_a_view_of_todays_tensors(name, without_compiler):
    follows(name, replace(GEMM[KERNELS[name].format.name], n=1), without_compiler)


@needs_shim
@pytest.mark.shim
@pytest.mark.parametrize(("name", "case"), [*asked_of(OWN, CONV)])
def test_cuda_bodies_are_pointed_at_todays_tensors(name, case, toolchain):
    follows(name, case, toolchain)


def test_a_launch_that_shows_its_arguments_is_given_other_addresses(monkeypatch):
    """As CuPy's are, which no test here can run: the driver is a stand-in that reads them as CUDA does."""
    seen = []

    def launch_kernel(function, *about):
        where = about[-2]
        pointers = (ctypes.c_void_p * 3).from_address(where)
        x, y = (ctypes.c_uint64.from_address(pointers[place]).value for place in (0, 1))
        seen.append((x, y, ctypes.c_int32.from_address(pointers[2]).value))

    driver = SimpleNamespace(launchKernel=launch_kernel)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cupy.cuda", SimpleNamespace(driver=driver))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=7))
    compiled = SimpleNamespace(max_dynamic_shared_size_bytes=0, kernel=SimpleNamespace(ptr=1))
    inner = SimpleNamespace(cuda=lambda *asked: CupyFunction(compiled, "none"))
    x, y, other_x, other_y = (torch.zeros(4) for _ in range(4))
    launch = NetworkCudaToolchain(inner).cuda(None, "none").bind((1,), (32,), [x, y, 4], 0)
    launch()
    launch.put(0, other_x)
    launch.put(1, other_y)
    launch()
    launch.put(0, None)
    assert seen == [(x.data_ptr(), y.data_ptr(), 4), (other_x.data_ptr(), other_y.data_ptr(), 4)]


# --- what cannot follow, and what would go astray ---------------------------------------------------------------------


@dataclass(frozen=True)
class Hidden:
    """Holds a tensor where no walk looks, as a descriptor of cuSPARSE does."""

    addresses: dict


def face(bind):
    """A dense kernel whose run is bind(w, x, y)."""

    def prepare(case, packed, x, toolchain):
        y = toolchain.output((case.n, case.m))
        return Launch(bind(toolchain.tensor(packed.values), x, y), y)

    return Kernel(name="dense.own", format=Dense, prepare=prepare, about="", source="", layouts=("batch",))


def moved(kernel, toolchain):
    case = GEMM["dense"]
    draw = case.draw()
    w = case.weights(draw)
    return w, movable(kernel, case, Dense.from_dense(w, draw.mask), toolchain)


def bind_hidden(w, x, y):
    held = Hidden({"x": x, "y": y})

    def run():
        return torch.mm(held.addresses["x"], w.T, out=held.addresses["y"])

    return run


def bind_half_hidden(w, x, y):
    """X in plain sight and in hiding: the one that is found is not the one that is read."""
    hidden = Hidden({"x": x})

    def run():
        assert x.shape == y.shape[:1] + w.shape[1:]
        return torch.mm(hidden.addresses["x"], w.T, out=y)

    return run


@pytest.mark.parametrize("bind", [bind_hidden, bind_half_hidden])
def test_what_cannot_be_followed_copies(bind, without_compiler):
    w, made = moved(face(bind), without_compiler)
    assert made.way == "copies"
    xs = torch.randn(2, 5, 48)
    ys = [made(x) for x in xs]
    for x, y in zip(xs, ys, strict=True):
        assert torch.allclose(y.double(), exact(w, GEMM["dense"], x), atol=1e-4)


def test_a_launch_that_remembers_its_answer_is_refused(without_compiler):
    """Right for the X it was made with, wherever that lies; the opposite X shows it."""

    def bind(w, x, y):
        answer = x @ w.T
        return partial(torch.add, answer, 0, out=y)

    with pytest.raises(MovedWrong, match=r"dense.own on 32x48 n=5 dense answers .* \(by copies: Y of -X is off by"):
        moved(face(bind), without_compiler)


def test_a_call_lets_go_of_todays_tensors(without_compiler):
    _, product = made(GEMM["dense"], KERNELS["dense.cublas_linear"], without_compiler)
    x = torch.randn(5, 48)
    held = sys.getrefcount(x)
    product(x)
    assert sys.getrefcount(x) == held


# --- modules ----------------------------------------------------------------------------------------------------------


@needs_shim
@pytest.mark.shim
def test_layers_are_the_masked_ones(toolchain):
    case = GEMM["csr"]
    image = replace(case, op="conv2d", conv=CONV, n=50, k=48, layout="feature")
    asked = [
        (nn.Linear(48, 32), case, SparseLinear, (5, 48)),
        (nn.Conv2d(3, 32, 4, padding=1), image, SparseConv2d, (2, 3, 6, 6)),
    ]
    for layer, about, kind, shape in asked:
        draw = about.draw()
        sparse = sparse_layer(layer, about, KERNELS["csr.cuda"], draw, toolchain)
        assert isinstance(sparse, kind)
        layer.weight *= torch.from_numpy(np.ascontiguousarray(draw.mask)).view(layer.weight.shape)
        x = torch.randn(shape)
        assert torch.allclose(sparse(x), layer(x), atol=1e-5)
