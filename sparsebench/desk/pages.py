"""What a report says of one machine, as text and tables: the same for Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# pandas: results are grouped and counted as frames.
import pandas as pd

from sparsebench import units
from sparsebench.desk.arms import arms, best_per_problem, break_evens, settings
from sparsebench.desk.doubts import skipped_needs
from sparsebench.desk.facts import LOSS, UNSURE, WIN, Table, machine_facts, made_with
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.frame import rows_of, timed_sparse
from sparsebench.desk.verdict import Verdict, verdict_of
from sparsebench.machine import Machine
from sparsebench.record import OUTCOMES, Record


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot as PNG, its file's name and its caption."""

    file: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """One machine: the answer, what was skipped for want of something, evidence, models, what happened, and facts."""

    machine: str
    about: str
    verdict: Verdict
    needs: tuple[str, ...]
    pictures: tuple[Picture, ...]
    evidence: tuple[Table, ...]
    models: tuple[Table, ...]
    happened: tuple[Table, ...]
    facts: tuple[Table, ...]


def page(
    machine: str,
    records: Sequence[Record],
    table: pd.DataFrame,
    fitted: FittedModels,
    known: Machine | None,
    peaks: dict[str, object],
    pictures: Sequence[Picture],
) -> Page:
    """The page of one machine, from its records and their frame."""
    return Page(
        machine=machine,
        about=known.describe() if known else "no machine.json was found beside its records",
        verdict=verdict_of(table),
        needs=tuple(skipped_needs(table)),
        pictures=tuple(pictures),
        evidence=tuple(found for found in (*_evidence(table), reached(table, peaks)) if found.rows),
        models=(errors_table(fitted),),
        happened=(_outcomes(table), _reasons(table)),
        facts=(machine_facts(machine, known, peaks), made_with(records)),
    )


# --- evidence ---------------------------------------------------------------------------------------------------------


def _evidence(table: pd.DataFrame) -> Iterable[Table]:
    for text, rows in settings(table):
        if len(timed_sparse(rows)):
            yield _best(text, rows)
            yield _arms(text, rows)
            yield _break_evens(text, rows)


def _best(text: str, rows: pd.DataFrame) -> Table:
    best = best_per_problem(rows)
    return Table(
        f"The fastest sparse kernel of each problem ({text})",
        "One row for each problem and sparsity. Speedups are over the best dense kernel, layout changes included.",
        ("problem", "matrix", "pattern", "kernel", "speedup", "time", "dense kernel", "useful GFLOP/s", "irf"),
        tuple(
            (
                row.problem, row.file or "drawn", row.arm, row.kernel, _speedup(row), units.seconds(row.total_s),
                row.baseline, units.three_digits(row.useful_gflop_per_s), units.three_digits(row.irf_total),
            )
            for row in rows_of(best)
        ),
        tuple(_tone(row.speedup_total_low, row.speedup_total_high) for row in rows_of(best)),
    )  # fmt: skip


def _arms(text: str, rows: pd.DataFrame) -> Table:
    ranked = arms(rows)
    return Table(
        f"Every pattern and kernel over all its problems ({text})",
        "Geometric means of speedups; the interval is of the measurement, least and most are of the problems.",
        ("pattern", "kernel", "speedup", "least", "most", "problems", "faster", "slower"),
        tuple(
            (
                row.arm, row.kernel, units.ratio(row.speedup, row.low, row.high), units.three_digits(row.least) + "x",
                units.three_digits(row.most) + "x", str(row.problems), str(row.wins), str(row.losses),
            )
            for row in rows_of(ranked)
        ),
        tuple(_tone(row.low, row.high) for row in rows_of(ranked)),
    )  # fmt: skip


def reached(table: pd.DataFrame, peaks: dict[str, object]) -> Table:
    """What share of the machine's measured peaks each kernel reached, over all its problems; no rows without peaks."""
    timed = table[(table.outcome == "ok") & table.time_s.notna() & (table.nnz > 0)]
    timed = timed[["kernel", "dtype", "n", "useful_gflop_per_s", "moved_bytes", "time_s"]]
    flops_peak = timed["dtype"].map({dtype: _flops_peak(peaks, dtype) for dtype in timed["dtype"].unique()})
    shares = timed.assign(
        of_flops=timed.useful_gflop_per_s * 1e9 / flops_peak.astype(float),
        of_bytes=timed.moved_bytes / timed.time_s / (_bytes_peak(peaks) or math.nan),
    )
    shares = shares[shares.of_flops.notna() | shares.of_bytes.notna()]
    return Table(
        "How near each kernel comes to the machine",
        "Useful multiply-adds over the measured peak, and the bytes that must move over the measured bandwidth of main "
        "memory (more than 100 % where the caches held them): median and most over all problems.",
        ("kernel", "dtype", "n", "problems", "of the FLOP peak", "most", "of the bandwidth", "most"),
        tuple(
            (
                str(kernel),
                str(dtype),
                str(n),
                str(len(rows)),
                *_median_and_most(rows.of_flops),
                *_median_and_most(rows.of_bytes),
            )
            for (kernel, dtype, n), rows in shares.groupby(["kernel", "dtype", "n"], sort=True)
        ),
    )


