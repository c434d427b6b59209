"""What the faces of GPU libraries share: sparse tensors of torch, refusals told apart from faults, what really ran.

A library that has no algorithm for a case says so by a status; that is an answer, and the trial is skipped with its
words. Anything else it raises stays an error. A library is also free to run another algorithm than the one it was
asked for, so `naming` puts the kernels that ran into the record.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sparsebench.case import Case
from sparsebench.errors import Refused
from sparsebench.kernel import CudaToolchain, Launch

from ._device import Prepare
from ._ran import named

SHARED = ("../_library.py", "../_device.py", "../_ran.py")  # for Kernel.sources

# How torch and the libraries below it say that they have no kernel for a case.
_REFUSALS = ("NOT_SUPPORTED", "not supported", "unsupported", "not implemented for", "ARCH_MISMATCH")


def at_least_one(array: np.ndarray) -> np.ndarray:
    """`array`, or one zero where it is empty: libraries look at addresses before they look at lengths."""
    return array if array.size else np.zeros(1, array.dtype)


def sparse_tensor(kind: str, tensors: Sequence[Any], shape: tuple[int, int]) -> Any:
    """torch's sparse tensor of `kind` CSR or BSR over offsets, columns and values, which are not copied."""
    # torch: the framework whose sparse products are measured here.
    import torch

    make = {"CSR": torch.sparse_csr_tensor, "BSR": torch.sparse_bsr_tensor}[kind]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"Sparse {kind} tensor support is in beta")
        # The format has checked what torch would check; not saying so makes torch warn.
        return make(*tensors, size=shape, check_invariants=False)


@contextmanager
def refusing(asked: str) -> Iterator[None]:
    """Turn a library's "not supported" into Refused, with what was asked; everything else passes."""
    try:
        yield
    except (RuntimeError, ValueError, NotImplementedError) as error:
        words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not any(text in str(error) for text in _REFUSALS):
            raise
        raise Refused(f"{asked} was refused: {words}; use another kernel or dtype") from error


def told(case: Case) -> str:
    """The case as a refusal names it: `float16, layout batch, 768x3072 n=64 block 4x4 90 %`."""
    return f"{case.dtype}, layout {case.layout}, {case.describe()}"


def naming(prepare: Prepare) -> Prepare:
    """`prepare` with the kernels that really run in `ran`, and the grid of the largest; copies of W are not asked."""

    def prepare_and_name(case: Case, packed: Any, x: Any, toolchain: CudaToolchain) -> Launch:
        return named(prepare(case, packed, x, toolchain), toolchain.device)

    return prepare_and_name


def bytes_of(tensors: Sequence[Any]) -> int:
    """Bytes of `tensors` on the device."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
