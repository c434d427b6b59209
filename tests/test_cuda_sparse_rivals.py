"""The library rivals of sparse kernels on a GPU, without one: what they ask of a library, and how they say no.

cuSPARSE is the stand-in of fake_cusparse.c over memory of the CPU, stricter than the real one; torch's own products run
on the CPU where it has them; cuSPARSELt and torch's Triton kernels are replaced by what the calls promise.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import MACHINE, PROBLEMS, Problem, question_for, strict_compiler
from sparsebench.kernels import _cusparse, _library
from sparsebench.kernels.bsr import cusparse as bsr_cusparse
from sparsebench.kernels.bsr import torch_cuda as bsr_torch

from sparsebench import Case, Kernel, load_kernels
from sparsebench.case import NUMPY_DTYPES
from sparsebench.errors import MissingNeed, Refused, SparsebenchError
from sparsebench.formats import Bsr, Nm
from sparsebench.kernel import Gpu, Launch
from sparsebench.lab.build import missing_need
from sparsebench.lab.cuda_build import TORCH_DTYPES, poisoned, tensor_of
from sparsebench.lab.worker import outcome_of

KERNELS = {kernel.name: kernel for kernel in load_kernels()}
CSR = ("csr.cusparse", "csr.cusparse_alg1", "csr.cusparse_alg2", "csr.cusparse_alg3")
GPU = replace(MACHINE, device="cuda")
DTYPES = ("float32", "float16", "bfloat16")
SQUARE = [problem for problem in PROBLEMS["block"] if problem.params["block"][0] == problem.params["block"][1]]


class CpuTensors:
    """A CudaToolchain whose device is the CPU; `fake` is told of every tensor."""

    device = "cpu"
    gpu = Gpu(sm=90, processors=132, shared_bytes=232448, cache_bytes=50 * 2**20)

    def __init__(self, fake: Any = None) -> None:
        self.fake, self.kept = fake, {}

    def known(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.fake is not None:
            self.fake.fake_know(ctypes.c_void_p(tensor.data_ptr()), tensor.numel() * tensor.element_size())
        return tensor

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return self.known(tensor_of(array, "cpu"))

    def output(self, shape: tuple[int, ...], dtype: str = "float32") -> torch.Tensor:
        return self.scratch("y", shape, dtype)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> torch.Tensor:
        key = name, shape, dtype
        if key not in self.kept:
            self.kept[key] = self.known(poisoned(shape, dtype, "cpu"))
        return self.kept[key]

    def place(self, x: np.ndarray, case: Case) -> torch.Tensor:
        placed = torch.from_numpy(np.array(x if case.layout == "feature" else x.T, order="C", dtype=np.float32))
        return self.known(placed.to(TORCH_DTYPES[case.dtype]))


@pytest.fixture(scope="module")
def fake_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    if reason := missing_need("cc"):
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("fake") / "libcusparse.so.12"
    source = __file__.replace("test_cuda_sparse_rivals.py", "fake_cusparse.c")
    subprocess.run([*strict_compiler().split(), "-O2", "-shared", "-fPIC", "-o", str(path), source], check=True)
    return str(path)


@pytest.fixture
def fake(fake_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(_cusparse, "candidates", lambda: iter([fake_path]))
    library = ctypes.CDLL(fake_path)
    library.fake_said.restype, library.fake_stream.restype = ctypes.c_char_p, ctypes.c_void_p
    library.fake_reset()
    clone = torch.Tensor.clone  # copies of W for the cold clock
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: CpuTensors(library).known(clone(tensor)))
    yield library
    if library.fake_alive():  # an exception's traceback may hold some in a cycle
        gc.collect()
    assert library.fake_alive() == 0, "descriptors outlive their launches"
    library.fake_reset()


def case_of(problem: Problem, kernel: Kernel, n: int, dtype: str = "float32", layout: str = "feature") -> Case:
    return replace(problem.case(kernel, n, layout), dtype=dtype)  # type: ignore[arg-type]


def prepared(kernel: Kernel, case: Case, toolchain: CpuTensors, data: str = "integers") -> tuple[Launch, Any, Any]:
    """(launch, question, x); W is packed in the case's dtype as the lab packs it."""
    question, draw = question_for(case, data)
    w = question.w.astype(NUMPY_DTYPES[case.dtype])
    x = toolchain.place(question.x, case)
    return kernel.prepare(case, kernel.format.from_dense(w, draw.mask, draw.structure), x, toolchain), question, x


