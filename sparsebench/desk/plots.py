"""The plots of a report. To add one: a function (rows of one machine, models) -> Figure or None, and its line in PLOTS.

A plot's title is the question it answers; None means that the records hold nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

# pandas: grouping of results.
import pandas as pd
from matplotlib.axes import Axes

# matplotlib: see canvas.py.
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sparsebench import units
from sparsebench.desk.advise_plot import advice_map
from sparsebench.desk.arms import PROBLEM, geomean, problem_text
from sparsebench.desk.canvas import (
    FAINT,
    INK,
    SPARSITIES,
    grid,
    left_label,
    legend_below,
    plain,
    ratio_axis,
    sparsity_axis,
    sparsity_x,
    style,
    time_axis,
)
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.frame import timed_sparse

MOST_PANELS = 6
MOST_LINES = 8
MOST_ROWS = 14
MOST_HEATS = 4
LEAST_TIMINGS = 5  # of a histogram; fewer are in the table
_ERROR_EDGES = np.arange(-0.525, 0.526, 0.05).tolist()
Drawer = Callable[[pd.DataFrame, FittedModels], Figure | None]


@dataclass(frozen=True, slots=True)
class Plot:
    """How a plot is drawn, and what it shows in a sentence or two; its name is its file's."""

    name: str
    caption: str
    draw: Drawer


# --- speedup over sparsity --------------------------------------------------------------------------------------------


def speedup_over_sparsity(table: pd.DataFrame, fitted: FittedModels) -> Figure | None:
    """A line for each kernel and pattern; a panel for each problem, or for each n where problems are many."""
    timed = main_cache(timed_sparse(table))
    if timed.empty:
        return None
    timed = timed.assign(line=timed.kernel + " on " + timed.family)
    single = len(timed[list(PROBLEM)].drop_duplicates()) <= MOST_PANELS
    panels = [rows for _, rows in timed.groupby(list(PROBLEM) if single else "n", sort=True)]
    panels = panels if len(panels) <= MOST_PANELS else [panels[i] for i in _spread(len(panels), MOST_PANELS)]
    peaks = timed.groupby("line").speedup_total.max().sort_values(ascending=False, kind="stable")
    lines = list(peaks.index[:MOST_LINES])
    figure, axes = grid(len(panels), title="From which sparsity on is dense beaten, and by how much?")
    handles = {}
    for axis, rows in zip(axes, panels, strict=True):
        for number, line in enumerate(lines):
            if len(own := rows[rows.line == line]):
                handles[line] = _draw_line(axis, own, number)
        _dress_speedups(axis, rows, timed, single)
    left_label(axes, "times as fast as the best dense")
    legend_below(figure, [(line, handles[line]) for line in lines if line in handles])
    return figure


def _draw_line(axis: Axes, own: pd.DataFrame, number: int) -> object:
    """Points with bars: of one problem the measured interval, of several their mean and range. Returns the handle."""
    from_files = own.requested.isna().all() and own.sparsity.round(2).nunique() > MOST_LINES
    points = [_point(rows) for _, rows in own.groupby(own.requested.fillna(own.sparsity.round(3)), sort=True)]
    x, y, low, high = (np.array(values) for values in zip(*points, strict=True))
    return axis.errorbar(
        x, y, yerr=np.array([y - low, high - y]), linestyle="none" if from_files else "-", linewidth=1.4,
        markersize=4.5, elinewidth=1.1, capsize=2, **style(number),
    )  # fmt: skip


def _point(rows: pd.DataFrame) -> tuple[float, float, float, float]:
    middle, x = geomean(rows.speedup_total), sparsity_x(float(rows.sparsity.median()))
    if len(rows) == 1:
        return x, middle, float(rows.speedup_total_low.iloc[0]), float(rows.speedup_total_high.iloc[0])
    return x, middle, float(rows.speedup_total.min()), float(rows.speedup_total.max())


def _dress_speedups(axis: Axes, rows: pd.DataFrame, timed: pd.DataFrame, single: bool) -> None:
    axis.axhline(1, color=INK, linewidth=1.2, zorder=1)
    matrices = len(rows[["m", "k", "file"]].drop_duplicates())
    title = problem_text(rows.iloc[0]) if single else f"n={rows.n.iloc[0]}, {matrices} matrices"
    axis.set_title(plain(title), fontsize=9.5, color=INK, loc="left")
    ratio_axis(axis, [*timed.speedup_total_low, *timed.speedup_total_high])
    sparsity_axis(axis, timed.requested.fillna(timed.sparsity))
    axis.set_xlabel("sparsity", fontsize=9)


