"""What records say of the models: errors on what they had not seen, beside the noise of the clock.

Usage: model_targets.py RESULTS [AGAIN ...]

AGAIN are results of the same trials, half an hour later at least; every error is judged on the later run. Records come
from

    sparsebench run sweep sweep-batch sweep-conv --results RESULTS

Prints a table of left-out shapes and cells for each kernel, with what every law costs (`irf` is the paper's own, of
sparsity and block alone), what was wanted, and how far off each cell's own earlier runs are (`measured before`), which
is the error of a law that knows all cells by heart; the ways of leaving out that extrapolate; the regret of the kernel
that the models choose; and the coverage of the intervals. What was wanted is asked of kernels timed on MANY shapes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sparsebench.desk.again import every_line, repeated
from sparsebench.desk.fit import fit
from sparsebench.desk.fitted import FittedModels
from sparsebench.desk.hardware import hardware_in
from sparsebench.desk.judged import BEST, LAWS
from sparsebench.desk.regret import regret
from sparsebench.errors import StoreError
from sparsebench.record import Record
from sparsebench.store import read_machines

MANY = 40
GEOMEAN, P95 = 0.03, 0.15  # of the regret
WANTED = {  # (least bound, times the noise floor) of the paired ratio's mean error
    "cpu": {"shapes": (0.10, 1.5), "cells": (0.06, 1.2)},
    "cuda": {"shapes": (0.08, 0.0), "cells": (0.05, 0.0)},
}


def percent(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    head = tuple(head)
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines])


def verdict(holds: bool | None) -> str:
    return "-" if holds is None else "yes" if holds else "NO"


def errors(fitted: FittedModels, device: str, missed: list[str]) -> Iterator[tuple[str, ...]]:
    """A row for each kernel and way that promises."""
    shapes, before = counts(fitted), repeats(fitted)
    for row in fitted.errors.to_dict("records"):
        if row["how"] not in WANTED[device]:
            continue
        least, times = WANTED[device][row["how"]]
        wanted = max(least, times * row["floor"]) if math.isfinite(row["floor"]) else least
        known = shapes.get(name(row), 0)
        holds = row["mape"] <= wanted if known >= MANY else None
        if holds is False:
            missed.append(f"{row['kernel']} ({row['setting']}): {row['how']}")
        yield (
            *name(row), row["how"], str(known or "-"), str(row["n"]), row["law"], percent(row["mape"]),
            percent(before.get(name(row))), *(percent(row[law]) for law in LAWS), percent(row["floor"]),
            f"<= {percent(wanted)}", verdict(holds), percent(row["within_5"]), percent(row["within_10"]),
            percent(row["p95"]), f"{row['rank'] or math.nan:.3f}", percent(row["seconds_mape"]),
            percent(row["seconds_floor"]),
        )  # fmt: skip


def extrapolating(fitted: FittedModels) -> Iterator[tuple[str, ...]]:
    """A row for each kernel and way that leaves the ends of an axis out too: reported, not promised."""
    for row in fitted.errors.to_dict("records"):
        if row["how"] not in ("shapes", "cells"):
            told = (percent(row[key]) for key in ("extrapolated", "mape", *LAWS, "p95", "seconds_mape"))
            yield (*name(row), row["how"], str(row["n"]), row["law"], *told)


def regrets(fitted: FittedModels, missed: list[str]) -> Iterator[tuple[str, ...]]:
    """A row for each law and choice."""
    for law in (BEST, *LAWS):
        for dense, what in ((False, "the sparse kernel"), (True, "sparse or dense")):
            if found := regret(fitted, law, dense=dense):
                holds = (found.geomean <= GEOMEAN and found.p95 <= P95) if law == BEST else None
                if holds is False:
                    missed.append(f"regret: {what}")
                told = (percent(found.geomean), percent(found.p95), percent(found.right), verdict(holds))
                yield law, what, str(found.cases), *told


def coverages(fitted: FittedModels, missed: list[str]) -> Iterator[tuple[str, ...]]:
    """A row for each kernel whose intervals can be held against left-out shapes."""
    for setting, model in sorted(fitted.sparse.items(), key=lambda pair: pair[0]):
        for part, judged in model.parts.items():
            if found := judged.coverage:
                holds = found.holds if found.shapes >= MANY else None
                if holds is False:
                    missed.append(f"{setting.kernel} ({setting.describe()}): coverage")
                half = percent(math.expm1(judged.half_log or 0))
                told = (percent(found.share), f"{percent(found.low)} to {percent(found.high)}", verdict(holds))
                yield setting.kernel, setting.describe(), part, str(found.shapes), half, *told


def counts(fitted: FittedModels) -> dict[tuple[str, str, str], int]:
    """How many shapes each sparse kernel was timed on."""
    return {
        (setting.kernel, setting.describe(), part): judged.shapes
        for setting, model in fitted.sparse.items()
        for part, judged in model.parts.items()
    }


def repeats(fitted: FittedModels) -> dict[tuple[str, str, str], float | None]:
    """How far off the earlier runs of the same cells are, of each sparse kernel."""
    return {
        (setting.kernel, setting.describe(), part): repeated(group)
        for setting, model in fitted.sparse.items()
        for part, group in model.groups.items()
    }


def name(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["kernel"], row["setting"], row["levels"]


def told(records: list[Record], results: Path, machine: str) -> list[str]:
    """Print all that was asked of one machine; what does not hold."""
    fitted = fit(records, hardware=hardware_in(results, [machine]))
    known, missed = read_machines(results).get(machine), list[str]()
    device = known.device if known else "cpu"
    head = ("kernel", "setting", "levels", "left out", "shapes", "timings", "law", "mean error", "measured before")
    head = (*head, *LAWS, "noise floor", "wanted", "holds")
    worth = ("within 5 %", "within 10 %", "95 % below", "rank", "in seconds", "noise in seconds")
    print(f"\n## {machine}\n\n{table((*head, *worth), errors(fitted, device, missed))}\n")
    head = ("kernel", "setting", "levels", "left out", "timings", "law", "extrapolated", "mean error", *LAWS)
    print(f"{table((*head, '95 % below', 'in seconds'), extrapolating(fitted))}\n")
    head = ("law", "choice of", "cases", "regret, geomean", "P95", "fastest chosen", "holds")
    print(f"{table(head, regrets(fitted, missed))}\n")
    head = ("kernel", "setting", "levels", "shapes", "half width", "covered of 90 %", "shape bootstrap", "holds")
    print(table(head, coverages(fitted, missed)))
    return missed


def main(folders: list[Path]) -> int:
    """0 when every line of every machine holds, 1 where one does not, 2 without records."""
    try:
        records = [record for folder in folders for record in every_line(folder)]
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2
    missed: list[str] = []
    for machine in sorted({record.machine for record in records}):
        missed += told([record for record in records if record.machine == machine], folders[0], machine)
    print("\nEverything wanted holds." if not missed else "\nMissed:\n" + "\n".join(f"- {what}" for what in missed))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main([Path(folder) for folder in sys.argv[1:]]))
