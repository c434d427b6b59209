"""A suite's trials as asv benchmarks, timed by our own clock: asv is handed the raw samples of every round.

asv starts a process for each benchmark, so the suite is measured once, by `setup_cache`. That leaves its plan in the
folder where those processes then start: they read it, load no sparsebench and are soon done. Benchmarks are those of
the working tree, kernels those of the commit that is measured; so the suite stands here, the same for all commits.

    SPARSEBENCH_TRACK          the suite: a file, or the name of one that ships (default: suites/track.yaml)
    SPARSEBENCH_TRACK_DEVICE   auto (default), cpu or cuda
    SPARSEBENCH_TRACK_RESULTS  a folder for the records, in it one for each commit: what `sparsebench compare` reads.
                               Without it they are gone when asv is done

Relative paths start at the repository. A trial that cannot run here is n/a; a wrong or broken kernel is a failure, and
`asv run --show-stderr` says why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsebench.desk.tracked import Series
    from sparsebench.lab.run import Run

REPOSITORY = Path(__file__).parent.parent.parent
PLAN = Path("plan.json")
LIMIT_S = 24 * 3600  # the lab ends what hangs; asv's own limit, of 60 s, must never come first

Answers = Mapping[str, Mapping[str, Any]]


def setup_cache() -> Answers:
    """Measure the suite; {benchmark: outcome, reason and samples of its trial}."""
    run, series = _plan(_kept() or Path("results"))
    PLAN.write_text(json.dumps([_about(one) for one in series]))
    records = {(record.case.key, record.kernel): record for record in run.execute().records}
    answers = {}
    for one in series:
        record = records[one.case_key, one.kernel]
        answers[one.name] = {
            "outcome": record.outcome,
            "reason": record.reason,
            "samples": one.values(record) if record.outcome == "ok" else [],
        }
    return answers


vars(setup_cache)["timeout"] = LIMIT_S


def _plan(results: Path) -> tuple[Run, list[Series]]:
    """The suite as a run that measures all of it anew, and what is tracked of it."""
    from sparsebench.desk.tracked import series_of
    from sparsebench.lab.run import Run
    from sparsebench.shipped import resolve_suite
    from sparsebench.suite import Suite

    asked = os.environ.get("SPARSEBENCH_TRACK", "suites/track.yaml")
    beside = REPOSITORY / asked
    suite = Suite.load(beside if beside.is_file() else resolve_suite(asked))
    run = Run(suite, results, device=os.environ.get("SPARSEBENCH_TRACK_DEVICE", "auto"), fresh=True)
    return run, series_of(((trial.case, trial.kernel) for trial in run.trials), suite.protocol)


def _kept() -> Path | None:
    """Where records are to be kept: this commit's folder, or the folder itself where asv does not tell the commit."""
    folder = os.environ.get("SPARSEBENCH_TRACK_RESULTS")
    return REPOSITORY / folder / os.environ.get("ASV_COMMIT", "")[:8] if folder else None


def _about(series: Series) -> dict[str, str]:
    """The attributes by which asv knows a benchmark."""
    return {
        "benchmark_name": series.name,
        "pretty_name": series.title,
        "unit": series.unit,
        "version": series.version,
    }


def _planned() -> list[dict[str, str]]:
    """What `setup_cache` planned, in the folder that it ran in; elsewhere, where asv asks what there is, a new plan."""
    if PLAN.is_file():
        return list(json.loads(PLAN.read_text()))
    run, series = _plan(Path("results"))
    run.dry()
    return [_about(one) for one in series]


def _benchmark(about: Mapping[str, str]) -> Callable[[Answers], dict[str, Any]]:
    """One benchmark: a function that hands asv the samples that are there already."""
    name = about["benchmark_name"]

    def setup(answers: Answers) -> None:
        if answers[name]["outcome"] == "skipped":
            raise NotImplementedError(answers[name]["reason"])

    def track(answers: Answers) -> dict[str, Any]:
        answer, asked = answers[name], Path(f"{name}.asked")
        if answer["outcome"] != "ok":
            raise RuntimeError(f"{answer['outcome']}: {answer['reason']}")
        if not answer["samples"]:
            raise RuntimeError("it was timed without a baseline: no dense kernel passed its checks")
        if asked.exists():
            raise RuntimeError("asked for the same samples twice; give rounds > 1 to `asv continuous` alone")
        asked.touch()
        # Undocumented: asv takes a timing's samples from a track_ function too (runner.py, "Special parsing").
        return {"samples": answer["samples"], "number": 1}

    vars(track).update(about, setup=setup)
    return track


# asv looks for benchmarks among a module's names.
globals().update({f"track_{number}": _benchmark(about) for number, about in enumerate(_planned())})
