"""Every CUDA C++ body compiles for sm_80 and sm_90 as faces ask for it, without spills, into what it should become.

    python tests/test_cuda_compile.py     writes docs/cuda-bodies.md and tests/golden/ptx.json anew

Register counts and PTX are those of one version of NVRTC (pyproject.toml, extra cuda-tests); with another the table is
not compared, the laws still are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from cuda_cases import KERNELS
from cuda_instances import GPUS, Instance, instances
from cuda_ptx import Compiled, compiled, missing, version

from sparsebench.lab import cuda_source

ROOT = Path(__file__).parents[1]
TABLE, GOLDEN = ROOT / "docs" / "cuda-bodies.md", ROOT / "tests" / "golden" / "ptx.json"
LAB = sorted(Path(cuda_source.__file__).parent.glob("*.cu"))

pytestmark = [pytest.mark.shim, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

# Instances whose Y cannot be stored more than one 16-bit element at a time, with the reason.
NARROW_STORES: Mapping[str, str] = {}

HEAD = """# The CUDA C++ bodies, compiled

What NVRTC {version} makes of every body with the macros that its face asks for at typical sizes
(tests/cuda_instances.py). Registers are a thread's; shared memory is a block's, in bytes, static + dynamic. Nothing
spills. A dash: the face asks for other macros on that GPU, or the function is listed under an earlier case. Nothing
here was timed on a GPU.

Written by `python tests/test_cuda_compile.py`; `pytest tests/test_cuda_compile.py` holds it true.

