"""Advice as a picture: sparsity down, n across, in each cell how much faster than dense the fastest pattern is."""

from __future__ import annotations

import math
from string import ascii_lowercase

import numpy as np

# pandas: rows of records come as a frame.
import pandas as pd
from matplotlib.colors import LogNorm

# matplotlib: see canvas.py.
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sparsebench import units
from sparsebench.desk.advise import Advice, advise, one_layer
from sparsebench.desk.canvas import INK, grid, legend_below
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.frame import timed_sparse
from sparsebench.errors import ModelError

_LEAST_SPAN = math.log(1.25)  # of the colours to either side of 1


def advice_map(table: pd.DataFrame, fitted: FittedModels) -> Figure | None:
    """The map of the matrix that was timed most; None where no model knows products."""
    timed = timed_sparse(table)
    timed = timed[timed.op == "gemm"]
    if timed.empty:
        return None
    _, rows = max(timed.groupby(["m", "k"], sort=True), key=lambda group: len(group[1]))
    layer, n = one_layer(int(rows.m.iloc[0]), int(rows.k.iloc[0])), int(rows.n.median())
    try:
        found = advise(layer, fitted, batch=n, shape=True, machine=str(table.machine.iloc[0]))
    except ModelError:
        return None
    return draw(found)


def draw(advice: Advice) -> Figure:
    """The map of any advice."""
    batches, sparsities = advice.batches, sorted({sparsity for sparsity, _ in advice.cells})
    arms = list({arm.key: arm for answer in advice.cells.values() for arm in answer.arms}.values())
    letters = {arm.key: letter for arm, letter in zip(arms, ascii_lowercase, strict=False)}
    values = np.full((len(sparsities), len(batches)), np.nan)
    for (sparsity, batch), answer in advice.cells.items():
        values[sparsities.index(sparsity), batches.index(batch)] = answer.speedup.value
    size = (0.75 * len(batches) + 1.4, 0.34 * len(sparsities) + 0.8)
    title = f"Which pattern for {advice.network.name}, and how much faster than dense?"
    figure, (axis,) = grid(1, title=title, panel_inches=size)
    axis.grid(visible=False)
    span = max(float(np.nanmax(np.abs(np.log(values)))), _LEAST_SPAN)
    # PuOr: two hues that colour-blind readers tell apart, white where sparse and dense are level.
    norm = LogNorm(math.exp(-span), math.exp(span))
    axis.imshow(np.ma.masked_invalid(values), cmap="PuOr", norm=norm, aspect="auto")
    for (sparsity, batch), answer in advice.cells.items():
        place = batches.index(batch), sparsities.index(sparsity)
        letter = letters.get(answer.arms[0].key, "") if len(answer.arms) == 1 else "+"
        told = f"{units.three_digits(answer.speedup.value)} {letter}{' ~' if answer.extrapolated else ''}"
        ink = "white" if abs(math.log(answer.speedup.value)) > 0.6 * span else INK
        axis.text(*place, told, ha="center", va="center", fontsize=7.5, color=ink)
    axis.set_xticks(range(len(batches)), [str(batch) for batch in batches], fontsize=8)
    axis.set_yticks(range(len(sparsities)), [units.percent(round(s, 4)) for s in sparsities], fontsize=8)
    axis.set_xlabel("n" if advice.shape else "batch", fontsize=9)
    axis.set_ylabel("sparsity", fontsize=9)
    legend_below(figure, [(f"{letters[a.key]}: {a.text}", Patch(alpha=0)) for a in arms if a.key in letters])
    return figure
