"""cp.async in the shim (cuda_on_cpu): what arrives when, and that copies which a GPU may let go wrong are found.

The bodies are tests/data/shim/copies.cu.
"""

from __future__ import annotations

import numpy as np
import pytest
from cuda_laws import ORDERS
from shim_cases import launched, needs_shim, refused

pytestmark = [pytest.mark.shim, needs_shim]

COPY_SIZES = {"x": 256, "y": 256, "shared_bytes": 1024}
# Case, step, what is said. None: nothing wrong with it.
COPYING = [
    ("read_beyond", 0, None),
    ("read_beyond", 256 - 63, "copies.cu.*argument 0|argument 0"),
    ("read_beyond", -1, "4 bytes before argument 0"),
    ("read_beyond_but_take_none", 1000, None),
    ("write_beyond", 0, None),
    ("write_beyond", 1, "dynamic shared memory"),
    ("misaligned_to", 4, None),
    ("misaligned_to", 1, "copy_async .*the shared address is not a multiple of the copy's size"),
    ("misaligned_from", 4, None),
    ("misaligned_from", 2, "copy_async .*the global address is not a multiple of the copy's size"),
    ("take_too_much", 0, None),
    ("take_too_much", 1, "takes less than nothing or more than its size"),
    ("take_too_much", -17, "takes less than nothing or more than its size"),
]
COPY_RACES = ["no_barrier_after_the_wait", "wait_after_the_barrier", "onto_what_is_read", "pipeline"]


@pytest.mark.parametrize("pending", [0, 1, 2, 4])
def test_copies_arrive_at_the_wait_and_the_oldest_first(pending, shim):
    y = launched(shim(), "copies", "deliver", pending, **COPY_SIZES).reshape(4, 64)
    assert np.array_equal(y[: 4 - pending].ravel(), 1 + np.arange(64 * (4 - pending)))
    assert np.isnan(y[4 - pending :]).all()


@pytest.mark.parametrize("case", ["no_commit", "old_data_is_gone"])
def test_nothing_arrives_that_is_not_waited_for(case, shim):
    assert np.isnan(launched(shim(), "copies", case, 0, **COPY_SIZES)).all()


@pytest.mark.parametrize("take", [0, 4, 8, 12, 16])
def test_the_rest_of_a_copy_is_zero(take, shim):
    y = launched(shim(), "copies", "take", take, **COPY_SIZES)[:64].reshape(16, 4)
    right = 1 + np.arange(64).reshape(16, 4)
    assert np.array_equal(y, np.where(4 * np.arange(4) < take, right, 0))


@pytest.mark.parametrize("case", COPY_RACES)
def test_races_of_copies_are_found_in_every_order(case, shim):
    for order in ORDERS:
        toolchain = shim(order=order)
        refused(toolchain, "what .* with no barrier between at copies.cu", "copies", case, 0, **COPY_SIZES)
        y = launched(toolchain, "copies", case, 1, **COPY_SIZES)
        rows = 4 if case == "pipeline" else 1
        assert np.array_equal(y[: 64 * rows], 1 + np.arange(256).reshape(4, 64)[:rows, ::-1].ravel())


@pytest.mark.parametrize("case, at, said", COPYING)
def test_copies_of_what_may_not_be_touched(case, at, said, shim):
    if said is None:
        launched(shim(), "copies", case, at, **COPY_SIZES)
    else:
        refused(shim(), said, "copies", case, at, **COPY_SIZES)
