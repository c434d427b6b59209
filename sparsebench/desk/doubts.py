"""Reasons to doubt a verdict, each found by its own function in DOUBTS; the strongest is the one that gets told.

A doubt weighs more when it could turn the verdict over: what was never run comes before what ran wrong, that before
what was measured badly, and that before what was measured well on too little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# pandas: counting and grouping of results.
import pandas as pd

from sparsebench import units
from sparsebench.desk.arms import arms, problem_text
from sparsebench.desk.frame import timed_sparse
from sparsebench.record import BROKEN, MISSING_NEED

BUSY = 1.0  # minutes' load beyond the run's own threads
MANY = 0.2  # share of trials from which a doubt about timing is worth telling


@dataclass(frozen=True, slots=True)
class Doubt:
    """A reason in a sentence, how much it weighs against others, and the command that would settle it."""

    weight: int
    text: str
    command: str = ""


Finder = Callable[[pd.DataFrame, pd.Series], Doubt | None]  # (all rows of a machine, the winning arm) -> a doubt


def doubts(table: pd.DataFrame, winner: pd.Series) -> list[Doubt]:
    """All reasons to doubt that `winner` (a row of arms) is as fast as it looks, strongest first."""
    found = [doubt for find in DOUBTS if (doubt := find(table, winner))]
    return sorted(found, key=lambda doubt: -doubt.weight)


def skipped_needs(table: pd.DataFrame) -> list[str]:
    """Sentences such as "6 kernels were skipped: needs a C compiler; ...", one for each missing need."""
    skipped = table[(table.outcome == "skipped") & table.reason.str.startswith(MISSING_NEED)]
    told = []
    for reason, group in skipped.groupby("reason", sort=True):
        names = sorted(group.kernel.unique())
        what = "1 kernel was" if len(names) == 1 else f"{len(names)} kernels were"
        told.append(f"{what} skipped ({', '.join(names)}): {reason}")
    return told


def _suites(table: pd.DataFrame) -> str:
    return " ".join(sorted(table.suite.unique()))


def _missing_need(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    told = skipped_needs(table)
    return Doubt(100, told[0], f"sparsebench run {_suites(table)}") if told else None


def _broken(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    counts = table[table.outcome.isin(BROKEN)].drop_duplicates(["kernel", "m", "k", "n", "arm", "file"])
    if counts.empty:
        return None
    told = ", ".join(f"{n} {outcome}" for outcome, n in counts.outcome.value_counts().sort_index().items())
    return Doubt(
        90, f"{told}: {counts.iloc[0].kernel} first ({counts.iloc[0].reason})", f"sparsebench run {_suites(table)}"
    )


def _undecided(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    if not winner.low < 1 < winner.high:
        return None
    return Doubt(80, f"its interval holds 1: {units.ratio(winner.speedup, winner.low, winner.high)}", _longer(table))


def _control_off(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    off = sorted({flag for flags in table["flags"].dropna() for flag in flags if flag.startswith("aa_off")})
    if not off:
        return None
    kernel = off[0].split(":")[1]
    text = f"the control failed: {kernel} entered twice differed from itself by more than 2 % ({len(off)} time(s))"
    return Doubt(75, text, f"on a quiet machine: `sparsebench run {_suites(table)} --fresh`")


def _busy(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    beyond = (table.load - table.threads).dropna()
    if not len(beyond) or beyond.max() <= BUSY:
        return None
    text = f"other work ran beside it: load {table.load.max():.1f} for a run of {winner.threads} thread(s)"
    return Doubt(60, text, f"on a quiet machine: `sparsebench run {_suites(table)} --fresh`")


def _loses(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    if not winner.losses or winner.high <= 1:
        return None
    timed = timed_sparse(table)
    own = timed[(timed.kernel == winner.kernel) & (timed.arm == winner.arm)].sort_values("speedup_total", kind="stable")
    worst = f"{units.three_digits(winner.least)}x on {problem_text(own.iloc[0])}"
    return Doubt(
        58, f"it is slower than dense on {winner.losses} of {winner.problems} problems ({worst})", "sparsebench report"
    )


def _flagged(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    timed = timed_sparse(table)
    share = timed["flags"].map(lambda flags: any(not flag.startswith("aa_off") for flag in flags)).mean()
    if not share > MANY:
        return None
    return Doubt(
        55, f"{units.percent(round(share, 2))} of the timings are spread wide or were interrupted", _longer(table)
    )


def _budget(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    timed = timed_sparse(table)
    share = (timed.stop == "budget").mean()
    if not share > MANY:
        return None
    text = f"{units.percent(round(share, 2))} of the timings ended at the time budget before the asked precision"
    return Doubt(50, text, _longer(table))


def _wide(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    if winner.high / winner.low < 1.2:
        return None
    return Doubt(52, f"its interval is wide: {units.ratio(winner.speedup, winner.low, winner.high)}", _longer(table))


def _one_mask(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    timed = timed_sparse(table)
    own = timed[(timed.family == winner.family) & (timed.kernel == winner.kernel)]
    if own.seed.nunique() > 1 or (own["mask"] == "file").all():
        return None
    text = "one seed, so one mask of each matrix: another mask may have another balance of rows"
    return Doubt(40, text, f"ask the suite for seeds: [0, 1, 2], then `sparsebench run {_suites(table)}`")


def _random_masks(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    if not (timed_sparse(table)["mask"] == "random").all():
        return None
    text = "all masks are random: really pruned layers are 2-3 times less balanced, and kernels that follow rows suffer"
    return Doubt(
        42, text, f"give the suite `matrices:` or arms `from: imbalanced`, then `sparsebench run {_suites(table)}`"
    )


def _one_problem(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    if winner.problems > 1:
        return None
    return Doubt(
        45,
        "it rests on one problem: another shape or n may turn it over",
        f"give the suite more problems, then `sparsebench run {_suites(table)}`",
    )


def _rival(table: pd.DataFrame, winner: pd.Series) -> Doubt | None:
    ranked = arms(table)
    rivals = ranked[(ranked.high > winner.low) & ~((ranked.kernel == winner.kernel) & (ranked.arm == winner.arm))]
    rivals = rivals[(rivals.problems >= winner.problems) & (rivals.cache == winner.cache)]
    if rivals.empty:
        return None
    other = rivals.iloc[0]
    return Doubt(
        30,
        f"{other.kernel} on {other.arm} is not told apart from it: {units.ratio(other.speedup, other.low, other.high)}",
        _longer(table),
    )


def _longer(table: pd.DataFrame) -> str:
    return f"give the suite a larger protocol.budget_s, then `sparsebench run {_suites(table)} --fresh`"


DOUBTS: Sequence[Finder] = (
    _missing_need, _broken, _undecided, _control_off, _busy, _loses, _flagged, _budget, _wide, _one_mask, _random_masks,
    _one_problem, _rival,
)  # fmt: skip
