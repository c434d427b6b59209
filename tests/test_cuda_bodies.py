"""All CUDA C++ bodies, run on the CPU: one set of laws (cuda_laws.py) over the cases of cuda_cases.py.

A unit's cases run two at a time: compiling and launching both leave Python to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
from cuda_cases import KERNELS, Unit, convolutions, identities, products, units
from cuda_laws import (
    ORDERS,
    Asked,
    again_reads_its_own_copy,
    broken,
    identity_returns_w,
    integers_are_exact,
    normal_data_and_unused_rows,
)
from cuda_on_cpu.toolchain import ShimToolchain

from sparsebench import Case

pytestmark = pytest.mark.shim

NewShim = Callable[[], ShimToolchain]
FAMILIES = {"csr", "bsr", "rbgp4", "hbs", "condensed"}


def checks(unit: Unit) -> list[tuple[str, str, Case]]:
    """(law, label, case) of one unit. float32 in the first layout meets all problems, other units a share."""
    first = unit.dtype == "float32" and unit.layout == unit.kernel.layouts[0]
    both = chain(products(unit, 1 if first else 4), convolutions(unit, 2 if first else 1))
    return [*(("gates", *asked) for asked in both), *(("identity", *asked) for asked in identities(unit, 1))]


def breaches(unit: Unit, law: str, label: str, case: Case, turn: int, shim: NewShim) -> Iterator[str]:
    asked = Asked(unit.kernel, case, shim())
    asked.toolchain.side = "start" if turn % 4 == 3 else "end"
    if law == "identity":
        yield from broken(label, lambda: identity_returns_w(asked))
        yield from broken(f"{label} again", lambda: again_reads_its_own_copy(asked))
        return
    orders = [ORDERS[(turn + i) % len(ORDERS)] for i in range(2)]
    yield from broken(f"{label} integers", lambda: integers_are_exact(asked, *orders))
    yield from broken(f"{label} normal", lambda: normal_data_and_unused_rows(asked, orders[0]))


@pytest.mark.parametrize("unit", units(), ids=str)
def test_laws(unit, shim):
    asked = checks(unit)
    assert asked, "no case"
    with ThreadPoolExecutor(2) as pool:
        found = [
            pool.submit(lambda turn=turn, of=of: list(breaches(unit, *of, turn, shim))) for turn, of in enumerate(asked)
        ]
        said = [line for future in found for line in future.result()]
    assert not said, f"{len(said)} breaches in {len(asked)} cases:\n" + "\n".join(said[:8])


def test_every_family_has_a_body_that_runs_here():
    assert {kernel.format.name for kernel in KERNELS} >= FAMILIES


def test_every_body_is_asked():
    bodies = {(kernel.home.parent / kernel.body).resolve() for kernel in KERNELS}
    root = Path(KERNELS[0].home).parents[1]
    assert set(root.glob("*/*.cu")) == bodies
