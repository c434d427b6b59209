"""The command line: each command reads, does, says; nothing else lives here. What needs both wings is composed here.

Exit codes: 0 done; 1 the answer is "no" (a wrong or crashed kernel); 2 bad input, nothing written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

# typer: options from annotations, and --help texts that a test can hold README to.
import typer

from sparsebench import __version__, units
from sparsebench.errors import BadInput, SparsebenchError
from sparsebench.record import BROKEN

app = typer.Typer(
    name="sparsebench",
    help="Which sparsity pattern, format and kernel is how much faster than the best dense one, on this machine?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Results = Annotated[Path, typer.Option("--results", help="Folder of records, made if missing.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the report, made if missing.")]
MachineId = Annotated[str | None, typer.Option("--machine", help="Machine id, where results hold several.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; talk goes to stderr.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda; auto takes a GPU if there is one.")]
HERE = Path("results")
REPORT = Path("report")


def _version(asked: bool) -> None:
    if asked:
        print(f"sparsebench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of no command."""


@app.command()
def quick(results: Results = HERE, out: Out = REPORT, json: Json = False) -> None:
    """Do the whole job on this machine in minutes: run the quick suite, fit, predict ViT-B/16, write a report."""
    from sparsebench.console import Voice
    from sparsebench.desk.fit import fit as fitted
    from sparsebench.desk.report import write_report
    from sparsebench.network import Network, resolve_network
    from sparsebench.store import read_records

    voice = Voice(json)
    summary = _run(["quick"], voice, results, device="cpu")[0]
    models = fitted(read_records(results, summary.machine.id))
    _say_errors(voice, models)
    network = Network.load(resolve_network("vit-b16"))
    predictions = _predictions(network, models, summary.machine.id, QUICK_PATTERNS, 0.9)
    _say_predictions(voice, predictions)
    path = write_report(results, out, summary.machine.id)
    voice.say(f"Report: {path}")
    lines = _verdict(voice, summary.records)
    voice.document(
        {
            **_summary_json(summary),
            "verdict": lines,
            "report": str(path),
            "predictions": [p.to_json() for p in predictions],
        }
    )
    raise typer.Exit(_broken(summary.records))


@app.command()
def run(
    suite: Annotated[
        list[str], typer.Argument(help="Suites: a file, or the name of one that ships (`sparsebench list suites`).")
    ],
    results: Results = HERE,
    data: Annotated[
        Path | None, typer.Option("--data", help="Root of the suite's relative paths, instead of its folder.")
    ] = None,
    device: Device = "auto",
    kernels: Annotated[
        str | None, typer.Option("--kernels", help="Run only sparse kernels whose name matches this glob.")
    ] = None,
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", help="A Python file that ends in KERNELS = [...]; repeatable.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Start no trial after this many minutes.", min=0)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan, say how many trials and how long, and stop.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run trials again that already have a record.")] = False,
    json: Json = False,
) -> None:
    """Run every trial of SUITE and store one record each; what is stored already is not run again."""
    from sparsebench.console import Voice

    voice = Voice(json)
    limit_s = None if time_limit is None else 60 * time_limit
    more = {
        "data": data,
        "device": device,
        "only": kernels,
        "plugins": tuple(plugin or ()),
        "time_limit_s": limit_s,
        "fresh": fresh,
    }
    if dry_run:
        voice.document({"plans": _dry(suite, voice, results, **more)})
        return
    summaries = _run(suite, voice, results, **more)
    records = [record for summary in summaries for record in summary.records]
    lines = _verdict(voice, records)
    voice.document({"suites": [_summary_json(summary) for summary in summaries], "verdict": lines})
    raise typer.Exit(_broken(records))


@app.command()
def fit(results: Results = HERE, machine: MachineId = None, json: Json = False) -> None:
    """Fit irf from records, print the errors on held-out trials, and write irf.json beside the records."""
    import json as json_text

    from sparsebench.console import Voice
    from sparsebench.desk.fit import fit as fitted
    from sparsebench.store import read_records, write_atomically

    voice = Voice(json)
    written = []
    records = read_records(results, machine)
    for name in sorted({record.machine for record in records}):
        models = fitted(record for record in records if record.machine == name)
        _say_errors(voice, models)
        path = results / name / "irf.json"
        write_atomically(path, json_text.dumps(models.to_json(), indent=1, allow_nan=False) + "\n")
        written.append({"machine": name, "model": str(path), "errors": models.errors.to_dict("records")})
        voice.say(f"Models of {name}: {path}")
    voice.say("Next: sparsebench predict NETWORK --pattern block:16x16 --sparsity 0.9")
    voice.document({"fits": written})


