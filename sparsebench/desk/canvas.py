"""How every plot looks: one size of type, colours that colour-blind readers tell apart, no state outside the figure.

Colours are Okabe and Ito's (2008, "Color Universal Design"), yellow left out: it is too faint on white. A line differs
from the next by its marker too. Names from records may hold anything, so `plain` disarms what matplotlib would read as
mathematics and what its font cannot draw.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np

# matplotlib: plots as PNG; its objects only, since pyplot keeps figures alive and needs a display where it finds one.
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from sparsebench import units

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D3B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, FAINT = "#222222", "#d9d9d9"
DPI = 130
SPARSITIES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)  # usual ones
MANY_SPARSITIES = 8  # from which on ticks are usual ones
_LEAST_WIDTH_INCHES = 7.0
_RATIO_STEPS: Sequence[tuple[float, Sequence[float]]] = (  # (span of the axis, ticks in a decade)
    (2.5, (1, 1.1, 1.25, 1.5, 2, 3, 5, 7, 8, 9)),
    (12, (1, 1.5, 2, 3, 5, 7)),
    (300, (1, 2, 5)),
    (math.inf, (1,)),
)


def grid(
    panels: int, *, title: str, share_y: bool = True, panel_inches: tuple[float, float] = (4.3, 3.2), columns: int = 0
) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` axes under one title, at most three beside each other unless `columns` says how many."""
    across = columns or (panels if panels < 4 else 2 if panels == 4 else 3)
    down = -(-panels // across)
    size = max(panel_inches[0] * across, _LEAST_WIDTH_INCHES), panel_inches[1] * down + 0.8
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(down, across, squeeze=False, sharey=share_y).ravel().tolist()
    for unused in axes[panels:]:
        unused.set_axis_off()
    figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left")
    for used in axes[:panels]:
        dress(used)
    return figure, axes[:panels]


def left_label(axes: Sequence[Axes], text: str) -> None:
    """One label for y on each panel of the first column."""
    for axis in axes:
        spec = axis.get_subplotspec()
        if spec is not None and spec.is_first_col():
            axis.set_ylabel(text, fontsize=9, color=INK)


def dress(axes: Axes) -> None:
    """Faint grid, no box, quiet ticks."""
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8.5, colors=INK)


def legend_below(figure: Figure, entries: Sequence[tuple[str, Any]], columns: int = 3) -> None:
    """One legend for all panels, outside them."""
    if entries:
        names, handles = zip(*entries, strict=True)
        figure.legend(
            list(handles), [plain(name) for name in names], loc="outside lower left", ncols=columns, fontsize=8.5,
            frameon=False,
        )  # fmt: skip


def style(number: int) -> dict[str, Any]:
    """Colour and marker of line `number`."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
    }


def ratio_axis(axes: Axes, values: Iterable[float], which: str = "y") -> None:
    """A log axis of ratios with ticks such as 0.5x, 1x, 2x, spaced to what `values` span."""
    values = [value for value in values if value > 0]
    low, high = min([*values, 0.8]), max([*values, 1.25])
    steps = next(steps for most, steps in _RATIO_STEPS if high / low < most)
    ticks = [
        base * 10**power for power in range(-6, 7) for base in steps if low / 1.6 <= base * 10**power <= high * 1.6
    ]
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def time_axis(axes: Axes, which: str) -> None:
    """A log axis of seconds told in ns, us, ms."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: units.seconds(value).replace(".00", "").replace(".0 ", " "))
    )
    axis.set_minor_formatter(NullFormatter())


def sparsity_axis(axes: Axes, sparsities: Iterable[float]) -> None:
    """x is -log2(1 - s), so that 50, 75 and 87.5 % are equal steps; ticks at the commonest sparsities or usual ones."""
    counts = Counter(round(min(s, 0.99999), 3 if s < 0.99 else 5) for s in sparsities)
    low, high = sparsity_x(min(counts)), sparsity_x(max(counts))
    usual = [s for s in SPARSITIES if low - 0.01 <= sparsity_x(s) <= high + 0.01]
    known = usual if len(counts) > MANY_SPARSITIES and len(usual) > 1 else [s for s, _ in counts.most_common()]
    ticks: list[float] = []
    for s in known:
        if all(abs(sparsity_x(s) - tick) > max(0.4, (high - low) / 8) for tick in ticks):
            ticks.append(sparsity_x(s))
    room = max(0.06 * (high - low), 0.25)
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * (1 - 2**-x):.4g} %"))


def sparsity_x(sparsity: float) -> float:
    """Where a sparsity lies on `sparsity_axis`.

    >>> sparsity_x(0.75)
    2.0
    """
    return -math.log2(1 - min(sparsity, 0.99999))


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: no mathematics, no characters that its font lacks.

    >>> plain("a$b")
    'a\\\\$b'
    """
    return "".join(ch if " " <= ch <= "~" else "?" for ch in text).replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    canvas, buffer = FigureCanvasAgg(figure), BytesIO()
    canvas.draw()  # type: ignore[no-untyped-call]  # savefig would draw twice: for the layout, and for the file
    imsave(buffer, np.asarray(canvas.buffer_rgba()), format="png", metadata={"Software": "sparsebench"})  # type: ignore[no-untyped-call]
    return buffer.getvalue()
