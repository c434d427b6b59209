"""The table of tiles: what is kept, what is believed, and what never stops a launch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from sparsebench.kernels import _tuning
from sparsebench.kernels._tuning import best, cache_folder, problem_class, timer

from sparsebench import Case


@dataclass(frozen=True, slots=True)
class Tile:
    columns: int
    stages: int = 3


TILES = [Tile(64), Tile(128), Tile(256)]
TIMES_S = {64: 3e-6, 128: 1e-6, 256: 2e-6}
KEY = {"m": 768, "sm": 90, "libraries": {"triton": "3.6.0"}}


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """A process that has timed nothing yet."""
    monkeypatch.setattr(_tuning, "_timed", {})


def timed(asked: list[Tile]):
    """A timer that says TIMES_S and notes in `asked` what it was asked."""

    def time_s(tile: Tile) -> float:
        asked.append(tile)
        return TIMES_S[tile.columns]

    return time_s


def must_not_time(tile: Tile) -> float:
    raise AssertionError("a known winner was timed again")


def only_entry(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def test_without_a_timer_it_is_the_default_and_nothing_is_kept(tmp_path):
    choice = best("a.triton", KEY, TILES, None, TILES[2], folder=tmp_path / "new")
    assert (choice.tile, choice.tuned) == (TILES[2], False)
    assert choice.facts() == {"tile": {"columns": 256, "stages": 3}, "tuned": False}
    assert not (tmp_path / "new").exists()


def test_the_fastest_is_kept_for_other_processes(tmp_path, monkeypatch):
    asked: list[Tile] = []
    first = best("a.triton", KEY, TILES, timed(asked), TILES[0], folder=tmp_path)
    assert (first.tile, first.tuned, asked) == (TILES[1], True, TILES)
    entry = json.loads(only_entry(tmp_path).read_text())
    assert entry == {"kernel": "a.triton", "key": KEY, "tile": {"columns": 128, "stages": 3}, "time_s": 1e-6}
    monkeypatch.setattr(_tuning, "_timed", {})
    again = best("a.triton", KEY, TILES, must_not_time, TILES[0], folder=tmp_path)
    assert (again.tile, again.tuned) == (TILES[1], True)
    assert best("a.triton", KEY, TILES, None, TILES[0], folder=tmp_path).tuned


@pytest.mark.parametrize("other", [KEY | {"m": 769}, KEY | {"libraries": {"triton": "3.7.0"}}, KEY | {"sm": 80}])
def test_another_question_has_another_entry(tmp_path, other):
    best("a.triton", KEY, TILES, timed([]), TILES[0], folder=tmp_path)
    asked: list[Tile] = []
    best("a.triton", other, TILES, timed(asked), TILES[0], folder=tmp_path)
    best("b.triton", KEY, TILES, timed(asked), TILES[0], folder=tmp_path)
    assert len(asked) == 2 * len(TILES)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"kernel": "a.triton"}', '{"kernel": "b", "tile": 3}', "\xff"]
)
def test_a_broken_file_counts_as_absent_and_is_replaced(tmp_path, monkeypatch, content):
    best("a.triton", KEY, TILES, timed([]), TILES[0], folder=tmp_path)
    whole = only_entry(tmp_path).read_text()
    only_entry(tmp_path).write_bytes(content.encode("latin-1"))
    monkeypatch.setattr(_tuning, "_timed", {})
    assert not best("a.triton", KEY, TILES, None, TILES[0], folder=tmp_path).tuned
    assert best("a.triton", KEY, TILES, timed([]), TILES[0], folder=tmp_path).tile == TILES[1]
    assert only_entry(tmp_path).read_text() == whole


def test_an_entry_moved_to_another_question_is_not_believed(tmp_path, monkeypatch):
    best("a.triton", KEY, TILES, timed([]), TILES[0], folder=tmp_path)
    entry = only_entry(tmp_path)
    entry.write_text(entry.read_text().replace("768", "769"))
    monkeypatch.setattr(_tuning, "_timed", {})
    assert not best("a.triton", KEY, TILES, None, TILES[0], folder=tmp_path).tuned


def test_a_winner_that_is_no_candidate_any_more_is_timed_anew(tmp_path):
    best("a.triton", KEY, TILES, timed([]), TILES[0], folder=tmp_path)
    asked: list[Tile] = []
    fewer = [TILES[0], TILES[2]]
    assert best("a.triton", KEY, fewer, timed(asked), TILES[0], folder=tmp_path).tile == TILES[2]
    assert asked == fewer


def test_a_folder_that_cannot_be_written_costs_one_timing_a_process(tmp_path):
    closed = tmp_path / "file"
    closed.write_text("not a folder")
    assert best("a.triton", KEY, TILES, timed([]), TILES[0], folder=closed).tile == TILES[1]
    assert best("a.triton", KEY, TILES, must_not_time, TILES[0], folder=closed).tile == TILES[1]


def test_a_write_that_fails_half_way_leaves_the_entry_whole(tmp_path, monkeypatch):
    best("a.triton", KEY, TILES, timed([]), TILES[0], folder=tmp_path)
    entry = only_entry(tmp_path)
    whole = entry.read_text()

    def full(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        best("a.triton", KEY, TILES[:1], timed([]), TILES[0], folder=tmp_path)
    assert entry.read_text() == whole
    assert list(tmp_path.iterdir()) == [entry]


def test_where_every_tile_is_refused_it_is_the_default(tmp_path):
    choice = best("a.triton", KEY, TILES, lambda tile: math.inf, TILES[2], folder=tmp_path)
    assert (choice.tile, choice.tuned) == (TILES[2], False)
    assert not list(tmp_path.iterdir())


class TooLarge(Exception):
    """What a device says that is out of shared memory."""


def test_a_timer_gives_a_refused_tile_infinity_and_lets_other_errors_through():
    def call(tile: Tile):
        if tile.columns == 256:
            raise TooLarge
        return lambda: None

    toolchain = SimpleNamespace(time_s=lambda call: (call(), 2e-6)[1])
    time_s = timer(toolchain, call, (TooLarge,))
    assert [time_s(tile) for tile in TILES] == [2e-6, 2e-6, math.inf]
    with pytest.raises(TooLarge):
        timer(toolchain, call)(TILES[2])
    assert timer(SimpleNamespace(), call) is None


def test_a_problem_class_is_plain_data_that_names_problem_gpu_and_libraries():
    toolchain = SimpleNamespace(device="cpu", gpu=SimpleNamespace(sm=90))
    key = problem_class(Case(m=768, k=3072, n=100), toolchain, block=(16, 32))
    assert key == json.loads(json.dumps(key))
    assert key | {"libraries": None} == {
        "dtype": "float32",
        "math": "ieee",
        "layout": "feature",
        "m": 768,
        "k": 3072,
        "n": 128,
        "n_unit": 4,
        "gpu": "cpu",
        "sm": 90,
        "libraries": None,
        "block": [16, 32],
    }
    assert "torch" in key["libraries"]


def test_the_table_lies_in_the_users_cache():
    assert cache_folder().parts[-2:] == ("sparsebench", "tuning")
