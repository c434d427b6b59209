"""Advice for people and programs: tables, a map in text, the three lines that end the command, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

from sparsebench import units
from sparsebench.desk.advise import CAVEAT, Advice, BreakEven, Row
from sparsebench.desk.advise_ask import Answer
from sparsebench.desk.break_even import Span
from sparsebench.desk.layers import Interval
from sparsebench.desk.verdict import Verdict
from sparsebench.listing import Table, plain

MIXED, GUESSED, OPEN = "+", "~", "?"


def texts(advice: Advice) -> list[str]:
    """All that the command prints above its three lines."""
    what = "n" if advice.shape else "batch"
    return [
        f"{_name(advice)} on {advice.place} ({advice.setting})",
        f"\nThe fastest at each sparsity:\n{plain(rows_table(advice))}",
        f"\nWhere each pattern pays:\n{plain(arms_table(advice))}",
        f"\nSparsity (down) x {what} (across), times as fast as dense, by pattern:\n{plain(map_table(advice))}",
        f"{MIXED} layers take different patterns; {OPEN} the interval holds 1; {GUESSED} outside what was measured",
        f"\n{CAVEAT}",
    ]


def rows_table(advice: Advice) -> Table:
    """The fastest pattern and kernel at each sparsity, at the batch that was asked for."""
    head = ("sparsity", "pattern", "kernel", "times as fast as dense", "which is")
    return head, [
        (units.percent(round(row.sparsity, 4)), _patterns(row.answer), ", ".join(row.answer.kernels),
         str(row.answer.speedup), _known(row.answer))
        for row in advice.rows
    ]  # fmt: skip


def arms_table(advice: Advice) -> Table:
    """Each pattern's break-even sparsity and the batches at which it wins."""
    what = "n" if advice.shape else "batch"
    head = ("", "pattern", "kernel", "pays from sparsity", "at", "times as fast", f"pays at {what}", "")
    return head, [
        (letter, even.arm.text, ", ".join(even.kernels), sparsity_text(even), units.percent(round(even.at, 4)),
         str(even.speedups[even.at]), batches_text(advice, even), GUESSED if even.extrapolated else "")
        for letter, even in zip(_letters(advice), advice.break_evens, strict=True)
    ]  # fmt: skip


def map_table(advice: Advice) -> Table:
    """Sparsity down, batch across: the best speedup with the letter of its pattern."""
    letters = {even.arm.key: letter for letter, even in zip(_letters(advice), advice.break_evens, strict=True)}
    sparsities = sorted({sparsity for sparsity, _ in advice.cells})
    rows = [
        (units.percent(round(s, 4)), *(_cell(advice.cells.get((s, batch)), letters) for batch in advice.batches))
        for s in sparsities
    ]
    return ("", *map(str, advice.batches)), rows


def sparsity_text(even: BreakEven) -> str:
    """From which sparsity on an arm pays: `72 % [68 %, 77 %]`; what was not reached is told as such."""
    first, last = (units.percent(round(even.arm.sparsities[i], 4)) for i in (0, -1))
    found = even.sparsity
    if even.arm.fixed:
        return f"at its {first}" if found else "never"
    if found is None:
        return f"not up to {last}"
    if even.always:
        return f"below {first}"
    low = f"below {first}" if even.sparsities.at_best[-1].open_low else _share(found.low)
    return f"{_share(found.value)} [{low}, {_share(found.high) if math.isfinite(found.high) else f'over {last}'}]"


def batches_text(advice: Advice, even: BreakEven) -> str:
    """At which batches an arm pays, such as `1 to 210 [150, 320]`; ends of the map are told without an interval."""
    if (found := even.batch_span(advice.batch)) is None:
        return "none"
    main, surely, at_best = found
    guessed = f" {GUESSED}" if even.batches_extrapolated else ""
    if main.open_low and main.open_high:
        return "all" + guessed
    low = f"from {_end(main.low, at_best, surely, 'low')}" if not main.open_low else ""
    high = f"up to {_end(main.high, surely, at_best, 'high')}" if not main.open_high else ""
    return " ".join(filter(None, (low, high))) + guessed


