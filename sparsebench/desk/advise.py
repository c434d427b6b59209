"""Which pattern, format and kernel for a layer or a network: the fastest at each sparsity, and from where on it pays.

A single shape is a network of one layer with one column a sample, so that its batch is n. Candidates are the patterns
that kernels of the machine were timed on (advise_ask.py); each is asked at usual sparsities within its measured range.
Advice compares times alone. The fastest of many predictions is a little luckier than it should be: the interval is that
of each prediction by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sparsebench.desk.advise_arms import USUAL, Arm
from sparsebench.desk.advise_ask import Answer, Asker
from sparsebench.desk.break_even import Span, Winning, last_span, nearest_span, winning
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.layers import Interval
from sparsebench.desk.predict import measured_layout
from sparsebench.errors import ModelError
from sparsebench.network import Layer, Network

USUAL_SPARSITY = 0.9  # what break-even batches are told for
COLUMNS = (1, 4, 16, 64, 256, 1024, 2048)  # of a map, where a shape was asked for
BATCHES = (1, 4, 16)  # of a map, where a network was
CAVEAT = "Times alone are compared: what a pattern costs in accuracy at a sparsity is not judged here."


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """The fastest way at one sparsity. `mixed` says that every layer takes its own fastest arm, or stays dense."""

    sparsity: float
    answer: Answer
    mixed: bool


@dataclass(frozen=True, slots=True, eq=False)
class BreakEven:
    """From which sparsity on an arm beats dense, and at which batches.

    speedups    {sparsity: speedup} at the batch that was asked for
    sparsities  over -log(1 - s); batches over log batch at `at`, the sparsity of this arm nearest to 90 %
    """

    arm: Arm
    kernels: tuple[str, ...]
    speedups: Mapping[float, Interval]
    sparsities: Winning
    at: float
    batches: Winning
    extrapolated: bool
    batches_extrapolated: bool

    @property
    def sparsity(self) -> Interval | None:
        """The least sparsity from which on it beats dense up to its last; None where it does not.

        low is that of the better end of the interval, high of the worse; high is inf where the worse end never wins.
        """
        usual, surely = last_span(self.sparsities.usual), last_span(self.sparsities.surely)
        at_best = last_span(self.sparsities.at_best)
        if usual is None or at_best is None:
            return None
        worst = 1 - math.exp(-surely.low) if surely else math.inf
        return Interval(1 - math.exp(-usual.low), 1 - math.exp(-at_best.low), worst)

    @property
    def always(self) -> bool:
        """Whether it beats dense at every sparsity it was timed at: the true break-even lies below them."""
        usual = last_span(self.sparsities.usual)
        return bool(usual and usual.open_low)

    def batch_span(self, batch: int) -> tuple[Span, Span | None, Span | None] | None:
        """The batches that win (as predicted, surely, at best), those around `batch` where it does; None for none."""
        spans = self.batches.usual
        if not spans:
            return None
        x = math.log(batch)
        main = next((span for span in spans if span.low <= x <= span.high), max(spans, key=lambda s: s.high - s.low))
        return main, nearest_span(self.batches.surely, main), nearest_span(self.batches.at_best, main)


@dataclass(frozen=True, slots=True, eq=False)
class Advice:
    """All that `advise` found. cells: {(sparsity, batch): the fastest way there}."""

    network: Network
    place: str
    setting: str
    shape: bool
    batch: int
    rows: tuple[Row, ...]
    break_evens: tuple[BreakEven, ...]
    cells: Mapping[tuple[float, int], Answer]

    @property
    def best(self) -> Row:
        """The row that the verdict is about: of those that surely win the nearest to 90 %, else the fastest."""
        known = [row for row in self.rows if not row.answer.extrapolated] or self.rows
        if won := [row for row in known if row.answer.speedup.low > 1]:
            return min(won, key=lambda row: (abs(row.sparsity - USUAL_SPARSITY), row.sparsity))
        return max(known, key=lambda row: row.answer.speedup.value)

    @property
    def batches(self) -> tuple[int, ...]:
        """Columns of the map."""
        return tuple(sorted({batch for _, batch in self.cells}))


def one_layer(m: int, k: int) -> Network:
    """A shape as a network whose batch is n."""
    return Network(f"{m}x{k}", "the shape that was asked for", (Layer(name="w", kind="linear", m=m, k=k, n=1),))


def advise(
    network: Network, fitted: FittedModels, *, batch: int = 1, shape: bool = False, machine: str | None = None
) -> Advice:
    """Advice on `network` at `batch` samples; ModelError where no model of the machine knows such layers.

    shape  the network is one_layer's, and `batch` its n
    """
    place = fitted.place(machine)
    asker = Asker(fitted, place, network, measured_layout(fitted, place, "float32", "ieee"))
    arms = asker.arms()
    columns = sorted({*(COLUMNS if shape else BATCHES), batch})
    sparsities = _rows(arms)
    asker.learn(arms, sparsities, columns)
    cells = {(s, n): found for s in sparsities for n in columns if (found := _fastest(asker, arms, s, n))}
    if not cells:
        have = ", ".join(arm.text for arm in arms)
        raise ModelError(
            f"no pattern that was timed on {place.machine} fits a layer of {network.name}, there are {have}; "
            f"run a suite with blocks that divide its layers, then ask again"
        )
    evens = [even for arm in arms if (even := _break_even(asker, arm, batch, columns))]
    rows = [Row(s, cells[s, batch], len(cells[s, batch].arms) > 1) for s in sparsities if (s, batch) in cells]
    cases = (layer.case(layout=asker.layout) for layer in network.layers if layer.prunable)
    setting = " and ".join(dict.fromkeys(place.setting(case, "").describe() for case in cases))
    return Advice(network, place.machine, setting, shape, batch, tuple(rows), tuple(evens), cells)


def _rows(arms: Sequence[Arm]) -> list[float]:
    """Usual sparsities that some arm was timed around, and those of arms that fix their own apart from these."""
    usual = {s for s in USUAL if any(arm.at(s) is not None for arm in arms)}
    own = {arm.sparsities[0] for arm in arms if arm.fixed and not any(arm.at(s) is not None for s in usual)}
    return sorted(usual | own)


def _fastest(asker: Asker, arms: Sequence[Arm], sparsity: float, batch: int) -> Answer | None:
    """Each layer its fastest way; where that leaves all dense, the arm that comes nearest."""
    if found := asker.fastest(arms, sparsity, batch):
        return found
    alone = [asker.uniform(arm, at, batch) for arm in arms if (at := arm.at(sparsity)) is not None]
    return min((each for each in alone if each), key=lambda each: each.rank, default=None)


def _break_even(asker: Asker, arm: Arm, batch: int, batches: Sequence[int]) -> BreakEven | None:
    """Where `arm` pays; None where it fits no layer."""
    found = {s: answer for s in arm.asked if (answer := asker.uniform(arm, s, batch))}
    if not found:
        return None
    at = min(found, key=lambda s: (abs(s - USUAL_SPARSITY), s))
    powers = (2**i for i in range(max(batches).bit_length()))
    batches = sorted({*batches, *powers, *asker.measured_batches()})
    asker.learn([replace(arm, sparsities=(at,))], (), batches)
    over = _without_guesses_between({n: answer for n in batches if (answer := asker.uniform(arm, at, n))})
    return BreakEven(
        arm,
        tuple(dict.fromkeys(kernel for answer in found.values() for kernel in answer.kernels)),
        {s: answer.speedup for s, answer in found.items()},
        winning([-math.log1p(-s) for s in found], [answer.speedup for answer in found.values()]),
        at,
        winning([math.log(n) for n in over], [answer.speedup for answer in over.values()]),
        any(answer.extrapolated for answer in found.values()),
        any(answer.extrapolated for answer in over.values()),
    )


def _without_guesses_between(answers: Mapping[int, Answer]) -> dict[int, Answer]:
    """`answers` by batch without those whose dense time is predicted between two where it was measured.

    Dense libraries change kernels from one n to the next: what a law says between two measured times is worth less than
    the line from one to the other.
    """
    known = [n for n, answer in answers.items() if all(layer.dense.measured for layer in answer.network.layers)]
    inside = range(min(known), max(known) + 1) if known else ()
    return {n: answer for n, answer in answers.items() if n in known or n not in inside}
