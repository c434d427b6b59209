"""Records for other tools: nothing of a record is lost on the way, and nothing is half written."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_store import MACHINE, record

from sparsebench.case import Case, Conv, Source
from sparsebench.cli import main
from sparsebench.desk import export
from sparsebench.desk.export import CHUNK, SAMPLES, TRIALS, export_tables
from sparsebench.errors import BadInput, StoreError
from sparsebench.record import Protocol, Record
from sparsebench.store import Store

CONV = Conv(c=2, h=5, w=5, kh=2, kw=2)
RECORDS = {
    "plain": record("plain", flags=("noisy:csr.c", "wide:csr.c:hot"), versions={"torch": "2", "cc": "gcc, 12"}),
    "conv": record("conv", case=Case(op="conv2d", m=8, k=8, n=16, conv=CONV, pattern="file",
                                     source=Source("a.smtx", None, "f" * 64))),
    "skipped": record("skipped", outcome="skipped", reason='needs "a thing"', samples={}, nnz=None, baselines={}),
    "caches": record("caches", protocol=Protocol(cache=("hot", "cold")), samples={
        "hot": {"csr.c": [1e-3] * 3, "dense.torch": [2e-3] * 3}, "cold": {"csr.c": [3e-3], "dense.torch": [9e-3]}}),
}  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A store in which one record has an older line too."""
    with Store(tmp_path / "results", MACHINE, "s") as store:
        store.append(replace(RECORDS["plain"], nnz=1), *RECORDS.values())
    return tmp_path / "results"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_trial_and_cache_state_of_the_newest_records(tmp_path, results):
    made = export_tables("csv", results, tmp_path / "out")
    trials, samples = map(rows, made.files)
    assert [(row["key"], row["cache"]) for row in trials] == [
        ("plain", "weights_cold"), ("conv", "weights_cold"), ("skipped", "weights_cold"), ("caches", "hot"),
        ("caches", "cold"),
    ]  # fmt: skip
    assert (made.trials, made.samples) == (len(trials), len(samples)) == (5, 2 * (2 + 2 + 3 + 1))
    plain, conv, skipped, hot, cold = trials
    speedup = RECORDS["plain"].speedup(total=True)
    assert [float(plain[f"speedup_total{end}"]) for end in ("", "_low", "_high")] == [
        speedup.median, speedup.low, speedup.high,
    ]  # fmt: skip
    assert (plain["nnz"], plain["rounds"], plain["baseline"]) == ("64", "2", "dense.torch")
    assert float(plain["time_s"]) == 1.5e-3
    assert plain["flags"] == "noisy:csr.c wide:csr.c:hot"
    assert json.loads(plain["versions"]) == {"torch": "2", "cc": "gcc, 12"}
    assert [conv[f"conv_{name}"] for name in ("c", "h", "kw", "stride")] == ["2", "5", "2", "1"]
    assert (conv["source_file"], conv["source_tensor"], conv["source_sha256"]) == ("a.smtx", "", "f" * 64)
    assert (skipped["outcome"], skipped["reason"], skipped["time_s"]) == ("skipped", 'needs "a thing"', "")
    assert (float(hot["speedup"]), float(cold["speedup"])) == pytest.approx((2, 3))


def test_samples_are_those_of_the_records_round_by_round(tmp_path, results):
    _, path = export_tables("csv", results, tmp_path / "out").files
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in rows(path):
        times_s = found.setdefault(row["key"], {}).setdefault(row["cache"], {}).setdefault(row["kernel"], [])
        assert int(row["round"]) == len(times_s)
        times_s.append(float(row["time_s"]))
    assert found == {
        key: {cache: {name: [*times_s] for name, times_s in by_name.items()} for cache, by_name in one.samples.items()}
        for key, one in RECORDS.items()
        if one.samples
    }


def test_every_field_of_a_record_has_a_column():
    """But for those that become several, a table of their own, or one value: whole networks are left out."""
    assert {name for name in Record.__dataclass_fields__ if name not in TRIALS} == {
        *("case", "protocol", "samples", "schema")
    }
    assert {name for name in Case.__dataclass_fields__ if name not in TRIALS} == {"conv", "source", "kind"}
    assert set(Protocol.__dataclass_fields__) <= set(TRIALS)


def test_parquet_says_the_same(tmp_path, results):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra parquet)")
    made = export_tables("parquet", results, tmp_path / "out")
    same = export_tables("csv", results, tmp_path / "out")
    for file, text, columns in zip(made.files, same.files, (TRIALS, SAMPLES), strict=True):
        table = parquet.read_table(file)
        assert table.column_names == list(columns)
        told = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()]
        assert told == rows(text)


def test_parquet_without_pyarrow_says_what_to_install_and_writes_nothing(tmp_path, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadInput, match=r"pip install 'sparsebench\[parquet\]'"):
        export_tables("parquet", results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_records_stream_a_chunk_at_a_time(tmp_path, monkeypatch):
    drawn, held = [], []

    def each(results: Path, machine: str | None) -> Iterator[Record]:
        for number in range(4 * CHUNK):
            drawn.append(number)
            yield record(str(number))

    monkeypatch.setattr(export, "each_record", each)
    monkeypatch.setattr(export.CsvTable, "write", lambda table, rows: held.append(len(drawn)))
    export_tables("csv", tmp_path, tmp_path / "out")
    assert held[::2] == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK]


def test_a_broken_line_leaves_the_earlier_export_as_it_was(tmp_path, results):
    made = export_tables("csv", results, tmp_path / "out")
    before = [path.read_bytes() for path in made.files]
    with next(results.glob("*/s.jsonl")).open("a") as lines:
        lines.write('{"key":"broken"}\n')
    with pytest.raises(StoreError, match=r"s\.jsonl:6: .*mend or remove that line"):
        export_tables("csv", results, tmp_path / "out")
    with pytest.raises(StoreError):
        export_tables("csv", results, tmp_path / "new")
    assert [path.read_bytes() for path in made.files] == before
    assert sorted((tmp_path / "out").iterdir()) == sorted(made.files)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path, results):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match="choose another folder with --out"):
        export_tables("csv", results, tmp_path / "taken")


def sparsebench(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["sparsebench", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_says_what_it_wrote(tmp_path, results, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sparsebench(monkeypatch, "export", "csv") == 0
    assert capsys.readouterr().out == "5 trials, 16 samples: export/trials.csv export/samples.csv\n"
    assert sparsebench(monkeypatch, "export", "csv", "--json", "--machine", MACHINE.id) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 16


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("xls",), "xls"),
        (("csv", "--commit", "HEAD"), "--commit HEAD was given, but a table has no commit"),
        (("csv", "--results", "nowhere"), "results folder nowhere was not found"),
        (("csv", "--machine", "other"), "no records of machine other were found"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(tmp_path, results, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert sparsebench(monkeypatch, "export", *arguments) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
