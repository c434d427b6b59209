"""What only a CUDA device can show of networks: layers follow X and Y there, in graphs too; verify from end to end."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_movable_cuda import CONV, GEMM, POINTWISE, exact
from torch import nn

from sparsebench import Machine, load_kernels
from sparsebench.case import Case
from sparsebench.desk.verified import Measured
from sparsebench.errors import FormatError, MissingNeed, PatternError, Refused
from sparsebench.lab.build import missing_need
from sparsebench.lab.modules import SparseConv2d, SparseLinear, product_of, sparse_layer
from sparsebench.lab.movable_cuda import NetworkCudaToolchain
from sparsebench.lab.verify import Verification, builder_of
from sparsebench.lab.verify_bench import relative_error
from sparsebench.network import Network, shipped_networks
from sparsebench.plan import Choice, Plan
from sparsebench.record import Protocol
from sparsebench.rest import DENSE, PLANNED, TORCH, times_of
from sparsebench.store import read_records

try:
    GPU = Machine.here("cuda")
except Exception:
    GPU = None

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPU is None, reason="no CUDA device")]
KERNELS = {kernel.name: kernel for kernel in load_kernels()}
RBGP4 = {"tile": [64, 32], "row_repeat": 4, "block": [1, 1], "outer_sparsity": 0.5}
BLOCKS = Case(m=64, k=128, n=64, pattern="block", params={"block": [16, 16]}, sparsity=0.7, layout="batch")
ASKED = {
    **{name: replace(case, m=64, k=128, n=64) for name, case in GEMM.items()},
    "rbgp4": Case(m=256, k=512, n=64, pattern="rbgp4", params=RBGP4, sparsity=0.75, layout="batch"),
}
TOY = Path(__file__).parent / "networks" / "toy.yaml"
FOLLOW = ("dense.", "csr.cuda", "bsr.cuda", "bsr.triton", "condensed.cuda", "hbs.", "rbgp4.cuda")  # and never copy


def questions():
    """Every GPU kernel of one full accuracy with float32 products and convolutions that it takes."""
    for name, kernel in KERNELS.items():
        if kernel.devices != ("cuda",) or kernel.lossy or "float32" not in kernel.dtypes:
            continue
        gemm = ASKED.get(kernel.format.name)
        for case in [gemm, BLOCKS] if kernel.format.name == "bsr" else [gemm]:
            if case is None:
                continue
            yield from ((name, replace(case, n=n)) for n in (64, 1) if "gemm" in kernel.ops)
            for conv in (CONV, POINTWISE) if "conv2d" in kernel.ops else ():
                n, k = conv.batch * conv.oh * conv.ow, conv.c * conv.kh * conv.kw
                yield name, replace(case, op="conv2d", conv=conv, n=n, k=k, layout="feature")


def taken():
    for name, case in questions() if GPU else ():
        try:
            if KERNELS[name].why_not(case, GPU) is None:
                yield pytest.param(name, case, id=f"{name}, {case.op} n={case.n}")
        except (PatternError, FormatError):
            continue


@pytest.fixture(scope="module")
def toolchain():
    from sparsebench.lab.cuda_build import CupyToolchain

    with torch.no_grad():
        yield NetworkCudaToolchain(CupyToolchain())


@pytest.fixture(autouse=True)
def ieee():
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    with torch.no_grad():
        yield
    cudnn.allow_tf32 = before


def near(y, w, case, x):
    return torch.allclose(y.double().cpu(), exact(w, case, x.cpu()), atol=1e-3)


@pytest.mark.parametrize(("name", "case"), [*taken()])
def test_every_gpu_kernel_answers_wherever_x_and_y_lie(name, case, toolchain):
    kernel = KERNELS[name]
    if reason := next(filter(None, (missing_need(need) for need in kernel.needs)), None):
        pytest.skip(reason)
    draw = case.draw()
    w = case.weights(draw)
    try:
        product = product_of(w, draw, case, kernel, toolchain)
    except (MissingNeed, Refused) as no:
        pytest.skip(f"refused everywhere: {no}")
    if name.startswith(FOLLOW):
        assert product.moved.way == "arguments"
    answers = []
    for turn in range(3):
        x = torch.randn(2 + turn, *toolchain.place(case).shape, device="cuda")[turn]
        answers.append((product(x), x))
    elsewhere = torch.cuda.Stream()
    elsewhere.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(elsewhere):
        x = torch.randn_like(answers[0][1])
        answers.append((product(x), x))
    torch.cuda.synchronize()
    for y, x in answers:
        assert near(y, w, case, x)


@pytest.mark.parametrize("name", ["csr.cuda", "bsr.cuda", "condensed.cuda", "dense.cublas_linear", "csr.cusparse"])
def test_a_graph_keeps_what_a_launch_was_pointed_at(name, toolchain):
    """Replays read and write where they did when they were captured, though the launch has moved on since."""
    if reason := next(filter(None, (missing_need(need) for need in KERNELS[name].needs)), None):
        pytest.skip(reason)
    case = ASKED[KERNELS[name].format.name]
    draw = case.draw()
    w = case.weights(draw)
    product = product_of(w, draw, case, KERNELS[name], toolchain)
    x = torch.randn(64, 128, device="cuda")
    product(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = product(x)
    other = torch.randn_like(x)
    assert near(product(other), w, case, other)
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.cuda.synchronize()
        assert near(y, w, case, x)


def test_sparse_layers_are_the_masked_ones(toolchain):
    if reason := missing_need("cupy"):
        pytest.skip(reason)
    for layer, case, kind in (
        (nn.Linear(128, 64), ASKED["csr"], SparseLinear),
        (
            nn.Conv2d(3, 64, 4, padding=1),
            replace(ASKED["csr"], op="conv2d", conv=CONV, n=50, k=48, layout="feature"),
            SparseConv2d,
        ),
    ):
        layer.cuda()
        draw = case.draw()
        made = sparse_layer(layer, case, KERNELS["csr.cuda"], draw, toolchain)
        assert isinstance(made, kind)
        layer.weight *= torch.from_numpy(draw.mask).view(layer.weight.shape).cuda()
        x = torch.randn(toolchain.place(case).shape, device="cuda")
        assert torch.allclose(made(x), layer(x), atol=1e-4)


@pytest.mark.parametrize("name", ["vgg19-cifar", "vit-b16"])
def test_float64_on_the_gpu_is_float64(name):
    """What judges networks there: it agrees with the CPU's float64 far below what float32 may be off."""
    from sparsebench.lab.verify_build import load_builder

    builder = load_builder(builder_of(shipped_networks()[name]))
    torch.manual_seed(0)
    model, inputs = builder.build().eval().double(), [x.double() for x in builder.inputs(1)]
    here = model(*inputs)
    there = copy.deepcopy(model).cuda()(*[x.cuda() for x in inputs])
    assert relative_error(there.cpu(), here) < 1e-12


