"""The answer in three lines: the verdict with its interval, the strongest reason to doubt it, the next command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# pandas: rows of arms come as series.
import pandas as pd

from sparsebench import units
from sparsebench.desk.arms import arms, break_evens, problem_text, settings
from sparsebench.desk.doubts import Doubt, doubts, skipped_needs
from sparsebench.desk.frame import frame, timed_sparse
from sparsebench.desk.predict import NetworkPrediction
from sparsebench.record import Record

NO_DOUBT = "nothing stands out; another machine, or another build of the dense library, may still say otherwise"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Three lines, and the doubts that were not the strongest."""

    answer: str
    doubt: str
    command: str
    others: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, str, str]:
        """The three lines as they are printed."""
        return self.answer, f"Doubt: {self.doubt}.", f"Next: {self.command}"


def verdicts(records: Iterable[Record]) -> dict[str, Verdict]:
    """The verdict of each machine among `records`."""
    table = frame(records)
    return {str(machine): verdict_of(group) for machine, group in table.groupby("machine", sort=True)}


def verdict_of(table: pd.DataFrame) -> Verdict:
    """The verdict on the rows of one machine, for its first setting (weights_cold where it was measured)."""
    if timed_sparse(table).empty:
        return _nothing_timed(table)
    text, rows = next((text, rows) for text, rows in settings(table) if not timed_sparse(rows).empty)
    winner = best_arm(rows)
    found = doubts(rows, winner) or [Doubt(0, NO_DOUBT)]
    network = _predict_command(winner) if winner.low > 1 else "sparsebench report"
    return Verdict(
        answer=f"{_answer(rows, winner)} ({text})",
        doubt=found[0].text,
        command=found[0].command or network,
        others=tuple(doubt.text for doubt in found[1:]),
    )


def best_arm(rows: pd.DataFrame) -> pd.Series:
    """The fastest arm among those timed on at least half as many problems as the one with most."""
    ranked = arms(rows)
    return ranked[ranked.problems * 2 >= ranked.problems.max()].iloc[0]


def _answer(rows: pd.DataFrame, winner: pd.Series) -> str:
    speedup = units.ratio(winner.speedup, winner.low, winner.high)
    where = _where(rows, winner)
    if winner.most <= 1 or winner.high <= 1:
        elsewhere = "" if winner.most <= 1 else f", though {units.three_digits(winner.most)}x on one of them"
        return (
            f"Nothing here beats dense: the best, {winner.kernel} on {winner.arm}, reaches {speedup} {where}{elsewhere}"
        )
    return f"{winner.kernel} on {winner.arm} runs {speedup} as fast as {winner.baseline} {where}{_break_even(rows, winner)}"


def _where(rows: pd.DataFrame, winner: pd.Series) -> str:
    if winner.problems == 1:
        timed = timed_sparse(rows)
        own = timed[(timed.kernel == winner.kernel) & (timed.arm == winner.arm)]
        return f"on {problem_text(next(own.itertuples()))}"
    spread = f"from {units.three_digits(winner.least)}x to {units.three_digits(winner.most)}x"
    undecided = winner.problems - winner.wins - winner.losses
    return f"over {winner.problems} problems ({spread}; faster on {winner.wins}, slower on {winner.losses}" + (
        f", undecided on {undecided})" if undecided > 0 else ")"
    )


def _break_even(rows: pd.DataFrame, winner: pd.Series) -> str:
    """From which sparsity the winner's family beats dense, as a range over problems; empty where it was not bracketed."""
    found = break_evens(rows)
    found = found[(found.kernel == winner.kernel) & (found.family == winner.family)]
    crossing = found[found.verdict == "crosses"].sparsity
    if crossing.empty:
        return ""
    low, high = (units.percent(round(float(value), 2)) for value in (crossing.min(), crossing.max()))
    return f"; it breaks even at {low}" + ("" if low == high else f" to {high}") + " sparsity"


def _predict_command(winner: pd.Series) -> str:
    fixed = winner.option.startswith("hierarchical")
    share = "" if fixed else f" --sparsity {0.9 if pd.isna(winner.requested) else winner.requested:g}"
    return f"sparsebench predict NETWORK --pattern {winner.option}{share}"


def _nothing_timed(table: pd.DataFrame) -> Verdict:
    """No sparse kernel has a time: say what happened instead."""
    told = (
        ", ".join(f"{n} {outcome}" for outcome, n in table.outcome.value_counts().sort_index().items()) or "no records"
    )
    needs = skipped_needs(table)
    reasons = table[table.reason != ""].reason.value_counts()
    doubt = needs[0] if needs else (str(reasons.index[0]) if len(reasons) else "no sparse kernel was in the plan")
    suites = " ".join(sorted(table.suite.unique())) or "SUITE"
    return Verdict(f"No sparse kernel was timed: {told}", doubt, f"sparsebench run {suites}")


def verdict_on(prediction: NetworkPrediction) -> Verdict:
    """The three lines that end `predict`."""
    layers, network = prediction.layers_speedup, prediction.network_speedup
    pruned = [layer for layer in prediction.layers if layer.sparse]
    kernels = ", ".join(sorted({layer.chosen.kernel for layer in pruned})) or "no sparse kernel"
    share = sum(layer.layer.calls for layer in pruned)
    total = sum(layer.layer.calls for layer in prediction.layers)
    whole = f"whole network {network}" if network else "layers only, rest unknown"
    answer = (
        f"{prediction.network}, batch {prediction.batch}: its layers run {layers} as fast as dense "
        f"({units.seconds(prediction.dense_s.value)} to {units.seconds(prediction.sparse_s.value)}; {whole}), "
        f"{share} of {total} pruned, by {kernels}"
    )
    return Verdict(answer, *_doubt_on(prediction))


def _doubt_on(prediction: NetworkPrediction) -> tuple[str, str]:
    """(strongest reason to doubt, next command) for a prediction."""
    machine = prediction.place.machine
    outside = [layer for layer in prediction.layers if layer.extrapolated]
    guessed = [layer for layer in prediction.layers if not layer.dense.measured]
    dense = [layer for layer in prediction.layers if layer.why.startswith("stays dense")]
    if outside:
        why = outside[0].why or outside[0].dense.why
        return (
            f"{len(outside)} of {len(prediction.layers)} layers lie outside what was measured ({outside[0].layer.name}: {why})",
            f"sparsebench run SUITE on {machine}, with problems: [{{network: {prediction.network}, batch: [{prediction.batch}]}}]",
        )
    if guessed:
        return (
            f"the dense time of {len(guessed)} of {len(prediction.layers)} layers is predicted, not measured",
            f"sparsebench run SUITE on {machine}, with problems: [{{network: {prediction.network}, batch: [{prediction.batch}]}}]",
        )
    if dense:
        return (
            f"{len(dense)} layers stay dense, the pattern does not fit them ({dense[0].layer.name}: {dense[0].why})",
            "another block",
        )
    return (
        "sums of single layers leave out what layers do to each other's caches",
        f"sparsebench verify {prediction.network}",
    )
