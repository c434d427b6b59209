"""Triton bodies run in Triton's interpreter (triton_on_cpu.py): tails, edges, both layouts, every path of a body."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cuda_on_cpu.toolchain import H100

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)


pytestmark = pytest.mark.shim


def block(m: int, k: int, n: int, bh: int, bw: int, sparsity: float = 0.5, **more: Any) -> dict[str, Any]:
    """A question about blocks."""
    return {"m": m, "k": k, "n": n, "pattern": "block", "params": {"block": [bh, bw]}, "sparsity": sparsity, **more}


def shared(
    tile: tuple[int, int], repeat: int, bh: int, bw: int, n: int, *, outer: float = 0.0, **more: Any
) -> dict[str, Any]:
    """A question about rows that share a list: half of G_i's edges are there, where its 4 rows allow it."""
    inner = 0.5 if tile[0] == 4 * repeat * bh else 0.0
    tiles = 4 if outer else 2
    return {
        "m": tiles * tile[0],
        "k": tiles * tile[1],
        "n": n,
        "pattern": "rbgp4",
        "params": {"tile": list(tile), "row_repeat": repeat, "block": [bh, bw], "outer_sparsity": outer},
        "sparsity": 1 - (1 - outer) * (1 - inner),
        **more,
    }


# label: case, sizes in place of the default tile's
PROBLEMS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "several blocks a step": (block(64, 80, 5, 16, 16), {}),
    "a block a step": (block(64, 128, 33, 16, 32), {}),
    "a part of a block a step": (block(64, 256, 70, 32, 64), {}),
    "low and wide": (block(32, 384, 17, 16, 128), {}),
    "high and narrow": (block(256, 64, 16, 128, 16), {}),
    "no block at all": (block(64, 64, 3, 16, 16, 0.99), {}),
    "no larger block at all": (block(64, 64, 3, 32, 32, 0.99), {}),
    # Two blocks a step, rows of 5 and 1 blocks, none has the first: X is NaN where a step past the end would read.
    "unused columns": (block(32, 256, 9, 16, 16, 0.8), {}),
    "one column": (block(128, 128, 1, 64, 64), {}),
    "swapped": (block(32, 96, 130, 16, 16, dtype="float16"), {"columns": 64, "swap": True}),
    "swapped, parts": (block(64, 256, 64, 32, 64, dtype="float16"), {"columns": 64, "depth": 32, "swap": True}),
    "half as wide": (block(64, 64, 40, 32, 32, dtype="float16"), {}),
    "X too large for L2": (block(64, 64, 40, 16, 16), {"columns": 16}),
    "absent tiles": (shared((128, 16), 64, 1, 1, 5, outer=0.5), {"lists": 2}),
    "runs of 4 rows": (shared((128, 32), 16, 4, 1, 33), {"lists": 1}),
    "2x2 blocks": (shared((256, 16), 32, 2, 2, 16), {"lists": 2}),
    "one inner row": (shared((64, 16), 64, 1, 1, 3), {}),
    "128 rows in halves": (shared((256, 16), 128, 1, 1, 18), {"rows": 64, "lists": 2}),
    "128 rows": (shared((256, 16), 128, 1, 1, 18), {"rows": 128, "lists": 2}),
    "several steps": (shared((128, 64), 64, 1, 1, 17), {"lists": 2}),
    "a padded list": (shared((256, 12), 64, 1, 1, 17), {"lists": 4}),
    "three inner rows": (shared((192, 24), 64, 1, 1, 20, dtype="float16"), {"lists": 0}),
    "four lists of 16 bits": (shared((256, 32), 64, 1, 1, 33, dtype="float16"), {"lists": 4}),
    "two tiles of n": (shared((128, 16), 64, 1, 1, 20), {"columns": 16, "lists": 2}),
    "Y transposed": (shared((128, 32), 64, 1, 1, 20), {"lists": 0}),
}


def questions() -> Iterator[dict[str, Any]]:
    """Every problem in both layouts: integers before a closed page, normal numbers after one; two identities."""
    for label, (case, tile) in PROBLEMS.items():
        for layout in ("feature", "batch"):
            sizes = {name: size for name, size in tile.items() if name != "lists" or layout == "batch"}
            for data, side in (("integers", "end"), ("normal", "start")):
                yield {
                    "label": f"{label}, {layout}, {data}",
                    "kernel": "bsr.triton" if case["pattern"] == "block" else "rbgp4.triton",
                    "case": case | {"layout": layout},
                    "tile": sizes or None,
                    "data": data,
                    "side": side,
                    "cache_bytes": 1024 if label == "X too large for L2" else H100.cache_bytes,
                }
    identity = {"tile": None, "data": "identity", "side": "end", "cache_bytes": H100.cache_bytes}
    yield identity | {"label": "identity, blocks", "kernel": "bsr.triton", "case": block(32, 64, 64, 16, 16)}
    yield identity | {"label": "identity, lists", "kernel": "rbgp4.triton", "case": shared((128, 32), 64, 1, 1, 64)}


QUESTIONS = list(questions())


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each question, by label; what is missing ended the process."""
    script = Path(__file__).with_name("triton_on_cpu.py")
    command = [sys.executable, str(script), str(tmp_path_factory.mktemp("shim"))]
    done = subprocess.run(command, input=json.dumps(QUESTIONS), capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    finished = {answer["label"]: answer for answer in said if "label" in answer}
    assert len(finished) == len(QUESTIONS), f"it ended ({done.returncode}) in {said[-1:]}: {done.stderr[-2000:]}"
    return finished


@pytest.mark.parametrize("label", [question["label"] for question in QUESTIONS])
def test_the_interpreter_finds_the_product(label, answers):
    assert answers[label]["ratio"] <= 1


def test_the_record_says_tile_and_v(answers):
    facts = answers["runs of 4 rows, batch, integers"]["facts"]
    assert facts["V"] == 64
    assert facts["tuned"] is False
    assert set(facts["tile"]) == {"rows", "columns", "depth", "warps", "stages", "lists"}
    assert answers["four lists of 16 bits, batch, integers"]["facts"]["tile"]["lists"] == 4
