"""cuSPARSE's generic product, cusparseSpMM, by ctypes on the library that torch itself has loaded.

Why ctypes: torch names no algorithm, CuPy has one and no BSR (cupy#3412), and nvmath-python is not in every image;
these are fourteen functions of a library that every CUDA build of torch carries, and the version that torch runs. Names
and numbers are those of cusparse.h and library_types.h; they are the same in CUDA 12 and 13.

What is read of the library (12.9.4, the names and messages it holds; none of it measured here):
- cusparseSpMM_preprocess helps CSR_ALG1 and CSR_ALG3 and does nothing for others. It makes its buffer the matrix's
  own, so a preprocessed launch has one to itself; others share one, since what they leave in it is not read again.
- 16-bit data needs float32 as compute type. Some versions refuse 16-bit products altogether: CUDA 13.1 and 13.2 do
  (CUDA.jl#3253). The status is then the reason that the trial is skipped.
- "SPMM_CSR (mixed precision), alg {} => {}": 16-bit CSR may run another algorithm than asked, so records hold names.
- BSR blocks must be square and row-major, which ours are. Blocked-ELL computes float32 in TF32: its only kernels for
  float are mma with tfloat32 operands.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import weakref
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import MissingNeed, Refused, SparsebenchError
from sparsebench.kernel import CudaToolchain

from ._device import Bound
from ._library import SHARED as LIBRARY
from ._library import told

SOURCE = "cuSPARSE (NVIDIA, proprietary), the library that torch carries; generic API, cusparseSpMM"
SHARED = ("../_cusparse.py", *LIBRARY)  # for Kernel.sources

# cusparseSpMMAlg_t
ALGORITHMS = {"ALG_DEFAULT": 0, "CSR_ALG1": 4, "CSR_ALG2": 6, "CSR_ALG3": 12, "BLOCKED_ELL_ALG1": 13, "BSR_ALG1": 14}
# cusparseOrder_t of X and Y: batch-major is the column-major form of a [k, n] matrix.
ORDERS = {"feature": 2, "batch": 1}
ROW_MAJOR, COLUMN_MAJOR = 2, 1
TYPES = {"float32": 0, "float16": 2, "bfloat16": 14}  # cudaDataType: CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
INDEX_32, BASE_ZERO, NON_TRANSPOSE = 2, 0, 0

ALLOC_FAILED = 2
NOT_SUPPORTED = 10
REFUSALS = (4, 8, NOT_SUPPORTED, 11)  # ARCH_MISMATCH, MATRIX_TYPE_NOT_SUPPORTED, .., INSUFFICIENT_RESOURCES

_POINTER, _SIZE, _ENUM = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
# handle, opA, opB, alpha, A, B, beta, C, compute type, algorithm
_SPMM = (_POINTER, _ENUM, _ENUM, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _ENUM, _ENUM)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cusparseCreate": (_POINTER,),
    "cusparseGetVersion": (_POINTER, _POINTER),
    "cusparseSetStream": (_POINTER, _POINTER),
    "cusparseCreateCsr": (_POINTER, *[_SIZE] * 3, *[_POINTER] * 3, *[_ENUM] * 4),
    "cusparseCreateBsr": (_POINTER, *[_SIZE] * 5, *[_POINTER] * 3, *[_ENUM] * 5),
    "cusparseCreateBlockedEll": (_POINTER, *[_SIZE] * 4, *[_POINTER] * 2, *[_ENUM] * 3),
    "cusparseCreateDnMat": (_POINTER, *[_SIZE] * 3, _POINTER, *[_ENUM] * 2),
    "cusparseDestroySpMat": (_POINTER,),
    "cusparseDestroyDnMat": (_POINTER,),
    "cusparseSpMM_bufferSize": (*_SPMM, _POINTER),
    "cusparseSpMM_preprocess": (*_SPMM, _POINTER),
    "cusparseSpMM": (*_SPMM, _POINTER),
}
SONAME = "libcusparse.so.12"  # of CUDA 12 and 13


def candidates() -> Iterator[str]:
    """Where libcusparse may be: loaded already by torch, in NVIDIA's wheels, or wherever the system says."""
    yield SONAME
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec else ():
        yield from (str(path) for part in ("cu13", "cusparse") for path in Path(root).glob(f"{part}/lib/{SONAME}"))
    if found := ctypes.util.find_library("cusparse"):
        yield found


