"""One set of laws that every pattern keeps, and the sentence with which each says no."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebench.errors import PatternError
from sparsebench.patterns import PATTERNS, Pattern, checked_sparsity, kept_units, pattern_from
from sparsebench.patterns.base import nearest
from sparsebench.patterns.grid import largest, magnitudes, spread

quick = settings(max_examples=40, deadline=None)


@dataclass(frozen=True)
class Ask:
    """A pattern's params, a shape and a sparsity that fit each other, and the nonzeros that must come out."""

    params: Mapping[str, Any]
    m: int
    k: int
    sparsity: float | None
    nnz: int


sizes = st.integers(1, 12)
sparsities = st.floats(0, 0.999) | st.sampled_from([0.0, 0.5, 0.75, 0.9])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def unstructured(draw: st.DrawFn) -> Ask:
    m, k, s = draw(st.integers(1, 30)), draw(st.integers(1, 30)), draw(sparsities)
    return Ask({}, m, k, s, kept_units(s, m * k))


@st.composite
def block(draw: st.DrawFn) -> Ask:
    bh, bw, down, across, s = draw(sizes), draw(sizes), draw(sizes), draw(sizes), draw(sparsities)
    return Ask({"block": [bh, bw]}, bh * down, bw * across, s, bh * bw * kept_units(s, down * across))


@st.composite
def constant_fan_in(draw: st.DrawFn) -> Ask:
    m, k, s = draw(st.integers(1, 30)), draw(st.integers(1, 30)), draw(sparsities)
    active = draw(st.integers(1, m))
    fan_in = min(k, nearest((1 - s) * (m * k / active)))
    return Ask({"ablated": 1 - active / m} if active < m else {}, m, k, s, active * fan_in)


