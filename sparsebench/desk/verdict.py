"""The answer in three lines: the verdict with its interval, the strongest reason to doubt it, the next command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# pandas: rows of arms come as series.
import pandas as pd

from sparsebench import units
from sparsebench.desk.arms import arms, break_evens, problem_text, settings
from sparsebench.desk.doubts import Doubt, doubts, skipped_needs
from sparsebench.desk.frame import frame, rows_of, timed_sparse
from sparsebench.desk.layers import MISFIT
from sparsebench.desk.predict import NetworkPrediction
from sparsebench.record import Record

SETTLE = 50  # a doubt of this weight is settled before anything is built on the verdict
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
    settle = found[0].weight >= SETTLE or winner.low <= 1
    return Verdict(
        answer=f"{_answer(rows, winner)} ({text})",
        doubt=found[0].text,
        command=(settle and found[0].command) or _predict_command(winner),
        others=tuple(doubt.text for doubt in found[1:]),
    )


def best_arm(rows: pd.DataFrame) -> pd.Series:
    """The fastest arm among those timed on at least half as many problems as the one with most."""
    ranked = arms(rows)
    found: pd.Series = ranked[ranked.problems * 2 >= ranked.problems.max()].iloc[0]
    return found


def _answer(rows: pd.DataFrame, winner: pd.Series) -> str:
    speedup, best = units.ratio(winner.speedup, winner.low, winner.high), f"{winner.kernel} on {winner.arm}"
    if winner.high > 1:
        return f"{best} runs {speedup} as fast as {winner.baseline} {_where(rows, winner)}{_break_even(rows, winner)}"
    timed = timed_sparse(rows)
    wins = timed[timed.speedup_total_low > 1].sort_values("speedup_total", ascending=False, kind="stable")
    reached = f"the best, {best}, reaches {speedup} {_where(rows, winner)}"
    if wins.empty:
        return f"Nothing here beats dense: {reached}"
    won = wins.iloc[0]
    most = units.ratio(won.speedup_total, won.speedup_total_low, won.speedup_total_high)
    single = f"{won.kernel} on {won.arm} by {most} on {problem_text(won)}"
    share = f"{len(wins)} of {len(timed)} timings do beat it, most of all {single}"
    return f"Nothing here beats dense on the whole: {reached}; {share}"


def _where(rows: pd.DataFrame, winner: pd.Series) -> str:
    if winner.problems == 1:
        timed = timed_sparse(rows)
        own = timed[(timed.kernel == winner.kernel) & (timed.arm == winner.arm)]
        return f"on {problem_text(next(rows_of(own)))}"
    spread = f"from {units.three_digits(winner.least)}x to {units.three_digits(winner.most)}x"
    undecided = winner.problems - winner.wins - winner.losses
    return f"over {winner.problems} problems ({spread}; faster on {winner.wins}, slower on {winner.losses}" + (
        f", undecided on {undecided})" if undecided > 0 else ")"
    )


def _break_even(rows: pd.DataFrame, winner: pd.Series) -> str:
    """From which sparsity the winner's family beats dense, as a range over problems; empty where not bracketed."""
    found = break_evens(rows)
    found = found[(found.kernel == winner.kernel) & (found.family == winner.family)]
    crossing = found[found.verdict == "crosses"].sparsity
    if crossing.empty:
        return ""
    low, high = (units.percent(round(float(value), 2)) for value in (crossing.min(), crossing.max()))
    return f"; it breaks even at {low}" + ("" if low == high else f" to {high}") + " sparsity"


def _predict_command(winner: pd.Series) -> str:
    fixed = winner.option.startswith(("hierarchical", "nm:"))
    share = "" if fixed else f" --sparsity {0.9 if pd.isna(winner.requested) else winner.requested:g}"
    return f"sparsebench predict NETWORK --pattern {winner.option}{share}"


def _nothing_timed(table: pd.DataFrame) -> Verdict:
    """No sparse kernel has a time: say what happened instead."""
    counts = table.outcome.value_counts().sort_index()
    told = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "no records"
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
    whole = "layers only, rest unknown"
    if network and (whole_s := prediction.whole_s):
        whole = f"whole network {network}, {units.seconds(whole_s[0])} to {units.seconds(whole_s[1])}"
    answer = (
        f"{prediction.network}, batch {prediction.batch}: its layers run {layers} as fast as dense "
        f"({units.seconds(prediction.dense_s.value)} to {units.seconds(prediction.sparse_s.value)}; {whole}), "
        f"{share} of {total} pruned, by {kernels}"
    )
    return Verdict(answer, *_doubt_on(prediction))


def _doubt_on(prediction: NetworkPrediction) -> tuple[str, str]:
    """(strongest reason to doubt, next command) for a prediction."""
    layers, name = prediction.layers, prediction.network
    problems = f"problems: [{{network: {name}, batch: [{prediction.batch}]}}]"
    measure = f"`sparsebench run SUITE` with {problems}, then predict again"
    if outside := [layer for layer in layers if layer.extrapolated]:
        first = f"{outside[0].layer.name}: {outside[0].chosen.why or outside[0].dense.why}"
        return f"{len(outside)} of {len(layers)} layers lie outside what was measured ({first})", measure
    if guessed := [layer for layer in layers if not layer.dense.measured]:
        return f"the dense time of {len(guessed)} of {len(layers)} layers is predicted, not measured", measure
    if by_law := [layer for layer in layers if layer.sparse and not layer.sparse.measured]:
        told = "by a law, not measured; `sparsebench fit` prints how far off it is on matrices it has not seen"
        return f"the sparse time of {len(by_law)} of {len(layers)} layers is predicted {told}", measure
    if prediction.layout == "feature" and any(layer.layer.kind == "linear" for layer in layers):
        told = (
            "linear layers were measured with activations [k, n], and torch keeps [n, k]: layout changes are not in it"
        )
        return told, measure.replace("]}]", "], layout: [batch]}]")
    if dense := [layer for layer in layers if layer.why.startswith(MISFIT)]:
        first = f"{dense[0].layer.name} {dense[0].why}"
        return f"the pattern does not fit {len(dense)} of {len(layers)} layers ({first})", "sparsebench report"
    verify = f"`sparsebench verify {name}` with the same plan"
    if prediction.rest is None:
        return "what it spends outside its layers was never measured here, so no network speedup is known", verify
    return "sums of single layers leave out what layers do to each other's caches", verify
