"""Commands that read what is there: fit, predict, report, list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sparsebench import commands as shared
from sparsebench.cli.app import HERE, REPORT, Json, MachineId, Out, Results, app
from sparsebench.console import Voice
from sparsebench.errors import BadInput


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
