"""Run Triton bodies in Triton's interpreter, on tensors that end or start at a page without access.

    echo '[{"label": ..., "kernel": ..., "case": {...}, "data": "integers", "side": "end", "tile": null}]' |
        python tests/triton_on_cpu.py CACHE_FOLDER

Prints one line of JSON a question: its label, the `ratio` of the worst error to what is allowed (above 1: wrong), and
the facts of its launch. X is NaN in rows that no entry of W meets, and Y before the launch. `data` is "integers" (must
be exact), "normal" (rounded to bfloat16's 8 bits, which every dtype holds: tl.dot of bfloat16 itself is garbage in the
interpreter), or "identity" (X is one: Y must be W).

A process of its own, since TRITON_INTERPRET counts where triton is imported, and since a step out of bounds ends it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
from cuda_on_cpu.toolchain import H100, ShimToolchain
from ml_dtypes import bfloat16

from sparsebench import Case, Launch, load_kernels
from sparsebench.case import NUMPY_DTYPES
from sparsebench.lab.check import U_OUT, allowance, as_columns, product, unit_roundoff


def mend_interpreter() -> None:
    """Make loops with loaded bounds work: Triton up to 3.6 asks numpy for an index of shape [1], numpy 2.4 refuses."""
    import triton.runtime.interpreter as interpreter

    original = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.reshape(-1)[0]))

    interpreter._patch_lang_tensor = patched


def operands(case: Case, data: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """W [m, k], X [k, n] (NaN in rows that nothing meets) and the draw; float32."""
    draw = case.draw()
    w = case.weights(draw, "integers" if data == "integers" else "normal")
    if data == "identity":
        x = np.eye(case.k, case.n, dtype=np.float32)
    else:
        x = case.activations("integers" if data == "integers" else "normal")
    w, x = (array.astype(bfloat16).astype(np.float32) for array in (w, x))
    if data != "identity":
        x[~draw.mask.any(axis=0)] = np.nan
    return w, x, draw


def ratio(case: Case, data: str, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The worst error of `y` [m, n] over what is allowed, infinity where nothing may differ and something does."""
    x = np.nan_to_num(x)
    exact = product(w, x)
    if data != "normal":
        exact = exact.astype(np.float32).astype(NUMPY_DTYPES[case.dtype]).astype(np.float64)
        return 0.0 if np.array_equal(y, exact) else np.inf
    allowed = allowance(w, x, exact, u=unit_roundoff(case), u_out=U_OUT[case.dtype])
    off = np.abs(y - exact) / np.maximum(allowed, 1e-30)
    return float(off.max()) if np.isfinite(y).all() else np.inf


def answer(asked: Mapping[str, Any], cache: Path) -> dict[str, Any]:
    """What came of one question."""
    kernel = next(kernel for kernel in load_kernels() if kernel.name == asked["kernel"])
    case = kernel.native(Case(**asked["case"]))
    if reason := next((limit.reason for limit in kernel.limits if not limit.holds(case)), None):
        raise ValueError(f"{asked['label']}: {reason}")
    w, x, draw = operands(case, asked["data"])
    dtype = NUMPY_DTYPES[case.dtype]
    gpu = replace(H100, cache_bytes=asked["cache_bytes"])
    toolchain = ShimToolchain(cache, gpu=gpu, side=asked["side"])
    packed = kernel.format.from_dense(w.astype(dtype), draw.mask, draw.structure)
    in_layout = np.ascontiguousarray(x if case.layout == "feature" else x.T)
    with_tile(kernel.name, asked["tile"])
    launch = kernel.prepare(case, packed, toolchain.tensor(in_layout.astype(dtype)), toolchain)
    launches = [launch, launch.again()] if launch.again and asked["side"] == "start" else [launch]
    worst = max(ratio(case, asked["data"], w, x, fresh_answer(one, case)) for one in launches)
    return {"label": asked["label"], "ratio": worst, "facts": dict(launch.facts), "grid": launch.grid}


def fresh_answer(launch: Launch, case: Case) -> np.ndarray:
    """Y [m, n] of a run into a buffer full of NaN, float64."""
    launch.y.fill_(float("nan"))
    return np.asarray(as_columns(launch.run(), case), np.float64)


def with_tile(kernel: str, sizes: Mapping[str, Any] | None) -> None:
    """Let the face of `kernel` know no tile but its default with `sizes` in place; None: its own."""
    from sparsebench.kernels.bsr import triton as bsr
    from sparsebench.kernels.rbgp4 import triton as rbgp4

    face: Any = {"bsr.triton": bsr, "rbgp4.triton": rbgp4}[kernel]
    own = OWN.setdefault(kernel, face.candidates)
    face.candidates = own if sizes is None else lambda *asked: [replace(own(*asked)[0], **sizes)]


OWN: dict[str, Any] = {}

if __name__ == "__main__":
    mend_interpreter()
    for question in json.load(sys.stdin):
        print(json.dumps({"running": question["label"]}), flush=True)
        print(json.dumps(answer(question, Path(sys.argv[1]))), flush=True)
