"""Records as two tables for other tools, in CSV or Parquet: `trials`, and `samples` with every round of every kernel.

A row of `trials` is a trial in one cache state, and its (key, cache) finds its rows in `samples`. What has no fixed
shape (params, versions, facts, host, clocks) is JSON text. Records stream from the store into the files, a few at a
time: what is held of the others is their keys.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from itertools import chain, count, filterfalse, islice, repeat
from pathlib import Path
from typing import Any, Protocol

from sparsebench.case import Conv, canonical
from sparsebench.errors import BadInput, StoreError
from sparsebench.paired import Ratio, rounds_interval
from sparsebench.record import Record
from sparsebench.rest import is_rest
from sparsebench.store import each_record

Row = tuple[Any, ...]
Columns = Mapping[str, type]  # name -> str, int or float; None in any column is "not known"

CHUNK = 200  # records held at a time
_CONV = tuple(field.name for field in fields(Conv))
_COUNTS = ("nnz", "format_bytes", "moved_bytes", "useful_flops", "peak_memory_bytes")
TRIALS: Columns = {
    **dict.fromkeys(("key", "suite", "machine", "kernel", "source_sha", "outcome", "reason", "op"), str),
    **dict.fromkeys(("m", "k", "n", *(f"conv_{name}" for name in _CONV)), int),
    **dict.fromkeys(("dtype", "math", "layout", "pattern", "params"), str),
    **dict.fromkeys(("sparsity", "requested"), float),  # achieved, 1 - nnz / (m k); what the suite asked for
    "seed": int,
    **dict.fromkeys(("source_file", "source_tensor", "source_sha256", "cache"), str),
    "threads": int,
    **dict.fromkeys(("budget_s", "precision"), float),
    "rounds": int,
    **dict.fromkeys(("time_s", "low_s", "high_s", "layout_s"), float),
    **{f"{name}{end}": float for name in ("speedup", "speedup_total") for end in ("", "_low", "_high")},
    "baseline": str,  # the one that speedup_total compares with
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys(("pack_s", "error_ratio"), float),
    **dict.fromkeys(("stop", "flags", "baselines", "versions", "facts", "clocks", "host", "started_at"), str),
}
SAMPLES: Columns = {
    **dict.fromkeys(("suite", "key", "cache", "kernel"), str),
    "round": int,
    "time_s": float,
}


class Table(Protocol):
    """A file that takes rows, in the order of its columns."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""

    def close(self) -> None:
        """Finish the file."""