@app.command()
def predict(
    network: Annotated[
        str, typer.Argument(help="A network: a file, or the name of one that ships (`sparsebench list networks`).")
    ],
    pattern: Annotated[
        str | None, typer.Option("--pattern", help="Pattern for all prunable layers, such as block:16x16.")
    ] = None,
    sparsity: Annotated[float | None, typer.Option("--sparsity", help="Its sparsity, a fraction in [0, 1).")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan file: what each layer becomes.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Samples at a time.", min=1)] = 1,
    results: Results = HERE,
    machine: MachineId = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="A model file that `fit` wrote, instead of records.")
    ] = None,
    json: Json = False,
) -> None:
    """Predict the layers of NETWORK under a plan, from the records in --results or from an exported model."""
    from sparsebench.console import Voice
    from sparsebench.desk.predict import predict as predicted
    from sparsebench.desk.verdict import verdict_on
    from sparsebench.listing import plain
    from sparsebench.network import Network, resolve_network
    from sparsebench.pattern_text import parse_pattern
    from sparsebench.plan import Plan

    voice = Voice(json)
    if (plan is None) == (pattern is None):
        raise BadInput("predict needs either --plan FILE or --pattern P; give one of them")
    net = Network.load(resolve_network(network))
    chosen = Plan.load(plan) if plan else Plan.uniform(net, *parse_pattern(pattern or ""), sparsity)
    models = _models(results, machine, model)
    answer = predicted(net, models, chosen, batch=batch, machine=machine)
    voice.say(plain(_layers_table(answer)))
    voice.say()
    lines = verdict_on(answer).lines
    for line in lines:
        voice.say(line)
    voice.document({**answer.to_json(), "verdict": list(lines)})


@app.command()
def report(results: Results = HERE, out: Out = REPORT, machine: MachineId = None, json: Json = False) -> None:
    """Write report.md and one self-contained report.html from records alone."""
    from sparsebench.console import Voice
    from sparsebench.desk.report import write_report

    voice = Voice(json)
    path = write_report(results, out, machine)
    voice.say(f"Report: {path}")
    voice.document({"report": str(path)})


@app.command("list")
def list_(
    what: Annotated[
        Literal["kernels", "formats", "patterns", "suites", "networks", "machines"],
        typer.Argument(help="What to list."),
    ],
    results: Results = HERE,
    json: Json = False,
) -> None:
    """List what there is: kernels, formats, patterns, suites, networks, or the machines in --results."""
    from sparsebench.console import Voice
    from sparsebench.listing import TABLES, machines, plain

    voice = Voice(json)
    head, rows = machines(results) if what == "machines" else TABLES[what]()
    voice.say(plain((head, rows)))
    voice.document({what: [dict(zip(head, row, strict=True)) for row in rows]})


@app.command()
def doctor(json: Json = False) -> None:
    """Say what works on this machine and what to install; time a dense kernel against itself."""
    from sparsebench.console import Voice
    from sparsebench.lab.doctor import examine

    voice = Voice(json)
    found = examine(voice.say)
    voice.document(found)
    raise typer.Exit(0 if found["healthy"] else 1)


# What commands share ----------------------------------------------------------------------------------------------

QUICK_PATTERNS = ("constant_fan_in", "block:4x1", "block:16x16")


def _plans(suites: Sequence[str], results: Path, data: Path | None = None, **options: Any) -> list[Any]:
    """Every suite loaded and planned before anything runs, so that a mistake in the last one costs nothing."""
    from sparsebench.lab.run import Run
    from sparsebench.shipped import resolve_suite
    from sparsebench.suite import Suite

    loaded = [Suite.load(resolve_suite(name), data, options.get("plugins", ())) for name in suites]
    return [Run(suite, results, **options) for suite in loaded]


def _dry(suites: Sequence[str], voice: Any, results: Path, **options: Any) -> list[dict[str, Any]]:
    found = []
    for planned in _plans(suites, results, **options):
        trials, expected_s = planned.dry()
        voice.say(
            f"{planned.suite.name}: {trials} trials on {planned.machine.id}, at most about {units.duration(expected_s)}"
        )
        found.append(
            {"suite": planned.suite.name, "trials": trials, "at_most_s": expected_s, "machine": planned.machine.id}
        )
    return found


