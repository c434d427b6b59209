"""Triton bodies compiled ahead of time for sm_80 and sm_90 and held against tests/golden/triton.json; their tiles.

    python tests/test_triton.py      writes the golden file anew

The golden file holds for each variant the instructions that decide its speed, the widths of its asynchronous copies and
of its stores, and what ptxas says of registers and shared memory. It is of one Triton: another may choose otherwise.
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cuda_on_cpu.toolchain import A100, H100

from sparsebench import Case, load_kernels
from sparsebench.kernel import Gpu

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from sparsebench.kernels.bsr import triton as bsr
from sparsebench.kernels.rbgp4 import triton as rbgp4

pytestmark = pytest.mark.shim

GOLDEN = Path(__file__).parent / "golden" / "triton.json"
GPUS = {80: A100, 90: H100}
POINTERS = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}
BODIES = [Path(face.__file__).with_name("_spmm_triton.py") for face in (bsr, rbgp4)]
KERNELS = {kernel.name: kernel for kernel in load_kernels() if kernel.name.endswith(".triton")}


# --- Compiled ahead of time ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One way to compile one body. `shape` is a block (bsr) or V and the run of neighbouring rows (rbgp4)."""

    kernel: str
    dtype: str
    math: str
    layout: str
    shape: tuple[int, int]
    sm: int
    n: int = 512
    tile: Mapping[str, Any] = field(default_factory=dict)  # sizes in place of the default's

    @property
    def label(self) -> str:
        sizes = "".join(f" {name}={value}" for name, value in self.tile.items())
        math = "" if self.dtype != "float32" else f" {self.math}"
        shape = "x".join(map(str, self.shape))
        return f"{self.kernel} {self.dtype}{math} {shape} {self.layout} n={self.n} sm_{self.sm}{sizes}"

    @property
    def gpu(self) -> Gpu:
        return GPUS[self.sm]

    @property
    def case(self) -> Case:
        return Case(m=4096, k=4096, n=self.n, dtype=self.dtype, math=self.math, layout=self.layout)

    @property
    def sizes(self) -> rbgp4.Sizes:
        return rbgp4.Sizes(shared=self.shape[0], run=self.shape[1], inner=8, outer=4096 // (8 * self.shape[0]), f=512)

    @property
    def chosen(self) -> Any:
        """The tile: the default of the face, with `tile` in place."""
        known = bsr.candidates if self.kernel == "bsr.triton" else rbgp4.candidates
        return replace(known(self.case, self.gpu, self._structure)[0], **self.tile)

    @property
    def _structure(self) -> Any:
        return self.shape if self.kernel == "bsr.triton" else self.sizes

    @property
    def constants(self) -> dict[str, Any]:
        if self.kernel == "bsr.triton":
            return bsr.variant(self.case, self.shape, self.chosen, self.gpu)
        return rbgp4.variant(self.case, self.sizes, self.chosen)

    @property
    def rows(self) -> int:
        """Rows of W that a program multiplies at once."""
        return self.shape[0] if self.kernel == "bsr.triton" else self.chosen.rows


def variants() -> Iterator[Variant]:
    """A telling selection: every math and layout on both GPUs, every height of a block, the largest tiles."""
    maths = [("float32", "ieee"), ("float32", "tf32"), ("float32", "tf32x3"), ("bfloat16", "ieee")]
    for sm in GPUS:
        for layout in ("feature", "batch"):
            for dtype, math in maths:
                yield Variant("bsr.triton", dtype, math, layout, (64, 64), sm)
                yield Variant("rbgp4.triton", dtype, math, layout, (64, 1), sm)
            for block in ((16, 16), (32, 32), (128, 128)):
                yield Variant("bsr.triton", "bfloat16", "ieee", layout, block, sm)
        yield Variant("bsr.triton", "float32", "ieee", "batch", (128, 128), sm, tile={"columns": 128, "warps": 8})
        yield Variant("bsr.triton", "float32", "tf32x3", "batch", (128, 128), sm, tile={"columns": 64, "warps": 8})
        yield Variant("rbgp4.triton", "bfloat16", "ieee", "feature", (128, 4), sm, n=2048)
        yield Variant("rbgp4.triton", "float16", "ieee", "batch", (128, 1), sm, n=33)
    wide = {"columns": 256, "warps": 8, "stages": 4}
    yield Variant("bsr.triton", "bfloat16", "ieee", "feature", (64, 64), 90, n=2048, tile=wide)
    yield Variant("bsr.triton", "bfloat16", "ieee", "feature", (32, 32), 90, tile={"swap": False})
    yield Variant("bsr.triton", "bfloat16", "ieee", "batch", (64, 64), 90, n=1)
    yield Variant("bsr.triton", "bfloat16", "ieee", "feature", (64, 64), 90, n=520)
    yield Variant("bsr.triton", "float16", "ieee", "feature", (32, 64), 90)
    yield Variant("bsr.triton", "float32", "tf32", "batch", (16, 16), 90, tile={"swap": True})
    yield Variant("rbgp4.triton", "bfloat16", "ieee", "batch", (64, 2), 90)
    yield Variant("rbgp4.triton", "bfloat16", "ieee", "batch", (64, 16), 90)


VARIANTS = list(variants())


def compiled(variant: Variant) -> Any:
    """What Triton makes of `variant`: its PTX in .asm["ptx"], its shared memory in .metadata.shared."""
    from sparsebench.kernels.bsr._spmm_triton import bsr_spmm
    from sparsebench.kernels.rbgp4._spmm_triton import rbgp4_spmm

    pointers = dict.fromkeys(("values", "x", "y"), POINTERS[variant.dtype])
    pointers |= dict.fromkeys(("block_columns", "rows", "lists"), "*i32")
    return ahead_of_time(bsr_spmm if variant.kernel == "bsr.triton" else rbgp4_spmm, pointers, variant)


def ahead_of_time(function: Any, pointers: Mapping[str, str], variant: Variant) -> Any:
    """`function` compiled as a launch on such a GPU would: pointers aligned, numbers not specialised."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = variant.constants
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    kinds = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in function.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if name in pointers}
    source = ASTSource(fn=function, signature=kinds, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", variant.sm, 32), options=options)


def findings(kernel: Any, sm: int) -> dict[str, Any]:
    """What decides the speed of a compiled kernel."""
    ptx = kernel.asm["ptx"]
    products = re.findall(r"\b(wgmma\.mma_async|mma)\.sync\.aligned\.(m\d+n\d+k\d+)\S*?\.(tf32|bf16|f16)\.", ptx)
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (\w+)", ptx)
    registers, spills = from_ptxas(ptx, sm)
    return {
        "products": sorted({" ".join(found).replace(".mma_async", "") for found in products}),
        "fma": "fma.rn.f32" in ptx,
        "tf32": "tf32" in ptx,
        "copy_bytes": sorted({int(size, 0) for size in copies}),
        "store_bits": sorted({store_bits(found) for found in re.findall(r"st\.global\.(\S+)", ptx)}),
        "registers": registers,
        "spilled_bytes": spills,
        "shared_bytes": kernel.metadata.shared,
    }


def store_bits(kind: str) -> int:
    """Bits of one store.

    >>> store_bits("v4.b32"), store_bits("b16")
    (128, 16)
    """
    vector = re.search(r"v(\d)", kind)
    return int(re.search(r"[bfus](\d+)", kind)[1]) * (int(vector[1]) if vector else 1)


def from_ptxas(ptx: str, sm: int) -> tuple[int, int]:
    """(registers a thread, bytes spilled) by the ptxas that Triton carries."""
    from triton import knobs

    architecture = f"sm_{sm}a" if sm == 90 else f"sm_{sm}"
    command = [knobs.nvidia.ptxas.path, "-v", f"--gpu-name={architecture}", "-o", "/dev/null", "/dev/stdin"]
    said = subprocess.run(command, input=ptx, capture_output=True, text=True, check=True).stderr
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    return int(re.search(r"Used (\d+) registers", said)[1]), spilled


def findings_of(variant: Variant) -> dict[str, Any]:
    """The findings of `variant`, in whichever process compiles it."""
    return findings(compiled(variant), variant.sm)


def all_findings() -> dict[str, dict[str, Any]]:
    """The findings of every variant, by label.

    Two processes, not threads: Triton parses each function's source, and before Python 3.11.8 two threads in
    `ast.parse` at once raise "AST constructor recursion depth mismatch" (python/cpython#106905).
    """
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return dict(zip((variant.label for variant in VARIANTS), pool.map(findings_of, VARIANTS), strict=True))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The findings of this Triton."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield all_findings()


each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.label)


@each_variant
def test_a_variant_fits_its_gpu_without_spilling(variant, found):
    facts = found[variant.label]
    assert facts["spilled_bytes"] == 0
    assert facts["shared_bytes"] <= variant.gpu.shared_bytes


@each_variant
def test_a_variant_multiplies_with_the_unit_it_was_made_for(variant, found):
    facts = found[variant.label]
    if variant.dtype == "float32" and variant.math == "ieee":
        assert (facts["products"], facts["fma"], facts["tf32"]) == ([], True, False)
        return
    operand = {"float32": "tf32", "float16": "f16", "bfloat16": "bf16"}[variant.dtype]
    swapped = getattr(variant.chosen, "swap", False)
    unit = "wgmma" if variant.sm == 90 and (variant.rows >= 64 or swapped) else "mma"
    assert facts["products"]
    assert all(product.startswith(f"{unit} ") and product.endswith(f" {operand}") for product in facts["products"])


@each_variant
def test_a_variant_copies_asynchronously_and_16_bytes_at_a_time(variant, found):
    assert max(found[variant.label]["copy_bytes"]) == 16


@each_variant
def test_a_variant_stores_no_two_bytes_alone(variant, found):
    narrowest = found[variant.label]["store_bits"][0]
    least = 64 if variant.n >= 64 else 32  # a few columns: two lists a program, so that programs fill the GPU
    assert narrowest >= (least if variant.kernel == "rbgp4.triton" else 128)


def test_the_golden_file_is_what_this_triton_makes(found):
    golden = json.loads(GOLDEN.read_text())
    if golden["triton"] != version("triton"):
        pytest.skip(f"tests/golden/triton.json is of triton {golden['triton']}")
    assert found == golden["variants"], "run python tests/test_triton.py, and read the difference before you commit it"


def test_the_scan_sees_what_it_forbids(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    one_list = Variant("rbgp4.triton", "bfloat16", "ieee", "batch", (64, 1), 90, tile={"lists": 1})
    assert findings(compiled(one_list), 90)["store_bits"][0] == 16
    too_wide = Variant("bsr.triton", "float32", "tf32x3", "feature", (32, 32), 90, tile={"columns": 256, "swap": True})
    assert findings(compiled(too_wide), 90)["spilled_bytes"] > 0


def dots_without_precision(source: str) -> list[int]:
    """Lines of `source` that call dot without input_precision=PRECISION; without it fp32 silently becomes TF32."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    dots = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in ("dot", "dot_scaled")]
    return [dot.lineno for dot in dots if not any(says_precision(word) for word in dot.keywords)]


def says_precision(word: ast.keyword) -> bool:
    return word.arg == "input_precision" and isinstance(word.value, ast.Name) and word.value.id == "PRECISION"


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.parent.name)
def test_every_dot_says_its_precision(body):
    assert "tl.dot(" in body.read_text()
    assert dots_without_precision(body.read_text()) == []


def test_a_dot_without_precision_is_found():
    assert dots_without_precision("a = tl.dot(w, x, a)\nb = tl.dot(w, x, input_precision='tf32')") == [1, 2]


# --- Tiles and limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sm", GPUS)
@pytest.mark.parametrize("n", [1, 16, 100, 512, 4096])
@pytest.mark.parametrize("dtype, math", [("float32", "ieee"), ("float32", "tf32x3"), ("bfloat16", "ieee")])
def test_candidates_are_few_and_fit(sm, n, dtype, math):
    for layout in ("feature", "batch"):
        case = Case(m=4096, k=4096, n=n, dtype=dtype, math=math, layout=layout)
        asked: list[Callable[[], list[Any]]] = [
            *(partial(bsr.candidates, case, GPUS[sm], (side, side)) for side in bsr.SIDES),
            *(partial(rbgp4.candidates, case, GPUS[sm], rbgp4.Sizes(64, run, 6, 8, 48)) for run in (1, 2, 8)),
        ]
        for tiles in (ask() for ask in asked):
            assert 1 <= len(tiles) == len({json.dumps(asdict(tile)) for tile in tiles}) <= 48
            assert all(tile.columns <= max(16, 2 * n - 1) for tile in tiles)


REFUSED = {
    "no power of two": (
        "bsr.triton",
        Case(m=96, k=96, n=8, pattern="block", params={"block": [48, 48]}, sparsity=0.5),
        "blocks must have 16, 32, 64 or 128 rows",
    ),
    "small blocks": (
        "bsr.triton",
        Case(m=64, k=64, n=8, pattern="block", params={"block": [8, 16]}, sparsity=0.5),
        "use bsr.cuda for small blocks",
    ),
    "tf32 of 16 bits": (
        "bsr.triton",
        Case(m=64, k=64, n=8, dtype="bfloat16", math="tf32", pattern="block", params={"block": [16, 16]}, sparsity=0.5),
        "tf32 and tf32x3 are for float32",
    ),
    "offsets": (
        "rbgp4.triton",
        Case(m=64, k=2**20, n=2**11, pattern="rbgp4", params={"tile": [64, 64], "row_repeat": 64}, sparsity=0.0),
        "offsets are 32-bit",
    ),
    "few rows share": (
        "rbgp4.triton",
        Case(m=64, k=64, n=8, pattern="rbgp4", params={"tile": [32, 32], "row_repeat": 32}, sparsity=0.0),
        "64 rows, or a multiple, must share each list",
    ),
}


@pytest.mark.parametrize("name, case, reason", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(name, case, reason):
    said = [limit.reason for limit in KERNELS[name].limits if not limit.holds(case)]
    assert said
    assert reason in said[0]


def test_faces_load_without_triton():
    faces = "sparsebench.kernels.bsr.triton, sparsebench.kernels.rbgp4.triton"
    code = f"import sys; sys.modules['triton'] = None; import {faces}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


if __name__ == "__main__":
    os.environ.setdefault("TRITON_CACHE_DIR", "/tmp/sparsebench-triton")
    GOLDEN.write_text(json.dumps({"triton": version("triton"), "variants": all_findings()}, indent=1) + "\n")
