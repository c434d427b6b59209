"""Arms: a pattern at a sparsity run by a kernel, over all problems it was timed on. What verdicts and tables compare.

The speedup of an arm is the geometric mean over its problems of speedup_total. Its interval is the geometric mean of
the problems' intervals: how well *these* problems were measured, their errors taken as shared. How much problems differ
is told apart, as least and most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# pandas: grouping and pivoting of results.
import pandas as pd

from sparsebench.desk.frame import rows_of, timed_sparse

SETTING = ("machine", "op", "dtype", "math", "layout", "cache", "threads")
PROBLEM = ("m", "k", "n", "conv")
ARM = ("family", "arm", "kernel")
ARM_COLUMNS = (
    *SETTING, *ARM, "option", "requested", "sparsity", "problems", "speedup", "low", "high", "least", "most",
    "wins", "losses", "baseline",
)  # fmt: skip


def setting_text(row: Any) -> str:
    """A setting for people, machine apart: `gemm float32 ieee feature, weights_cold, 1 thread`."""
    return f"{row.op} {row.dtype} {row.math} {row.layout}, {row.cache}, {row.threads} thread{'s' * (row.threads != 1)}"


def problem_text(row: Any) -> str:
    """A problem for people: `768x3072 n=64`, and for a convolution `64x576 n=3136 3x3 on 56x56`."""
    return f"{row.m}x{row.k} n={row.n}{' ' * bool(row.conv)}{row.conv}"


def arms(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm in each setting, fastest first."""
    timed = timed_sparse(table)[[*SETTING, *ARM, *PROBLEM, *_OF_AN_ARM]]
    timed = timed.assign(problem=timed.groupby([*PROBLEM, "file"], sort=False).ngroup())
    rows = [
        _arm(dict(zip((*SETTING, *ARM), key, strict=True)), group)
        for key, group in timed.groupby([*SETTING, *ARM], sort=True)
    ]
    return pd.DataFrame(rows, columns=list(ARM_COLUMNS)).sort_values("speedup", ascending=False, kind="stable")


_OF_AN_ARM = (
    "file", "option", "requested", "sparsity", "speedup_total", "speedup_total_low", "speedup_total_high", "baseline",
)  # fmt: skip


def _arm(key: dict[str, Any], group: pd.DataFrame) -> dict[str, Any]:
    speedup, low, high = (group[f"speedup_total{end}"].to_numpy() for end in ("", "_low", "_high"))
    return {
        **key,
        "option": group.option.iloc[0],
        "requested": group.requested.iloc[0],
        "sparsity": float(group.sparsity.median()),
        "problems": group.problem.nunique(),
        "speedup": geomean(speedup),
        "low": geomean(low),
        "high": geomean(high),
        "least": float(speedup.min()),
        "most": float(speedup.max()),
        "wins": int((low > 1).sum()),
        "losses": int((high < 1).sum()),
        "baseline": group.baseline.mode().iloc[0],
    }


def geomean(values: Sequence[float] | pd.Series | np.ndarray) -> float:
    """The geometric mean of positive numbers.

    >>> geomean([1.0, 4.0])
    2.0
    """
    return float(np.exp(np.mean(np.log(np.asarray(values, dtype=float)))))


def best_per_problem(table: pd.DataFrame) -> pd.DataFrame:
    """For each setting, problem and sparsity (to 1 %) the fastest sparse row, sorted by problem."""
    timed = timed_sparse(table).assign(about=lambda rows: rows.requested.fillna(rows.sparsity).round(2))
    best = timed.loc[timed.groupby([*SETTING, *PROBLEM, "file", "about"], sort=True).speedup_total.idxmax()]
    return best.assign(problem=[problem_text(row) for row in rows_of(best)])


def break_evens(table: pd.DataFrame) -> pd.DataFrame:
    """Where each family of patterns and kernel crosses dense on each problem: achieved sparsity, or why not.

    sparsity   where log speedup, linear in log(1 - s) between measured points, first stays above 0; missing if it never
               crosses
    verdict    "crosses", "always faster", "never faster"
    """
    keys = [*SETTING, *PROBLEM, "family", "kernel"]
    logs = timed_sparse(table)[[*keys, "sparsity", "speedup_total"]]
    logs = logs.assign(log=np.log(logs.speedup_total)).groupby([*keys, "sparsity"], sort=True).log.mean().reset_index()
    start = np.flatnonzero(~logs[keys].duplicated().to_numpy())
    points = zip(*(np.split(logs[name].to_numpy(), start)[1:] for name in ("sparsity", "log")), strict=True)
    found = [_crossing(*point) for point in points]
    rows = logs[keys].iloc[start].assign(**{name: [one[name] for one in found] for name in ("sparsity", "verdict")})
    return rows[np.diff([*start, len(logs)]) > 1].reset_index(drop=True)


def _crossing(sparsity: np.ndarray, logs: np.ndarray) -> dict[str, Any]:
    """Where log speedups at rising sparsities cross 0."""
    kept = np.log(1 - sparsity)
    if (logs > 0).all():
        return {"sparsity": None, "verdict": "always faster"}
    if logs[-1] <= 0:
        return {"sparsity": None, "verdict": "never faster"}
    last = int(np.flatnonzero(logs <= 0)[-1])
    share = logs[last] / (logs[last] - logs[last + 1])
    return {
        "sparsity": float(1 - np.exp(kept[last] + share * (kept[last + 1] - kept[last]))),
        "verdict": "crosses",
    }


def settings(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(text, rows) of each setting of one machine: the default cache first, then what was timed most."""

    def place(pair: tuple[Any, pd.DataFrame]) -> tuple[bool, int]:
        return pair[0][4] != "weights_cold", -len(timed_sparse(pair[1]))

    for _, group in sorted(table.groupby(list(SETTING[1:]), sort=True), key=place):
        yield setting_text(next(rows_of(group))), group