# --- irf --------------------------------------------------------------------------------------------------------------


def irf_surface(table: pd.DataFrame, fitted: FittedModels) -> Figure | None:
    """A heat map for each n: kernel and pattern down, sparsity across, the median irf in each cell."""
    timed = main_cache(timed_sparse(table)).dropna(subset=["irf_total"])
    if timed.empty:
        return None
    timed = timed.assign(
        line=timed.kernel + " on " + timed.family,
        at=[_near(requested, s) for requested, s in zip(timed.requested, timed.sparsity, strict=True)],
    )
    ns = sorted(timed.n.unique())
    ns = [ns[i] for i in _spread(len(ns), MOST_HEATS)]
    best = timed.groupby("line").irf_total.max().sort_values(ascending=False, kind="stable")
    cells = timed.pivot_table("irf_total", "line", ["n", "at"], "median").loc[best.index[:MOST_ROWS]]
    norm = LogNorm(max(float(cells.min().min()), 1e-3) * 0.999, float(cells.max().max()))
    across = max(cells[n].shape[1] for n in ns)
    title = "How much of the work saved becomes time saved?  (irf: 1 is all of it)"
    size = (0.62 * across + (2.6 if len(ns) == 1 else 0.9), 0.34 * len(cells) + 0.7)
    figure, axes = grid(len(ns), title=title, panel_inches=size, columns=len(ns))
    for axis, n in zip(axes, ns, strict=True):
        _draw_cells(axis, cells[n], norm)
        axis.set_title(f"n={n}", fontsize=9.5, color=INK, loc="left")
    return figure


