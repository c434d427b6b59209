"""The frame: a row for each record and cache, numbers that agree with the record, words that name a pattern."""

from dataclasses import replace

import pandas as pd
import pytest
from replay import broken, file_records, usual_arms, usual_world

from sparsebench.case import Case
from sparsebench.desk.arms import arms, best_per_problem, break_evens, geomean
from sparsebench.desk.frame import COLUMNS, frame, timed_sparse
from sparsebench.desk.names import arm_text, family_text, pattern_option
from sparsebench.pattern_text import parse_pattern
from sparsebench.record import Protocol

WORLD = usual_world()
HBS = {"levels": [{"block": [4, 1], "sparsity": 0.63}, {"block": [1, 1], "sparsity": 0.97}]}
RBGP4 = {"tile": [128, 32], "row_repeat": 4, "block": [1, 1], "outer_sparsity": 0.5}


def case(pattern="block", params=None, sparsity=0.9, n=64):
    return Case(
        m=256, k=512, n=n, pattern=pattern, params={"block": [4, 1]} if params is None else params, sparsity=sparsity
    )


def test_numbers_agree_with_the_record():
    record = replace(WORLD.record(case(), "bsr.c"), layout_s={"bsr.c": 1e-6, "dense.onednn": 0.0, "dense.torch": 5e-5})
    row = next(frame([record]).itertuples())
    total = record.speedup(total=True)
    assert (row.m, row.k, row.n, row.pattern, row.block, row.bh, row.bw) == (256, 512, 64, "block", "4x1", 4, 1)
    assert row.sparsity == pytest.approx(record.sparsity)
    assert (row.requested, row.rounds, row.outcome, row.dense) == (0.9, 9, "ok", False)
    assert row.time_s == pytest.approx(record.median_s())
    assert row.total_s == pytest.approx(record.median_s() + 1e-6)
    assert (row.speedup_total, row.speedup_total_low, row.speedup_total_high) == (total.median, total.low, total.high)
    assert row.speedup != row.speedup_total
    assert row.baseline == "dense.onednn"
    assert row.irf_total == pytest.approx((1 - record.sparsity) * total.median)
    assert row.useful_gflop_per_s == pytest.approx(2 * record.nnz * 64 / record.median_s() / 1e9)


def test_each_cache_is_a_row_and_flags_go_to_theirs():
    world = usual_world(protocol=Protocol(cache=("hot", "weights_cold")))
    record = replace(world.record(case(), "bsr.c"), flags=["wide_spread:bsr.c:hot", "loose:bsr.c"])
    table = frame([record]).set_index("cache")
    assert list(table.index) == ["hot", "weights_cold"]
    assert table["flags"]["hot"] == ["wide_spread:bsr.c:hot", "loose:bsr.c"]
    assert table["flags"]["weights_cold"] == ["loose:bsr.c"]


def test_trials_without_times_are_rows_without_numbers():
    table = frame([broken(WORLD.record(case(), "bsr.c"), "wrong", "precision gate")])
    assert list(table.columns) == list(COLUMNS)
    assert (table.outcome[0], table.reason[0]) == ("wrong", "precision gate")
    assert pd.isna(table.time_s[0])
    assert timed_sparse(table).empty


def test_no_records_make_an_empty_frame():
    assert frame([]).empty
    assert arms(frame([])).empty
    assert break_evens(frame([])).empty
    assert best_per_problem(frame([])).empty


def test_a_record_of_an_unknown_pattern_is_a_row_all_the_same():
    odd = replace(WORLD.record(case(), "bsr.c"), case=replace(case(), pattern="spiral", params={}))
    assert frame([odd]).arm[0] == "spiral 90 %"


WORDS = [
    # case, arm, family, option
    (case(), "block 4x1 90 %", "block 4x1", "block:4x1"),
    (case("unstructured", {}), "unstructured 90 %", "unstructured", "unstructured"),
    (case("file", {}, None), "file", "file", "unstructured"),
    (
        case("unstructured", {"from": "magnitude"}),
        "unstructured by magnitude 90 %",
        "unstructured by magnitude",
        "unstructured",
    ),
    (
        case("constant_fan_in", {"ablated": 0.25}),
        "constant_fan_in ablated 25 % 90 %",
        "constant_fan_in ablated 25 %",
        "constant_fan_in",
    ),
    (
        case("hierarchical", HBS, None),
        "hierarchical 4x1 63 % + 1x1 97 %",
        "hierarchical 4x1+1x1",
        "hierarchical:4x1@0.63+1x1@0.97",
    ),
    (
        case("rbgp4", RBGP4, 0.75),
        "rbgp4 128x32 r4 1x1 75 % (outer 50 %)",
        "rbgp4 128x32 r4 1x1",
        "rbgp4:128x32,r4,1x1,o0.5",
    ),
]


@pytest.mark.parametrize(("made", "arm", "family", "option"), WORDS)
def test_patterns_in_words(made, arm, family, option):
    assert (arm_text(made), family_text(made), pattern_option(made)) == (arm, family, option)
    parse_pattern(option)  # what a verdict tells to type is what the command line takes


def test_levels_of_one_block_list_are_arms_of_their_own():
    other = {"levels": [{"block": [4, 1], "sparsity": 0.8}, {"block": [1, 1], "sparsity": 0.8}]}
    world = usual_world(rates={"hbs.c": lambda kept, bh, bw, n: 1e-11})
    table = frame([world.record(case("hierarchical", params, None), "hbs.c") for params in (HBS, other)])
    assert len(arms(table)) == 2


def test_arms_are_geometric_means_over_problems():
    records = WORLD.sweep([(256, 512), (768, 3072)], [64], usual_arms([0.9])[2:3])
    found = arms(frame(records)).iloc[0]
    speedups = [r.speedup(total=True).median for r in records if r.kernel == "bsr.c"]
    assert found.problems == 2
    assert found.speedup == pytest.approx(geomean(speedups))
    assert (found.least, found.most) == (min(speedups), max(speedups))
    assert (found.wins, found.losses) == (2, 0)


def test_break_evens_are_interpolated_where_they_are_bracketed():
    table = frame(WORLD.sweep([(768, 3072)], [64], usual_arms([0.5, 0.8, 0.9, 0.95])))
    found = break_evens(table).set_index("family")
    assert found.verdict["block 16x16"] == "always faster"
    assert 0.8 < found.sparsity["unstructured"] < 0.9
    assert found.verdict["unstructured"] == "crosses"
    slow = frame(
        usual_world(rates={"csr.c": lambda kept, bh, bw, n: 1e-9}).sweep(
            [(256, 512)], [64], usual_arms([0.5, 0.9])[::4]
        )
    )
    assert break_evens(slow).verdict.tolist() == ["never faster"]


def test_masks_of_files_are_grouped_by_what_they_are():
    table = frame(file_records(WORLD, 6))
    assert set(table["mask"]) == {"", "file"}
    assert arms(table).problems.tolist() == [12]
    assert len(best_per_problem(table)) == 12


def test_a_matrix_without_nonzeros_compares_nothing():
    record = WORLD.record(case("file", {}, None), "csr.c", nnz=100)
    table = frame([record, replace(record, key="empty", case=replace(record.case, seed=1), nnz=0)])
    assert len(table) == 2
    assert timed_sparse(table).nnz.tolist() == [100]
    assert break_evens(table).empty
