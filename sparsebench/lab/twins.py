"""A/A: every kernel of a suite against itself, in the same rounds, by the clock and the worker of every run.

A twin is the same launches entered a second time, as dense.aa is in every run: what it differs by, the clock made up. A
third contestant is the kernel packed and prepared anew: what that one differs by is where in memory things lie, which
another run meets too. It is told, and no fault of the clock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsebench import units
from sparsebench.between import WORDS, judge, within_rounds
from sparsebench.case import Case
from sparsebench.console import PLAIN_STEPS
from sparsebench.lab.bench import AA
from sparsebench.lab.build import missing_need
from sparsebench.lab.run import Run, timeout_s
from sparsebench.lab.wire import Screen
from sparsebench.listing import plain
from sparsebench.record import BROKEN
from sparsebench.suite import Suite, Trial

AGAIN = "_again"  # the name of what is packed anew
# Long enough to tell 2 %: the suite's own budget is for speedups, of which a tenth is usually enough.
BUDGET_S, PRECISION = 20.0, 0.008
LEAST_SAME = 0.95
PLUGIN = '''"""Every kernel once more, under another name."""

from dataclasses import replace
from pathlib import Path

from sparsebench.kernel import all_kernels

KERNELS = [replace(kernel, name=name + "{again}") for name, kernel in all_kernels([{plugins}]).items()]
'''


@dataclass(frozen=True, slots=True)
class Twins:
    """One kernel on one case, entered twice and once more elsewhere in memory.

    samples  {cache: (its own seconds of each round, its twin's, those of the one elsewhere)}, if the outcome is ok
    """

    case: Case
    kernel: str
    outcome: str
    reason: str = ""
    samples: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Kernel and case in words."""
        return f"{self.kernel} on {self.case.describe()}"


def plan(suite: Suite, folder: Path, device: str = "auto") -> tuple[Run, list[Trial]]:
    """A run of `suite` with every kernel there a second time, its files in `folder`, and the trials that can run here.

    Left out are kernels that do not take their case or miss a need, and cases whose matrix is in a file.
    """
    plugin = folder / "again.py"
    named = ", ".join(f"Path({str(path)!r})" for path in suite.plugins)
    plugin.write_text(PLUGIN.format(again=AGAIN, plugins=named))
    protocol = replace(suite.protocol, budget_s=BUDGET_S, precision=PRECISION)
    run = Run(replace(suite, protocol=protocol), folder, device=device, plugins=(plugin,))
    return run, [trial for trial in run.trials if _runs(run, trial)]


def _runs(run: Run, trial: Trial) -> bool:
    if trial.kernel.endswith(AGAIN) or trial.data is not None:
        return False
    kernel = run.kernels[trial.kernel]
    return kernel.why_not(trial.case, run.machine) is None and not any(map(missing_need, kernel.needs))


def examine_twins(suite: Suite, say: Callable[[str], None], device: str = "auto") -> dict[str, Any]:
    """Time every kernel of `suite` against itself, say and return what `compare` would say of the two.

    `healthy` is False when fewer than 95 % are SAME, any is FAST or SLOW (which is beyond 2 %), or one broke.
    """
    with tempfile.TemporaryDirectory(prefix="sparsebench-") as folder:
        run, trials = plan(suite, Path(folder), device)
        most = units.duration(len(trials) * (BUDGET_S + 1))
        say(f"{suite.name}: {len(trials)} kernels, each against itself, at most about {most}")
        with run.worker:
            found = [_timed(run, trial) for trial in _counted(trials, say)]
    told = judged(found)
    counts = {word: sum(row["verdict"] == word for row in told) for word in WORDS}
    broken = [each for each in found if each.outcome in BROKEN]
    healthy = is_healthy([row["verdict"] for row in told], len(broken))
    for text in (*_rows(told), *(f"{each.outcome}: {each.name}: {each.reason}" for each in broken)):
        say(text)
    if told:
        apart = [abs(np.log(row["elsewhere"])) for row in told]
        most = units.change(float(np.exp(np.quantile(apart, 0.95))))
        say(f"packed anew, elsewhere in memory, 95 % of them take within {most} of their time; another run may, too")
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count or word == "SAME")
    comment = "as it should be" if healthy else "compare cannot be trusted here: find a quieter machine"
    say(f"A/A over {suite.name}: {summary} of {len(told)} ({comment})")
    return {"suite": suite.name, "counts": counts, "pairs": told, "broken": len(broken), "healthy": healthy}


def is_healthy(words: Sequence[str], broken: int) -> bool:
    """Whether verdicts on kernels and their twins let a machine be trusted."""
    same = words.count("SAME") >= LEAST_SAME * len(words)
    return bool(words) and same and not broken and not {"FAST", "SLOW"} & set(words)


def _counted(trials: Sequence[Trial], say: Callable[[str], None]) -> Iterator[Trial]:
    """`trials` as they are, with a line at every tenth."""
    for done, trial in enumerate(trials, 1):
        yield trial
        if done * PLAIN_STEPS // len(trials) != (done - 1) * PLAIN_STEPS // len(trials):
            say(f"{done} of {len(trials)}")


def judged(found: Sequence[Twins]) -> list[dict[str, Any]]:
    """What compare would say of each kernel and its twin, one row a cache state, worst first."""
    timed = [(each, cache, *samples) for each in found for cache, samples in each.samples.items()]
    verdicts = judge([within_rounds(np.log(np.divide(twin, own)).tolist()) for _, _, own, twin, _ in timed])
    rows = [
        {
            "verdict": verdict.word,
            "kernel": each.kernel,
            "case": each.case.describe(),
            "cache": cache,
            "time_s": float(np.median(own)),
            "ratio": float(np.exp(verdict.difference.value)),
            "error": verdict.difference.error,
            "elsewhere": float(np.exp(np.median(np.log(np.divide(elsewhere, own))))),
            "rounds": len(own),
        }
        for (each, cache, own, _, elsewhere), verdict in zip(timed, verdicts, strict=True)
    ]
    return sorted(rows, key=lambda row: (WORDS.index(row["verdict"]), -abs(row["ratio"] - 1)))


def _rows(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of what is not SAME."""
    head = ("verdict", "kernel", "case", "time", "its twin takes", "known to", "rounds")
    rows = [
        (row["verdict"], row["kernel"], f"{row['case']}, {row['cache']}", units.seconds(row["time_s"]),
         units.change(row["ratio"]), f"{row['error']:.2%}", str(row["rounds"]))
        for row in told if row["verdict"] != "SAME"
    ]  # fmt: skip
    return [plain((head, rows))] if rows else []


def _timed(run: Run, trial: Trial) -> Twins:
    elsewhere = trial.kernel + AGAIN
    request = Screen(trial.case, [trial.kernel, elsewhere], twin=True)
    answer, _ = run.worker.ask(request, timeout_s(run.suite.protocol))
    if answer.outcome != "ok":
        return Twins(trial.case, trial.kernel, answer.outcome, answer.reason)
    if wrong := answer.facts["wrong"]:
        return Twins(trial.case, trial.kernel, "wrong", next(iter(wrong.values())))
    timed = answer.facts["samples"].items()
    samples = {cache: (by_name[trial.kernel], by_name[AA], by_name[elsewhere]) for cache, by_name in timed}
    return Twins(trial.case, trial.kernel, "ok", samples=samples)