def _run(suites: Sequence[str], voice: Any, results: Path, **options: Any) -> list[Any]:
    from sparsebench.console import Showing
    from sparsebench.lab.build import missing_need
    from sparsebench.lab.run import Watch

    if missing := missing_need("cc"):
        voice.say(f"No C compiler: kernels written in C will be skipped. The first of them {missing}")
    summaries = []
    for planned in _plans(suites, results, **options):
        with Showing(planned.suite.name) as showing:
            planned.watch = Watch(showing.planned, showing.finished)
            summaries.append(planned.execute())
        voice.say(_summary_line(summaries[-1]))
    return summaries


def _summary_line(summary: Any) -> str:
    """Such as `48 trials: 44 ok, 3 skipped, 1 wrong -> results/x/quick.jsonl`."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.most_common())
    late = f"; {summary.not_started} not started, run again to go on" if summary.not_started else ""
    return f"{len(summary.records)} trials: {counts or 'none'}{late} -> {summary.path}"


def _summary_json(summary: Any) -> dict[str, Any]:
    return {
        "machine": summary.machine.id,
        "records": str(summary.path),
        "outcomes": dict(summary.outcomes),
        "kept": summary.kept,
        "not_started": summary.not_started,
    }


def _broken(records: Sequence[Any]) -> int:
    return int(any(record.outcome in BROKEN for record in records))


def _verdict(voice: Any, records: Sequence[Any]) -> list[str]:
    """The three lines that end a run: the answer with its interval, the reason to doubt it, the next command."""
    from sparsebench.desk.frame import frame
    from sparsebench.desk.verdict import verdict_of

    lines = list(verdict_of(frame(records)).lines) if records else []
    voice.say()
    for line in lines:
        voice.say(line)
    return lines


def _models(results: Path, machine: str | None, model: Path | None) -> Any:
    import json as json_text

    from sparsebench.desk.fit import fit as fitted
    from sparsebench.desk.fitted import FittedModels
    from sparsebench.store import read_records

    if model is None:
        return fitted(read_records(results, machine))
    try:
        return FittedModels.from_json(json_text.loads(model.read_bytes()))
    except (OSError, ValueError) as error:
        raise BadInput(f"--model {model} cannot be read: {error}; `sparsebench fit` writes one") from None


def _say_errors(voice: Any, models: Any) -> None:
    """The held-out errors of every model, as a table; those beyond the measured range are in the report."""
    from sparsebench.listing import plain

    head = ("kernel", "setting", "levels", "left out", "timings", "mean error", "within 10 %", "95 % are below")
    rows = [
        (
            row.kernel,
            row.setting,
            row.levels,
            row.how,
            str(row.n),
            *(units.percent(round(share, 3)) for share in (row.mape, row.within_10, row.p95)),
        )
        for row in models.errors.itertuples()
        if row.how != "edges"
    ]
    voice.say("Errors of the models on timings they had not seen:")
    voice.say(plain((head, rows)) if rows else "none could be held out; run more shapes and sparsities")


def _layers_table(answer: Any) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    head = ("layer", "kernel", "dense", "planned", "speedup", "irf", "")
    rows = [
        (row.layer, row.kernel, units.seconds(row.dense_s), units.seconds(row.time_s), f"{row.speedup:.2f}x",
         "" if row.stays_dense else f"{row.irf:.2f}", row.why)
        for row in answer.frame().itertuples()
    ]  # fmt: skip
    return head, rows


def _predictions(network: Any, models: Any, machine: str, patterns: Sequence[str], sparsity: float) -> list[Any]:
    from sparsebench.desk.predict import predict as predicted
    from sparsebench.errors import ModelError
    from sparsebench.pattern_text import parse_pattern
    from sparsebench.plan import Plan

    found = []
    for text in patterns:
        try:
            found.append(
                predicted(network, models, Plan.uniform(network, *parse_pattern(text), sparsity), machine=machine)
            )
        except ModelError:
            continue  # no compiler, so no records of this pattern; the report says which kernels were skipped and why
    return found


def _say_predictions(voice: Any, predictions: Sequence[Any]) -> None:
    from sparsebench.desk.verdict import verdict_on

    for answer in predictions:
        voice.say(verdict_on(answer).answer)


def main() -> None:
    """Run the command line; a mistake of the user's is one message and exit code 2, with nothing written."""
    try:
        app()
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except SparsebenchError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; every finished trial is stored, and the same command goes on from there", file=sys.stderr)
        sys.exit(130)
