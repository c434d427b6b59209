"""Every fault that the shim (cuda_on_cpu) claims to find is found, in every order of threads; the right form passes.

The wrong bodies are tests/data/shim/faults.cu: one case of a switch each. Those of cp.async: test_cuda_shim_copies.py.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from cuda_laws import ORDERS
from cuda_on_cpu.buffers import PAGE
from shim_cases import FAULTS, launched, needs_shim, refused

pytestmark = [pytest.mark.shim, needs_shim]

RACE = "(reads what .* wrote|overwrites what .* (wrote|read)) with no barrier between at faults.cu"
RACES = [
    "read_before_write",
    "overwrite_before_read",
    "two_writes",
    "warps_need_a_block_barrier",
    "lanes_need_a_warp_barrier",
    "a_shuffle_orders_no_memory",
    "two_warps_read_one_overwrites",
    "late_in_a_loop",
    "matrices_need_a_warp_barrier",
]
RACES_OF_BLOCKS = {
    "blocks_write_one_entry": "argument 1: overwrites what another block wrote",
    "a_block_reads_anothers": "argument 1: (reads what another block wrote|overwrites what another block read)",
    "a_block_overwrites_what_another_read": "argument 1: (overwrites what another block read|reads what .* wrote)",
}
BARRIERS = {
    "half_a_block": r"threads wait for each other in vain: 32 of 64 at __syncthreads \(faults.cu:\d+\), 32 ended",
    "two_places": "32 of 64 at __syncthreads .*, 32 of 64 at __syncthreads .*, 0 ended; all threads must",
    "some_have_left": "40 of 64 at __syncthreads .*, 24 ended",
    "half_a_warp": "32 of 64 at __syncthreads .*, 32 of 64 at __syncwarp",
    "a_shuffle_in_a_branch": "32 of 64 at __shfl_sync .*, 32 of 64 at __syncthreads",
    "two_shuffles": "32 of 64 at __shfl_sync .*, 32 of 64 at __shfl_sync .*, 0 ended",
    "a_part_of_the_mask": "the mask is not 0xffffffff",
    "a_warp_in_parts": "multiply_add_tf32 .*needs all 32 lanes of the warp",
}
VECTOR = "faults.cu:.*misaligned vector"
BEYOND = "beyond the end|bytes after the end"
# Case, step, what is said. None: nothing wrong with it.
MEMORY = [
    ("read_x", 0, None),
    (
        "read_x",
        1,
        r"thread \(63, 0, 0\): faults.cu:\d+: touched memory it may not, 0 bytes after the end of argument 0",
    ),
    ("read_x", -1, "4 bytes before argument 0, a tensor"),
    ("read_x", PAGE // 4 - 1, BEYOND),
    ("read_x", 2**20, "touched memory it may not"),
    ("write_y", 0, None),
    ("write_y", 1, "0 bytes after the end of argument 1, a tensor"),
    ("write_y", -1, "4 bytes before argument 1, a tensor"),
    ("read_four", 4, None),
    ("read_four", 1, VECTOR),
    ("read_four", 2, VECTOR),
    ("write_four", 3, VECTOR),
    ("read_halves", 2, None),
    ("read_halves", 1, VECTOR),
    ("shared_four", 4, None),
    ("shared_four", 2, VECTOR),
    ("store_shared", 4, None),
    ("store_shared", 1, "misaligned vector"),
    ("read_dynamic", 0, None),
    ("read_dynamic", 1, "0 bytes after the end of the dynamic shared memory of 256 bytes"),
    ("read_dynamic", -1, "4 bytes before the dynamic shared memory of 256 bytes"),
    ("write_dynamic", 1, "0 bytes after the end of the dynamic shared memory"),
    ("write_dynamic", -64, "256 bytes before the dynamic shared memory"),
    ("read_static", 0, None),
    ("read_static", 1, "an index beyond an array"),
    ("read_static", -1, "an index beyond an array"),
    ("write_static", 1, "an index beyond an array"),
    ("static_by_pointer", 0, None),
    ("static_by_pointer", 1, "failed a check|touched memory it may not"),
    ("static_by_pointer", -1, "touched memory it may not"),
    ("local_array", 0, "an index beyond an array"),
    ("anothers_stack", 0, None),
    ("anothers_stack", 1, "touched memory it may not"),
    ("atomic", 63, None),
    ("atomic", 64, "0 bytes after the end of argument 1"),
    ("atomic", -1, "4 bytes before argument 1"),
    ("stack", 1, None),
    ("stack", 99, "touched memory it may not"),
    ("divide", 1, None),
    ("divide", 0, "divided by zero|failed a check"),
    ("shift", 31, None),
    ("shift", 32, "failed a check"),
    ("overflow", 0, None),
    ("overflow", 1, "failed a check"),
    ("endless", 0, None),
    ("endless", 1, "limit_s: a loop without end"),
]


@pytest.mark.parametrize("fixed", [0, 1], ids=["dynamic", "static"])
@pytest.mark.parametrize("case", RACES)
def test_a_missing_barrier_is_found_in_every_order(case, fixed, shim):
    for order in ORDERS:
        toolchain = shim(order=order)
        where = "the __shared__ arrays" if fixed else "dynamic shared memory"
        said = refused(toolchain, RACE, "races", case, 0, fixed)
        assert f"in {where}: " in said
        launched(toolchain, "races", case, 1, fixed)


def test_a_barrier_of_one_warp_does_not_order_the_reads_of_another(shim):
    for seed in range(16):  # in some of which both warps have read before one overwrites
        refused(shim(order=seed), RACE, "races", "two_warps_read_one_overwrites", 0, 0)


@pytest.mark.parametrize("case", RACES_OF_BLOCKS)
def test_races_of_blocks_are_found_in_every_order(case, shim):
    for order in ORDERS:
        toolchain = shim(order=order)
        refused(toolchain, RACES_OF_BLOCKS[case], "races", case, 0, 0, blocks=2)
        if case != "a_block_reads_anothers":
            launched(toolchain, "races", case, 1, 0, blocks=2)


def test_a_race_names_both_threads_and_both_lines(shim):
    said = refused(shim(), "overwrites what", "races", "read_before_write", 0, 0)
    text = FAULTS.read_text().splitlines()
    write = text.index("        s[t] = x[t];") + 1
    assert said == (
        f"races block (0, 0, 0), thread (32, 0, 0): faults.cu:{write}: in dynamic shared memory: "
        f"overwrites what thread 31 read with no barrier between at faults.cu:{write + 3}"
    )


@pytest.mark.parametrize("case", BARRIERS)
def test_a_barrier_that_threads_miss(case, shim):
    for order in ORDERS[:3]:
        threads = 48 if case == "a_warp_in_parts" else 64
        said = refused(shim(order=order), BARRIERS[case], "barriers", case, threads=threads)
        assert "barriers block (0, 0, 0)" in said


@pytest.mark.parametrize("side", ["end", "start"])
@pytest.mark.parametrize("case, at, said", MEMORY)
def test_memory(case, at, said, side, shim):
    toolchain = shim(side=side)
    toolchain.limit_s = 0.1
    if said is None:
        launched(toolchain, "memory", case, at)
    else:
        refused(toolchain, said, "memory", case, at)


@pytest.mark.parametrize("side", ["end", "start"])
@pytest.mark.parametrize("size", [61, 62, 63])
def test_one_entry_beyond_a_tensor_that_ends_within_a_vector(size, side, shim):
    for thread_order in ("ascending", "descending"):
        toolchain = shim(side=side, order=thread_order)
        launched(toolchain, "memory", "read_x", 0, x=size, threads=size)
        refused(toolchain, "argument 0: reads 4 bytes beyond the end", "memory", "read_x", 1, x=size, threads=size)
        refused(toolchain, "4 bytes before argument 0", "memory", "read_x", -1, x=size, threads=size)
        refused(toolchain, "argument 1: writes 4 bytes beyond", "memory", "write_y", 1, y=size, threads=size)
        refused(toolchain, "4 bytes before argument 1", "memory", "write_y", -1, y=size, threads=size)


def test_a_tensor_right_above_a_fibers_stack_is_watched(shim):
    """A new thread of Python has new fibers; with all small gaps filled, x lies right above the second one's stack."""
    said: list[str] = []

    def launches() -> None:
        toolchain = shim()
        launched(toolchain, "memory", "read_x", 0, threads=1)
        filled = [toolchain.tensor(np.zeros(1, np.float32)) for _ in range(256)]
        said.append(refused(toolchain, "reads 4 bytes beyond", "memory", "read_x", 60, x=61, threads=2))
        assert len(filled) == 256

    one = threading.Thread(target=launches)
    one.start()
    one.join()
    assert len(said) == 1


def test_a_launch_after_a_fault_is_as_good_as_new(shim):
    toolchain = shim()
    for case, at in (("read_x", 1), ("stack", 99), ("divide", 0), ("read_static", 1)):
        refused(toolchain, "memory block", "memory", case, at)
        assert np.array_equal(launched(toolchain, "memory", "read_x", 0), 1 + np.arange(64))


def test_what_is_not_written_shows(shim):
    toolchain = shim()
    for written in (0, 1, 63):
        said = rf"thread \({written}, 0, 0\): faults.cu:\d+: in dynamic shared memory: reads what nobody wrote"
        refused(toolchain, said, "memory", "unwritten_shared", written)
    launched(toolchain, "memory", "unwritten_shared", 64)  # what the blocks before wrote is not there any more
    refused(toolchain, "reads what nobody wrote", "memory", "unwritten_shared", 63)
    y = launched(toolchain, "memory", "unwritten_y", 17)
    assert np.flatnonzero(np.isnan(y)).tolist() == [17]
    assert toolchain.scratch("indices", (3,), "int32").tolist() == [-1, -1, -1]