@pytest.mark.parametrize("layers", [(), ("body.0", "body.2", "out")], ids=["dense", "pruned"])
def test_verify_end_to_end(tmp_path, layers):
    if reason := missing_need("cupy"):
        pytest.skip(reason)
    net = Network.load(TOY)
    plan = Plan(net, {name: Choice("unstructured", {}, 0.8, "csr.cuda") for name in layers})
    asked = Verification(
        network=net, builder=builder_of(TOY), planned=plan.cases(net, 4, layout="batch"),
        chosen=dict.fromkeys(layers, "csr.cuda"), baselines={}, machine=GPU, kernels=KERNELS,
        protocol=Protocol(budget_s=1.0, precision=0.02), batch=4,
    )  # fmt: skip
    record = asked.execute(tmp_path)
    assert record.outcome == "ok", record.reason
    assert read_records(tmp_path) == [record]
    assert record.machine == GPU.id
    assert record.facts["clock"] == "graph", record.facts
    assert set(record.facts["eager_s"]) == {TORCH, DENSE, PLANNED}
    assert Measured.of(record).speedup.rounds >= 6
    assert all(0 < record.facts["eager_s"][name] < 1 for name in record.facts["eager_s"])
    for side in (DENSE, PLANNED):
        assert all(1e-7 < time_s < 1e-2 for time_s in times_of(record, side).layers_s.values())