def verdict(advice: Advice) -> Verdict:
    """The answer, the strongest reason to doubt it, the next command."""
    best = advice.best
    reached = f"{_who(best)} {best.answer.speedup}"
    at = f"at {units.percent(round(best.sparsity, 4))}"
    if best.answer.speedup.value <= 1:
        answer = f"Nothing here beats dense on {_name(advice)}: the nearest is {reached} as fast, {at}"
    elif best.answer.speedup.low <= 1:
        answer = f"Nothing here surely beats dense on {_name(advice)}: the best is {reached} as fast, {at}"
    else:
        times = (
            f"{units.seconds(best.answer.network.dense_s.value)} to {units.seconds(best.answer.network.sparse_s.value)}"
        )
        answer = f"{_name(advice)}: {at} the fastest is {reached} as fast as dense ({times}){_first(advice)}"
    return Verdict(answer, *_doubt(advice, best))


def to_json(advice: Advice) -> dict[str, Any]:
    """Rows, break-evens and the map as JSON data; what is unknown or was not reached is null."""
    return {
        "network": advice.network.name,
        "machine": advice.place,
        "setting": advice.setting,
        "n" if advice.shape else "batch": advice.batch,
        "rows": [{"sparsity": row.sparsity, **_answer_json(row.answer)} for row in advice.rows],
        "break_evens": [_even_json(advice, even) for even in advice.break_evens],
        "map": [
            {"sparsity": sparsity, "n" if advice.shape else "batch": batch, **_answer_json(answer)}
            for (sparsity, batch), answer in sorted(advice.cells.items(), key=lambda cell: cell[0])
        ],
        "plan": _plan(advice),
        "caveat": CAVEAT,
    }


def _plan(advice: Advice) -> dict[str, Any] | None:
    """The best row as a plan that `predict --plan` reads (JSON is YAML); None for a shape, which has no network."""
    if advice.shape:
        return None
    layers = {
        entry.layer.name: {
            "pattern": entry.case.pattern,
            "params": dict(entry.case.params),
            **({} if entry.case.sparsity is None else {"sparsity": entry.case.sparsity}),
            "kernel": entry.sparse.kernel,
        }
        for entry in advice.best.answer.network.layers
        if entry.sparse
    }
    return {"network": advice.network.name, "layers": layers}


def _answer_json(answer: Answer) -> dict[str, Any]:
    return {
        "patterns": [arm.option for arm in answer.arms],
        "kernels": list(answer.kernels),
        "speedup": _plain(answer.speedup),
        "measured": answer.measured,
        "extrapolated": answer.extrapolated,
    }


def _even_json(advice: Advice, even: BreakEven) -> dict[str, Any]:
    spans = {
        name: [[_whole(math.exp(x)) for x in (span.low, span.high)] for span in getattr(even.batches, name)]
        for name in ("usual", "surely", "at_best")
    }
    return {
        "pattern": even.arm.option,
        "kernels": list(even.kernels),
        "sparsity": _plain(even.sparsity) if even.sparsity else None,
        "wins_at_every_sparsity": even.always,
        "speedups": [[sparsity, *_plain(speedup)] for sparsity, speedup in even.speedups.items()],
        "at": even.at,
        "wins_at_n" if advice.shape else "wins_at_batch": spans,
        "extrapolated": even.extrapolated,
    }


def _plain(found: Interval) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in (found.value, found.low, found.high)]


def _name(advice: Advice) -> str:
    return f"{advice.network.name}, {'n=' if advice.shape else 'batch '}{advice.batch}"


def _letters(advice: Advice) -> Sequence[str]:
    """A name for each arm on the map: a to z, then aa, ab and on."""
    count, one = len(advice.break_evens), ascii_lowercase
    return (*one, *(a + b for a in one for b in one))[:count]


def _patterns(answer: Answer) -> str:
    return ", ".join(arm.text for arm in answer.arms)


