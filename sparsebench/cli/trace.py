"""The command that turns torch code into a network: trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebench.cli.app import Json, app
from sparsebench.console import Voice
from sparsebench.errors import BadInput


@app.command()
def trace(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:CALLABLE",
            help="What makes the module: a class or function without arguments, or a module. The current folder is "
            "searched first.",
        ),
    ],
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=SIZES",
            help="An argument of forward for one sample, such as x=1,3,224,224 or input_ids=1,128:int64; repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The network file to write; printed where none is named.")
    ] = None,
    json: Json = False,
) -> None:
    """Send one sample through a torch module and write its layers as a network: shapes alone, no weights needed."""
    from sparsebench.lab.trace import trace as traced
    from sparsebench.lab.trace_inputs import parse_inputs
    from sparsebench.lab.trace_text import data, network_text, told
    from sparsebench.store import write_atomically

    voice = Voice(json)
    if out is not None and out.is_dir():
        raise BadInput(f"--out {out} was asked for, but it is a folder; name a file in it")
    if out is not None and not out.parent.is_dir():
        raise BadInput(f"--out {out} was asked for, but {out.parent} is no folder; make it first")
    found = traced(target, parse_inputs(sizes or ()))
    name = out.stem if out else target.rpartition(":")[2].rpartition(".")[2]
    text = network_text(found, name)
    if out is None:
        voice.say(text.rstrip())  # what was found stands in its comments
    else:
        try:
            write_atomically(out, text)
        except OSError as error:
            raise BadInput(f"--out {out} cannot be written: {error.strerror}; choose another place") from None
        lines = [
            *told(found),
            f"Network: {out}",
            f"Next: sparsebench predict {out} --pattern block:16x16 --sparsity 0.9",
        ]
        voice.say("\n".join(lines))
    voice.document({"network": name, "file": str(out) if out else None, **data(found)})
