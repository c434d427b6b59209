"""What commands share: planning, running, and saying what came of it. Here, and in cli.py, the two wings meet.

A wing is imported where it is used: `sparsebench list` must not load pandas, nor a usage error torch.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebench import units
from sparsebench.console import Showing, Voice
from sparsebench.errors import BadInput, ModelError
from sparsebench.listing import Table, plain
from sparsebench.network import Network
from sparsebench.pattern_text import parse_pattern
from sparsebench.plan import Plan
from sparsebench.record import BROKEN, Record
from sparsebench.shipped import resolve_plan, resolve_suite
from sparsebench.store import read_records, uncollected
from sparsebench.suite import Suite

if TYPE_CHECKING:
    from sparsebench.case import Case
    from sparsebench.desk.fitted import FittedModels
    from sparsebench.desk.predict import NetworkPrediction
    from sparsebench.lab.cluster import FleetRun
    from sparsebench.lab.run import Run, Summary


def plan_runs(suites: Sequence[str], results: Path, data: Path | None = None, **options: Any) -> list[Run | FleetRun]:
    """Every suite loaded and planned before anything runs, so that a mistake in the last one costs nothing.

    With `scheduler` in the options they run on the devices behind it, else here.
    """
    loaded = [Suite.load(resolve_suite(name), data, options.get("plugins", ())) for name in suites]
    scheduler = options.pop("scheduler", None)
    if scheduler is None:
        from sparsebench.lab.run import Run

        return [Run(suite, results, **options) for suite in loaded]
    need_cluster("--scheduler")
    from sparsebench.lab.cluster import FleetRun

    return [FleetRun(suite, results, scheduler, **options) for suite in loaded]


def need_cluster(asked: str) -> None:
    """BadInput where Dask distributed, which `asked` needs, is not installed."""
    if importlib.util.find_spec("distributed") is None:
        raise BadInput(
            f"{asked} needs Dask distributed, which is not installed; install the extra: pip install -e '.[cluster]'"
        )


def dry_runs(suites: Sequence[str], voice: Voice, results: Path, **options: Any) -> list[dict[str, Any]]:
    """Say how many trials each suite has and how long they take at most; nothing is run or written."""
    from sparsebench.lab.run import Run

    found = []
    for planned in plan_runs(suites, results, **options):
        name = planned.suite.name
        plans = [(planned.machine, *planned.dry())] if isinstance(planned, Run) else planned.dry()
        for machine, trials, most_s in plans:
            voice.say(f"{name}: {trials} trials on {machine.id}, at most about {units.duration(most_s)}")
            found.append({"suite": name, "trials": trials, "at_most_s": most_s, "machine": machine.id})
    return found


def run_suites(suites: Sequence[str], voice: Voice, results: Path, **options: Any) -> list[Summary]:
    """Run suites one after the other with their progress shown; a missing compiler is said first.

    A summary for each suite, or for each suite and machine id behind a scheduler.
    """
    from sparsebench.lab.build import missing_need
    from sparsebench.lab.docket import Watch

    if options.get("scheduler") is None and (missing := missing_need("cc")):
        voice.say(f"No C compiler: kernels written in C will be skipped. The first of them {missing}")
    summaries: list[Summary] = []
    for planned in plan_runs(suites, results, **options):
        with Showing(planned.suite.name) as showing:
            planned.watch = Watch(showing.planned, showing.finished, showing.said)
            done = planned.execute()
        for summary in done if isinstance(done, list) else [done]:
            voice.say(summary_line(summary))
            if told := time_line(summary):
                voice.say(told)
            summaries.append(summary)
    return summaries


def summary_line(summary: Summary) -> str:
    """Such as `48 trials: 44 ok, 3 skipped, 1 wrong -> results/x/quick.jsonl`."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.most_common())
    late = f"; {summary.not_started} not started, run again to go on" if summary.not_started else ""
    left = "".join(
        f"; {kernel} broke too often, {count} of its trials wait for another run"
        for kernel, count in summary.left_out.items()
    )
    return f"{len(summary.records)} trials: {counts or 'none'}{late}{left} -> {summary.path}"


def time_line(summary: Summary) -> str:
    """Where a run's time went, such as `Time: 84 % clock, 9 % reference, ... of 2 min; built for 5 s`; "" for none."""
    spent_s, built_s = dict(summary.spent_s), summary.spent_s.get("build", 0.0)
    whole_s = summary.wall_s - built_s
    if whole_s <= 0 or not spent_s.get("clock"):
        return ""
    spent_s["other"] = max(0.0, summary.wall_s - sum(spent_s.values()))
    parts = sorted(((part, time_s) for part, time_s in spent_s.items() if part != "build"), key=lambda part: -part[1])
    told = ", ".join(f"{units.percent(round(time_s / whole_s, 2))} {part}" for part, time_s in parts)
    return f"Time: {told} of {units.duration(whole_s)}; building took {units.duration(built_s)}"


def summary_json(summary: Summary) -> dict[str, Any]:
    """A run's outcome as JSON data."""
    return {
        "machine": summary.machine.id,
        "records": str(summary.path),
        "outcomes": dict(summary.outcomes),
        "kept": summary.kept,
        "not_started": summary.not_started,
        "left_out": dict(summary.left_out),
        "spent_s": dict(summary.spent_s),
        "wall_s": summary.wall_s,
    }


def exit_code(records: Sequence[Record]) -> int:
    """1 where a kernel was wrong, failed, crashed, ran out of memory or hung."""
    return int(any(record.outcome in BROKEN for record in records))