def _who(row: Row) -> str:
    return (
        f"each layer's own pattern ({_patterns(row.answer)})"
        if row.mixed
        else (f"{', '.join(row.answer.kernels)} on {_patterns(row.answer)}")
    )


def _known(answer: Answer) -> str:
    guess = "measured" if answer.measured else "predicted"
    return f"{guess}, extrapolated" if answer.extrapolated else guess


def _first(advice: Advice) -> str:
    """The least break-even sparsity, and whose it is."""
    found = [(even.sparsity.value, even) for even in advice.break_evens if even.sparsity and not even.arm.fixed]
    if not found:
        return ""
    _, even = min(found, key=lambda one: one[0])
    pays = sparsity_text(even)
    return f"; {even.arm.text} pays {pays if even.always else f'from {pays} sparsity on'}"


def _cell(answer: Answer | None, letters: dict[str, str]) -> str:
    if answer is None:
        return "-"
    letter = letters[answer.arms[0].key] if len(answer.arms) == 1 else MIXED
    doubt = OPEN if answer.speedup.low < 1 < answer.speedup.high else ""
    return f"{units.three_digits(answer.speedup.value)}{letter}{doubt}{GUESSED if answer.extrapolated else ''}"


def _share(sparsity: float) -> str:
    return units.percent(round(sparsity, 3))


def _end(at: float, first: Span | None, second: Span | None, side: str) -> str:
    """An end of a span with its interval, whose ends lie on the other curves; one that was not reached is `...`."""
    ends = [
        "..." if span is None or getattr(span, f"open_{side}") else _whole(math.exp(getattr(span, side)))
        for span in (first, second)
    ]
    return f"{_whole(math.exp(at))} [{ends[0]}, {ends[1]}]"


def _whole(value: float) -> int:
    return max(round(value), 1)


def _doubt(advice: Advice, best: Row) -> tuple[str, str]:
    """(strongest reason to doubt the best row, next command)."""
    layers = best.answer.network.layers
    m, k = layers[0].layer.m, layers[0].layer.k
    one = f"{{m: {m}, k: {k}, n: [{advice.batch}]}}"
    problem = one if advice.shape else f"{{network: {advice.network.name}, batch: [{advice.batch}]}}"
    measure = f"`sparsebench run SUITE` with problems: [{problem}], then ask again"
    if outside := [layer for layer in layers if layer.extrapolated]:
        why = outside[0].chosen.why or outside[0].dense.why
        return f"{_count(outside, layers, advice)} outside what was measured ({why})", measure
    if guessed := [layer for layer in layers if not layer.dense.measured]:
        return f"the dense time {_of(guessed, layers, advice)}is predicted, not measured", measure
    if by_law := [layer for layer in layers if layer.sparse and not layer.sparse.measured]:
        return f"the sparse time {_of(by_law, layers, advice)}is predicted by a law, not measured", measure
    if rivals := _faster_guesses(advice, best):
        text, speedup = max(rivals, key=lambda rival: rival[1].value)
        return f"{text} is predicted to be faster, {speedup}, and was not measured", measure
    arm = best.answer.arms[0]
    share = "" if arm.fixed else f" --sparsity {best.sparsity:g}"
    network = "NETWORK" if advice.shape else advice.network.name
    command = f"sparsebench predict {network} --pattern {arm.option}{share}"
    return "the fastest of many timings is a little luckier than it should be", command


def _faster_guesses(advice: Advice, best: Row) -> list[tuple[str, Interval]]:
    """Arms that are predicted to be faster than the advised one at its sparsity, and not surely so."""
    found = [(even.arm.text, even.speedups.get(best.sparsity)) for even in advice.break_evens if not even.extrapolated]
    return [(text, speedup) for text, speedup in found if speedup and speedup.value > best.answer.speedup.value]


def _count(some: Sequence[Any], layers: Sequence[Any], advice: Advice) -> str:
    return "it lies" if advice.shape else f"{len(some)} of {len(layers)} layers lie"


def _of(some: Sequence[Any], layers: Sequence[Any], advice: Advice) -> str:
    return "" if advice.shape else f"of {len(some)} of {len(layers)} layers "
