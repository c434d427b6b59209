"""The command line: each command reads, does, says; nothing else lives here. What needs both wings is composed here.

Exit codes: 0 done; 1 the answer is "no" (a wrong or crashed kernel); 2 bad input, nothing written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

# typer: options from annotations, and --help texts that a test can hold README to.
import typer

from sparsebench import __version__, units
from sparsebench import commands as shared
from sparsebench.console import Voice
from sparsebench.errors import BadInput, SparsebenchError

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
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu or cuda; auto is the GPU if there is one, else the CPU.")
]
HERE = Path("results")
REPORT = Path("report")
QUICK_PATTERNS = ("constant_fan_in", "block:4x1", "block:16x16")
QUICK_SPARSITY = 0.9


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
    from sparsebench.desk.report import write_report
    from sparsebench.desk.verdict import verdict_on
    from sparsebench.network import Network, resolve_network

    voice = Voice(json)
    # Always anew: results may hold the records of an equal machine, and a newcomer asks about this one, today.
    summary = shared.run_suites(["quick"], voice, results, device="cpu", fresh=True)[0]
    machine = summary.machine.id
    models = shared.load_models(results, machine, None)
    voice.say(shared.errors_table(models))
    network = Network.load(resolve_network("vit-b16"))
    predictions = shared.predict_patterns(network, models, machine, QUICK_PATTERNS, QUICK_SPARSITY)
    for pattern, prediction in predictions.items():
        voice.say(f"{pattern} at {units.percent(QUICK_SPARSITY)}: {verdict_on(prediction).answer}")
    path = write_report(results, out, machine)
    voice.say(f"Report: {path}")
    lines = shared.say_verdict(voice, summary.records)
    found = {
        "report": str(path),
        "verdict": lines,
        "predictions": {pattern: p.to_json() for pattern, p in predictions.items()},
    }
    voice.document({**shared.summary_json(summary), **found})
    raise typer.Exit(shared.exit_code(summary.records))


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
        voice.document({"plans": shared.dry_runs(suite, voice, results, **more)})
        return
    summaries = shared.run_suites(suite, voice, results, **more)
    records = [record for summary in summaries for record in summary.records]
    lines = shared.say_verdict(voice, records)
    voice.document({"suites": [shared.summary_json(summary) for summary in summaries], "verdict": lines})
    raise typer.Exit(shared.exit_code(records))


@app.command()
def fit(results: Results = HERE, machine: MachineId = None, json: Json = False) -> None:
    """Fit irf from records, print the errors on held-out trials, and write irf.json beside the records."""
    import json as json_text

    from sparsebench.desk.fit import fit as fitted
    from sparsebench.store import read_records, write_atomically

    voice = Voice(json)
    written = []
    records = read_records(results, machine)
    for name in sorted({record.machine for record in records}):
        models = fitted(record for record in records if record.machine == name)
        voice.say(shared.errors_table(models))
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
    models = shared.load_models(results, machine, model)
    answer = predicted(net, models, chosen, batch=batch, machine=machine)
    voice.say(plain(shared.layers_table(answer)))
    voice.say()
    lines = verdict_on(answer).lines
    for line in lines:
        voice.say(line)
    voice.document({**answer.to_json(), "verdict": list(lines)})


@app.command()
def report(results: Results = HERE, out: Out = REPORT, machine: MachineId = None, json: Json = False) -> None:
    """Write report.md and one self-contained report.html from records alone."""
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
    from sparsebench.listing import TABLES, machines, plain

    voice = Voice(json)
    head, rows = machines(results) if what == "machines" else TABLES[what]()
    voice.say(plain((head, rows)))
    voice.document({what: [dict(zip(head, row, strict=True)) for row in rows]})


@app.command()
def doctor(json: Json = False) -> None:
    """Say what works on this machine and what to install; time a dense kernel against itself."""
    from sparsebench.lab.doctor import examine

    voice = Voice(json)
    found = examine(voice.say)
    voice.document(found)
    raise typer.Exit(0 if found["healthy"] else 1)


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
