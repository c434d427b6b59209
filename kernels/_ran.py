"""Which kernels a call really launches on the GPU, and in which grids: read from a CUDA graph of it.

A library is asked for a product and decides itself what runs; the record has to say what that was. torch.profiler would
tell too, but the tool beneath it (CUPTI) stays attached afterwards, and programs were 10-20 % slower from then on
(pytorch issue 144455): a benchmark cannot afford that. A captured graph names its kernels, costs the later timing
nothing, and holds exactly what the clock will replay.

Nothing here may fail a trial: what cannot be known is left empty.
"""

from __future__ import annotations

import ctypes
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from sparsebench.kernel import Launch

KERNEL_NODE = 0  # CU_GRAPH_NODE_TYPE_KERNEL of cuda.h
SHOWN_CHARACTERS = 90  # of one kernel's name
SHOWN_KERNELS = 6
# What names of C++ templates are full of and nobody is told anything by.
NOISE = re.compile(
    "at|native|cuda|cutlass|cute|cublas|cublasLt|cudnn|std|detail|device|gemm|kernel|internal|impl|device_kernel|"
    "Kernel|Kernel2|GemmUniversal|enable_if|type|_GLOBAL__N__.*|Params"
)
LITERAL = re.compile(r"L[a-z]n?\d+E")  # a number among template arguments, such as Li4E


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2 of cuda.h: 72 bytes."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("parameters", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class Ran:
    """One kernel of a call: its name in words, and the shape of its launch."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]


def named(launch: Launch, device: str) -> Launch:
    """`launch` with what really runs in `ran`, and the grid and block of its largest kernel; unchanged off a GPU."""
    if device != "cuda":
        return launch
    found = kernels(launch.run)
    if not found:
        return launch
    main = max(found, key=lambda ran: prod(ran.grid) * prod(ran.block))
    text = ": ".join(part for part in (launch.ran, _joined(found)) if part)
    return replace(launch, ran=text, grid=main.grid, block=main.block)


def kernels_of(call: Callable[[], Any]) -> str:
    """The names of the kernels that `call` launches, in their order; empty where that cannot be known."""
    return _joined(kernels(call))


def kernels(call: Callable[[], Any]) -> list[Ran]:
    """The kernels that `call` launches, in their order; none off a GPU, or where the driver or torch is too old."""
    try:
        return _captured(call)
    except Exception:  # a name is not worth a trial
        with suppress(Exception):
            import torch

            torch.cuda.synchronize()
        return []


def _captured(call: Callable[[], Any]) -> list[Ran]:
    import torch

    if not torch.cuda.is_available():
        return []
    driver = ctypes.CDLL("libcuda.so.1")
    call()  # set-up and searches of the first call belong to no graph
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.cuda.graph(graph):
            call()
    return list(nodes_of(driver, graph.raw_cuda_graph()))


def nodes_of(driver: Any, graph: int) -> Iterator[Ran]:
    """The kernel nodes of a graph (a CUgraph as a number), in the order the driver lists them; OSError if it fails."""
    count = ctypes.c_size_t()
    _ask(driver.cuGraphGetNodes, ctypes.c_void_p(graph), None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    _ask(driver.cuGraphGetNodes, ctypes.c_void_p(graph), nodes, ctypes.byref(count))
    for node in map(ctypes.c_void_p, nodes):
        kind = ctypes.c_int()
        _ask(driver.cuGraphNodeGetType, node, ctypes.byref(kind))
        if kind.value == KERNEL_NODE:
            found, name = KernelNode(), ctypes.c_char_p()
            _ask(driver.cuGraphKernelNodeGetParams_v2, node, ctypes.byref(found))
            if found.kernel:
                _ask(driver.cuKernelGetName, ctypes.byref(name), ctypes.c_void_p(found.kernel))
            else:
                _ask(driver.cuFuncGetName, ctypes.byref(name), ctypes.c_void_p(found.function))
            yield Ran(readable((name.value or b"").decode(errors="replace")), tuple(found.grid), tuple(found.block))


def _ask(function: Any, *arguments: Any) -> None:
    if status := function(*arguments):
        raise OSError(f"{getattr(function, '__name__', 'the CUDA driver')} returned {status}")


def readable(name: str) -> str:
    """A kernel's name without what C++ wraps around it: its own word, and the longest word it is specialised by.

    >>> readable("_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEEEEvi")
    'vectorized_elementwise_kernel<FillFunctor>'
    >>> readable("ampere_sgemm_64x32_sliced1x4_nn")
    'ampere_sgemm_64x32_sliced1x4_nn'
    """
    if name.startswith("_Z"):
        words = [word for word in _words(LITERAL.sub("", name[2:])) if not NOISE.fullmatch(word)]
        longest = max(words[1:], key=len, default="")
        name = (f"{words[0]}<{longest}>" if longest else words[0]) if words else name
    return name if len(name) <= SHOWN_CHARACTERS else f"{name[: SHOWN_CHARACTERS - 3]}..."


def _words(mangled: str) -> Iterator[str]:
    """The identifiers of a mangled name: each stands behind its own length."""
    at = 0
    while found := re.compile(r"\d+").search(mangled, at):
        size, start = int(found[0]), found.end()
        word = mangled[start : start + size]
        whole = len(word) == size > 1 and word.isidentifier()  # one character: what follows T0_ or S1_
        if whole:
            yield word
        at = start + size if whole else start


def _joined(found: Sequence[Ran]) -> str:
    """Names in their order, one that runs several times with how often, the last ones of a long row left out."""
    times: dict[str, int] = {}
    for ran in found:
        times[ran.name] = times.get(ran.name, 0) + 1
    names = [f"{count} x {name}" if count > 1 else name for name, count in times.items()]
    more = [f"{len(names) - SHOWN_KERNELS} more"] if len(names) > SHOWN_KERNELS else []
    return " + ".join([*names[:SHOWN_KERNELS], *more])
