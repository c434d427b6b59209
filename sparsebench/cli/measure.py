"""Commands that measure: quick, run, worker, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebench import commands as shared
from sparsebench import units
from sparsebench.cli.app import HERE, REPORT, Device, Json, Out, Results, app
from sparsebench.console import Voice
from sparsebench.errors import BadInput

QUICK_PATTERNS = ("constant_fan_in", "block:4x1", "block:16x16")
QUICK_SPARSITY = 0.9


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
    predictions = shared.predict_patterns(network, models, machine, QUICK_PATTERNS, QUICK_SPARSITY, results)
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
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="Run on the devices behind this Dask scheduler, such as tcp://host:8786 (see docs/cluster.md). They "
            "find --data and plugins under the same paths as here.",
        ),
    ] = None,
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
        "scheduler": scheduler,
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
def worker(
    address: Annotated[str, typer.Argument(help="The scheduler, such as tcp://host:8786.")],
    device: Device = "auto",
    gpu: Annotated[int | None, typer.Option("--gpu", help="Which GPU, counted from 0; one worker each.", min=0)] = None,
    name: Annotated[str | None, typer.Option("--name", help="What Dask calls it; its address unless said.")] = None,
    port: Annotated[
        int, typer.Option("--port", help="Where the scheduler reaches it: through a firewall, or an ssh tunnel.", min=0)
    ] = 0,
) -> None:
    """Offer a device of this machine to the Dask scheduler at ADDRESS, until Ctrl-C (see docs/cluster.md)."""
    shared.need_cluster("worker")
    from sparsebench.lab.cluster_worker import choose_gpu, serve
    from sparsebench.machine import Machine

    if gpu is not None:
        if device == "cpu":
            raise BadInput("--gpu and --device cpu were asked for; give one of them")
        device = "cuda"
        choose_gpu(gpu)
    serve(address, Machine.here(device), Voice(json=False).say, name, port)


@app.command()
def doctor(
    suite: Annotated[
        str | None, typer.Argument(help="With --aa: the suite whose kernels are timed against themselves, or quick.")
    ] = None,
    aa: Annotated[
        bool, typer.Option("--aa", help="Time every kernel of a suite against itself; fewer than 95 % SAME exits 1.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Say what works on this machine and what to install; time a dense kernel, or a suite's, against itself."""
    from sparsebench.lab.doctor import examine

    voice = Voice(json)
    if suite and not aa:
        raise BadInput(f"doctor looks at the machine and takes no suite, found {suite}; doctor --aa {suite} does")
    if aa:
        from sparsebench.lab.twins import examine_twins
        from sparsebench.shipped import resolve_suite
        from sparsebench.suite import Suite

        found = examine_twins(Suite.load(resolve_suite(suite or "quick")), voice.say, device)
    else:
        found = examine(voice.say)
    voice.document(found)
    raise typer.Exit(0 if found["healthy"] else 1)
