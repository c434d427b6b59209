"""The app that commands add themselves to, and the options that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

# typer: options from annotations, and --help texts that a test can hold README to.
import typer

from sparsebench import __version__

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
NetworkName = Annotated[
    str, typer.Argument(help="A network: a file, or the name of one that ships (`sparsebench list networks`).")
]
PatternText = Annotated[
    str | None, typer.Option("--pattern", help="Pattern for all prunable layers, such as block:16x16.")
]
SparsityOf = Annotated[float | None, typer.Option("--sparsity", help="Its sparsity, a fraction in [0, 1).")]
PlanFile = Annotated[
    str | None,
    typer.Option("--plan", help="What each layer becomes: a plan file, or the name of one that ships, vit-b16-mixed."),
]
Batch = Annotated[int, typer.Option("--batch", help="Samples at a time.", min=1)]
ModelFile = Annotated[Path | None, typer.Option("--model", help="A model file that `fit` wrote, instead of records.")]
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
