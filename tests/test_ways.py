"""kernels/_ways.py, which sees shapes alone, against what the faces of the C bodies decide over drawn matrices."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from sparsebench.kernels import _strips as strips
from sparsebench.kernels import _ways as ways
from sparsebench.kernels.bsr import c as bsr
from sparsebench.kernels.condensed import c as condensed
from sparsebench.kernels.csr import c as csr
from sparsebench.kernels.hbs import c as hbs
from sparsebench.kernels.rbgp4 import c as rbgp4

from sparsebench.case import Case
from sparsebench.desk.points import NOTHING, points_of, shares_of
from sparsebench.formats import FORMATS
from sparsebench.kernel import way_of

FACES = {"csr.c": csr, "condensed.c": condensed, "bsr.c": bsr, "rbgp4.c": rbgp4, "hbs.c": hbs}
SHAPES = [(64, 64), (128, 96), (640, 64), (192, 1024), (64, 1728), (512, 320)]
COLUMNS = [2, 3, 8, 24, 96, 250, 1000, 1024]
PATTERNS = {
    "csr.c": [("unstructured", {}, s) for s in (0.5, 0.8, 0.97)],
    "condensed.c": [("constant_fan_in", {}, s) for s in (0.5, 0.9, 0.97)],
    "bsr.c": [("block", {"block": block}, s) for block in ([4, 1], [2, 2], [16, 16], [1, 4]) for s in (0.6, 0.95)],
    "rbgp4.c": [("rbgp4", {"tile": [64, 32], "row_repeat": repeat}, 0.75) for repeat in (4, 2)],
    "hbs.c": [
        ("hierarchical", {"levels": [{"block": [4, 1], "sparsity": a}, {"block": [1, 1], "sparsity": b}]}, None)
        for a, b in ((0.63, 0.97), (0.7, 0.9), (0.95, 0.9))
    ],
}


def lists_of(kernel: str, case: Case, packed):
    """The lists that the first pass of `kernel` walks, and whether there is a pass a level."""
    if kernel == "hbs.c" and hbs.best_level_by_level(case, packed):
        return hbs.level_by_level(packed)[0].lists(), True
    return FACES[kernel].lists(packed), False


def decided(kernel: str, case: Case, packed, native: int) -> tuple[float, ...]:
    """What the face does, as way_of tells it."""
    lists, by_level = lists_of(kernel, case, packed)
    height = lists.groups.rows.shape[1] if lists.groups else 1
    lanes, slabs = strips.lanes_for(case.n, native), case.layout == "batch" or case.dtype != "float32"
    way = strips.way_for(lists, case.n, lanes, ways.vectors_for(height, native), slabs, adds=False)
    lone = bool(lists.single is not None) + bool(lists.single is not None and lists.groups is None)
    return (
        float(way.x_packed),
        float(way.y_packed),
        float(way.beside),
        math.log(-(-case.k // way.block_rows)),
        math.log2(way.strip_columns),
        math.log2(height),
        float(lone),
        float(by_level),
    )


def drawn(kernel: str):
    """(case for one column, packed matrix, levels) of every shape and pattern."""
    for (m, k), (pattern, params, sparsity) in product(SHAPES, PATTERNS[kernel]):
        case = Case(m=m, k=k, n=1, pattern=pattern, params=params, sparsity=sparsity)
        if not case.pattern_object.why_not(m, k, sparsity):
            found = case.draw()
            values = np.where(found.mask, np.float32(1), np.float32(0))
            packed = FORMATS[kernel.split(".")[0]].from_dense(values, found.mask, found.structure)
            yield case, packed, float(found.mask.sum()) / (m * k)


@pytest.mark.parametrize("kernel", FACES)
def test_shapes_say_which_way_a_body_takes(kernel, monkeypatch):
    monkeypatch.setattr(strips, "l2_bytes", lambda: ways.L2_BYTES)
    wrong, seen = [], set()
    for case, packed, kept in drawn(kernel):
        for n, layout, native in product(COLUMNS, ("feature", "batch"), (8, 16)):
            asked = Case(
                m=case.m, k=case.k, n=n, layout=layout, pattern=case.pattern, params=case.params, sparsity=case.sparsity
            )
            levels = shares_of(asked, kept)
            told, truth = way_of(kernel, asked, levels, native), decided(kernel, asked, packed, native)
            seen.add(truth[:3])
            if told != pytest.approx(truth):
                wrong.append((asked.describe(), native, told, truth))
    assert not wrong, f"{len(wrong)} differ, first {wrong[0]}"
    assert len(seen) > 1  # the shapes tried take more than one way


def test_what_has_no_ways_tells_as_many_numbers():
    case = Case(m=64, k=64, n=8, pattern="unstructured", sparsity=0.9)
    one = Case(m=64, k=64, n=1, pattern="unstructured", sparsity=0.9)
    assert way_of("csr.scipy", case, [(0.1, 1, 1)], 16) == ways.NONE
    assert way_of("csr.c", one, [(0.1, 1, 1)], 16) == ways.NONE
    assert len(way_of("csr.c", case, [(0.1, 1, 1)], 16)) == len(ways.NAMES) == len(ways.NONE)


def test_points_hold_the_ways_of_their_kernel():
    cases = [Case(m=64, k=512, n=n, pattern="unstructured", sparsity=0.9) for n in (1, 7, 64)]
    found = points_of(cases, [0.1] * 3, [NOTHING] * 3, "csr.c")
    assert found.ways.shape == (3, len(ways.NAMES))
    assert not found.ways[0].any()
    assert found[np.array([2])].ways.tolist() == [found.ways[2].tolist()]
    assert not points_of(cases, [0.1] * 3, [NOTHING] * 3).ways.any()