def verdict(launch: Launch, question: Any, case: Case) -> str:
    """What the gate says of one call that finds NaN in Y; nothing when it is right."""
    if launch.y is not None:
        launch.y.fill_(torch.nan)
    return question.judge(launch.run().double().numpy(), case).reason


# ------------------------------------------------------------------------------------------------------------ cuSPARSE


@pytest.mark.parametrize("name", CSR)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["feature", "batch"])
def test_csr_is_right_in_both_layouts_and_all_types(name, dtype, layout, fake):
    kernel = KERNELS[name]
    for problem in PROBLEMS["unstructured"]:
        for n in (1, 17):
            case, toolchain = case_of(problem, kernel, n, dtype, layout), CpuTensors(fake)
            assert case.layout == layout
            launch, question, _ = prepared(kernel, case, toolchain)
            assert verdict(launch, question, case) == "", problem.label


@pytest.mark.parametrize("name", ["bsr.cusparse", "bsr.cusparse_ell"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["feature", "batch"])
def test_blocks_are_right_in_both_layouts_and_all_types(name, dtype, layout, fake):
    kernel, asked = KERNELS[name], 0
    for problem in SQUARE:
        case = case_of(problem, kernel, 9, dtype, layout)
        if "ell" in name and dtype == "float32":
            case = replace(case, math="tf32")
        if kernel.why_not(case, GPU) is None:
            launch, question, _ = prepared(kernel, case, CpuTensors(fake))
            assert verdict(launch, question, case) == "", problem.label
            asked += 1
    assert asked >= 3


@pytest.mark.parametrize("name", [*CSR, "bsr.cusparse", "bsr.cusparse_ell"])
def test_copies_of_w_have_descriptors_and_preprocessed_buffers_of_their_own(name, fake):
    kernel = KERNELS[name]
    problem = next(p for p in PROBLEMS[{"csr": "unstructured", "bsr": "block"}[kernel.format.name]] if p.m == 64)
    case, toolchain = case_of(problem, kernel, 16, "float16"), CpuTensors(fake)
    launch, question, x = prepared(kernel, case, toolchain)
    copies = [launch, *(launch.again() for _ in range(3))]
    assert fake.fake_alive() == 3 * len(copies)
    assert fake.fake_preprocessed() == (4 if "alg" in name else 0)
    for copy in [*copies, *copies]:
        assert verdict(copy, question, case) == ""
    x *= 2
    assert np.array_equal(copies[1].run().double().numpy(), 2 * question.y)
    del copies, copy, launch


def test_the_record_says_which_algorithm_of_which_library(fake):
    kernel = KERNELS["csr.cusparse_alg2"]
    launch, _, _ = prepared(kernel, case_of(PROBLEMS["unstructured"][2], kernel, 8), CpuTensors(fake))
    assert launch.ran == "CSR_ALG2"
    assert launch.facts == {
        "library": "cuSPARSE 12.9.4",
        "algorithm": "CSR_ALG2",
        "workspace_bytes": 512,
        "preprocessed": True,
    }
    assert launch.weight_bytes == 8 * 2048 + 4 * 65


def test_each_product_goes_to_the_stream_that_is_current_then(fake, monkeypatch):
    kernel = KERNELS["csr.cusparse"]
    launch, _, _ = prepared(kernel, case_of(PROBLEMS["unstructured"][2], kernel, 8), CpuTensors(fake))
    for stream in (7, 9):
        monkeypatch.setattr(_cusparse, "current_stream", lambda device, stream=stream: stream)
        launch.run()
        assert fake.fake_stream() == stream


def test_what_the_library_does_not_support_is_skipped_with_its_words(fake):
    kernel = KERNELS["csr.cusparse_alg3"]
    fake.fake_refuse(_cusparse.TYPES["bfloat16"], 0)
    case = case_of(PROBLEMS["unstructured"][2], kernel, 8, "bfloat16", "batch")
    with pytest.raises(Refused) as refused:
        prepared(kernel, case, CpuTensors(fake))
    answer = outcome_of(refused.value)
    assert answer.outcome == "skipped"
    assert answer.reason == (
        "cusparseSpMM_bufferSize of cuSPARSE 12.9.4 returned CUSPARSE_STATUS_NOT_SUPPORTED (10, operation not "
        "supported) for CSR_ALG3, bfloat16, layout batch, 64x128 n=8 unstructured 75 %; use another algorithm, dtype "
        "or CUDA version"
    )
    del refused


def test_a_library_that_does_not_preprocess_multiplies_without(fake):
    kernel = KERNELS["csr.cusparse_alg1"]
    fake.fake_refuse(-1, 1)
    case = case_of(PROBLEMS["unstructured"][2], kernel, 8)
    launch, question, _ = prepared(kernel, case, CpuTensors(fake))
    assert launch.facts["preprocessed"] is False
    assert verdict(launch, question, case) == ""


def test_a_wrong_argument_is_a_fault_and_not_a_refusal(fake):
    kernel = KERNELS["csr.cusparse"]
    case, toolchain = case_of(PROBLEMS["unstructured"][2], kernel, 8), CpuTensors()  # the library knows no tensor
    with pytest.raises(SparsebenchError, match=r"returned CUSPARSE_STATUS_INVALID_VALUE \(3, invalid value\)") as fault:
        prepared(kernel, case, toolchain)
    assert not isinstance(fault.value, Refused)
    assert fake.fake_said() == b"csr indices"
    assert isinstance(_cusparse.cusparse().error("cusparseSpMM", _cusparse.ALLOC_FAILED, "x"), MemoryError)
    del fault


def test_a_machine_without_the_library_is_a_missing_need(monkeypatch):
    monkeypatch.setattr(_cusparse, "candidates", lambda: iter(["/nowhere/libcusparse.so.12"]))
    with pytest.raises(
        MissingNeed, match=r"needs libcusparse\.so\.12, .*/nowhere/libcusparse\.so\.12.*: install a CUDA"
    ):
        _cusparse.cusparse()


def test_the_library_is_looked_for_where_torch_loads_it_from(tmp_path, monkeypatch):
    wheels = [tmp_path / part / "lib" / _cusparse.SONAME for part in ("cu13", "cusparse")]
    for path in wheels:
        path.parent.mkdir(parents=True)
        path.touch()
    nvidia = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(_cusparse.importlib.util, "find_spec", lambda name: nvidia if name == "nvidia" else None)
    monkeypatch.setattr(_cusparse.ctypes.util, "find_library", lambda name: f"lib{name}.so.11")
    assert list(_cusparse.candidates()) == [_cusparse.SONAME, *map(str, wheels), "libcusparse.so.11"]


def test_a_function_of_a_newer_library_is_a_missing_need(fake):
    with pytest.raises(MissingNeed, match=r"needs cusparseSpMMOp, which cuSPARSE 12\.9\.4 does not have"):
        _cusparse.cusparse().function("cusparseSpMMOp")


def test_blocked_ell_pads_with_a_column_that_the_row_has():
    draw = Case(m=12, k=20, n=1, pattern="block", params={"block": [4, 4]}, sparsity=0.5, seed=3).draw()
    mask = draw.mask.copy()
    mask[4:8] = False  # a block row without blocks
    packed = Bsr.from_dense(np.ones((12, 20), np.float32), mask, (4, 4))
    columns, values = bsr_cusparse.pack_ell(Case(m=12, k=20, n=1), packed, CpuTensors.gpu)
    counts = np.diff(packed.block_offsets)
    assert columns.shape == (3, counts.max())
    assert values.shape == (12, counts.max() * 4)
    assert values.sum() == mask.sum()
    for row, count in enumerate(counts):
        own = packed.block_columns[packed.block_offsets[row] : packed.block_offsets[row + 1]]
        assert set(columns[row]) == (set(own) if count else {packed.block_columns[0]})
    least = bsr_cusparse.moved_bytes_ell(Case(m=12, k=20, n=7), packed)
    assert least == values.nbytes + columns.nbytes + 4 * 7 * (12 + 20)


REFUSALS = [
    ("bsr.cusparse", {"pattern": "block", "params": {"block": [4, 1]}}, "blocks must be square"),
    ("bsr.cusparse_ell", {"pattern": "block", "params": {"block": [1, 1]}}, "no kernels for blocks of one entry"),
    ("bsr.cusparse_ell", {"pattern": "block", "params": {"block": [4, 4]}}, "ask for math tf32 with float32"),
    ("bsr.torch_tuned", {"pattern": "block", "params": {"block": [8, 8]}}, "powers of two of at least 16"),
    ("bsr.torch_tuned", {"pattern": "block", "params": {"block": [16, 16]}, "n": 8}, "n that is a multiple"),
    ("csr.srigl", {"pattern": "unstructured", "dtype": "float16"}, "csr.srigl takes dtypes float32, not float16"),
    ("nm.cusparselt", {"pattern": "nm", "params": {"nm": [1, 4]}, "dtype": "float16"}, "multiply 2 of 4 alone"),
    ("nm.cusparselt", {"pattern": "nm", "params": {"nm": [2, 4]}, "dtype": "float16", "m": 24}, "multiples of 16"),
    ("nm.cusparselt", {"pattern": "nm", "params": {"nm": [2, 4]}}, "takes dtypes float16, bfloat16, not float32"),
]


@pytest.mark.parametrize(("name", "asked", "sentence"), REFUSALS)
def test_each_limit_has_its_sentence(name, asked, sentence):
    sparsity = None if asked["pattern"] == "nm" else 0.5
    case = Case(**{"m": 64, "k": 64, "n": 32, "sparsity": sparsity, **asked})
    assert sentence in (KERNELS[name].why_not(case, GPU) or "")


# --------------------------------------------------------------------------------------------------- torch's own calls


@pytest.mark.parametrize("name", ["csr.torch_cuda", "csr.srigl"])
def test_torchs_csr_calls_are_right(name):
    kernel = KERNELS[name]
    for problem in PROBLEMS["unstructured"]:
        for n in (1, 16):
            case = case_of(problem, kernel, n)
            launch, question, _ = prepared(kernel, case, CpuTensors())
            assert verdict(launch, question, case) == "", (problem.label, n)
            assert verdict(launch.again(), question, case) == ""


def test_srigl_is_the_call_of_its_notebook(monkeypatch):
    kernel, seen = KERNELS["csr.srigl"], []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *given: seen.append(given) or linear(*given))
    case = case_of(PROBLEMS["unstructured"][2], kernel, 5)
    launch, question, x = prepared(kernel, case, CpuTensors())
    (given, w, bias) = seen[-1]
    assert given is x
    assert given.shape == (5, 128)
    assert w.layout == torch.sparse_csr
    assert w.crow_indices().dtype == w.col_indices().dtype == torch.int64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(w.to_dense(), torch.from_numpy(question.w).to_sparse_csr().to_dense())
    assert bias.shape == (64,)
    assert not bias.any()
    packed = kernel.format.from_dense(question.w, question.w != 0)
    assert launch.weight_bytes == 12 * packed.nnz + 8 * 65
    assert kernel.moved_bytes(case, packed) == launch.weight_bytes + 4 * (5 * 128 + 64 + 3 * 5 * 64)


