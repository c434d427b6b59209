"""The three lines that end a comparison: the verdict, the strongest reason to doubt it, the next command."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sparsebench import units
from sparsebench.between import LEAST_CONTROLS, MARGIN
from sparsebench.desk.compare import ALIKE, FLOOR_S, Comparison
from sparsebench.record import BROKEN, Record

BUSY = 1.0  # minutes' load beyond the run's own threads, as in desk/doubts.py
MANY = 0.2  # share of pairs from which a doubt about them is worth telling


def verdict_lines(comparison: Comparison) -> tuple[str, str, str]:
    """The verdict, the strongest reason to doubt it, the next command."""
    doubt = next(text for find in DOUBTS if (text := find(comparison)))
    return _answer(comparison), f"Doubt: {doubt}.", f"Next: {_command(comparison)}"


def _answer(comparison: Comparison) -> str:
    counts, pairs = comparison.counts, comparison.pairs
    others = f"{counts['SAME']} same within 2 %, {counts['FAST']} faster, {counts['UNSURE']} unsure"
    broken = [(base, new) for base, new in comparison.lost if new.outcome in BROKEN]
    what = "less speedup on the other machine" if comparison.across else "slower"
    answer = f"Nothing got {what} for sure: of {len(pairs)} pairs {others}"
    if counts["SLOW"]:
        worst = f"{pairs[0].pair.name}, {pairs[0]}"
        answer = f"{counts['SLOW']} of {len(pairs)} pairs got {what}, most of all {worst}; {others}"
    if broken:
        first = f"{broken[0][0].kernel} on {broken[0][0].case.describe()} is {broken[0][1].outcome}"
        answer = f"{len(broken)} that had times broke: {first}. {answer}"
    return answer


def _command(comparison: Comparison) -> str:
    again = f"sparsebench compare {comparison.base} {comparison.new}{' --across' * comparison.across}"
    if comparison.counts["SLOW"]:
        return f"{again} --explain"
    if not comparison.counts["UNSURE"]:
        return f"sparsebench report --results {_root(comparison.new)}"
    suites = " ".join(sorted({c.pair.new.suite for c in comparison.pairs if c.judged.word == "UNSURE"}))
    more = f"sparsebench run {suites} --fresh --results {_root(comparison.new)}"
    return f"`{more}` once more, and so for BASE, then `{again}`"


def _root(path: Path) -> Path:
    """The results folder that a side belongs to."""
    folder = path.parent if path.is_file() else path
    return folder.parent if any(folder.glob("*.jsonl")) else folder


# Reasons to doubt, strongest first -----------------------------------------------------------------------------------


def _same_code(comparison: Comparison) -> str:
    slow = [c for c in comparison.pairs if c.judged.word == "SLOW"]
    alike = [c for c in slow if c.pair.same_code]
    if not alike:
        return ""
    return f"{len(alike)} of the {len(slow)} slower kernels have the code they had: it is the machine that changed"


def _shift(comparison: Comparison) -> str:
    logs = [c.judged.difference.value for c in comparison.pairs if c.pair.same_code and not comparison.across]
    middle = float(np.median(logs)) if len(logs) >= LEAST_CONTROLS else 0.0
    if abs(middle) <= MARGIN:
        return ""
    told = units.change(math.exp(middle))
    return f"the {len(logs)} kernels whose code is the same take {told} in the median: the machine changed, not they"


def _plain(comparison: Comparison) -> str:
    plain = [c for c in comparison.pairs if c.pair.yardstick.kind == "seconds"]
    if len(plain) < max(1, MANY * len(comparison.pairs)):
        return ""
    return f"{len(plain)} pairs have no unchanged baseline: plain seconds carry all that the machine did meanwhile"


def _busy(comparison: Comparison) -> str:
    def beyond(record: Record) -> float:
        return float(record.host.get("load") or 0.0) - record.protocol.threads

    for side in ("base", "new"):
        loads = [beyond(getattr(compared.pair, side)) for compared in comparison.pairs]
        if loads and float(np.median(loads)) > BUSY:
            return f"other work ran beside {side.upper()}: a load of {np.median(loads):.1f} beyond its own"
    return ""


def _other_state(comparison: Comparison) -> str:
    moved = [c.pair.moved for c in comparison.pairs if c.pair.moved is not None]
    apart = [log for log in moved if abs(log) > ALIKE]
    if not moved or len(apart) < MANY * len(moved):
        return ""
    told = units.change(math.exp(float(np.median(np.abs(apart)))))
    return (
        f"the machine was in another state: on {len(apart)} of {len(moved)} pairs the baselines themselves ran at "
        f"another speed ({told} or its inverse in the median), which favours some kernels"
    )


def _assumed(comparison: Comparison) -> str:
    guessed = [c for c in comparison.pairs if not c.apart.controls]
    if len(guessed) < max(1, MANY * len(comparison.pairs)):
        return ""
    return (
        f"how far two runs of this machine differ is assumed for {len(guessed)} pairs ({guessed[0].apart.sd:.0%}): "
        f"too few of the records ran the same code twice"
    )


def _coarse(comparison: Comparison) -> str:
    unsure = sum(compared.judged.word == "UNSURE" for compared in comparison.pairs)
    if unsure < max(1, MANY * len(comparison.pairs)):
        return ""
    judged = [compared.judged for compared in comparison.pairs]
    seen = float(np.median([each.difference.half_width(each.level) for each in judged]))
    return f"differences below {math.expm1(min(seen, 700.0)):.0%} are not seen by runs as far apart as these"


def _missing(comparison: Comparison) -> str:
    alone = len(comparison.only_base)
    return f"{alone} cases of BASE were not run again" if alone else ""


def _nothing(comparison: Comparison) -> str:
    return f"a change of less than 2 % or {units.seconds(FLOOR_S)} counts as none"


DOUBTS: Sequence[Callable[[Comparison], str]] = (
    _same_code, _shift, _plain, _busy, _other_state, _assumed, _coarse, _missing, _nothing,
)  # fmt: skip
