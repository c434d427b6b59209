"""What docs/mutation.md says of mutants: reasons, written by hand, and the table of figures, written by mutation.py.

A survivor is equivalent if docs/mutation.md says why Y is the same with the fault: no test of results can find it.
Other survivors count, whether they have a reason or not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant

REPORT = Path(__file__).parents[1] / "docs" / "mutation.md"
ENOUGH = 0.95
UNSEEN = "## Faults that no law sees"  # reasons above this line are of mutants that change no result
REASON = re.compile(r"^- `(.+)`: (.+)$", re.MULTILINE)
FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.DOTALL)
COLUMNS = ("planted", "refused", "unchanged", "equivalent", "killed", "survived", "without a reason")


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; `by` is the trial that killed it, `said` how."""

    outcome: str
    by: str = ""
    said: str = ""
    trials: int = 0  # that ran other machine code
    skipped: int = 0  # for want of time


def explained(text: str) -> dict[str, set[str]]:
    """Changes that `text` has a reason for: "equivalent" and "unseen" ones."""
    above, _, below = text.partition(UNSEEN)
    return {
        name: {change for change, _ in REASON.findall(part)}
        for name, part in (("equivalent", above), ("unseen", below))
    }


def column_of(mutant: Mutant, outcome: Outcome, reasons: Mapping[str, set[str]]) -> str:
    equivalent = outcome.outcome == "survived" and mutant.change in reasons["equivalent"]
    return "equivalent" if equivalent else outcome.outcome


def silent(mutant: Mutant, outcome: Outcome, reasons: Mapping[str, set[str]]) -> bool:
    """Whether a reason is missing."""
    asked = outcome.outcome in ("survived", "unchanged")
    return asked and not any(mutant.change in group for group in reasons.values())


def figures(found: Sequence[tuple[Mutant, Outcome]], reasons: Mapping[str, set[str]]) -> dict[str, Counter[str]]:
    """How many mutants of each kind, and of "all", went into each of COLUMNS."""
    table: dict[str, Counter[str]] = {}
    for mutant, outcome in found:
        into = ["planted", column_of(mutant, outcome, reasons)]
        into += ["without a reason"] * silent(mutant, outcome, reasons)
        for kind in (mutant.kind, "all"):
            table.setdefault(kind, Counter()).update(into)
    return dict(sorted(table.items(), key=lambda of: (of[0] == "all", of[0])))


def share_killed(counts: Mapping[str, int]) -> float:
    """Of those that change a result."""
    return counts["killed"] / max(1, counts["killed"] + counts["survived"])


def as_table(table: Mapping[str, Counter[str]]) -> str:
    rows = [("kind", *COLUMNS, "killed of killed and survived"), ("---", *["---:"] * (len(COLUMNS) + 1))]
    rows += [(kind, *(str(of[name]) for name in COLUMNS), f"{share_killed(of):.1%}") for kind, of in table.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def reported(found: Sequence[tuple[Mutant, Outcome]], write: bool) -> int:
    """Prints the table and what has no reason; the exit status. `write`: into docs/mutation.md too."""
    text = REPORT.read_text()
    reasons = explained(text)
    table = figures(found, reasons)
    print(as_table(table))
    for mutant, outcome in found:
        if silent(mutant, outcome, reasons):
            print(f"{outcome.outcome}, no reason: {mutant.change}")
    if write:
        lived = {mutant.change for mutant, outcome in found if outcome.outcome in ("survived", "unchanged")}
        for change in set().union(*reasons.values()) - lived:
            print(f"a reason for what did not survive: {change}")
        REPORT.write_text(FIGURES.sub(lambda _: as_table(table), text))
    counts = table["all"]
    return int(share_killed(counts) < ENOUGH or counts["without a reason"] + counts["error"] > 0)
