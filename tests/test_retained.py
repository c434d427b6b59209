"""Table 2 of HBsNN on real weights keeps the paper's order, and says what it leaves out."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from sparsebench.errors import MissingNeed
from sparsebench.lab.retained import (
    CONFIGS,
    INSTALL,
    PACKAGES,
    markdown,
    prunable,
    retained_table,
    weight_file,
    why_left_out,
)
from sparsebench.patterns import Hierarchical, retained_share
from sparsebench.sources import TensorInfo

INSTALLED = all(importlib.util.find_spec(name.replace("-", "_")) for name in PACKAGES)


def test_layers_weigh_by_their_size() -> None:
    rng = np.random.default_rng(0)
    weights = {"small": rng.standard_normal((8, 5)), "large": rng.standard_normal((40, 30))}
    rows = retained_table(weights)
    assert [row.config for row in rows] == list(CONFIGS)
    for row, levels in zip(rows, CONFIGS.values(), strict=True):
        each = [retained_share(w, Hierarchical(levels).from_weights(w, None)) for w in weights.values()]
        assert row.shares == pytest.approx(np.average(each, axis=0, weights=[40, 1200]))
        assert row.sparsity == pytest.approx(0.6, abs=0.01)
    assert rows[-1].shares == (1.0, 1.0, 1.0, 1.0)


def test_what_is_left_out_is_said() -> None:
    infos = [
        TensorInfo("stem.weight", 32, 27, "weights", "", (32, 3, 3, 3)),
        TensorInfo("depth.weight", 32, 9, "weights", "", (32, 1, 3, 3)),
        TensorInfo("point.weight", 16, 32, "weights", "", (16, 32, 1, 1)),
        TensorInfo("embeddings.word.weight", 400, 8, "weights", ""),
        TensorInfo("fc.weight", 10, 16, "weights", ""),
        TensorInfo("head.weight", 12, 16, "weights", ""),
    ]
    assert why_left_out(infos) == {
        "stem.weight": "first convolution",
        "depth.weight": "depthwise convolution",
        "embeddings.word.weight": "embedding",
        "fc.weight": "10 rows do not divide by 4",
    }


def test_a_package_that_is_not_there_says_what_to_install() -> None:
    with pytest.raises(MissingNeed, match="weight packages are not installed"):
        weight_file("sparsebench-no-such-package")
    with pytest.raises(MissingNeed, match=r"package pytest brings no \.pth or \.safetensors; install its version"):
        weight_file("pytest")


@pytest.mark.skipif(not INSTALLED, reason=INSTALL)
@pytest.mark.parametrize("package", PACKAGES)
def test_real_weights_keep_the_papers_order(package: str) -> None:
    weights, left_out = prunable(weight_file(package))
    rows = retained_table(weights)
    table = np.array([row.shares for row in rows])
    rises = np.diff(table, axis=0)
    assert ((rises > 0) | (table[:-1] == 1)).all(), "row by row more of the largest weights is kept"
    assert (np.diff(table, axis=1) <= 0).all(), "the larger the share asked for, the less of it is kept"
    assert (table[1:, 0] == 1).all(), "any second level saves the top 10 % whole"
    assert (table[0] < 1).all()
    assert [row.sparsity for row in rows] == pytest.approx([0.6] * len(rows), abs=1e-4)
    text = markdown(package, rows, weights, left_out)
    assert f"| 4x1/60 | {100 * table[0, 0]:.2f} |" in text
    assert f"{len(weights)} layers" in text