class CsvTable:
    """Comma-separated values with a line of names; what is not known is empty."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(columns)

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        self._writer.writerows(rows)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class ParquetTable:
    """Parquet, compressed with zstd; what is not known is null."""

    def __init__(self, path: Path, columns: Columns) -> None:
        arrow, parquet = _pyarrow()
        types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
        self._schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._arrow = arrow

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        columns = zip(zip(*rows, strict=True), self._schema, strict=True)
        arrays = [self._arrow.array(values, field.type) for values, field in columns]
        self._writer.write_batch(self._arrow.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


KINDS: Mapping[str, type[CsvTable] | type[ParquetTable]] = {"csv": CsvTable, "parquet": ParquetTable}


@dataclass(slots=True)
class Exported:
    """What was written: the files, and how many rows of each kind."""

    files: tuple[Path, ...]
    trials: int = 0
    samples: int = 0


def export_tables(kind: str, results: Path, out: Path, machine: str | None = None) -> Exported:
    """Write `out`/trials and `out`/samples as `kind`, csv or parquet: the newest record of each key, whole or nothing.

    StoreError where there are no records or `out` cannot be written; BadInput for parquet without pyarrow.
    """
    if kind == "parquet":
        _pyarrow()
    records = filterfalse(is_rest, each_record(results, machine))  # whole networks time no kernel
    if (first := next(records, None)) is None:
        raise StoreError(f"{results} holds records of whole networks alone, and the tables are of kernels")
    exported = Exported((out / f"trials.{kind}", out / f"samples.{kind}"))
    try:
        with _tables(kind, exported.files) as (trials, samples):
            stream = chain([first], records)
            while chunk := list(islice(stream, CHUNK)):
                rows = [row for record in chunk for row in trial_rows(record)]
                rounds = [row for record in chunk for row in sample_rows(record)]
                trials.write(rows)
                if rounds:
                    samples.write(rounds)
                exported.trials += len(rows)
                exported.samples += len(rounds)
    except OSError as error:
        raise StoreError(
            f"the tables cannot be written to {out}: {error.strerror}; choose another folder with --out"
        ) from None
    return exported


def trial_rows(record: Record) -> Iterator[Row]:
    """A row of TRIALS for each cache state that `record` was timed in, or was to be timed in."""
    about = _about(record)
    for cache in record.samples or record.protocol.cache:
        row = about | {"cache": cache} | (_times(record, cache) if record.times_s(cache) else {})
        yield tuple(row.get(name) for name in TRIALS)


def sample_rows(record: Record) -> Iterator[Row]:
    """A row of SAMPLES for each round of each kernel, baselines included; rounds count from 0."""
    for cache, by_name in record.samples.items():
        for kernel, times_s in by_name.items():
            yield from zip(
                repeat(record.suite), repeat(record.key), repeat(cache), repeat(kernel), count(), times_s, strict=False
            )


def _about(record: Record) -> dict[str, Any]:
    case, protocol, source = record.case, record.protocol, record.case.source
    own = ("key", "suite", "machine", "kernel", "source_sha", "outcome", "reason", "stop", "pack_s", "error_ratio")
    return {
        **{name: getattr(case, name) for name in ("op", "m", "k", "n", "dtype", "math", "layout", "pattern", "seed")},
        **({f"conv_{name}": value for name, value in asdict(case.conv).items()} if case.conv else {}),
        **({f"source_{name}": value for name, value in asdict(source).items()} if source else {}),
        **{name: getattr(record, name) for name in (*own, *_COUNTS, "started_at")},
        **{name: getattr(protocol, name) for name in ("threads", "budget_s", "precision")},
        **{name: canonical(getattr(record, name)) for name in ("baselines", "versions", "facts", "clocks", "host")},
        "params": canonical(case.params),
        "sparsity": record.sparsity,
        "requested": case.sparsity,
        "flags": " ".join(record.flags),
    }


def _times(record: Record, cache: str) -> dict[str, Any]:
    times_s = record.times_s(cache)
    time_s, low_s, high_s = rounds_interval(times_s)
    return {
        "rounds": len(times_s),
        "time_s": time_s,
        "low_s": low_s,
        "high_s": high_s,
        "layout_s": record.layout_s.get(record.kernel, 0.0),
        **_ratio("speedup", record.speedup(cache)),
        **_ratio("speedup_total", record.speedup(cache, total=True)),
        "baseline": record.best_baseline(cache, total=True),
    }


def _ratio(name: str, ratio: Ratio | None) -> dict[str, float]:
    return {name: ratio.median, f"{name}_low": ratio.low, f"{name}_high": ratio.high} if ratio else {}


@contextmanager
def _tables(kind: str, files: Sequence[Path]) -> Iterator[list[Table]]:
    """The two tables under temporary names; they get their own when all is written, and are gone after an error."""
    folder = files[0].parent
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files]
    try:
        with ExitStack() as stack:
            tables: list[Table] = []
            for path, columns in zip(temporary, (TRIALS, SAMPLES), strict=True):
                tables.append(KINDS[kind](path, columns))
                stack.callback(tables[-1].close)
            yield tables
        for path, file in zip(temporary, files, strict=True):
            path.replace(file)
    except BaseException:
        for path in temporary:
            path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _pyarrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet half; BadInput without them.

    pyarrow is the reference writer of the format, 50 MB that only this needs: an extra.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(
            "export parquet needs pyarrow, which is not installed; pip install 'sparsebench[parquet]', or export csv"
        ) from None
    return pyarrow, pyarrow.parquet