@pytest.mark.parametrize("layout", ["feature", "batch"])
def test_torchs_bsr_calls_are_right_and_say_which_road(layout):
    kernel = KERNELS["bsr.torch_default"]
    for side, n, road in ((16, 32, "Triton"), (16, 9, "gather and bmm"), (4, 32, "gather and bmm")):
        case = Case(m=64, k=32, n=n, pattern="block", params={"block": [side, side]}, sparsity=0.5, layout=layout)
        launch, question, _ = prepared(kernel, case, CpuTensors())
        assert verdict(launch, question, case) == ""
        assert launch.ran == {"feature": "mm by ", "batch": "F.linear by "}[layout] + road


@pytest.mark.parametrize("layout", ["feature", "batch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_torchs_tuner_runs_once_a_shape_and_its_parameters_are_used(layout, dtype, monkeypatch):
    tuned, used = [], []

    def tune(y, w, x, *, beta, alpha, out, store):
        assert (beta, alpha, store) == (0, 1, False)
        assert y is out
        tuned.append((tuple(w.shape), tuple(x.shape), tuple(out.shape)))
        return {"SPLIT_N": 2, "num_warps": 4}

    def addmm(y, w, x, *, beta, alpha, out, meta):
        assert (beta, alpha, y is out) == (0, 1, True)
        used.append(meta)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out.copy_((w.to_dense().double() @ x.double()).to(out.dtype))

    stand_ins = {"bsr_dense_addmm": addmm, "tune_bsr_dense_addmm": tune}
    monkeypatch.setattr(bsr_torch, "private", lambda module, name: stand_ins[name])
    monkeypatch.setattr(bsr_torch, "_tuned", {})
    kernel = KERNELS["bsr.torch_tuned"]
    params = {"block": [16, 16]}
    case = Case(m=64, k=32, n=48, pattern="block", params=params, sparsity=0.5, layout=layout, dtype=dtype)
    launch, question, _ = prepared(kernel, case, CpuTensors())
    assert verdict(launch, question, case) == ""
    assert verdict(launch.again(), question, case) == ""
    prepared(kernel, case, CpuTensors(), "normal")
    assert tuned == [((64, 32), (32, 48), (64, 48))]
    assert all(meta == {"SPLIT_N": 2, "num_warps": 4} for meta in used)
    assert launch.facts["meta"] == used[0]
    assert launch.facts["tuning_s"] >= 0


def test_torchs_private_names_are_there_and_a_missing_one_is_a_missing_need():
    for module, name in (("_triton_ops", "bsr_dense_addmm"), ("_triton_ops_meta", "tune_bsr_dense_addmm")):
        assert callable(bsr_torch.private(module, name))
    with pytest.raises(MissingNeed, match=r"needs torch\.sparse\._triton_ops\.gone, which torch .* does not have"):
        bsr_torch.private("_triton_ops", "gone")
    with pytest.raises(MissingNeed, match=r"needs torch\.sparse\._gone\.gone"):
        bsr_torch.private("_gone", "gone")


def test_a_library_that_says_not_supported_is_told_apart_from_a_fault():
    refused = pytest.raises(Refused, match=r"^a was refused: .*CUSPARSE_STATUS_NOT_SUPPORTED.*; use another kernel")
    with refused, _library.refusing("a"):
        raise RuntimeError("CUDA error: CUSPARSE_STATUS_NOT_SUPPORTED when calling `cusparseSpMM`\nmore")
    with pytest.raises(RuntimeError, match="illegal memory access"), _library.refusing("a"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


# ---------------------------------------------------------------------------------------------------------- cuSPARSELt


def compress(dense: torch.Tensor) -> torch.Tensor:
    """What a compressed tensor promises: 9 sixteenths of the entries. Here the dense ones, which the stand-in needs."""
    assert dense.dim() == 2
    kept = dense.reshape(-1, 4).count_nonzero(dim=1)
    assert (kept <= 2).all()
    room = torch.zeros(dense.numel() * 9 // 16, dtype=dense.dtype)
    room.dense = dense.clone()  # type: ignore[attr-defined]
    room.clone = lambda: compress(dense)  # type: ignore[method-assign]
    return room


@pytest.fixture
def cslt(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torch with cuSPARSELt: row-major operands or transposed ones, n a multiple of 8, Y allocated."""
    seen = SimpleNamespace(searches=0, products=[])

    def product(w, x, *, transpose_result, alg_id, split_k, split_k_mode):
        assert (alg_id, split_k, split_k_mode) == (5, 2, 1)
        assert x.is_contiguous() or x.t().is_contiguous()
        assert x.shape[1] % 8 == 0
        assert x.isfinite().all()
        seen.products.append((tuple(x.shape), transpose_result))
        y = (w.dense.double() @ x.double()).to(x.dtype)
        return y.t().contiguous() if transpose_result else y

    def search(w, x, bias, alpha, out_dtype, transpose_result):
        seen.searches += 1
        assert x.shape[0] == w.dense.shape[1]
        return 5, 2, 1, 40

    monkeypatch.setattr(torch, "_cslt_compress", compress)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", product)
    monkeypatch.setattr(torch._C, "_cusparselt", SimpleNamespace(mm_search=search), raising=False)
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: True)
    return seen


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["feature", "batch"])
@pytest.mark.parametrize("n", [1, 8, 13, 64])
def test_2_4_is_right_in_both_layouts_at_any_n(dtype, layout, n, cslt):
    kernel = KERNELS["nm.cusparselt"]
    case = Case(m=32, k=48, n=n, pattern="nm", params={"nm": [2, 4]}, dtype=dtype, layout=layout)
    assert kernel.why_not(case, GPU) is None
    launch, question, x = prepared(kernel, case, CpuTensors())
    assert verdict(launch, question, case) == ""
    copy = launch.again()
    x *= 2
    assert np.array_equal(copy.run().double().numpy().reshape(-1), 2 * right(question, case).reshape(-1))
    assert cslt.searches == 1
    assert set(cslt.products) == {((48, -(-n // 8) * 8), layout == "batch")}
    assert launch.facts["padded_n"] == -(-n // 8) * 8
    assert launch.ran == "_cslt_sparse_mm alg_id=5 split_k=2 split_k_mode=1"
    assert launch.weight_bytes == 32 * 48 * 2 * 9 // 16


def right(question: Any, case: Case) -> np.ndarray:
    """The right Y in the layout of `case`."""
    y = np.asarray(question.y)
    return y if case.layout == "feature" else y.T


def test_without_mm_search_the_older_search_is_asked(cslt, monkeypatch):
    from sparsebench.kernels.nm import cusparselt

    monkeypatch.setattr(torch._C, "_cusparselt", None, raising=False)
    monkeypatch.setattr(torch, "_cslt_sparse_mm_search", lambda w, x, transpose_result: 3)
    assert cusparselt.search(None, None, False) == {"alg_id": 3}


def test_a_torch_without_cusparselt_is_a_missing_need():
    if torch.backends.cusparselt.is_available():
        pytest.skip("this torch has cuSPARSELt")
    kernel = KERNELS["nm.cusparselt"]
    case = Case(m=16, k=16, n=8, pattern="nm", params={"nm": [2, 4]}, dtype="float16")
    with pytest.raises(MissingNeed, match="needs a torch built with cuSPARSELt and its operators _cslt_compress"):
        prepared(kernel, case, CpuTensors())


def test_masks_are_those_that_torch_calls_semi_structured():
    from torch.sparse._semi_structured_conversions import (
        sparse_semi_structured_from_dense_cutlass,
        sparse_semi_structured_to_dense_cutlass,
    )

    case = Case(m=32, k=64, n=1, pattern="nm", params={"nm": [2, 4]})
    draw = case.draw()
    w = torch.from_numpy(case.weights(draw)).half()
    values, places = sparse_semi_structured_from_dense_cutlass(w)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, places), w)
    packed = Nm.from_dense(w.numpy(), draw.mask, draw.structure)
    assert np.array_equal(packed.values, values.numpy())
    assert packed.places.nbytes == places.nbytes