def _draw_cells(axis: Axes, cells: pd.DataFrame, norm: LogNorm) -> None:
    values = cells.to_numpy(dtype=float)
    axis.grid(visible=False)
    axis.imshow(np.ma.masked_invalid(values), cmap="cividis", norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            told = f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"
            ink = "white" if norm(value) < 0.45 else "black"
            axis.text(column, row, told, ha="center", va="center", fontsize=7.5, color=ink)
    axis.set_xticks(
        range(cells.shape[1]), [units.percent(round(float(at), 3)) for at in cells.columns.tolist()], fontsize=7.5
    )
    axis.set_yticks(range(cells.shape[0]), [plain(line) for line in cells.index])
    axis.set_xlabel("sparsity", fontsize=9)


def _near(requested: float, achieved: float) -> float:
    """The column a row belongs to: what was asked, or for a file's mask the nearest usual sparsity."""
    if not np.isnan(requested):
        return float(requested)
    return min(SPARSITIES, key=lambda usual: abs(sparsity_x(usual) - sparsity_x(achieved)))


# --- how good the models are ------------------------------------------------------------------------------------------


def predicted_against_measured(table: pd.DataFrame, fitted: FittedModels) -> Figure | None:
    """Held-out times: predicted over measured on the left, their ratio on the right, with a band of 10 %."""
    times = held_out_times(table, fitted)
    if not times:
        return None
    figure, (whole, ratio) = grid(2, title="Do the models know times they have not seen?", share_y=False)
    everything = np.concatenate(list(times.values()))
    ends = np.array([everything.min() / 1.3, everything.max() * 1.3])
    for axis, one in ((whole, ends), (ratio, np.ones(2))):
        axis.fill_between(ends, one * 0.9, one * 1.1, color=FAINT, zorder=0, label="within 10 %")
        axis.plot(ends, one, color=INK, linewidth=1)
    handles = {}
    for number, (name, pairs) in enumerate(times.items()):
        look = {"linestyle": "none", "markersize": 4, "markeredgewidth": 0, "alpha": 0.75, **style(number)}
        handles[name] = whole.plot(pairs[:, 0], pairs[:, 1], **look)[0]
        ratio.plot(pairs[:, 0], pairs[:, 1] / pairs[:, 0], **look)
    for axis in (whole, ratio):
        time_axis(axis, "x")
        axis.set_xlabel("measured", fontsize=9)
        axis.set_xlim(*ends)
    time_axis(whole, "y")
    whole.set_ylabel("predicted", fontsize=9)
    ratio_axis(ratio, everything[:, 1] / everything[:, 0])
    ratio.set_ylabel("predicted / measured", fontsize=9)
    legend_below(figure, [*handles.items(), ("within 10 %", whole.collections[0])])
    return figure


def error_histogram(table: pd.DataFrame, fitted: FittedModels) -> Figure | None:
    """How large the held-out errors are, kernel by kernel."""
    times = held_out_times(table, fitted)
    told = [(number, *entry) for number, entry in enumerate(times.items()) if len(entry[1]) >= LEAST_TIMINGS]
    if not told:
        return None
    title = "How wrong are the models on what they have not seen?"
    figure, axes = grid(len(told), title=title, panel_inches=(4.3, 2.7))
    for axis, (number, name, pairs) in zip(axes, told, strict=True):
        _draw_errors(axis, name, pairs[:, 1] / pairs[:, 0] - 1, style(number)["color"])
    left_label(axes, "share of held-out timings")
    return figure


def _draw_errors(axis: Axes, name: str, error: np.ndarray, colour: str) -> None:
    axis.axvspan(-0.1, 0.1, color=FAINT, zorder=0)
    shares = np.full(len(error), 1 / len(error))
    axis.hist(np.clip(error, -0.5, 0.5), bins=_ERROR_EDGES, weights=shares, color=colour)
    within = _percent(float((np.abs(error) <= 0.1).mean()))
    told = f"mean |error| {_percent(float(np.abs(error).mean()))}, {within} within 10 % (of {len(error)})"
    axis.set_title(f"{plain(name)}\n{told}", fontsize=9, color=INK, loc="left")
    axis.set_xlabel("predicted / measured - 1", fontsize=9)
    axis.set_xticks([-0.5, -0.25, 0, 0.25, 0.5], ["-50 %\nor less", "-25 %", "0", "+25 %", "+50 %\nor more"])
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def held_out_times(table: pd.DataFrame, fitted: FittedModels) -> dict[str, np.ndarray]:
    """(measured, predicted) seconds [q, 2] by kernel on the machine of `table`: whole shapes left out, or cells."""
    machines, found = set(table.machine), dict[str, list[np.ndarray]]()
    for setting, model in sorted([*fitted.dense.items(), *fitted.sparse.items()], key=lambda pair: pair[0]):
        for part, by_how in model.held_out_times.items() if setting.machine in machines else ():
            name = " ".join(filter(None, (setting.kernel if setting.kernel != "dense" else "dense, the best", part)))
            pairs = next((by_how[how] for how in ("shapes", "cells") if len(by_how.get(how, ()))), None)
            if pairs is not None:
                found.setdefault(name, []).append(pairs)
    return {name: np.concatenate(parts) for name, parts in list(found.items())[: MOST_PANELS + 3]}


def main_cache(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one setting: the one with most rows among those of the default cache, where that was measured."""
    if rows.empty:
        return rows
    keys = ["op", "dtype", "math", "layout", "cache", "threads"]
    groups = [group for _, group in rows.groupby(keys, sort=True)]
    return max(groups, key=lambda group: (group.cache.iloc[0] == "weights_cold", len(group)))


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers, spread evenly, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()})


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


PLOTS: tuple[Plot, ...] = (
    Plot(
        "speedup",
        "Speedup over the best dense kernel, both sides with their own layout change. Bars are 95 % intervals; where a "
        "panel pools several matrices, points are geometric means and bars run from the least to the most.",
        speedup_over_sparsity,
    ),
    Plot(
        "irf",
        "The irregularity factor, irf = (1 - sparsity) x speedup (HBsNN). At 1 a kernel turns all the work it saves "
        "into time saved; it may exceed 1. Medians over matrices and seeds.",
        irf_surface,
    ),
    Plot(
        "advise",
        "The fastest pattern for the matrix that was timed most, at each sparsity and n: times as fast as the best "
        "dense kernel, measured where it was timed and predicted elsewhere (~: outside what was measured). Accuracy is "
        "not judged. `sparsebench advise` says it of any layer or network, with intervals.",
        advice_map,
    ),
    Plot(
        "predicted",
        "Times of matrices that were left out of the fit (points of the sweep where there are fewer than three "
        "matrices), predicted from all others. The grey band is 10 %.",
        predicted_against_measured,
    ),
    Plot(
        "errors",
        "The same held-out timings as a distribution of errors. The grey band is 10 %.",
        error_histogram,
    ),
)  # fmt: skip


def draw_all(table: pd.DataFrame, fitted: FittedModels) -> Iterable[tuple[Plot, Figure]]:
    """Every plot that the records of one machine allow."""
    for plot in PLOTS:
        if figure := plot.draw(table, fitted):
            yield plot, figure


NAMES: Mapping[str, Plot] = {plot.name: plot for plot in PLOTS}