def _flops_peak(peaks: dict[str, object], dtype: str) -> float | None:
    """FLOP/s of this dtype: the library's on tensor cores, or multiply-adds; None where neither was measured."""
    found = (peaks.get(name) for name in ("tensor_flops_per_s", "fma_flops_per_s"))
    rates = [rates[dtype] for rates in found if isinstance(rates, dict) and dtype in rates]
    return float(max(rates)) if rates else None


def _bytes_peak(peaks: dict[str, object]) -> float | None:
    rates = [peaks[name] for name in ("stream_bytes_per_s", "read_bytes_per_s") if name in peaks]
    return max((float(rate) for rate in rates if isinstance(rate, int | float)), default=None)


def _median_and_most(shares: pd.Series) -> tuple[str, str]:
    known = shares.dropna().astype(float)
    if known.empty:
        return "-", "-"
    return units.percent(round(float(known.median()), 2)), units.percent(round(float(known.max()), 2))


def _break_evens(text: str, rows: pd.DataFrame) -> Table:
    found = break_evens(rows)
    return Table(
        f"From which sparsity on dense is beaten ({text})",
        "Speedups interpolated between measured sparsities, problem by problem.",
        ("pattern", "kernel", "n", "breaks even at", "always faster on", "never faster on"),
        tuple(
            (
                str(family),
                str(kernel),
                str(n),
                _range(group),
                *(str((group.verdict == v).sum()) for v in _NEVER_CROSSED),
            )
            for (family, kernel, n), group in found.groupby(["family", "kernel", "n"], sort=True)
        ),
    )


_NEVER_CROSSED = ("always faster", "never faster")


def _range(group: pd.DataFrame) -> str:
    crossing = group.sparsity.dropna().astype(float)
    if crossing.empty:
        return "nowhere in the measured range"
    ends = sorted({units.percent(round(float(value), 2)) for value in (crossing.min(), crossing.max())})
    return " to ".join(ends) + f" ({len(crossing)} of {len(group)} problems)"


def _speedup(row: object) -> str:
    return units.ratio(*(getattr(row, f"speedup_total{end}") for end in ("", "_low", "_high")))


def _tone(low: float, high: float) -> str:
    return WIN if low > 1 else LOSS if high < 1 else UNSURE


# --- models -----------------------------------------------------------------------------------------------------------


def errors_table(fitted: FittedModels) -> Table:
    """Held-out errors of models fitted to one machine's records, as the report and `fit` print them."""
    left = ", ".join(f"{count} {reason}" for reason, count in fitted.left_out.items())
    return Table(
        "How wrong the models are on what they have not seen",
        "Left out: questions at random (cells), whole matrices (shapes), all points at one sparsity, of one block or "
        "at one n, the ends of these ranges too. Errors are those of the paired ratio, by which what slowed both sides "
        "of a trial cancels, and beside them those of plain seconds. The law is the best of four on left-out shapes, "
        "irf the paper's own, of sparsity and block alone. Noise: how far two runs of the same trials differ."
        + (f" Records without a part in any fit: {left}." if left else ""),
        (
            "kernel", "levels", "setting", "left out", "timings", "law", "mean |error|", "irf alone", "noise",
            "within 5 %", "within 10 %", "95 % are below", "rank correlation", "in seconds",
        ),
        tuple(
            (
                row.kernel, row.levels or "one", row.setting, row.how, str(row.n), row.law,
                units.percent(round(row.mape, 4)), _known(row.irf), _known(row.floor),
                units.percent(round(row.within_5, 3)), units.percent(round(row.within_10, 3)),
                units.percent(round(row.p95, 3)), _number(row.rank), units.percent(round(row.seconds_mape, 3)),
            )
            for row in rows_of(fitted.errors)
        ),
    )  # fmt: skip


def _known(value: float) -> str:
    return units.percent(round(value, 3)) if math.isfinite(value) else "-"


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "-"


# --- what happened ----------------------------------------------------------------------------------------------------


def _outcomes(table: pd.DataFrame) -> Table:
    counts = pd.crosstab((trials := _trials(table)).suite, trials.outcome).reindex(columns=list(OUTCOMES), fill_value=0)
    return Table(
        "What became of every trial",
        "One trial makes one record. Times exist only where the answers passed both gates, before and after the clock.",
        ("suite", "trials", *OUTCOMES),
        tuple(
            (str(suite), str(sum(row)), *map(str, row))
            for suite, row in zip(counts.index, counts.to_numpy().tolist(), strict=True)
        ),
    )


def _reasons(table: pd.DataFrame) -> Table:
    told = _trials(table)
    told = told[told.reason != ""]
    return Table(
        "Why trials have no time",
        "",
        ("outcome", "trials", "kernels", "reason"),
        tuple(
            (str(outcome), str(len(group)), ", ".join(sorted(group.kernel.unique())), str(reason))
            for (outcome, reason), group in told.groupby(["outcome", "reason"], sort=True)
        ),
    )


def _trials(table: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: the frame has one for each cache."""
    return table.drop_duplicates("key")
