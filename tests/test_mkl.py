"""csr.mkl and bsr.mkl: what they say where MKL is missing or strange, and one OpenMP runtime where it is there.

That they answer right is test_kernels.py's to show, where sparse_dot_mkl is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, PackagePath
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kernel_cases import KERNELS, MACHINE, each
from sparsebench.kernels import _mkl

from sparsebench import Case
from sparsebench.errors import MissingNeed
from sparsebench.lab.build import CpuToolchain

OURS = [kernel for kernel in KERNELS if kernel.name in ("csr.mkl", "bsr.mkl")]
CASE = Case(m=8, k=8, n=2, pattern="block", params={"block": [4, 4]}, sparsity=0.5)
# Runs csr.mkl and a product of torch with two threads, then names the OpenMP runtimes that are loaded.
BESIDE_TORCH = """
import re, sys
from pathlib import Path
import numpy as np
from sparsebench.kernels import _mkl
from sparsebench.lab.build import CpuToolchain
from sparsebench import Case
from scipy import sparse

def by_torch():
    import torch
    torch.set_num_threads(2)
    torch.mm(torch.ones(300, 300), torch.ones(300, 300))

def by_mkl():
    w, x = sparse.csr_array(np.eye(300, dtype=np.float32)), np.ones((300, 64), np.float32)
    launch = _mkl.mkl_product(w, Case(m=300, k=300, n=64), x, CpuToolchain(threads=2))
    assert (launch.run() == x).all()
    assert launch.ran == "mkl_sparse_s_mm", launch.ran

for first_or_second in {order}:
    first_or_second()
lines = Path("/proc/self/maps").read_text().splitlines()
print(*sorted({line.split()[-1] for line in lines if re.search(r"lib(gomp|iomp|omp)\\d?\\b", line)}))
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What loading MKL sets is taken back after each test."""
    for name in ("MKL_THREADING_LAYER", "MKL_INTERFACE_LAYER"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MKL_RT", "kept")


class Library(SimpleNamespace):
    """Stands in for sparse_dot_mkl, which need not be installed."""

    def __init__(self, *names: str) -> None:
        super().__init__(__version__="0.0", threads=[], _mkl_interface=SimpleNamespace(**dict.fromkeys(names)))

    def mkl_set_num_threads(self, threads: int) -> None:
        self.threads.append(threads)

    def dot_product_mkl(self, w, x, out, out_scalar):
        out.fill(0)
        return out


def test_without_the_libraries_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sparse_dot_mkl", None)
    with pytest.raises(MissingNeed, match=r"^needs MKL's libraries beside sparse_dot_mkl, pip install mkl: "):
        _mkl.sparse_dot_mkl()


def test_a_version_without_the_names_used_is_a_missing_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "sparse_dot_mkl", Library(*_mkl.PRIVATE[1:]))
    with pytest.raises(MissingNeed, match=r"^needs MKL of sparse_dot_mkl, which 0\.0 does not have: pip install '"):
        _mkl.sparse_dot_mkl()


def test_mkl_is_asked_for_the_runtime_that_torch_has_and_for_32_bit_indices(monkeypatch):
    monkeypatch.setitem(sys.modules, "sparse_dot_mkl", library := Library(*_mkl.PRIVATE))
    assert _mkl.sparse_dot_mkl() is library
    assert (os.environ["MKL_THREADING_LAYER"], os.environ["MKL_INTERFACE_LAYER"]) == ("GNU", "LP64")
    assert os.environ["MKL_RT"] == "kept"


def test_the_library_of_the_wheel_is_found(monkeypatch, tmp_path):
    listed = [PackagePath("../../libmkl_core.so.2"), PackagePath("../../libmkl_rt.so.2")]
    for file in listed:
        file.dist = SimpleNamespace(locate_file=lambda path: tmp_path / "python" / "site" / path)
    monkeypatch.setattr(_mkl, "files", lambda name: listed)
    assert _mkl._wheel_library() == tmp_path.resolve() / "libmkl_rt.so.2"
    monkeypatch.setattr(_mkl, "files", lambda name: None)
    assert _mkl._wheel_library() is None


def test_without_the_wheel_the_loader_looks(monkeypatch):
    def files(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_mkl, "files", files)
    assert _mkl._wheel_library() is None


def test_a_matrix_without_nonzeros_fills_y_on_the_threads_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "sparse_dot_mkl", library := Library(*_mkl.PRIVATE))
    launch = _mkl.mkl_product(SimpleNamespace(nnz=0), CASE, np.ones((8, 2), np.float32), CpuToolchain(threads=3))
    assert (launch.run() == np.zeros((8, 2))).all()
    assert launch.run() is launch.y
    assert launch.ran == "fill"
    assert library.threads == [3]


def test_bsr_mkl_takes_square_blocks_alone():
    (kernel,) = (kernel for kernel in OURS if kernel.name == "bsr.mkl")
    assert kernel.why_not(CASE, MACHINE) is None
    assert kernel.why_not(replace(CASE, params={"block": [4, 1]}), MACHINE) == (
        "bsr.mkl: blocks must be square: MKL has no others; use bsr.c or bsr.scipy"
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux: /proc/self/maps")
@pytest.mark.parametrize("kernel", each(OURS[-1:]))
@pytest.mark.parametrize("order", ["by_torch, by_mkl", "by_mkl, by_torch"])
def test_torch_and_mkl_share_one_openmp_runtime(kernel, order):
    code = BESIDE_TORCH.replace("{order}", f"({order})")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MKL_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (runtime,) = done.stdout.split()
    assert "libgomp" in runtime
