"""Commands that read what is there: fit, predict, compare, report, export, list."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from sparsebench import commands as shared
from sparsebench.cli.app import (
    HERE,
    REPORT,
    Batch,
    Json,
    MachineId,
    ModelFile,
    NetworkName,
    Out,
    PatternText,
    PlanFile,
    Results,
    SparsityOf,
    app,
)
from sparsebench.console import Voice
from sparsebench.errors import BadInput


@app.command()
def fit(
    results: Results = HERE,
    machine: MachineId = None,
    again: Annotated[
        Path | None,
        typer.Option("--again", help="A results folder of the same trials, half an hour later: it judges the fit."),
    ] = None,
    json: Json = False,
) -> None:
    """Fit irf from records, print the errors on held-out trials, and write irf.json beside the records."""
    import json as json_text

    from sparsebench.desk.again import every_line
    from sparsebench.desk.fit import fit as fitted
    from sparsebench.desk.hardware import hardware_in
    from sparsebench.store import uncollected, write_atomically

    voice = Voice(json)
    written = []
    with uncollected():
        records = [record for folder in (results, again) if folder for record in every_line(folder, machine)]
    for name in sorted({record.machine for record in records}):
        own = (record for record in records if record.machine == name)
        models = fitted(own, hardware=hardware_in(results, [name]))
        voice.say(shared.errors_table(models))
        path = results / name / "irf.json"
        write_atomically(path, json_text.dumps(models.to_json(), indent=1, allow_nan=False) + "\n")
        errors = json_text.loads(models.errors.to_json(orient="records"))
        written.append({"machine": name, "model": str(path), "errors": errors})
        voice.say(f"Models of {name}: {path}")
    voice.say("Next: sparsebench predict NETWORK --pattern block:16x16 --sparsity 0.9")
    voice.document({"fits": written})


@app.command()
def predict(
    network: NetworkName,
    pattern: PatternText = None,
    sparsity: SparsityOf = None,
    plan: PlanFile = None,
    batch: Batch = 1,
    results: Results = HERE,
    machine: MachineId = None,
    model: ModelFile = None,
    json: Json = False,
) -> None:
    """Predict NETWORK under a plan, from the records in --results or from an exported model."""
    from sparsebench.desk.costs import costs, pack_seconds
    from sparsebench.desk.predict import predict as predicted
    from sparsebench.desk.verdict import verdict_on
    from sparsebench.listing import plain
    from sparsebench.network import Network, resolve_network
    from sparsebench.rest import measured_rest, verifications

    voice = Voice(json)
    net = Network.load(resolve_network(network))
    chosen = shared.planned_as(net, pattern, sparsity, plan)
    models = shared.load_models(results, machine, model)
    at = models.place(machine).machine
    records = shared.records_of(results, at)
    rest = measured_rest(verifications(results, at), net, batch, at)
    answer = predicted(net, models, chosen, batch=batch, machine=at, rest=rest)
    paid = costs(answer, pack_seconds(records, at))
    voice.say(plain(shared.layers_table(answer)))
    voice.say(f"\n{paid}")
    lines = verdict_on(answer).lines
    for line in lines:
        voice.say(line)
    voice.document({**answer.to_json(), "costs": paid.to_json(), "verdict": list(lines)})


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(help="Records to compare with: a results folder, or one file of records.")],
    new: Annotated[Path, typer.Argument(help="Records that may have got slower: a results folder, or one file.")],
    across: Annotated[
        bool, typer.Option("--across", help="Compare the speedups of two machines, whose times cannot be compared.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say of each pair what its verdict rests on, and what would decide it.")
    ] = False,
    json: Json = False,
) -> None:
    """Say of each case whether it is SLOW, UNSURE, SAME or FAST in NEW, compared with BASE; exit 1 if any is slower."""
    from sparsebench.desk import compare_say as say
    from sparsebench.desk.compare import compare as compared
    from sparsebench.desk.compare_verdict import verdict_lines
    from sparsebench.listing import plain

    voice = Voice(json)
    found = compared(base, new, across=across)
    lines = verdict_lines(found)
    if across:
        voice.say(f"Speedups over each machine's best baseline are compared, not times: {' and '.join(found.machines)}")
    told = [*say.explained(found), *say.agreement(found)] if explain else [plain(say.table(found)), say.rest(found)]
    for text in (*told, *say.changed_baselines(found), *say.one_sided(found), "", *lines):
        voice.say(text)
    voice.document(say.document(found))
    raise typer.Exit(int(found.worse))


@app.command()
def report(results: Results = HERE, out: Out = REPORT, machine: MachineId = None, json: Json = False) -> None:
    """Write report.md and one self-contained report.html from records alone."""
    from sparsebench.desk.report import write_report

    voice = Voice(json)
    path = write_report(results, out, machine)
    voice.say(f"Report: {path}")
    voice.document({"report": str(path)})


@app.command()
def export(
    what: Annotated[
        Literal["asv", "parquet", "csv"],
        typer.Argument(help="asv: results for asv show, compare and publish; else the tables trials and samples."),
    ],
    results: Results = HERE,
    out: Annotated[Path, typer.Option("--out", help="Folder for the files, made if missing.")] = Path("export"),
    machine: MachineId = None,
    commit: Annotated[
        str | None, typer.Option("--commit", help="asv alone: the commit that was measured, instead of HEAD.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the records for other tools: as results of asv, or as two tables in Parquet or CSV."""
    voice = Voice(json)
    if what == "asv":
        from sparsebench.desk.export_asv import export_asv

        filed = export_asv(results, out, machine, commit)
        voice.say(f"{filed.benchmarks} benchmarks of commit {filed.commit[:8]}: {' '.join(map(str, filed.files))}")
        if filed.left_out:
            voice.say(f"{filed.left_out} records left out: kernels of other sources than those installed here")
        voice.document({**asdict(filed), "files": [str(path) for path in filed.files]})
        return
    from sparsebench.desk.export import export_tables

    if commit:
        raise BadInput(f"--commit {commit} was given, but a table has no commit; only `export asv` takes one")
    made = export_tables(what, results, out, machine)
    voice.say(f"{made.trials} trials, {made.samples} samples: {' '.join(map(str, made.files))}")
    voice.document({**asdict(made), "files": [str(path) for path in made.files]})


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