def say_verdict(voice: Voice, records: Sequence[Record]) -> list[str]:
    """The three lines that end a run: the answer with its interval, the reason to doubt it, the next command.

    Three for each machine, where there are several, below its id.
    """
    from sparsebench.desk.verdict import verdicts

    found = verdicts(records) if records else {}
    lines = []
    for machine, verdict in found.items():
        lines += [f"{machine}:"] * (len(found) > 1) + list(verdict.lines)
    voice.say("\n".join(["", *lines]))
    return lines


def planned_as(
    network: Network, pattern: str | None, sparsity: float | None, plan: str | None, *, may_be_dense: bool = False
) -> Plan:
    """The plan that the options of a command ask for; BadInput where they ask for two, or for none."""
    if plan is not None and (pattern is not None or sparsity is not None):
        raise BadInput("--plan FILE says what each layer becomes, so --pattern and --sparsity cannot stand beside it")
    if plan is not None:
        return Plan.load(resolve_plan(plan))
    if pattern is not None:
        return Plan.uniform(network, *parse_pattern(pattern), sparsity)
    if sparsity is not None or not may_be_dense:
        raise BadInput("say what the layers become: either --plan FILE or --pattern P, mostly with --sparsity S")
    return Plan(network, {})


def records_of(results: Path, machine: str | None) -> list[Record]:
    """The records of a machine, or of all; none where there is no such folder."""
    return read_records(results, machine) if (results / (machine or "")).is_dir() else []


def load_models(
    results: Path, machine: str | None, model: Path | None, leave_out: Callable[[Case], bool] | None = None
) -> FittedModels:
    """Models fitted now from all runs of every trial, without cases to leave out, or those of an exported file.

    BadInput when it cannot be read.
    """
    from sparsebench.desk.again import every_line
    from sparsebench.desk.fit import fit
    from sparsebench.desk.fitted import FittedModels
    from sparsebench.desk.hardware import hardware_in

    if model is None:
        with uncollected():
            records = list(every_line(results, machine))
        known = hardware_in(results, {record.machine for record in records})
        return fit(records, hardware=known, leave_out=leave_out)
    try:
        return FittedModels.from_json(json.loads(model.read_bytes()))
    except (OSError, ValueError) as error:
        raise BadInput(f"--model {model} cannot be read: {error}; `sparsebench fit` writes one") from None


def errors_table(models: FittedModels) -> str:
    """The held-out errors of the law that speaks for each kernel, beside those of all others and the clock's own noise.

    On left-out shapes, and on left-out cells where there are too few shapes; other ways of leaving out, such as whole
    sparsities, are in the report.
    """
    laws = ("irf", "irf_n", "roofline", "learned")
    worth = ("noise", "within 10 %", "95 % are below", "in seconds")
    head = ("kernel", "setting", "levels", "left out", "timings", "law", *laws, *worth)
    found = models.errors.to_dict("records")
    shapes = {(row["kernel"], row["setting"], row["levels"]) for row in found if row["how"] == "shapes"}
    rows = [
        (*(str(row[name]) for name in ("kernel", "setting", "levels", "how", "n", "law")),
         *(_share(row[name]) for name in (*laws, "floor", "within_10", "p95", "seconds_mape")))
        for row in found
        if row["how"] == "shapes"
        or (row["how"] == "cells" and (row["kernel"], row["setting"], row["levels"]) not in shapes)
    ]  # fmt: skip
    told = f"{plain((head, rows))}\n{_regrets(models)}" if rows else "none held out"
    return f"Mean errors of the laws on timings they had not seen, of the paired ratio:\n{told}"


def _share(value: float) -> str:
    """A share in percent, "-" where it is unknown."""
    return "-" if value != value else units.percent(round(value, 3))


def _regrets(models: FittedModels) -> str:
    """What believing the models costs, in a line for the choice of a kernel and one for sparse or dense."""
    from sparsebench.desk.regret import regret

    lines = []
    for dense, what in ((False, "The sparse kernel chosen"), (True, "Sparse or dense as chosen")):
        if found := regret(models, dense=dense):
            lines.append(
                f"{what} for matrices left out: {_share(found.geomean)} slower than the fastest in geometric mean, "
                f"{_share(found.p95)} at the 95th percentile of {found.cases} cases"
            )
    return "\n".join(lines)


def layers_table(answer: NetworkPrediction) -> Table:
    """A row a layer: who runs it, dense and planned time, speedup, irf, and why it stays dense."""
    head = ("layer", "kernel", "dense", "planned", "speedup", "irf", "planned time is", "")
    rows = [
        (row["layer"], row["kernel"], units.seconds(row["dense_s"]), units.seconds(row["time_s"]),
         f"{row['speedup']:.2f}x", "" if row["stays_dense"] else f"{row['irf']:.2f}",
         "measured" if row["measured"] else "predicted", row["why"])
        for row in answer.frame().to_dict("records")
    ]  # fmt: skip
    return head, rows


def predict_patterns(
    network: Network, models: FittedModels, machine: str, patterns: Sequence[str], sparsity: float, results: Path
) -> dict[str, NetworkPrediction]:
    """`network` under each pattern that has a model, with its rest where a verification in `results` knows it.

    Without a compiler some patterns have no model, and the report says why.
    """
    from sparsebench.desk.predict import predict
    from sparsebench.rest import measured_rest, verifications

    rest = measured_rest(verifications(results, machine), network, 1, machine)
    found = {}
    for text in patterns:
        plan = Plan.uniform(network, *parse_pattern(text), sparsity)
        try:
            found[text] = predict(network, models, plan, machine=machine, rest=rest)
        except ModelError:
            continue
    return found
