"""What csr.mkl and bsr.mkl share: MKL's sparse product through sparse_dot_mkl.

MKL is given the matrix once, when the launch is prepared. dot_product_mkl() gives it anew in each call, as torch does,
and MKL then looks through the matrix again. Hence the names of sparse_dot_mkl below that begin with an underscore.
mkl_sparse_optimize() with a hint of 100,000 products made none of them faster (MKL 2026.2, Xeon with AVX-512).
"""

from __future__ import annotations

import ctypes
import os
import weakref
from functools import partial
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import MissingNeed
from sparsebench.kernel import Launch, Toolchain

SOURCE = "MKL (Intel Simplified Software License) through sparse_dot_mkl (MIT)"
PRIVATE = ("MKL", "_check_return_value", "_create_mkl_sparse", "_destroy_mkl_handle", "matrix_descr")
NOT_TRANSPOSED, ROW_MAJOR = 10, 101  # SPARSE_OPERATION_NON_TRANSPOSE and SPARSE_LAYOUT_ROW_MAJOR of mkl_spblas.h


def mkl_product(w: Any, case: Case, x: np.ndarray, toolchain: Toolchain) -> Launch:
    """MKL's product of `w`, a CSR or BSR array of scipy, and x [k, n] into one buffer; matrix times vector at n = 1."""
    library = sparse_dot_mkl()
    library.mkl_set_num_threads(toolchain.threads)
    y = toolchain.output((case.m, case.n))
    if not w.nnz:  # MKL takes no matrix without nonzeros; this fills Y with zeros itself
        return Launch(partial(library.dot_product_mkl, w, x, out=y, out_scalar=0.0), y, "fill")
    product = Product(library._mkl_interface, w, x, y)
    return Launch(product, y, product.name, facts={"mkl": library.mkl_get_version_string()})


class Product:
    """Y = w x as a call that returns Y. MKL reads the arrays of w where they are until this object ends."""

    def __init__(self, interface: Any, w: Any, x: np.ndarray, y: np.ndarray) -> None:
        handle, *_ = interface._create_mkl_sparse(w)
        weakref.finalize(self, interface._destroy_mkl_handle, handle)
        n = x.shape[1]
        operands: tuple[Any, ...] = (x[:, 0], 0.0, y[:, 0])
        if n > 1:
            operands = (ROW_MAJOR, x, n, n, 0.0, y.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), n)
        self.name = "mkl_sparse_s_mv" if n == 1 else "mkl_sparse_s_mm"
        multiply = getattr(interface.MKL, f"_{self.name}")
        self._multiply = partial(multiply, NOT_TRANSPOSED, 1.0, handle, interface.matrix_descr(), *operands)
        self._check, self._w, self._y = interface._check_return_value, w, y

    def __call__(self) -> np.ndarray:
        self._check(self._multiply(), self.name)  # ValueError with MKL's own words
        return self._y


def sparse_dot_mkl() -> Any:
    """The module sparse_dot_mkl, MKL loaded; MissingNeed without MKL, or without the names used here."""
    # MKL reads these when it first runs. GNU: with its own OpenMP runtime beside the one that torch and our bodies use,
    # every product in the process gets slower. LP64: 32-bit indices, as the formats have them; half the bytes.
    os.environ.update(MKL_THREADING_LAYER="GNU", MKL_INTERFACE_LAYER="LP64")
    if path := _wheel_library():
        os.environ.setdefault("MKL_RT", str(path))
    try:
        # sparse_dot_mkl: the Python face of MKL's sparse products, in its newest version; torch's own MKL is older.
        import sparse_dot_mkl as library
    except ImportError as error:
        raise MissingNeed(f"needs MKL's libraries beside sparse_dot_mkl, pip install mkl: {error}") from error
    if lost := [name for name in PRIVATE if not hasattr(library._mkl_interface, name)]:
        raise MissingNeed(
            f"needs {', '.join(lost)} of sparse_dot_mkl, which {library.__version__} does not have: "
            f"pip install 'sparse_dot_mkl>=0.9,<0.10'"
        )
    return library


def _wheel_library() -> Path | None:
    """The libmkl_rt that the wheel `mkl` installed, in a folder where no loader looks; None without that wheel."""
    try:
        installed = files("mkl") or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve() for file in installed if file.name.startswith("libmkl_rt.")), None)
