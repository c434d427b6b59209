"""Records as one table: a row for each record and cache state, dense kernels included, units in the columns' names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import filterfalse
from typing import Any

# pandas: grouping and pivoting of results, which users do as much as the report does.
import pandas as pd

from sparsebench.case import Case
from sparsebench.desk.names import arm_text, family_text, pattern_option
from sparsebench.desk.observe import DENSE, Blocks, blocks_of, current, is_dense_kernel
from sparsebench.desk.timings import Timing, timings
from sparsebench.errors import PatternError
from sparsebench.paired import Ratio
from sparsebench.record import Record
from sparsebench.rest import is_rest

COLUMNS = (
    "key", "machine", "suite", "op", "m", "k", "n", "conv", "dtype", "math", "layout", "cache", "threads",
    "pattern", "arm", "family", "option", "block", "bh", "bw", "levels", "mask", "seed", "sparsity", "requested",
    "file", "kernel", "format", "dense", "outcome", "reason",
    "time_s", "low_s", "high_s", "total_s",
    "speedup", "speedup_low", "speedup_high", "speedup_total", "speedup_total_low", "speedup_total_high",
    "baseline", "useful_gflop_per_s", "irf", "irf_total", "rounds", "stop", "flags", "nnz", "format_bytes",
    "moved_bytes", "pack_s", "load", "started_at",
)  # fmt: skip

_NUMBERS = (  # may be missing in every row, and are numbers all the same
    "nnz", "sparsity", "requested", "load", "time_s", "low_s", "high_s", "total_s", "speedup", "speedup_low",
    "speedup_high", "speedup_total", "speedup_total_low", "speedup_total_high", "useful_gflop_per_s", "irf",
    "irf_total",
)  # fmt: skip


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """A row for each of the newest records and each cache state it was timed in, or was to be timed in.

    Records of whole networks have no row: they time no kernel.

    arm, family  the pattern in words, with and without its sparsity
    option      the pattern as `predict --pattern` takes it
    levels      [(sparsity or None, bh, bw), ...]; bh and bw are None where there are several
    mask        where the mask came from: "file", "magnitude", "imbalanced" or "random"; "" for dense
    sparsity    achieved, 1 - nnz / (m k); `requested` is what the suite asked for, if it asked
    total_s     median with the kernel's own layout change; speedup_total compares totals, and is the headline
    irf         (1 - sparsity) x speedup; irf_total from speedup_total
    Numbers are missing where the outcome is not ok.
    """
    table = pd.DataFrame(list(_rows(current(filterfalse(is_rest, records)))), columns=list(COLUMNS))
    return table.astype(dict.fromkeys(_NUMBERS, float))


def timed_sparse(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that compare a sparse kernel with a dense one; a matrix without a single nonzero compares nothing."""
    return table[(table.outcome == "ok") & ~table.dense & table.speedup_total.notna() & (table.nnz > 0)]


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame as named tuples."""
    return iter(table.itertuples())


def _rows(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    asked = [(record, cache) for record in records for cache in record.samples if record.times_s(cache)]
    timed = {(id(record), cache): found for (record, cache), found in zip(asked, timings(asked), strict=True)}
    told: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        case = record.case
        pattern = case.pattern, case.sparsity, repr(case.params)
        if pattern not in told:
            told[pattern] = _about_pattern(case)
        about = _about(record) | told[pattern]
        for cache in record.samples or record.protocol.cache:
            found = timed.get((id(record), cache))
            yield about | {"cache": cache} | (_times(record, cache, found) if found else {})


def _about(record: Record) -> dict[str, Any]:
    case = record.case
    return {
        "key": record.key,
        "machine": record.machine,
        "suite": record.suite,
        **{
            name: getattr(case, name)
            for name in ("op", "m", "k", "n", "conv", "dtype", "math", "layout", "pattern", "seed")
        },
        "conv": _convolution(case),
        "threads": record.protocol.threads,
        "sparsity": record.sparsity,
        "requested": case.sparsity,
        "file": case.source.file if case.source else "",
        "kernel": record.kernel,
        "format": record.kernel.split(".")[0],
        "dense": is_dense_kernel(record.kernel) and case.pattern == DENSE and not record.facts.get("lossy"),
        **{
            name: getattr(record, name)
            for name in ("outcome", "reason", "nnz", "format_bytes", "moved_bytes", "pack_s")
        },
        "load": record.host.get("load"),
        "started_at": record.started_at,
    }


def _about_pattern(case: Case) -> dict[str, Any]:
    """What pattern, sparsity and parameters alone decide."""
    blocks = _blocks(case)
    single = len(blocks) == 1
    return {
        "arm": arm_text(case),
        "family": family_text(case),
        "option": pattern_option(case),
        "block": "+".join(f"{bh}x{bw}" for _, bh, bw in blocks),
        "bh": blocks[0][1] if single else None,
        "bw": blocks[0][2] if single else None,
        "levels": [list(level) for level in blocks],
        "mask": _mask(case),
    }


def _times(record: Record, cache: str, found: Timing) -> dict[str, Any]:
    native, total, flops = found.native, found.total, record.useful_flops
    kept = None if record.sparsity is None else 1 - record.sparsity
    return {
        "time_s": found.time_s,
        "low_s": found.low_s,
        "high_s": found.high_s,
        "total_s": found.time_s + record.layout_s.get(record.kernel, 0.0),
        **_ratio("speedup", native),
        **_ratio("speedup_total", total),
        "baseline": found.baseline,
        "useful_gflop_per_s": None if flops is None else flops / found.time_s / 1e9,
        "irf": kept * native.median if native and kept is not None else None,
        "irf_total": kept * total.median if total and kept is not None else None,
        "rounds": len(record.times_s(cache)),
        "stop": record.stop,
        "flags": [flag for flag in record.flags if _about_cache(flag, cache)],
    }


def _ratio(name: str, ratio: Ratio | None) -> dict[str, float]:
    return {name: ratio.median, f"{name}_low": ratio.low, f"{name}_high": ratio.high} if ratio else {}


def _about_cache(flag: str, cache: str) -> bool:
    """Flags are `doubt:kernel` or `doubt:kernel:cache`."""
    parts = flag.split(":")
    return len(parts) < 3 or parts[2] == cache


def _convolution(case: Case) -> str:
    """Filter, stride and plane of a convolution in a word; two with the same m, k and n may differ in these."""
    conv = case.conv
    if conv is None:
        return ""
    stride = f" by {conv.stride}" if conv.stride > 1 else ""
    batch = f" x{conv.batch}" if conv.batch > 1 else ""
    return f"{conv.kh}x{conv.kw} on {conv.h}x{conv.w}{stride}{batch}"


def _mask(case: Case) -> str:
    if case.pattern == DENSE:
        return ""
    return "file" if case.pattern == "file" else case.origin


def _blocks(case: Case) -> Blocks:
    """The case's levels; none where its pattern is not known here (a record of another version)."""
    try:
        return blocks_of(case)
    except PatternError:
        return ()
