"""The command that answers "what should this layer become?": advise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebench import commands as shared
from sparsebench.cli.app import HERE, Json, MachineId, Results, app
from sparsebench.console import Voice
from sparsebench.errors import BadInput


@app.command()
def advise(
    network: Annotated[
        str | None, typer.Argument(help="A network: a file, or the name of one that ships; or give --shape.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", help="One layer instead of a network, as M,K,N: 768,3072,64.")
    ] = None,
    machine: MachineId = None,
    results: Results = HERE,
    model: Annotated[
        Path | None, typer.Option("--model", help="A model file that `fit` wrote, instead of records.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Samples at a time, of a network; 1 if not given.", min=1)
    ] = None,
    json: Json = False,
) -> None:
    """Say which pattern and kernel suits NETWORK or a shape best, and from which sparsity and batch on it pays."""
    voice = Voice(json)
    if (network is None) == (shape is None):
        raise BadInput("advise needs either a NETWORK or --shape M,K,N; give one of them")
    if shape is not None and batch is not None:
        raise BadInput(f"--batch {batch} was given with --shape {shape}, whose N says it; leave --batch out")
    size = _shape(shape) if shape is not None else None

    from sparsebench.desk.advise import advise as advised
    from sparsebench.desk.advise import one_layer
    from sparsebench.desk.advise_say import texts, to_json, verdict
    from sparsebench.network import Network, resolve_network

    asked = one_layer(*size[:2]) if size else Network.load(resolve_network(network or ""))
    models = shared.load_models(results, machine, model)
    found = advised(asked, models, batch=size[2] if size else batch or 1, shape=bool(size), machine=machine)
    for text in texts(found):
        voice.say(text)
    lines = verdict(found).lines
    voice.say("\n".join(["", *lines]))
    voice.document({**to_json(found), "verdict": list(lines)})


def _shape(text: str) -> tuple[int, int, int]:
    """m, k and n; BadInput unless `text` is three whole numbers of at least 1."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise BadInput(f"--shape takes three whole numbers of at least 1, M,K,N, found {text!r}; write 768,3072,64")
    m, k, n = (int(part) for part in parts)
    return m, k, n
