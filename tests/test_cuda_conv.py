"""The convolution that all CUDA families share: its packing, its tiles, and both bodies on the CPU."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from kernel_cases import CONVOLUTIONS, PROBLEMS, levels
from sparsebench.kernels import _conv
from sparsebench.kernels._conv_lists import STEP, Lists, lists_of
from sparsebench.kernels._conv_tiles import Geometry, Tile, Work, candidates, choose, macros
from sparsebench.kernels._row_groups import RowGroups, row_groups

from sparsebench import Case, Conv
from sparsebench.case import NUMPY_DTYPES
from sparsebench.errors import SparsebenchError
from sparsebench.formats import Bsr, Condensed, Csr, Hbs, Rbgp4
from sparsebench.kernel import Gpu
from sparsebench.lab.reference import Reference

pytestmark = pytest.mark.shim

H100 = Gpu(sm=90, processors=132, shared_bytes=232448, cache_bytes=50 * 2**20)
STORED_BY = {"unstructured": Csr, "constant_fan_in": Condensed, "block": Bsr, "hierarchical": Hbs, "rbgp4": Rbgp4}
PACKED = [(pattern, problem) for pattern in STORED_BY for problem in PROBLEMS[pattern] if problem.k < 1000]

ASKED = {  # pattern: params and sparsity of convolutions; any k
    "unstructured": ({}, 0.5),
    "constant_fan_in": ({"ablated": 0.3}, 0.5),
    "block": ({"block": [4, 1]}, 0.5),
    "hierarchical": (levels((4, 1, 0.6), (2, 1, 0.8), (1, 1, 0.9)), None),
    "rbgp4": ({"tile": [8, 1], "row_repeat": 8}, 0.0),
}


def asked(pattern, conv, m=24, dtype="float32"):
    params, sparsity = ASKED[pattern]
    k, n = conv.c * conv.kh * conv.kw, conv.batch * conv.oh * conv.ow
    return Case(m=m, k=k, n=n, op="conv2d", conv=conv, pattern=pattern, params=params, sparsity=sparsity, dtype=dtype)


def operands(case, data="integers"):
    """The question of `case` and W as its format stores it."""
    draw = case.draw()
    reference = Reference(case, draw)
    question = reference.integers() if data == "integers" else reference.normal()
    stored = question.w.astype(NUMPY_DTYPES[case.dtype])
    return question, STORED_BY[case.pattern].from_dense(stored, draw.mask, draw.structure)


def complaint(case, toolchain, prepare, data="integers", order="ascending"):
    """What the gate says of one answer by `prepare`; nothing when it is right."""
    toolchain.order = order
    question, packed = operands(case, data)
    x = toolchain.tensor(np.ascontiguousarray(question.x).astype(NUMPY_DTYPES[case.dtype]))
    return question.judge(prepare(case, packed, x, toolchain).run().double().numpy(), case).reason


def staged_with(tile, most=16):
    """The `prepare` that runs _conv_staged.cu with `tile`."""

    def prepare(case, packed, x, toolchain):
        groups = row_groups(packed, most)
        lists = _conv.staged_lists(groups, Geometry.of(case.conv), tile)
        return _conv.staged(case, groups, x, toolchain, tile, lists)

    return prepare


# ------------------------------------------------------------------------------------------------------------ packing


def drawn(pattern, problem):
    case = Case(
        m=problem.m, k=problem.k, n=1, pattern=pattern, params=problem.params, sparsity=problem.sparsity
    )  # what it is multiplied with does not matter
    return operands(case)


@pytest.mark.parametrize("pattern, problem", PACKED, ids=lambda value: getattr(value, "label", None))
@pytest.mark.parametrize("most", [4, 16])
def test_row_groups_spell_out_the_matrix(pattern, problem, most):
    question, packed = drawn(pattern, problem)
    groups = row_groups(packed, most)
    assert np.array_equal(groups.to_dense(), question.w)
    assert all(groups.rows.shape[1] % height == 0 for height in groups.heights)
    assert sorted(groups.rows[groups.rows >= 0]) == list(range(problem.m))


def spelled_out(lists: Lists, groups: RowGroups, columns: np.ndarray) -> np.ndarray:
    """W [m, k] from the arrays that the bodies read, entry by entry, as they read them; padding checked."""
    rows_each, dense = groups.rows.shape[1], np.zeros(groups.shape, lists.values.dtype)
    each = [(height, first) for height in groups.heights for first in range(0, rows_each, height)]
    warps, chunks = len(lists.rows) // lists.slabs, len(lists.starts) // lists.slabs
    for slab, chunk, warp in product(range(lists.slabs), range(chunks), range(warps)):
        region = slab * chunks + chunk
        for number, (height, first) in enumerate(each, start=warp * len(each)):
            (begin, value), (end, _) = lists.starts[region, number : number + 2]
            assert begin % STEP == end % STEP == value % 4 == 0
            at = lists.regions[region] + (begin, value)
            for i in range(end - begin):
                column = columns[chunk][lists.offsets[at[0] + i]]
                for r in range(height):
                    row = lists.rows[slab * warps + warp, first + r]
                    entry = lists.values[at[1] + i * height + r]
                    # Nothing is added twice, and what fills a list up names a column of the same list.
                    assert row >= 0
                    assert dense[row, column] == 0 or entry == 0
                    assert entry != 0 or i > 0
                    dense[row, column] += entry
    return dense


@pytest.mark.parametrize("pattern, label", [
    ("unstructured", "ragged"), ("unstructured", "empty-rows"), ("unstructured", "no-nonzero"),
    ("constant_fan_in", "fan-in-ablated"), ("block", "block-odd"), ("block", "block-32x1"),
    ("hierarchical", "levels-three"), ("rbgp4", "graphs-blocks"),
])  # fmt: skip
@pytest.mark.parametrize("warps, chunk", [(1, 1000), (4, 7)])
def test_lists_spell_out_the_matrix(pattern, label, warps, chunk):
    question, packed = drawn(pattern, next(problem for problem in PROBLEMS[pattern] if problem.label == label))
    groups, k = row_groups(packed), question.w.shape[1]
    lists = lists_of(groups, np.arange(k) % chunk + 5, np.arange(k) // chunk, warps, np.uint16)
    columns = [{j % chunk + 5: j for j in range(i * chunk, min((i + 1) * chunk, k))} for i in range(-(-k // chunk))]
    assert np.array_equal(spelled_out(lists, groups, columns), question.w)


def test_long_groups_come_first():
    w = np.triu(np.ones((16, 16), np.float32))[::-1].copy()
    lists = lists_of(row_groups(Csr.from_dense(w, w != 0)), np.arange(16), np.zeros(16, int), 2, np.uint16)
    assert lists.rows[:, 0].tolist() == [12, 8, 4, 0]


def test_other_formats_are_refused():
    told = "csr, condensed, bsr, hbs and rbgp4 are cut into groups of rows, found str"
    with pytest.raises(SparsebenchError, match=told):
        row_groups("dense")


# -------------------------------------------------------------------------------------------------------------- tiles

LAYERS = {  # of the networks in suites/headline.yaml, and awkward ones
    "wide": Conv(64, 32, 32, 3, 3, 1, 1, 1, 128),
    "narrow": Conv(256, 8, 8, 3, 3, 1, 1, 1, 128),
    "tiny": Conv(512, 2, 2, 3, 3, 1, 1, 1, 128),
    "odd": Conv(512, 7, 7, 3, 3, 1, 1, 1, 32),
    "one image": Conv(256, 14, 14, 3, 3, 1, 1, 1, 1),
    "halved": Conv(64, 32, 32, 3, 3, 2, 1, 1, 128),
    "stem": Conv(3, 224, 224, 7, 7, 2, 3, 1, 8),
    "1x1": Conv(256, 14, 14, 1, 1, 1, 0, 1, 32),
}


def work(conv, m, rows, height):
    """A tenth of W, in groups of `rows` rows and lists of `height`."""
    return Work(-(-m // rows), rows, ((height, 0.1 * conv.c * conv.kh * conv.kw * rows / height),))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rows, height", [(4, 1), (4, 4), (16, 16)])
def test_tiles_fit_and_cover(name, rows, height):
    conv = LAYERS[name]
    shape, asked_of = Geometry.of(conv), work(conv, 256, rows, height)
    found = candidates(conv, asked_of, H100)
    assert found
    assert choose(conv, asked_of, H100) == found[0]
    for tile in found:
        assert asked_of.shared_bytes(tile, shape) <= H100.shared_bytes
        assert tile.channels * tile.channel_size(shape) <= 2**16  # offsets are 16-bit
        assert rows * tile.pixels <= 64
        assert tile.threads <= 512
        assert tile.channels * tile.chunks(shape) >= conv.c
        assert covered(tile, shape).min() == covered(tile, shape).max() == 1


def covered(tile, shape):
    """How often a launch computes each pixel of an image, [oh, ow]: lane_of of _conv_staged.cu, in numpy."""
    part, sub, lane, at = np.indices((tile.parts(shape), tile.subs, 32, tile.positions))
    pitch, origin = tile.pitch(shape), part * tile.reach * (tile.pitch(shape) if tile.bands else 1)
    if tile.bands:
        side = shape.ow * tile.bands
        first = (sub * tile.bands + lane // shape.ow % tile.bands) * tile.positions * pitch + lane % shape.ow
        element, mine = origin + first + at * pitch, lane // side == 0
    else:
        along = lane * tile.vector + at // tile.vector * 32 * tile.vector + at % tile.vector
        element, mine = origin + sub * 32 * tile.positions + along, True
    inside = mine & (element // pitch < shape.oh) & (element % pitch < shape.ow)
    times = np.zeros((shape.oh, shape.ow), int)
    np.add.at(times, (element[inside] // pitch, element[inside] % pitch), 1)
    return times


def test_images_beside_each_other_start_at_banks_of_their_own():
    shape = Geometry.of(Conv(512, 4, 4, 3, 3, 1, 1, 1, 128))
    assert Tile(bands=1, positions=4, lane_images=8).conflict(shape) == 1
    assert Tile(bands=4, positions=1, lane_images=2).conflict(shape) == 2


def test_shared_rows_promise_less_time():
    """The order that the count of cycles gives [derived]: it must at least see that sharing saves loads."""
    conv = LAYERS["wide"]
    alone, shared = (
        _conv.cycles(Geometry.of(conv), choose(conv, w, H100), w, H100)
        for w in (work(conv, 64, 4, 1), work(conv, 64, 4, 4))
    )
    assert shared < 0.6 * alone


# ------------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("dtype, h, w, padding", [("float32", 33, 40, 2), ("float16", 1, 1, 3), ("bfloat16", 5, 7, 1)])
def test_planes_are_padded_with_zeros(shim, dtype, h, w, padding):
    toolchain = shim()
    conv = Conv(c=3, h=h, w=w, kh=1, kw=1, padding=padding, batch=2)
    x = np.random.default_rng(0).integers(-9, 9, (2, 3, h, w)).astype(NUMPY_DTYPES[dtype])
    planes = toolchain.scratch("planes", (2, 3, h + 2 * padding, w + 2 * padding), dtype)
    _conv.pad_call(asked("unstructured", conv, dtype=dtype), toolchain.tensor(x), planes, toolchain)()
    around = (padding, padding)
    assert np.array_equal(planes.double().numpy(), np.pad(x.astype(float), ((0, 0), (0, 0), around, around)))


def geometries(number, pattern, prepare):
    """(case, order of threads): all geometries from planes, whose body is one for all, and two of them staged."""
    staged = prepare is _conv.convolution
    chosen = [CONVOLUTIONS[(number + i) % 5] for i in (0, 2)] if staged else CONVOLUTIONS
    for i, conv in enumerate(chosen):
        dtype = ("float32", "bfloat16", "float16")[(number + (i if staged else 0)) % 3]
        yield asked(pattern, conv, dtype=dtype), number + i


@pytest.mark.parametrize("number, pattern", list(enumerate(ASKED)), ids=str)
@pytest.mark.parametrize("prepare", [_conv.convolution, _conv.from_planes], ids=["staged", "planes"])
def test_convolutions_are_right(shim, number, pattern, prepare):
    toolchain = shim()
    for case, turn in geometries(number, pattern, prepare):
        for data, order in (("integers", turn), ("normal", "descending")):
            assert not complaint(case, toolchain, prepare, data, order), (case.conv, case.dtype, data, order)


WAYS = {  # a tile and a convolution for every branch of _conv_staged.cu
    "flat, parts": (Conv(7, 9, 30, 3, 3, 1, 1, 1, 2), Tile(0, 4, warps=2, channels=3)),
    "flat, images": (Conv(5, 5, 6, 3, 3, 1, 1, 1, 5), Tile(0, 2, images=2, warps=1, channels=2)),
    "flat, subs": (Conv(4, 9, 30, 3, 2, 1, 1, 1, 1), Tile(0, 1, warps=2, subs=4, channels=4)),
    "vectors": (Conv(6, 10, 14, 1, 1, batch=3), Tile(0, 8, warps=2, subs=2, channels=4, vector=4)),
    "columns": (Conv(5, 9, 20, 3, 3, 1, 1, 1, 2), Tile(1, 4, warps=2, channels=2)),
    "bands, subs": (Conv(4, 14, 14, 3, 3, 1, 1, 1, 3), Tile(2, 2, warps=1, subs=2, channels=3)),
    "beside": (Conv(5, 4, 4, 3, 3, 1, 1, 1, 11), Tile(2, 2, images=2, lane_images=4, warps=2, channels=2)),
    "idle lanes": (Conv(3, 7, 7, 3, 3, 1, 1, 1, 5), Tile(1, 7, lane_images=4, warps=2, channels=1)),
    "few lanes": (Conv(1, 3, 3, 3, 3, 1, 1, 1, 2), Tile(1, 3, warps=1, channels=1)),
    "phases": (Conv(3, 19, 22, 7, 7, 2, 3, 1, 2), Tile(2, 3, warps=2, channels=2)),
    "few phases": (Conv(5, 12, 15, 1, 2, 3, 0, 1, 4), Tile(0, 1, images=2, warps=2, channels=2)),
}


def way_case(number, name, shim):
    """The case of one of WAYS, the most rows of a group, and a toolchain."""
    dtype = ("float32", "float32", "float16", "bfloat16")[number % 4]
    case = asked(list(ASKED)[number % 5], WAYS[name][0], m=40, dtype=dtype)
    return case, (4, 8, 16)[number % 3], shim(side="start" if number % 2 else "end")


@pytest.mark.parametrize("number, name", list(enumerate(WAYS)), ids=str)
def test_every_way_to_cut_is_right(shim, number, name):
    conv, tile = WAYS[name]
    assert covered(tile, Geometry.of(conv)).min() == covered(tile, Geometry.of(conv)).max() == 1
    case, most, toolchain = way_case(number, name, shim)
    for data, order in (("integers", "ascending"), ("integers", "descending"), ("normal", number)):
        assert not complaint(case, toolchain, staged_with(tile, most), data, order), (data, order)


WIDE = (
    (Conv(5, 10, 14, 1, 1, batch=3), 10, _conv.PlanesTile(pixels=8, warps=2, vector=4)),
    (Conv(3, 9, 11, 3, 2, 2, 1, 1, 2), 6, _conv.PlanesTile(pixels=4, warps=1, vector=1)),
    (Conv(2, 24, 30, 1, 1, 1, 2, 1, 2), 6, _conv.PlanesTile(pixels=4, warps=1, vector=1)),  # planes of four blocks
)


@pytest.mark.parametrize("conv, m, tile", WIDE, ids=["vectors", "pixels", "padded"])
def test_planes_in_wide_tiles_are_right(shim, conv, m, tile):
    case = asked("unstructured", conv, m)  # the last group of rows is not full

    def prepare(*given):
        return _conv.from_planes(*given, tile)

    for order in ("ascending", "descending"):
        assert not complaint(case, shim(), prepare, "integers", order)


def test_channels_that_no_weight_names_may_be_nan(shim):
    conv = Conv(c=6, h=5, w=6, kh=3, kw=3, padding=1)
    case = asked("unstructured", conv)
    w = case.weights(case.draw())
    w[:, 18:36] = 0  # channels 2 and 3
    x = case.activations()
    x[:, 2:4] = np.nan
    for prepare in (_conv.convolution, _conv.from_planes):
        toolchain = shim()
        y = prepare(case, Csr.from_dense(w, w != 0), toolchain.tensor(x), toolchain).run()
        assert np.isfinite(y.numpy()).all()


def test_a_tile_that_does_not_fit_is_read_from_planes(shim):
    conv = CONVOLUTIONS[0]
    toolchain = shim(gpu=replace(H100, shared_bytes=512))
    question, packed = operands(asked("unstructured", conv))
    case = asked("unstructured", conv)
    launch = _conv.convolution(case, packed, toolchain.tensor(question.x.astype(np.float32)), toolchain)
    assert launch.ran == "pad + direct"
    assert not question.judge(launch.run().numpy(), case).reason


def test_uneven_lists_get_fewer_channels():
    conv = Conv(c=32, h=8, w=8, kh=3, kw=3, padding=1)
    w = np.zeros((64, 288), np.float32)
    w[:4] = 1  # all work in one group
    groups, shape, tile = row_groups(Csr.from_dense(w, w != 0)), Geometry.of(conv), Tile(1, 8, warps=16, channels=32)
    lists = _conv.staged_lists(groups, shape, tile)
    little = replace(H100, shared_bytes=_conv.shared_bytes(shape, tile, lists) - 1)
    cut, lists = _conv.fitted(groups, shape, tile, little)
    assert cut.channels == 8  # 16 would need two buffers of half the size, and a little
    assert _conv.shared_bytes(shape, cut, lists) <= little.shared_bytes
    assert _conv.fitted(groups, shape, tile, replace(H100, shared_bytes=64)) is None


def test_the_record_says_how_it_was_cut(shim):
    toolchain = shim()
    case = asked("hierarchical", CONVOLUTIONS[0])
    question, packed = operands(case)
    launch = _conv.convolution(case, packed, toolchain.tensor(question.x.astype(np.float32)), toolchain)
    assert launch.ran == "direct, staged"
    assert launch.facts["V"] == launch.facts["heights"][0]
    (_, function, defines), *_ = toolchain.asked
    assert (function, defines["HEIGHTS"]) == ("conv_staged", _conv.heights_number(launch.facts["heights"]))
    assert defines.items() >= macros(Geometry.of(case.conv), Tile(**{
        name: launch.facts[name] for name in Tile.__dataclass_fields__
    })).items()  # fmt: skip


def test_what_the_bodies_do_not_compute_is_refused(shim):
    grouped = replace(CONVOLUTIONS[0], groups=3)
    case = replace(asked("unstructured", CONVOLUTIONS[0]), conv=grouped)
    _, packed = operands(asked("unstructured", CONVOLUTIONS[0]))
    with pytest.raises(SparsebenchError, match="takes conv2d with groups = 1"):
        _conv.convolution(case, packed, None, shim())
    huge = asked("unstructured", CONVOLUTIONS[0])
    huge = replace(huge, conv=replace(huge.conv, batch=2**25))
    with pytest.raises(SparsebenchError, match=r"2\*\*31 entries or more"):
        _conv.from_planes(huge, packed, None, shim())
    with pytest.raises(SparsebenchError, match="eight levels at most, found 9"):
        _conv.heights_number([1] * 9)
