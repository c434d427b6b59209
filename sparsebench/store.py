"""The JSON-lines store: results/<machine>/<suite>.jsonl, appended to and never rewritten.

A line is written by one `write` of the whole line and then synced, so a process killed at any moment leaves at most one
torn line, at the end. The next writer cuts that off before its first append; readers pass over it. One writer a file:
a lock beside it says so, and is freed by the system when its holder dies.
"""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# filelock: a lock that the system frees with its holder, on Linux, macOS and Windows alike.
from filelock import FileLock, Timeout

from sparsebench.errors import StoreError
from sparsebench.machine import Machine
from sparsebench.record import Record


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it no cycles of references are looked for, as a context or as a decorator.

    Records hold none, and to look for them again and again among a hundred thousand takes as long as to read these.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


_KEY = re.compile(rb'\{"key":"([^"\\]*)"')


def _keys(path: Path) -> Iterator[bytes]:
    """The key of each whole line; one that does not start as `Record.to_json` writes it is a key of its own."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield found[1] if (found := _KEY.match(line)) else line


def read_lines(path: Path, wanted: Container[int] | None = None) -> Iterator[Record]:
    """Every record of a file, oldest first, or those of the `wanted` lines, from 1.

    A torn last line is passed over, any other broken line is a StoreError.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return  # still being written, or torn by a kill
            if wanted is not None and number not in wanted:
                continue
            try:
                yield Record.from_json(line)
            except StoreError as error:
                raise StoreError(f"{path}:{number}: {error}; mend or remove that line") from None


def newest(records: Iterable[Record]) -> dict[str, Record]:
    """The newest record of each key, in the order in which keys first appeared."""
    return {record.key: record for record in records}


def without_first(records: Iterable[Record]) -> list[Record]:
    """`records` without those whose trial was timed again in the same run: the later line holds their rounds too."""
    every = list(records)
    last = {(record.key, record.started_at): number for number, record in enumerate(every)}
    return [record for number, record in enumerate(every) if last[record.key, record.started_at] == number]


@uncollected()
def read_records(results: Path, machine: str | None = None) -> list[Record]:
    """All of `each_record` at once: about 10 KB a record, most of it samples."""
    return list(each_record(results, machine))


def each_record(results: Path, machine: str | None = None) -> Iterator[Record]:
    """The newest record of each key in `results`/<machine>/*.jsonl, all machines unless one is named; one at a time.

    They come in the order of their lines. The files are read twice, first for the keys alone, so that a hundred
    thousand records need no memory but for these.
    StoreError when the folder is missing or holds no records of that machine.
    """
    if not results.is_dir():
        raise StoreError(
            f"results folder {results} was not found; `sparsebench run SUITE --results {results}` makes it"
        )
    folders = [results / machine] if machine else sorted(path for path in results.iterdir() if path.is_dir())
    found = 0
    for folder in folders:
        paths = [path for path in sorted(folder.glob("*.jsonl")) if path.name != "peaks.jsonl"]
        last = {key: (path, number) for path in paths for number, key in enumerate(_keys(path), 1)}
        for path in paths:
            for record in read_lines(path, {number for where, number in last.values() if where == path}):
                found += 1
                yield record
    if not found:
        where = f"of machine {machine} " if machine else ""
        raise StoreError(f"no records {where}were found in {results}; make some with `sparsebench run SUITE`")


def read_machines(results: Path) -> dict[str, Machine]:
    """Machines that `results` holds facts of, by id."""
    found = {}
    for path in sorted(results.glob("*/machine.json")):
        try:
            found[path.parent.name] = Machine.from_json(json.loads(path.read_bytes()))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path}: not a machine's facts: {type(error).__name__}: {error}; run again to write it anew"
            ) from None
    return found


def read_peaks(results: Path, machine: str) -> dict[str, Any] | None:
    """The newest measured peaks of a machine, or None where none were measured; a torn last line is passed over."""
    path = results / machine / "peaks.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return json.loads(lines[-1]) if lines else None


class Store:
    """One suite's records on one machine, open for appending. Use it as a context manager.

    patience_s  how long it waits for another process that has it open
    """

    def __init__(self, results: Path, machine: Machine, suite: str, patience_s: float = 0.0) -> None:
        self.folder = results / machine.id
        self.path = self.folder / f"{suite}.jsonl"
        self._machine, self._patience_s = machine, patience_s
        self._lock = FileLock(self.folder / f".{suite}.lock")
        self._file: int | None = None
        self.records: dict[str, Record] = {}

    def __enter__(self) -> Self:
        """Make the folder, take the lock, cut a torn last line off and read what is there; StoreError if any fails."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=self._patience_s)
        except Timeout:
            raise StoreError(
                f"{self.path} is being written by another run; wait for it, or use another --results"
            ) from None
        except OSError as error:
            raise StoreError(
                f"results folder {self.folder} cannot be written: {error.strerror}; choose another with --results"
            ) from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _open(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            _cut_torn_line(self._file)
            write_atomically(
                self.folder / "machine.json",
                json.dumps({"id": self._machine.id, **self._machine.to_json()}, indent=2) + "\n",
            )
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror}; choose another with --results"
            ) from None
        self.records = newest(read_lines(self.path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._lock.release()

    def append(self, *records: Record) -> None:
        """Add records in one write; they are on disk when this returns, or StoreError and nothing of them stays."""
        if self._file is None:
            raise StoreError(f"{self.path} is not open for writing; use `with Store(...)`")
        lines = b"".join(record.to_json().encode() + b"\n" for record in records)
        end = os.fstat(self._file).st_size
        try:
            if os.write(self._file, lines) != len(lines):
                raise OSError(28, "No space left on device")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)
            raise StoreError(
                f"{self.path}: a record could not be written: {error.strerror}; free some space and run again"
            ) from None
        self.records |= {record.key: record for record in records}

    def append_peaks(self, peaks: dict[str, Any]) -> None:
        """Add one line of measured peaks to peaks.jsonl beside the records."""
        with (self.folder / "peaks.jsonl").open("a") as lines:
            lines.write(json.dumps(peaks, allow_nan=False) + "\n")


def _cut_torn_line(file: int) -> None:
    """Truncate `file` after its last newline; reads backwards, so that large stores open at once."""
    end = os.fstat(file).st_size
    keep = end
    while keep > 0:
        start = max(0, keep - 65536)
        cut = os.pread(file, keep - start, start).rfind(b"\n")
        if cut >= 0:
            keep = start + cut + 1
            break
        keep = start
    if keep < end:
        os.ftruncate(file, keep)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all: a temporary file beside it, then a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
