"""`from: imbalanced`: masks as uneven as those of really pruned layers, and nothing else changed."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from planning import KERNELS, suite

from sparsebench.case import Case
from sparsebench.desk.names import arm_text, family_text
from sparsebench.patterns import imbalanced
from sparsebench.patterns.imbalance import COLUMNS, ROWS
from sparsebench.record import Record, record_key

RESULTS = Path(__file__).parents[1] / "results"
# Least and largest coefficient of variation of nonzeros a row and a column among DLMC's magnitude-pruned layers of at
# least 512 rows and columns (25 of ResNet-50 and Transformer), by sparsity; narrower layers vary more.
REAL = {0.8: ((0.11, 0.29), (0.11, 0.31)), 0.9: ((0.17, 0.46), (0.16, 0.47)), 0.95: ((0.17, 0.64), (0.25, 0.65)),
        0.98: ((0.24, 1.02), (0.30, 1.41))}  # fmt: skip


def case(sparsity: float = 0.9, origin: str | None = "imbalanced", **more) -> Case:
    params = {"from": origin} if origin else {}
    return Case(
        **{"m": 1024, "k": 512, "n": 8, "pattern": "unstructured", "sparsity": sparsity, "params": params, **more}
    )


def variation(mask: np.ndarray) -> tuple[float, float]:
    """Coefficients of variation of nonzeros a row and a column."""
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    return rows.std() / rows.mean(), columns.std() / columns.mean()


@pytest.mark.parametrize("sparsity", REAL)
def test_imbalance_is_that_of_real_layers_at_every_sparsity(sparsity):
    found = np.array([variation(case(sparsity, seed=seed).draw().mask) for seed in range(9)])
    for middle, (low, high) in zip(np.median(found, axis=0), REAL[sparsity], strict=True):
        assert low < middle < high
    for each, (low, high) in zip(found.T, REAL[sparsity], strict=True):  # of single layers, at most a tenth either side
        assert np.mean((low < each) & (each < high)) >= 0.7


@pytest.mark.parametrize("sparsity", REAL)
def test_masks_of_plain_weights_are_too_even(sparsity):
    """They have two thirds of the imbalance at most, and less than any real layer where chance adds little."""
    uneven = np.median([variation(case(sparsity, seed=seed).draw().mask) for seed in range(9)], axis=0)
    for origin in (None, "magnitude"):
        plain = np.array(variation(case(sparsity, origin).draw().mask))
        assert (plain < uneven * 2 / 3).all()
        assert sparsity > 0.9 or (plain < np.array(REAL[sparsity])[:, 0]).all()


def test_a_mask_depends_on_seed_and_shape_and_is_sparser_within_the_less_sparse_one():
    half, most = case(0.5).draw().mask, case(0.9).draw().mask
    assert np.array_equal(most, case(0.9, n=64, dtype="bfloat16").draw().mask)
    assert not (most & ~half).any()
    assert not np.array_equal(most, case(0.9, seed=1).draw().mask)
    assert most.sum() == case(0.9, None).draw().mask.sum()


def test_values_are_those_of_every_other_pattern_of_the_shape():
    assert np.array_equal(case().values(), case(origin=None).values())


@pytest.mark.parametrize(
    ("pattern", "params"), [("block", {"block": [4, 4]}), ("constant_fan_in", {}), ("nm", {"nm": [2, 4]})]
)
def test_every_pattern_that_prunes_takes_it(pattern, params):
    sparsity = None if pattern == "nm" else 0.75
    asked = case(sparsity, pattern=pattern, params={**params, "from": "imbalanced"})
    assert asked.draw().mask.mean() == pytest.approx(0.5 if pattern == "nm" else 0.25)
    assert variation(asked.draw().mask)[1] > variation(replace(asked, params=params).draw().mask)[1]


def test_scales_have_the_documented_spread():
    logs = [np.log(imbalanced(np.ones((4096, 1), np.float32), np.random.default_rng(i))[:, 0]).std() for i in range(40)]
    assert ROWS[0] * 0.9 < min(logs) < max(logs) < ROWS[1] * 1.1
    assert COLUMNS[1] > ROWS[1]


def test_an_arm_says_it_and_a_table_names_it(tmp_path):
    text = (
        "name: a\nproblems:\n  - {m: 8, k: 8, n: 1}\narms:\n"
        "  - {pattern: unstructured, sparsity: 0.5, from: [], kernels: [csr.c]}\n"
    )
    made = suite(tmp_path, text.replace("[]", "imbalanced"))
    (asked,) = [trial.case for trial in made.trials(KERNELS) if trial.case.pattern != "dense"]
    assert (asked.params, asked.origin, asked.source) == ({"from": "imbalanced"}, "imbalanced", None)
    assert (family_text(asked), arm_text(asked)) == ("unstructured imbalanced", "unstructured imbalanced 50 %")
    graphs = case(0.75, None, pattern="rbgp4", params={"tile": [64, 32]})
    assert graphs.origin == "random"


def test_committed_records_keep_their_keys():
    """A record's key is a hash of its case, kernel, baselines, machine, protocol and versions: results/ stays valid."""
    seen = 0
    for path in sorted(RESULTS.glob("*/*.jsonl")):
        if path.name == "peaks.jsonl":
            continue
        with path.open() as lines:
            for line in islice(lines, 0, None, 97):
                record = Record.from_json(line)
                assert record.case.to_json() == json.loads(line)["case"]
                asked = (record.case, record.kernel, record.source_sha, record.baselines)
                assert record_key(*asked, record.machine, record.protocol, record.versions) == record.key
                seen += 1
    assert seen > 20