def current_stream(device: str) -> int:
    """The address of torch's current stream: the capturing one inside a CUDA graph; 0 off a GPU."""
    if device != "cuda":
        return 0
    import torch  # its stream is the one that the clock records

    return int(torch.cuda.current_stream().cuda_stream)


class CuSparse:
    """A loaded library and one handle of it, kept as long as the process: contexts are gone when Python ends."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        for name, types in _SIGNATURES.items():
            if hasattr(self._library, name):  # cusparseCreateBsr is younger than the others
                getattr(self._library, name).argtypes = types
        for name in ("cusparseGetErrorName", "cusparseGetErrorString"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self.handle = ctypes.c_void_p()
        self.call("cusparseCreate", "a handle", ctypes.byref(self.handle))
        number = ctypes.c_int()
        self.call("cusparseGetVersion", "its version", self.handle, ctypes.byref(number))
        self.version = f"{number.value // 1000}.{number.value % 1000 // 100}.{number.value % 100}"

    def function(self, name: str) -> Any:
        """The C function `name`; MissingNeed where this version has none."""
        if not hasattr(self._library, name):
            raise MissingNeed(f"needs {name}, which cuSPARSE {self.version} does not have: install a newer CUDA")
        return getattr(self._library, name)

    def call(self, name: str, asked: str, *arguments: Any) -> None:
        """Call `name`; Refused, MemoryError or SparsebenchError unless it returns success. `asked` is for people."""
        if status := self.function(name)(*arguments):
            raise self.error(name, status, asked)

    def error(self, name: str, status: int, asked: str) -> Exception:
        """What a status means: a refusal of `asked`, no memory, or a fault."""
        word, words = (
            getattr(self._library, function)(status).decode()
            for function in ("cusparseGetErrorName", "cusparseGetErrorString")
        )
        text = f"{name} of cuSPARSE {getattr(self, 'version', '')} returned {word} ({status}, {words}) for {asked}"
        if status in REFUSALS:
            return Refused(f"{text}; use another algorithm, dtype or CUDA version")
        return MemoryError(text) if status == ALLOC_FAILED else SparsebenchError(text)

    def forget(self, function: str, pointer: ctypes.c_void_p) -> None:
        """Destroy a descriptor."""
        getattr(self._library, function)(pointer)


@lru_cache
def opened(path: str) -> CuSparse:
    """The library at `path`, loaded once; OSError when it cannot be."""
    return CuSparse(path)


def cusparse() -> CuSparse:
    """The library; MissingNeed when it is nowhere."""
    # torch: loads the libcusparse that it was built with, which is then found by its name.
    import torch

    looked = []
    for path in candidates():
        try:
            return opened(path)
        except OSError as error:
            looked.append(str(error))
    raise MissingNeed(
        f"needs {SONAME}, which torch {torch.__version__} has not loaded and which was not found "
        f"({'; '.join(looked)}): install a CUDA build of torch, or pip install nvidia-cusparse"
    )


class Descriptor:
    """One matrix as the library knows it, over `tensors`; destroyed when nothing holds it any more."""

    def __init__(self, library: CuSparse, kind: str, asked: str, arguments: tuple[Any, ...], tensors: tuple[Any, ...]):
        self.pointer = ctypes.c_void_p()
        self.tensors = tensors
        library.call(f"cusparseCreate{kind}", asked, ctypes.byref(self.pointer), *arguments)
        destroy = f"cusparseDestroy{'DnMat' if kind == 'DnMat' else 'SpMat'}"
        weakref.finalize(self, library.forget, destroy, self.pointer).atexit = False


def csr(library: CuSparse, case: Case, nnz: int, offsets: Any, columns: Any, values: Any) -> Descriptor:
    """W in CSR with 32-bit indices."""
    pointers = (offsets.data_ptr(), columns.data_ptr(), values.data_ptr())
    arguments = (case.m, case.k, nnz, *pointers, INDEX_32, INDEX_32, BASE_ZERO, TYPES[case.dtype])
    return Descriptor(library, "Csr", told(case), arguments, (offsets, columns, values))


def bsr(
    library: CuSparse, case: Case, blocks: int, block: tuple[int, int], offsets: Any, columns: Any, values: Any
) -> Descriptor:
    """W in BSR with 32-bit indices; entries of a block row after row."""
    pointers = (offsets.data_ptr(), columns.data_ptr(), values.data_ptr())
    sizes = (case.m // block[0], case.k // block[1], blocks, *block)
    arguments = (*sizes, *pointers, INDEX_32, INDEX_32, BASE_ZERO, TYPES[case.dtype], ROW_MAJOR)
    return Descriptor(library, "Bsr", told(case), arguments, (offsets, columns, values))


def blocked_ell(library: CuSparse, case: Case, side: int, columns: Any, values: Any) -> Descriptor:
    """W in Blocked-ELL: columns int32 [m / side, width], values [m, width * side], row-major both."""
    arguments = (case.m, case.k, side, values.shape[1], columns.data_ptr(), values.data_ptr())
    types = (INDEX_32, BASE_ZERO, TYPES[case.dtype])
    return Descriptor(library, "BlockedEll", told(case), (*arguments, *types), (columns, values))


def dense(library: CuSparse, case: Case, rows: int, tensor: Any) -> Descriptor:
    """X or Y as a [rows, n] matrix over `tensor`, which is [rows, n] for feature and [n, rows] for batch."""
    leading = case.n if case.layout == "feature" else rows
    arguments = (rows, case.n, leading, tensor.data_ptr(), TYPES[case.dtype], ORDERS[case.layout])
    return Descriptor(library, "DnMat", told(case), arguments, (tensor,))


def product(
    library: CuSparse, w: Descriptor, case: Case, x: Any, y: Any, algorithm: str, toolchain: CudaToolchain
) -> Bound:
    """Y = W X by `algorithm` as a launch that is ready to run: workspace there, CSR patterns preprocessed."""
    asked = f"{algorithm}, {told(case)}"
    descriptors = (w, dense(library, case, case.k, x), dense(library, case, case.m, y))
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    arguments = (
        library.handle, NON_TRANSPOSE, NON_TRANSPOSE, ctypes.byref(one), descriptors[0].pointer,
        descriptors[1].pointer, ctypes.byref(zero), descriptors[2].pointer, TYPES["float32"], ALGORITHMS[algorithm],
    )  # fmt: skip
    size = ctypes.c_size_t()
    library.call("cusparseSpMM_bufferSize", asked, *arguments, ctypes.byref(size))
    workspace, preprocessed = _workspace(library, asked, arguments, size.value, algorithm, toolchain)
    set_stream, spmm = library.function("cusparseSetStream"), library.function("cusparseSpMM")
    address = ctypes.c_void_p(workspace.data_ptr())

    def run() -> None:
        set_stream(library.handle, current_stream(toolchain.device))
        if status := spmm(*arguments, address):
            raise library.error("cusparseSpMM", status, asked)

    run.keeps = (descriptors, workspace, one, zero)  # type: ignore[attr-defined]
    facts = {
        "library": f"cuSPARSE {library.version}",
        "algorithm": algorithm,
        "workspace_bytes": size.value,
        "preprocessed": preprocessed,
    }
    return Bound([run], ran=algorithm, facts=facts)


def _workspace(
    library: CuSparse, asked: str, arguments: tuple[Any, ...], size: int, algorithm: str, toolchain: CudaToolchain
) -> tuple[Any, bool]:
    """(The buffer of one launch, whether it holds what cusparseSpMM_preprocess found out about W).

    A buffer that was preprocessed belongs to its W alone. A version that refuses to preprocess multiplies without.
    """
    if not algorithm.startswith("CSR"):
        return toolchain.scratch("cuSPARSE workspace", (max(size, 1),), "int8"), False
    workspace = toolchain.tensor(np.zeros(max(size, 1), np.int8))
    library.call("cusparseSetStream", asked, library.handle, current_stream(toolchain.device))
    try:
        library.call("cusparseSpMM_preprocess", asked, *arguments, ctypes.c_void_p(workspace.data_ptr()))
    except (Refused, MissingNeed):
        return workspace, False
    return workspace, True
