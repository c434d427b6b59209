"""HBS against section 2.3 of the HBsNN paper, done entry by entry in plain Python, and table 2's measure."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebench.errors import PatternError
from sparsebench.patterns import Hierarchical, Levels, kept_units, retained_share
from sparsebench.patterns.hierarchical import Level

PAPER = [{"block": [2, 2], "sparsity": 0.5}, {"block": [1, 1], "sparsity": 0.75}]  # figure 2, on 4x4


def levels_of(*levels: tuple[int, int, float]) -> Hierarchical:
    """The pattern with levels (block rows, block columns, sparsity)."""
    return Hierarchical(tuple(Level((bh, bw), sparsity) for bh, bw, sparsity in levels))


FIGURE = Hierarchical.from_params({"levels": PAPER})


def by_the_paper(weights: np.ndarray, levels: tuple[Level, ...]) -> list[np.ndarray]:
    """M_1, M_2, ... : rank the blocks of I_i by sum |w|, keep the best, I_(i+1) = I_i - M_i; ties by position."""
    m, k = weights.shape
    taken, masks = np.zeros((m, k), bool), []
    for level in levels:
        bh, bw = level.block
        corners = [(i, j) for i in range(0, m, bh) for j in range(0, k, bw)]
        free = [(i, j) for i, j in corners if not taken[i, j]]
        sums = [float(np.abs(weights[i : i + bh, j : j + bw]).sum()) for i, j in free]
        best = sorted(range(len(free)), key=[-total for total in sums].__getitem__)
        mask = np.zeros((m, k), bool)
        for i, j in (free[place] for place in best[: kept_units(level.sparsity, len(corners))]):
            mask[i : i + bh, j : j + bw] = True
        taken |= mask
        masks.append(mask)
    return masks


def assert_is_a_hierarchy(pattern: Hierarchical, structure: Levels, mask: np.ndarray) -> None:
    owners = np.sum(structure.masks, axis=0, dtype=int)
    assert owners.max(initial=0) <= 1
    assert np.array_equal(owners == 1, mask)
    assert structure.blocks == tuple(level.block for level in pattern.levels)
    for level, level_mask in zip(pattern.levels, structure.masks, strict=True):
        (bh, bw), (m, k) = level.block, mask.shape
        sums = level_mask.reshape(m // bh, bh, k // bw, bw).sum(axis=(1, 3))
        assert set(np.unique(sums)) <= {0, bh * bw}
        assert np.count_nonzero(sums) == kept_units(level.sparsity, sums.size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.sampled_from([0.25, 0.5, 0.75, 0.9]))
def test_pruning_is_the_papers_whatever_the_ties(seed: int, largest_weight: int, first: float) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-largest_weight, largest_weight + 1, (8, 8)).astype(np.float32)
    pattern = levels_of((4, 2, first), (2, 2, 0.875), (1, 2, 0.9375))
    draw = pattern.draw_from(weights, None, rng)
    assert_is_a_hierarchy(pattern, draw.structure, draw.mask)
    for found, expected in zip(draw.structure.masks, by_the_paper(weights, pattern.levels), strict=True):
        assert np.array_equal(found, expected)
    random = pattern.draw(8, 8, None, rng)
    assert_is_a_hierarchy(pattern, random.structure, random.mask)


def test_the_papers_figure() -> None:
    weights = np.array([[9, 8, 0, 5], [7, 6, 0, 0], [1, 2, 4, 4], [3, 1, 4, 4]], np.float32)
    draw = FIGURE.draw_from(weights, 0.25, np.random.default_rng(0))
    coarse, fine = (mask.astype(int).tolist() for mask in draw.structure.masks)
    assert coarse == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert fine == [[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert draw.facts == {"levels_nnz": [8, 4]}
    assert FIGURE.blocks() == ((0.5, 2, 2), (0.75, 1, 1))


def test_zero_weights_never_win_over_a_taken_block() -> None:
    """Every weight that is not zero is in the first level; the second still keeps its 4 entries, of the zeros."""
    weights = np.kron(np.array([[1, 0], [0, 1]]), np.ones((2, 2))).astype(np.float32)
    draw = FIGURE.draw_from(weights, None, np.random.default_rng(0))
    assert [int(mask.sum()) for mask in draw.structure.masks] == [8, 4]
    assert not (draw.structure.masks[0] & draw.structure.masks[1]).any()


@pytest.mark.parametrize(("s1", "s2"), [(0.63, 0.97), (0.65, 0.95), (0.70, 0.90), (0.80, 0.80)])
def test_the_papers_levels_make_sixty_percent(s1: float, s2: float) -> None:
    pattern = levels_of((4, 1, s1), (1, 1, s2))
    assert pattern.sparsity == pytest.approx(0.6)
    assert pattern.why_not(400, 100, 0.6) is None
    assert pattern.mask(400, 100, 0.6, np.random.default_rng(0)).sum() == 16000


WRONG: list[tuple[Any, str]] = [
    ([], "levels must be a list of at least one {block, sparsity}, found []"),
    ({"block": [4, 1]}, "levels must be a list of at least one"),
    ([[4, 1]], "level 1 must be {block: [rows, columns], sparsity: s}, found [4, 1]"),
    ([{"block": [4, 1], "sparsity": 0.5, "size": 1}], "level 1 must be {block: [rows, columns], sparsity: s}"),
    ([{"block": [4, 0], "sparsity": 0.5}], "level 1: block must be two whole numbers of at least 1"),
    ([PAPER[0], {"block": [1, 1], "sparsity": 1.2}], "level 2: sparsity must be in [0, 1), found 1.2"),
    (
        [{"block": [4, 1], "sparsity": 0.9}, {"block": [3, 1], "sparsity": 0.9}],
        "blocks of a level must divide those of the level before: 3x1 of level 2 does not divide 4x1 of level 1",
    ),
    (
        [{"block": [1, 4], "sparsity": 0.9}, {"block": [1, 4], "sparsity": 0.9}, {"block": [1, 8], "sparsity": 0.9}],
        "1x8 of level 3 does not divide 1x4 of level 2",
    ),
    (
        [{"block": [2, 2], "sparsity": 0.2}, {"block": [1, 1], "sparsity": 0.5}],
        "levels keep 80 % + 50 % = 130 % of the weights, more than all; prune more",
    ),
]


@pytest.mark.parametrize(("levels", "message"), WRONG)
def test_wrong_levels_are_named(levels: Any, message: str) -> None:
    with pytest.raises(PatternError, match=re.escape(message)):
        Hierarchical.from_params({"levels": levels})


def test_a_shape_or_sparsity_that_does_not_fit_is_a_sentence() -> None:
    assert FIGURE.why_not(5, 4) == "block 2x2 does not divide 5x4: 5 rows are not a multiple of 2"
    assert FIGURE.why_not(4, 4, 0.5) == "its levels make sparsity 0.25, 0.5 was asked for; leave it out"
    with pytest.raises(PatternError, match=r"pattern hierarchical: its levels make sparsity 0\.25"):
        FIGURE.draw(4, 4, 0.5, np.random.default_rng(0))


def test_levels_that_rounding_makes_impossible_are_refused() -> None:
    """Half of one block is rounded to one, and then nothing is left for the second level."""
    pattern = levels_of((1, 1, 0.5), (1, 1, 0.5))
    sentence = "level 2 should keep 1 of 1 blocks 1x1, but earlier levels leave 0; prune more"
    assert pattern.why_not(1, 1) == sentence
    with pytest.raises(PatternError, match=sentence):
        pattern.from_weights(np.ones((1, 1), np.float32), None)


def test_retained_share_counts_the_largest_magnitudes() -> None:
    weights = np.array([[-10, 9, 8, 7, 6], [5, 4, 3, 2, 1]], np.float32)
    mask = np.abs(weights) > 7
    assert retained_share(weights, mask) == (1.0, 1.0, 1.0, 0.75)
    assert retained_share(weights, ~mask, tops=(0.3, 1.0)) == (0.0, 0.7)


def test_a_second_level_saves_the_largest_weights() -> None:
    """The ordering of the paper's table 2, on weights of its own: normal ones, 256x128."""
    weights = np.random.default_rng(0).standard_normal((256, 128))
    patterns = [levels_of((4, 1, 0.6)), *(levels_of((4, 1, s), (1, 1, 1.6 - s)) for s in (0.63, 0.65, 0.7, 0.8))]
    table = np.array([retained_share(weights, pattern.from_weights(weights, 0.6)) for pattern in patterns])
    rises = np.diff(table, axis=0)
    assert ((rises > 0) | (table[:-1] == 1)).all()
    assert (table[1:, 0] == 1).all()
