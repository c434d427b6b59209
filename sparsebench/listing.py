"""What there is, as tables: for `sparsebench list` and for README, which a test holds to these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sparsebench import suite
from sparsebench.errors import StoreError
from sparsebench.formats import FORMATS
from sparsebench.kernel import load_kernels
from sparsebench.network import Network
from sparsebench.patterns import PATTERNS
from sparsebench.shipped import shipped_networks, shipped_suites
from sparsebench.store import read_machines

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # column names, rows


def kernels() -> Table:
    """Every kernel with what it takes and needs."""
    rows = [
        (k.name, k.about, ", ".join(k.ops), ", ".join(k.layouts), ", ".join(k.dtypes), ", ".join(k.needs) or "-")
        for k in load_kernels()
    ]
    return ("kernel", "what it is", "op", "layout", "dtype", "needs"), rows


def formats() -> Table:
    """Every format and the patterns it can store."""
    rows = [(f.name, f.about, ", ".join(f.patterns) or "any") for f in FORMATS.values()]
    return ("format", "how W is stored", "patterns"), rows


def patterns() -> Table:
    """Every pattern."""
    rows = [(p.name, p.about, "yes" if p.prunes else "no") for p in PATTERNS.values()]
    return ("pattern", "where nonzeros may be", "by magnitude"), rows


def suites() -> Table:
    """Every suite that ships."""
    return ("suite", "what it asks"), [(name, suite.about(path)) for name, path in shipped_suites().items()]


def networks() -> Table:
    """Every network that ships, with its size."""
    loaded = {name: Network.load(path) for name, path in shipped_networks().items()}
    rows = [
        (name, str(len(net.layers)), f"{net.weights / 1e6:.1f} M", f"{net.macs / 1e9:.2f} G")
        for name, net in loaded.items()
    ]
    return ("network", "layers", "weights", "multiply-adds a sample"), rows


def machines(results: Path) -> Table:
    """Every machine that `results` holds facts of; StoreError when the folder is missing."""
    if not results.is_dir():
        raise StoreError(f"results folder {results} was not found; `sparsebench run SUITE` makes it")
    rows = [(name, machine.device, machine.describe()) for name, machine in read_machines(results).items()]
    return ("machine", "device", "what it is"), rows


TABLES: Mapping[str, Callable[[], Table]] = {
    "kernels": kernels,
    "formats": formats,
    "patterns": patterns,
    "suites": suites,
    "networks": networks,
}


def markdown(table: Table) -> str:
    """A table in Markdown."""
    head, rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(table: Table) -> str:
    """A table in columns for a terminal."""
    head, rows = table
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    cells = ([*line[:-1], ""] if not line[-1] else line for line in (head, *rows))
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells)
