"""The store: nothing lost but what is in flight, nothing twice, always loadable."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebench.case import Case, Conv, Source
from sparsebench.errors import StoreError
from sparsebench.machine import Machine
from sparsebench.record import SCHEMA, Protocol, Record
from sparsebench.store import Store, read_lines, read_machines, read_records, write_atomically

MACHINE = Machine(device="cpu", name="Test CPU (R) @ 2 GHz", memory_gib=8, cores=2, isa=("avx2",), cache_bytes=2**20)


def record(key: str = "k", **changes) -> Record:
    fields = {
        "key": key,
        "suite": "test",
        "case": Case(m=8, k=16, n=4, pattern="unstructured", sparsity=0.5),
        "kernel": "csr.c",
        "source_sha": "0" * 64,
        "machine": MACHINE.id,
        "protocol": Protocol(),
        "outcome": "ok",
        "baselines": {"dense.torch": "1" * 64},
        "samples": {"weights_cold": {"csr.c": [1e-3, 2e-3], "dense.torch": [2e-3, 4e-3]}},
        "layout_s": {"csr.c": 0.0, "dense.torch": 1e-3},
        "nnz": 64,
    }
    return Record(**{**fields, **changes})


def test_a_record_comes_back_whole():
    conv = Conv(c=2, h=5, w=5, kh=2, kw=2)
    case = Case(op="conv2d", m=8, k=8, n=16, conv=conv, pattern="file", source=Source("a.smtx", None, "f" * 64))
    for original in (record(), record(case=case), record(outcome="failed", samples={}, reason="why")):
        assert Record.from_json(original.to_json()) == original


def test_speedups_are_paired_and_total_adds_the_layout_change():
    assert record().speedup().median == pytest.approx(2)
    assert record().speedup(total=True).median == pytest.approx(((2 + 1) / 1 * (4 + 1) / 2) ** 0.5)
    assert record(outcome="wrong", samples={}).speedup() is None
    assert record().sparsity == 0.5


def test_times_exist_only_on_ok():
    with pytest.raises(StoreError, match="times exist only on ok"):
        record(outcome="wrong")


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "not a line of JSON"),
        ("[]", "a record is a JSON object, found list"),
        ('{"schema": 99}', "schema 99 is not one of"),
        ('{"schema": 1}', "not a record of schema 1: KeyError"),
        ('{"schema": 1, "nnz": NaN}', "NaN is not allowed in a record"),
    ],
)
def test_broken_lines_say_what_is_wrong(line, message):
    with pytest.raises(StoreError, match=message):
        Record.from_json(line)


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["schema", "case", "protocol", "cache", "m", "k", "samples", "outcome"]) | st.text(max_size=5),
        inner, max_size=6),
    max_leaves=12,
).map(lambda data: json.dumps(data).encode())))  # fmt: skip
def test_any_line_is_a_record_or_a_store_error(line):
    with suppress(StoreError):
        Record.from_json(line)


@given(st.data())
def test_a_record_with_one_field_replaced_by_junk_is_a_record_or_a_store_error(data):
    fields = json.loads(record().to_json())
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(st.none() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({}))
    with suppress(StoreError):
        Record.from_json(json.dumps(fields))


def test_nan_never_reaches_the_file(tmp_path):
    with Store(tmp_path, MACHINE, "s") as store:
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.append(record(nnz=float("nan")))
        store.append(record("good"))
    assert [kept.key for kept in read_records(tmp_path)] == ["good"]


def test_the_newest_line_of_a_key_counts(tmp_path):
    with Store(tmp_path, MACHINE, "s") as store:
        store.append(record("a", nnz=1))
        store.append(record("b"))
        store.append(record("a", nnz=2))
    assert [(kept.key, kept.nnz) for kept in read_records(tmp_path)] == [("b", 64), ("a", 2)]
    assert len(list(read_lines(store.path))) == 3


def test_a_torn_newer_line_does_not_hide_the_whole_one_before_it(tmp_path):
    with Store(tmp_path, MACHINE, "s") as store:
        store.append(record("a", nnz=1))
    with store.path.open("ab") as file:
        file.write(record("a", nnz=2).to_json().encode()[:200])
    assert [kept.nnz for kept in read_records(tmp_path)] == [1]


def test_a_line_with_its_fields_in_another_order_is_read_too(tmp_path):
    with Store(tmp_path, MACHINE, "s") as store:
        store.append(record("a"))
    fields = json.loads(record("b").to_json())
    with store.path.open("a") as file:
        file.write(json.dumps(dict(reversed(fields.items()))) + "\n")
    assert {kept.key for kept in read_records(tmp_path)} == {"a", "b"}


def test_a_torn_last_line_is_cut_off_before_the_next_append(tmp_path):
    with Store(tmp_path, MACHINE, "s") as store:
        store.append(record("a"))
    with store.path.open("ab") as file:
        file.write(record("torn").to_json().encode()[:200])
    assert [kept.key for kept in read_records(tmp_path)] == ["a"]
    with Store(tmp_path, MACHINE, "s") as store:
        store.append(record("b"))
    assert [kept.key for kept in read_lines(store.path)] == ["a", "b"]


def test_a_file_of_one_torn_line_becomes_empty(tmp_path):
    folder = tmp_path / MACHINE.id
    folder.mkdir()
    (folder / "s.jsonl").write_bytes(b"x" * 200_000)
    with Store(tmp_path, MACHINE, "s") as store:
        assert store.records == {}
    assert store.path.stat().st_size == 0


def test_a_broken_line_in_the_middle_is_named_with_its_number(tmp_path):
    with Store(tmp_path, MACHINE, "s") as store:
        store.append(record("a"))
    with store.path.open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(StoreError, match=r"s\.jsonl:2: schema None"):
        read_records(tmp_path)


def test_one_writer_a_file(tmp_path):
    with (
        Store(tmp_path, MACHINE, "s"),
        pytest.raises(StoreError, match="is being written by another run"),
        Store(tmp_path, MACHINE, "s"),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"cannot be written: .*choose another with --results"),
        Store(tmp_path / "file", MACHINE, "s"),
    ):
        pass


def test_reading_says_what_is_missing(tmp_path):
    with pytest.raises(StoreError, match="was not found; `sparsebench run SUITE"):
        read_records(tmp_path / "none")
    with pytest.raises(StoreError, match="no records were found"):
        read_records(tmp_path)
    with pytest.raises(StoreError, match="no records of machine x were found"):
        read_records(tmp_path, "x")


def test_a_closed_store_refuses_records(tmp_path):
    store = Store(tmp_path, MACHINE, "s")
    with pytest.raises(StoreError, match="is not open for writing"):
        store.append(record())


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    with Store(tmp_path, MACHINE, "s") as store:
        store.append(record("a"))
        whole = os.write
        monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[: len(data) // 2]))
        with pytest.raises(StoreError, match="could not be written: No space left"):
            store.append(record("b"))
        monkeypatch.undo()
        store.append(record("c"))
    assert [kept.key for kept in read_lines(store.path)] == ["a", "c"]


def test_machine_facts_stand_beside_the_records(tmp_path):
    with Store(tmp_path, MACHINE, "s") as store:
        store.append_peaks({"stream_bytes_per_s": 1e10})
    assert read_machines(tmp_path) == {MACHINE.id: MACHINE}
    assert MACHINE.id.startswith("test-")
    assert replace(MACHINE, memory_gib=16).id != MACHINE.id
    (tmp_path / MACHINE.id / "machine.json").write_text("{}")
    with pytest.raises(StoreError, match="not a machine's facts"):
        read_machines(tmp_path)


def test_atomic_writes_leave_no_temporary_file(tmp_path):
    write_atomically(tmp_path / "a", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).with_name("golden").glob("record_*.jsonl")), ids=lambda path: path.stem
)
def test_records_of_every_schema_still_load(path):
    loaded = list(read_lines(path))
    assert loaded
    assert all(entry.schema == int(path.stem.removeprefix("record_schema")) for entry in loaded)


def test_every_schema_has_a_golden_file():
    golden = {path.stem for path in Path(__file__).with_name("golden").glob("record_*.jsonl")}
    assert golden == {f"record_schema{number}" for number in range(1, SCHEMA + 1)}


WRITER = """
import json, sys
from dataclasses import replace
from pathlib import Path
from sparsebench.machine import Machine
from sparsebench.record import Record
from sparsebench.store import Store
record, machine = Record.from_json(sys.argv[2]), Machine.from_json(json.loads(sys.argv[3]))
with Store(Path(sys.argv[1]), machine, "s") as store:
    for number in range(len(store.records), 10_000):
        store.append(replace(record, key=f"key{number:05}"))
        print(number, flush=True)
"""


def test_kill_9_twenty_times_loses_nothing_that_was_stored(tmp_path):
    random.seed(0)
    acknowledged = -1
    for _ in range(20):
        command = [sys.executable, "-c", WRITER, str(tmp_path), record().to_json(), json.dumps(MACHINE.to_json())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = int(writer.stdout.readline())
            time.sleep(random.uniform(0, 0.05))
            writer.kill()
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().split("\n")[:-1] if line)])
        keys = [kept.key for kept in read_lines(tmp_path / MACHINE.id / "s.jsonl")]
        assert len(keys) == len(set(keys))
        assert acknowledged + 1 <= len(keys) <= acknowledged + 2
        assert keys == [f"key{number:05}" for number in range(len(keys))]