@st.composite
def hierarchical(draw: st.DrawFn) -> Ask:
    """Two or three levels that leave room for the rounding of each."""
    fine = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    blocks = [fine]
    for _ in range(draw(st.integers(1, 2))):
        blocks.insert(0, (blocks[0][0] * draw(st.integers(1, 3)), blocks[0][1] * draw(st.integers(1, 3))))
    m, k = blocks[0][0] * draw(st.integers(2, 6)), blocks[0][1] * draw(st.integers(2, 6))
    shares = [draw(st.floats(0.75, 1, exclude_max=True)) for _ in blocks]
    levels = [{"block": list(size), "sparsity": s} for size, s in zip(blocks, shares, strict=True)]
    nnz = sum(bh * bw * kept_units(s, m * k // (bh * bw)) for (bh, bw), s in zip(blocks, shares, strict=True))
    return Ask({"levels": levels}, m, k, None, nnz)


@st.composite
def rbgp4(draw: st.DrawFn) -> Ask:
    outer, inner = (draw(st.integers(0, 2)) for _ in "oi")
    repeat, bh, bw = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    sides = [2**j * draw(st.integers(2, 3)) for j in (outer, outer, inner, inner)]
    tile = [sides[2] * repeat * bh, sides[3] * bw]
    m, k = sides[0] * tile[0], sides[1] * tile[1]
    params = {"tile": tile, "row_repeat": repeat, "block": [bh, bw], "outer_sparsity": 1 - 2.0**-outer}
    return Ask(params, m, k, 1 - 2.0 ** -(outer + inner), m * k >> (outer + inner))


@st.composite
def nm(draw: st.DrawFn) -> Ask:
    group, m, groups = draw(st.integers(1, 9)), draw(sizes), draw(sizes)
    kept = draw(st.integers(1, group))
    return Ask(
        {"nm": [kept, group]}, m, groups * group, draw(st.sampled_from([None, 1 - kept / group])), m * groups * kept
    )


ASKS: Mapping[str, st.SearchStrategy[Ask]] = {
    "dense": st.builds(lambda m, k: Ask({}, m, k, None, m * k), sizes, sizes),
    "unstructured": unstructured(),
    "block": block(),
    "constant_fan_in": constant_fan_in(),
    "hierarchical": hierarchical(),
    "rbgp4": rbgp4(),
    "nm": nm(),
}
DRAWN = [name for name in PATTERNS if name != "file"]
PRUNED = [name for name, cls in PATTERNS.items() if cls.prunes]


def random_weights(ask: Ask, seed: int) -> np.ndarray:
    """Few distinct magnitudes and many zeros, so that ties are everywhere."""
    return np.random.default_rng(seed).integers(-3, 4, (ask.m, ask.k)).astype(np.float32)


@pytest.mark.parametrize("name", DRAWN)
@quick
@given(data=st.data(), seed=seeds)
def test_random_draw_has_the_exact_size_and_follows_the_rng(name: str, data: st.DataObject, seed: int) -> None:
    ask = data.draw(ASKS[name])
    pattern = pattern_from(name, ask.params)
    assert pattern.why_not(ask.m, ask.k, ask.sparsity) is None
    first, again = (pattern.draw(ask.m, ask.k, ask.sparsity, np.random.default_rng(seed)) for _ in "12")
    assert first.mask.dtype == bool
    assert first.mask.shape == (ask.m, ask.k)
    assert np.count_nonzero(first.mask) == ask.nnz
    assert np.array_equal(first.mask, again.mask)
    assert np.array_equal(first.mask, pattern.mask(ask.m, ask.k, ask.sparsity, np.random.default_rng(seed)))
    json.dumps(dict(first.facts), allow_nan=False)


@pytest.mark.parametrize("name", PRUNED)
@pytest.mark.parametrize("constant", [False, True])
@quick
@given(data=st.data(), seed=seeds)
def test_pruned_draw_has_the_exact_size_whatever_the_ties(
    name: str, constant: bool, data: st.DataObject, seed: int
) -> None:
    ask = data.draw(ASKS[name])
    weights = np.zeros((ask.m, ask.k), np.float32) if constant else random_weights(ask, seed)
    pattern = pattern_from(name, ask.params)
    mask = pattern.from_weights(weights, ask.sparsity)
    assert mask.dtype == bool
    assert np.count_nonzero(mask) == ask.nnz
    assert np.array_equal(mask, pattern.draw_from(weights, ask.sparsity, np.random.default_rng(seed)).mask)
    assert np.array_equal(mask, pattern.from_weights(-weights, ask.sparsity))


@pytest.mark.parametrize("name", DRAWN)
@quick
@given(data=st.data())
def test_params_survive_json_and_equal_params_are_equal_patterns(name: str, data: st.DataObject) -> None:
    ask = data.draw(ASKS[name])
    pattern = pattern_from(name, ask.params)
    assert pattern == pattern_from(name, json.loads(json.dumps(ask.params)))
    assert len({pattern, pattern_from(name, ask.params)}) == 1
    assert all(bh >= 1 and bw >= 1 for _, bh, bw in pattern.blocks())


LARGER: Mapping[str, tuple[dict[str, Any], float | None]] = {
    "unstructured": ({}, 0.9),
    "block": ({"block": [4, 1]}, 0.9),
    "constant_fan_in": ({"ablated": 0.25}, 0.9),
    "hierarchical": ({"levels": [{"block": [4, 1], "sparsity": 0.63}, {"block": [1, 1], "sparsity": 0.97}]}, 0.6),
    "rbgp4": ({"tile": [32, 16], "row_repeat": 2, "outer_sparsity": 0.5}, 0.75),
    "nm": ({"nm": [2, 4]}, 0.5),
}


@pytest.mark.parametrize("name", LARGER)
def test_another_seed_is_another_mask(name: str) -> None:
    params, sparsity = LARGER[name]
    one, two = (pattern_from(name, params).mask(128, 64, sparsity, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("name", ["unstructured", "block", "constant_fan_in", "hierarchical"])
def test_every_entry_is_drawn_equally_often(name: str) -> None:
    params, sparsity = LARGER[name]
    rng, draws = np.random.default_rng(3), 400
    hits = np.sum([pattern_from(name, params).mask(8, 6, sparsity, rng) for _ in range(draws)], axis=0)
    share = hits.sum() / draws / hits.size
    assert (np.abs(hits - draws * share) < 5 * np.sqrt(draws * share * (1 - share))).all()


def test_every_pattern_is_under_these_laws() -> None:
    assert set(PATTERNS) == {*ASKS, "file"}
    assert all(cls.name == name and cls.about for name, cls in PATTERNS.items())


@given(st.integers(0, 100), st.integers(1, 10**7))
def test_kept_units_rounds_what_the_decimal_fraction_means(percent_kept: int, units: int) -> None:
    exact = Fraction(percent_kept, 100) * units + Fraction(1, 2)
    assert kept_units(1 - percent_kept / 100, units) == exact.__floor__()
    assert kept_units(float(1 - Fraction(percent_kept, 100)), units) == exact.__floor__()


@given(seeds, st.integers(0, 24))
def test_largest_keeps_no_score_below_one_it_drops(seed: int, kept: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, (4, 6)).astype(float)
    chosen = largest(scores, kept)
    order = sorted(range(24), key=lambda place: (-scores.flat[place], place))
    assert set(np.flatnonzero(chosen)) == set(order[:kept])


def test_block_keeps_the_largest_sums_of_magnitudes() -> None:
    weights = np.array([[9, 0, -1, 1], [0, 0, -1, 1], [3, 3, 0, 0], [3, -3, 0, 8]], dtype=np.float32)
    draw = pattern_from("block", {"block": [2, 2]}).draw_from(weights, 0.5, np.random.default_rng(0))
    assert draw.structure == (2, 2)
    assert np.array_equal(draw.mask, spread(np.array([[True, False], [True, False]]), (2, 2)))


def test_constant_fan_in_drops_the_weakest_rows_and_keeps_the_best_of_each() -> None:
    weights = np.array([[1, 2, 3, 4], [1, -1, 1, 1], [0, -9, 8, 7], [2, 2, 2, 2]], dtype=np.float32)
    draw = pattern_from("constant_fan_in", {"ablated": 0.25}).draw_from(weights, 0.625, np.random.default_rng(0))
    assert draw.mask.astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]]
    assert draw.facts == {"active_rows": 3, "fan_in": 2}


def test_nm_keeps_the_largest_of_each_group() -> None:
    weights = np.array([[1, -3, 2, 0, 5, 5, 5, -5], [0, 0, 0, 1, 9, 8, -7, 6]], dtype=np.float32)
    draw = pattern_from("nm", {"nm": [2, 4]}).draw_from(weights, None, np.random.default_rng(0))
    assert draw.mask.astype(int).tolist() == [[0, 1, 1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 1, 0, 0]]
    assert (draw.structure, draw.facts) == ((2, 4), {"nm": "2:4"})


def test_nm_places_are_drawn_equally_often() -> None:
    rng, draws = np.random.default_rng(3), 400
    hits = np.sum([pattern_from("nm", {"nm": [2, 4]}).mask(6, 8, None, rng) for _ in range(draws)], axis=0)
    assert (np.abs(hits - draws / 2) < 5 * np.sqrt(draws / 4)).all()


@given(constant_fan_in(), seeds)
def test_constant_fan_in_is_constant_and_as_sparse_as_asked(ask: Ask, seed: int) -> None:
    pattern = pattern_from("constant_fan_in", ask.params)
    mask = pattern.mask(ask.m, ask.k, ask.sparsity, np.random.default_rng(seed))
    per_row = mask.sum(axis=1)
    active = kept_units(ask.params.get("ablated", 0.0), ask.m)
    assert len({*per_row} - {0}) <= 1
    assert ask.sparsity is not None
    achieved, room = 1 - mask.mean(), active / ask.m >= 1 - ask.sparsity
    assert abs(achieved - ask.sparsity) <= active / (2 * ask.m * ask.k) + 1e-6 if room else achieved > ask.sparsity


def test_dense_is_full_also_from_weights_and_file_draws_nothing() -> None:
    assert pattern_from("dense", {}).from_weights(np.zeros((2, 3), np.float32), None).all()
    with pytest.raises(PatternError, match=r"takes its mask \[2, 3\] from a problem with matrices or weights"):
        pattern_from("file", {}).draw(2, 3, None, np.random.default_rng(0))


MISFITS = [
    (
        "nm",
        {"nm": [2, 4]},
        (8, 30, None),
        "groups of 4 do not fill the rows of 8x30: 30 columns are not a multiple of 4",
    ),
    ("nm", {"nm": [2, 4]}, (8, 32, 0.75), "2 of 4 makes sparsity 0.5, 0.75 was asked for; leave it out"),
    ("block", {"block": [4, 1]}, (30, 64, 0.5), "block 4x1 does not divide 30x64: 30 rows are not a multiple of 4"),
    (
        "block",
        {"block": [1, 16]},
        (30, 40, 0.5),
        "block 1x16 does not divide 30x40: 40 columns are not a multiple of 16",
    ),
    ("dense", {}, (2, 2, 0.5), "dense keeps every weight, sparsity 0.5 was asked for; leave sparsity out"),
    ("file", {}, (2, 2, 0.5), "the file fixes the sparsity, 0.5 was asked for"),
    ("constant_fan_in", {"ablated": 0.9}, (4, 4, 0.5), "ablated 0.9 leaves none of 4 rows on; choose a smaller share"),
]


@pytest.mark.parametrize(("name", "params", "asked", "sentence"), MISFITS)
def test_a_shape_that_does_not_fit_is_a_sentence_and_an_error(
    name: str, params: dict[str, Any], asked: tuple[int, int, float | None], sentence: str
) -> None:
    m, k, sparsity = asked
    pattern = pattern_from(name, params)
    assert sentence in (pattern.why_not(m, k, sparsity) or "")
    with pytest.raises(PatternError, match=re.escape(sentence)):
        pattern.draw(m, k, sparsity, np.random.default_rng(0))


WRONG = [
    ("nm", {"nm": [5, 4]}, r"nm must be two whole numbers \[N, M\] with 1 <= N <= M, such as \[2, 4\], found \[5, 4\]"),
    ("nm", {"nm": 2}, r"such as \[2, 4\], found 2"),
    ("nm", {"nm": [0, 4]}, r"found \[0, 4\]"),
    ("nm", {"nm": [2, True]}, r"found \[2, True\]"),
    ("blocks", {}, r"no pattern is called 'blocks'; there are dense, unstructured"),
    ("block", {"size": 4}, r"pattern block has no parameter 'size'; it takes \['block'\]"),
    ("block", {}, r"pattern block: .*missing.*'block'"),
    ("block", {"block": 4}, r"block must be two whole numbers of at least 1, \[rows, columns\], found 4"),
    ("block", {"block": [4, 0]}, r"found \[4, 0\]"),
    ("block", {"block": [4, True]}, r"found \[4, True\]"),
    ("block", {"block": [4, 1, 1]}, r"found \[4, 1, 1\]"),
    ("block", {"block": [4.0, 1]}, r"found \[4\.0, 1\]"),
    ("constant_fan_in", {"ablated": 1.0}, r"ablated must be in \[0, 1\), found 1\.0; 0\.25 switches a quarter"),
    ("constant_fan_in", {"ablated": "half"}, r"ablated must be in \[0, 1\), found 'half'"),
]


@pytest.mark.parametrize(("name", "params", "message"), WRONG)
def test_wrong_params_are_named(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(PatternError, match=message):
        pattern_from(name, params)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 1.2, float("nan"), None, "0.5", True])
@pytest.mark.parametrize("name", ["unstructured", "block", "constant_fan_in", "rbgp4"])
def test_a_sparsity_out_of_range_is_refused(name: str, sparsity: Any) -> None:
    pattern: Pattern = pattern_from(name, LARGER[name][0])
    with pytest.raises(PatternError, match=rf"sparsity must be in \[0, 1\), found {sparsity}"):
        pattern.draw(128, 64, sparsity, np.random.default_rng(0))
    with pytest.raises(PatternError, match=r"0\.9 means that a tenth of the weights is kept"):
        checked_sparsity(sparsity)


@pytest.mark.parametrize("name", PRUNED)
def test_weights_that_are_not_finite_are_not_ranked(name: str) -> None:
    params, sparsity = LARGER[name]
    weights = np.ones((8, 8), np.float32)
    weights[5, 3] = np.nan
    with pytest.raises(PatternError, match=r"weights must be finite to be ranked, the block at row \d"):
        pattern_from(name, params).from_weights(weights, sparsity)


def test_sums_of_magnitudes_do_not_overflow_or_lose_small_terms() -> None:
    big = np.full((2, 2), 3e38, np.float32)
    assert magnitudes(big, (2, 2))[0, 0] == pytest.approx(1.2e39, rel=1e-6)
    half = np.array([[60000, 1, 60000, -1]], np.float16)
    assert magnitudes(half, (1, 4))[0, 0] == magnitudes(half).sum()
