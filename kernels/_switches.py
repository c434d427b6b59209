"""torch's switches, held for one call alone, and the launches of its dense GPU libraries.

What the switches decide is part of the question: an ieee product must not become TF32, and a 16-bit one must be
rounded once, not after each part of a split k. They are read and set around every call and put back after it. A CUDA
graph fixes them when it captures the call, so they cost a timed replay nothing.

torch has two interfaces for TF32 since 2.9, and its libraries raise where the two disagree ("mix of the legacy and new
APIs"). set_float32_matmul_precision writes both; fp32_precision alone, set to tf32, makes every later reader of the old
one raise (tried, 2.13). So the old one is written first, then the new one to the same meaning.

tf32x3, three TF32 products for one of fp32's accuracy, is in no library that torch reaches. Who wants that accuracy
from a dense product gets the ieee one: it is the rival of tf32x3 kernels, and its record says that it is ieee.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsebench.case import Case
from sparsebench.errors import MissingNeed
from sparsebench.kernel import Launch, Limit

from ._ran import named

SOURCES = ("../_switches.py", "../_ran.py")  # for Kernel.sources
MATHS = ("ieee", "tf32", "tf32x3")
DTYPES = ("float32", "float16", "bfloat16")

FLOAT32_MATH = Limit(
    lambda case: case.math == "ieee" or case.dtype == "float32",
    "math tf32 and tf32x3 are ways to multiply float32; ask for ieee with 16-bit dtypes",
)


@dataclass(frozen=True, slots=True)
class Switch:
    """One of torch's settings: how to read it, how to write it, and what it must be during a call."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    value: Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A product asked of a library: bind(tensors of W) -> call, the switches around it, what its record says."""

    bind: Callable[..., Callable[[], Any]]
    switches: Sequence[Switch] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    ran: str = ""


def launch_of(asked: Asked, weights: Sequence[Any], y: Any, device: str) -> Launch:
    """The launch of a product over these tensors of W; its copies clone them on the device."""

    def launch(tensors: Sequence[Any]) -> Launch:
        return Launch(
            run=under(asked.switches, asked.bind(*tensors)),
            y=y,
            ran=asked.ran,
            again=lambda: launch([tensor.clone() for tensor in tensors]),
            weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            facts=asked.facts,
        )

    return named(launch(weights), device)


def under(switches: Sequence[Switch], call: Callable[[], Any]) -> Callable[[], Any]:
    """`call` with all `switches` set while it runs, and put back after it, also when it raises."""
    if not switches:
        return call

    def run() -> Any:
        before = [switch.read() for switch in switches]
        try:
            for switch in switches:
                switch.write(switch.value)
            return call()
        finally:
            for switch, value in zip(switches, before, strict=True):
                switch.write(value)

    return run


def math_of(case: Case) -> str:
    """What a library computes a float32 case in: tf32 where that is asked for, else ieee."""
    return "tf32" if case.math == "tf32" else "ieee"


def facts_of(case: Case) -> dict[str, Any]:
    """What a record should say of a library's arithmetic: the math that ran where it is not the one asked for."""
    return {"math_ran": math_of(case)} if case.math != math_of(case) else {}


def matmul_switches(case: Case) -> list[Switch]:
    """For torch's matrix products: the case's math, or 16-bit operands with fp32 sums all the way."""
    import torch

    matmul: Any = torch.backends.cuda.matmul
    if case.dtype == "float32":
        old = Switch(_old_precision, torch.set_float32_matmul_precision, _OLD[math_of(case)])
        cpu = attribute(torch.backends, "mkldnn.matmul.fp32_precision", "ieee")  # the old one writes this too
        return [old, *attribute(matmul, "fp32_precision", math_of(case)), *cpu]
    name = {"float16": "fp16", "bfloat16": "bf16"}[case.dtype]
    return [
        *attribute(matmul, f"allow_{name}_reduced_precision_reduction", False),
        *attribute(matmul, "allow_fp16_accumulation", False),
    ]


_OLD = {"ieee": "highest", "tf32": "high"}


def _old_precision() -> str:
    """What the old interface says; `highest` where only the new one can express it, which is put back next."""
    import torch

    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:
        return "highest"


def attribute(owner: Any, path: str, value: Any) -> list[Switch]:
    """The switch `owner.path`, which must be `value`; none where this torch does not have it."""
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part, None)
    if not hasattr(owner, name):
        return []
    return [Switch(lambda: getattr(owner, name), lambda found: setattr(owner, name, found), value)]


def blas_switch(library: str, device: str) -> list[Switch]:
    """torch's choice between cublas and cublaslt, on a GPU; MissingNeed where this torch does not have `library`."""
    if device != "cuda":
        return []
    import torch

    choose: Any = getattr(torch.backends.cuda, "preferred_blas_library", None)
    if choose is None:
        raise MissingNeed(f"needs a torch that lets one choose {library}, 2.4 or newer; this is {torch.__version__}")
    before = choose()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "experimental", once a process
            value = choose(library)
    except RuntimeError as error:
        raise MissingNeed(f"needs a torch built with {library}: {error}") from error
    choose(before)
    return [Switch(choose, choose, value)]