| kernel | case | function | threads | sm_80: registers, shared | sm_90: registers, shared | sm_90 instructions |
|---|---|---|---|---|---|---|
"""


@lru_cache(maxsize=1)
def asked() -> list[tuple[Instance, Compiled | str]]:
    """All instances with what they became: or what the compiler said of them."""
    wanted = instances()
    with ThreadPoolExecutor(2) as pool:
        return list(zip(wanted, pool.map(attempted, wanted), strict=True))


def attempted(instance: Instance) -> Compiled | str:
    try:
        return compiled(instance.body, instance.function, instance.defines, instance.arch)
    except AssertionError as refused:
        return str(refused)


def everything() -> list[tuple[Instance, Compiled]]:
    """All instances that the compiler took."""
    return [(instance, made) for instance, made in asked() if isinstance(made, Compiled)]


def named(instance: Instance) -> str:
    return f"{instance.kernel} {instance.label} {instance.function}"


def cell(pair: tuple[Instance, Compiled] | None) -> str:
    if pair is None:
        return "-"
    instance, made = pair
    return f"{made.registers}, {made.static_shared} + {instance.shared_bytes}"


def in_short(instructions: Mapping[str, Any]) -> str:
    """The instructions of a cell of the table."""
    widths = {name: "/".join(map(str, instructions[name])) for name in ("cp.async", "st.global")}
    named = [*instructions["mma"], *(["ldmatrix"] if instructions["ldmatrix"] else [])]
    return ", ".join([*named, *(f"{name} {width}" for name, width in widths.items() if width)])


def table() -> str:
    """docs/cuda-bodies.md."""
    rows: dict[tuple[str, str, str, int], dict[str, tuple[Instance, Compiled]]] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for instance, made in everything():
        of = (instance.kernel, instance.label, instance.function)
        turn = seen[of, instance.arch] = seen.get((of, instance.arch), -1) + 1  # type: ignore[index,arg-type]
        rows.setdefault((*of, turn), {})[instance.arch] = (instance, made)
    lines = []
    for (kernel, label, function, _), pair in rows.items():
        instance, made = pair.get("sm_90") or pair["sm_80"]
        cells = [cell(pair.get(arch)) for arch in GPUS]
        lines.append(
            f"| {' | '.join([kernel, label, function, str(instance.block), *cells, in_short(made.instructions)])} |"
        )
    return HEAD.format(version=version()) + "\n".join(lines) + "\n"


def golden() -> dict[str, Any]:
    """tests/golden/ptx.json: the instructions of each sm_90 instance."""
    found: dict[str, Any] = {"nvrtc": version(), "instances": {}}
    for instance, made in everything():
        if instance.arch == "sm_90":
            of = found["instances"].setdefault(named(instance), [])
            of.append(made.instructions)
    return found


def text_of(golden: Mapping[str, Any]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(made)}" for name, made in golden["instances"].items()]
    return f'{{"nvrtc": {json.dumps(golden["nvrtc"])}, "instances": {{\n' + ",\n".join(lines) + "\n}}\n"


# ------------------------------------------------------------------------------------------------------------- laws


def test_the_compiler_takes_every_body():
    refused = [made for _, made in asked() if isinstance(made, str)]
    assert not refused, f"{len(refused)} refused, the first:\n{refused[0]}"


def test_nothing_spills():
    wrong = [f"{named(i)} {i.arch}: {m.spilled} bytes" for i, m in everything() if m.spilled]
    assert not wrong, "\n".join(wrong)


def test_no_array_lives_in_local_memory():
    wrong = [f"{named(i)} {i.arch}: {m.stack} bytes of stack" for i, m in everything() if m.stack]
    assert not wrong, "\n".join(wrong)


def test_registers_and_shared_memory_suffice_for_the_blocks_that_are_launched():
    for instance, made in everything():
        where = f"{named(instance)} {instance.arch} {instance.defines}"
        assert made.registers_allow(instance.block), f"{where}: {made.registers} registers x {instance.block} threads"
        assert made.most_threads is None or instance.block <= made.most_threads, f"{where}: beyond __launch_bounds__"
        room = GPUS[instance.arch].shared_bytes
        assert made.static_shared + instance.shared_bytes <= room, f"{where}: more than {room} bytes of shared memory"
        assert made.static_shared <= 48 * 1024, where


def test_every_body_is_compiled():
    bodies = {(kernel.home.parent / kernel.body).resolve() for kernel in KERNELS}
    assert bodies <= {instance.body for instance, _ in everything()}
    reached = {instance.body for instance, _ in everything()}
    assert set((ROOT / "kernels").glob("**/*.cu")) <= reached


def batch_native(instance: Instance) -> bool:
    """Whether Y is batch-major with rows that 16-byte vectors divide, in 16-bit elements."""
    case = instance.case
    return case.op == "gemm" and case.layout == "batch" and case.dtype != "float32" and case.m % 8 == 0


def test_batch_native_bodies_never_store_two_bytes():
    narrow = {
        named(instance): made.instructions["st.global"]
        for instance, made in everything()
        if batch_native(instance) and 2 in made.instructions["st.global"]
    }
    assert set(narrow) == set(NARROW_STORES), narrow


def test_tensor_cores_are_fed_by_ldmatrix_and_asynchronous_copies():
    for instance, made in everything():
        if instance.kernel.endswith(".mma"):
            found = made.instructions
            assert found["mma"], named(instance)
            assert found["cp.async"] or instance.case.layout == "batch", named(instance)
            assert found["ldmatrix"] == (instance.case.dtype != "float32"), named(instance)


@pytest.mark.parametrize("body", LAB, ids=lambda path: path.stem)
@pytest.mark.parametrize("arch", list(GPUS))
def test_the_labs_own_bodies_compile(body, arch):
    assert functions_of(body)
    for function in functions_of(body):
        assert compiled(body, function, {}, arch).spilled == 0


def functions_of(body: Path) -> list[str]:
    return re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(", body.read_text())


# ----------------------------------------------------------------------------------------------------------- goldens


def test_the_table_is_what_the_compiler_says():
    written = TABLE.read_text()
    if f"NVRTC {version()} " not in written:
        return  # another compiler allocates other registers
    assert written == table(), f"run python {Path(__file__).name} and look at what changed in {TABLE.name}"


def test_the_ptx_has_the_instructions_it_had():
    kept = json.loads(GOLDEN.read_text())
    if kept["nvrtc"] != version():
        return
    assert kept == golden(), f"run python {Path(__file__).name} and look at what changed in {GOLDEN.name}"


if __name__ == "__main__":
    if missing():
        sys.exit(f"{missing()}: pip install sparsebench[cuda-tests]")
    TABLE.write_text(table())
    GOLDEN.write_text(text_of(golden()))
