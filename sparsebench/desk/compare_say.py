"""How a comparison is told: a table, worst first; changed baselines; the reasons of each verdict; all of it as data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sparsebench import units
from sparsebench.between import ALPHA, Between, Difference, Estimate, needed
from sparsebench.desk.compare import ALIKE, Compared, Comparison, spread
from sparsebench.desk.compare_pairs import Pair
from sparsebench.desk.compare_runs import code_of
from sparsebench.desk.compare_verdict import verdict_lines
from sparsebench.listing import Table
from sparsebench.record import Record

MOST_ROWS = 40  # of a table; --explain and --json have all
HEAD = ("verdict", "kernel", "case", "time in NEW", "base", "new", "against")


def table(comparison: Comparison) -> Table:
    """The worst pairs first, at most MOST_ROWS of them."""
    return HEAD, [_row(compared) for compared in comparison.pairs[:MOST_ROWS]]


def rest(comparison: Comparison) -> str:
    """What the table leaves out, or nothing."""
    left = Counter(compared.judged.word for compared in comparison.pairs[MOST_ROWS:])
    told = ", ".join(f"{count} {word}" for word, count in left.items())
    return f"... and {told}: --explain and --json have all" if left else ""


def _row(compared: Compared) -> tuple[str, ...]:
    pair = compared.pair
    case = f"{pair.base.case.describe()} {pair.base.case.dtype}, {pair.cache}"
    seconds = units.seconds(pair.base_s), units.seconds(pair.new_s)
    return compared.judged.word, pair.base.kernel, case, str(compared), *seconds, _against(pair)


def _against(pair: Pair) -> str:
    if pair.yardstick.kind == "speedup":
        return "speedup over each side's best baseline"
    ran = (
        f" ({units.change(math.exp(pair.moved))} itself)" if pair.moved is not None and abs(pair.moved) > ALIKE else ""
    )
    return (", ".join(pair.yardstick.names) or "plain seconds") + " by screening" * pair.yardstick.screened + ran


def changed_baselines(comparison: Comparison) -> list[str]:
    """A line for each problem whose named baselines are not what they were, with what its pairs are compared by."""
    found = Counter(line for compared in comparison.pairs if (line := _changed(compared.pair)))
    return [f"{line} ({pairs} pair{'s' * (pairs > 1)})" for line, pairs in found.items()]


def _changed(pair: Pair) -> str | None:
    base, new = ({name: code_of(record, name) for name in record.baselines} for record in (pair.base, pair.new))
    if base == new or pair.yardstick.kind == "speedup":
        return None
    sides = " and ".join(f"{side} has {_names(names)}" for side, names in (("BASE", base), ("NEW", new)))
    other = [_other_code(pair, name) for name in base if name in new and base[name] != new[name]]
    by = f"compared with {', '.join(pair.yardstick.names)}" if pair.yardstick.names else "compared in plain seconds"
    by += ", which both screened beside their own" * pair.yardstick.screened
    return "; ".join([f"BASELINE CHANGED on {pair.base.case.problem.describe()}: {sides}", *other, by])


def _names(names: Any) -> str:
    return " + ".join(names) or "none"


def _other_code(pair: Pair, name: str) -> str:
    if pair.base.baselines[name] != pair.new.baselines[name]:
        return f"{name} has other sources"
    old, now = (dict(code_of(record, name)[1]) for record in (pair.base, pair.new))
    moved = [f"{of} {old.get(of)} -> {now.get(of)}" for of in sorted({*old, *now}) if old.get(of) != now.get(of)]
    return f"{name} was made by {', '.join(moved)}"


def one_sided(comparison: Comparison) -> list[str]:
    """What has no counterpart: pairs whose times are gone, and cases of one side alone, counted and named."""
    lines = [
        f"no times in NEW: {base.kernel} on {base.case.describe()} was ok, is {new.outcome}: {new.reason}"
        for base, new in comparison.lost
    ]
    for side, records in (("BASE", comparison.only_base), ("NEW", comparison.only_new)):
        names = [f"{record.kernel} on {record.case.describe()}" for record in records]
        more = f"; and {len(names) - MOST_ROWS} more (--json)" if len(names) > MOST_ROWS else ""
        lines += [f"in {side} alone, {len(names)}: {'; '.join(names[:MOST_ROWS])}{more}"] if names else []
    if comparison.same_record:
        lines.append(f"left out, {comparison.same_record}: both sides hold the same record, measured once")
    return lines


def explained(comparison: Comparison) -> Iterator[str]:
    """The reasons of each verdict, some lines a pair."""
    for compared in comparison.pairs:
        judged, pair = compared.judged, compared.pair
        size, parts = judged.difference, compared.apart
        level, p = units.percent(judged.level), f"p = {size.p:.2g}"
        rounds, runs = (f"{100 * math.sqrt(v):.2f} %" for v in (size.rounds_variance, size.runs_variance))
        code = "the same on both sides" if pair.same_code else "changed"
        yield f"{judged.word}  {pair.name}"
        yield f"  time in NEW  {compared}, tested at {level} of {units.percent(ALPHA)} ({p}); {_margin(size)}"
        yield f"  base         {_side(pair.base_s, pair.base_runs, pair)}"
        yield f"  new          {_side(pair.new_s, pair.new_runs, pair)}"
        yield f"  in doubt by  {rounds} from rounds, {runs} between runs ({_source(parts)})"
        yield f"  code         {code}; against {_against(pair)}"
        if judged.word == "UNSURE":
            yield f"  to decide    {_needed(compared)}"


def agreement(comparison: Comparison) -> list[str]:
    """How far the two sides agree on the whole, in ratios and in plain seconds: what pairing is worth here."""
    lines = []
    for what, seen in spread(comparison).items():
        median, most = (units.change(1 + seen[name]) for name in ("median", "p95"))
        share = f"{seen['within_3_percent']:.0%} agree within 3 %"
        lines.append(
            f"{what} of {seen['pairs']} pairs differ by {median} in the median, 95 % by less than {most}; {share}"
        )
    return lines


def _margin(size: Difference) -> str:
    return f"within {100 * math.expm1(size.margin):.3g} % is the same"


def _side(median_s: float, runs: Sequence[Estimate], pair: Pair) -> str:
    rounds = sum(run.rounds for run in runs)
    ratio = float(np.exp(np.mean([run.value for run in runs])))
    against = "" if pair.yardstick.kind == "seconds" else f", {units.three_digits(ratio)} of what it is compared with"
    return f"median {units.seconds(median_s)}{against}; {rounds} rounds in {len(runs)} run{'s' * (len(runs) > 1)}"


def _source(apart: Between) -> str:
    tails = f", tails of t with {apart.freedom:.0f} degrees of freedom" if apart.freedom < apart.controls else ""
    return f"{apart.controls} controls{tails}" if apart.controls else "assumed: too few runs of the same code"


def _needed(compared: Compared) -> str:
    found = needed(compared.judged)
    if found is None:
        return "it lies on the margin or has too few rounds: no number of runs worth asking for would decide"
    if found.runs == 1:
        return f"about {found.rounds:.1f} times the rounds (protocol.budget_s), on both sides"
    return f"about {found.runs} times the runs of both sides (run --fresh); more rounds alone would not"


def document(comparison: Comparison) -> dict[str, Any]:
    """All of it as JSON data."""
    return {
        "base": str(comparison.base),
        "new": str(comparison.new),
        "across": comparison.across,
        "machines": list(comparison.machines),
        "alpha": ALPHA,
        "counts": dict(comparison.counts),
        "pairs": [_pair_json(compared) for compared in comparison.pairs],
        "apart": {sort: {"sd": part.sd, "controls": part.controls} for sort, part in comparison.apart.overall.items()},
        "spread": spread(comparison),
        "baselines_changed": changed_baselines(comparison),
        "lost": [{**_named(base), "outcome": new.outcome, "reason": new.reason} for base, new in comparison.lost],
        "only_base": [_named(record) for record in comparison.only_base],
        "only_new": [_named(record) for record in comparison.only_new],
        "same_record": comparison.same_record,
        "verdict": list(verdict_lines(comparison)),
    }


def _named(record: Record) -> dict[str, Any]:
    return {"kernel": record.kernel, "case": record.case.to_json(), "machine": record.machine}


def _pair_json(compared: Compared) -> dict[str, Any]:
    pair, judged = compared.pair, compared.judged
    size, decide = judged.difference, needed(judged) if judged.word == "UNSURE" else None
    low, high = compared.interval
    return {
        "verdict": judged.word,
        **_named(pair.base),
        "cache": pair.cache,
        "ratio": compared.ratio,
        "low": low,
        "high": high if math.isfinite(high) else None,
        "level": judged.level,
        "p": size.p,
        "margin": math.expm1(size.margin),
        "base_s": pair.base_s,
        "new_s": pair.new_s,
        "rounds": [sum(run.rounds for run in runs) for runs in (pair.base_runs, pair.new_runs)],
        "runs": [len(pair.base_runs), len(pair.new_runs)],
        "error_of_rounds": math.sqrt(size.rounds_variance) if math.isfinite(size.rounds_variance) else None,
        "error_between_runs": math.sqrt(size.runs_variance),
        "against": {"kind": pair.yardstick.kind, "names": list(pair.yardstick.names)},
        "yardstick_ran": None if pair.moved is None else math.exp(pair.moved),
        "same_code": pair.same_code,
        "needed": None if decide is None else {"times_the_rounds": decide.rounds, "times_the_runs": decide.runs},
    }
