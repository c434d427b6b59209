"""A results folder as report.md (plots beside it) and one self-contained report.html.

Both open with the answer of each machine, then what was skipped for want of something; evidence, models, what happened
and facts follow. The HTML asks nothing of a network: plots are inside it, styles too, and it has no scripts. All text
from records is escaped. The same records make the same bytes: nothing of today's clock or machine goes in.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

# jinja2: templates that escape what they are given.
from jinja2 import Environment, StrictUndefined

from sparsebench.desk.again import every_line
from sparsebench.desk.canvas import png
from sparsebench.desk.facts import newest_peaks
from sparsebench.desk.fit import fit
from sparsebench.desk.frame import frame
from sparsebench.desk.hardware import hardware_in
from sparsebench.desk.pages import Page, Picture, page
from sparsebench.desk.plots import draw_all
from sparsebench.errors import StoreError
from sparsebench.machine import Machine
from sparsebench.record import Record
from sparsebench.rest import is_rest
from sparsebench.store import read_machines, read_records, uncollected

MOST_ROWS = 60  # of a table in Markdown; HTML has them all, and scrolls


@uncollected()
def write_report(results: Path, out: Path, machine: str | None = None) -> Path:
    """Write report.md, its plots and report.html into `out`; the path of report.html.

    All machines of `results`, each by itself, or one. StoreError without records, or where `out` cannot be written.
    """
    records = [record for record in read_records(results, machine) if not is_rest(record)]
    pages = make_pages(results, records)
    written = {"report.md": _markdown(pages), "report.html": _html(pages)}
    pictures = {picture.file: picture.png for entry in pages for picture in entry.pictures}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in {**pictures, **written}.items():
            _write(out / name, content)
    except OSError as error:
        raise StoreError(
            f"the report cannot be written to {out}: {error.strerror}; choose another folder with --out"
        ) from None
    return out / "report.html"


def make_pages(results: Path, records: Sequence[Record]) -> list[Page]:
    """A page for each machine among `records`, by id; each machine is fitted by itself."""
    known = read_machines(results)
    return [
        _page(results, name, [record for record in records if record.machine == name], known.get(name))
        for name in sorted({record.machine for record in records})
    ]


def _page(results: Path, name: str, records: Sequence[Record], known: Machine | None) -> Page:
    # Tables show the newest run of each trial; laws are fitted to all runs, as those of predict and advise.
    table, fitted = frame(records), fit(every_line(results, name), hardware=hardware_in(results, [name]))
    pictures = [
        Picture(f"{_slug(name)}-{plot.name}.png", plot.caption, png(figure)) for plot, figure in draw_all(table, fitted)
    ]
    return page(name, records, table, fitted, known, newest_peaks(results / name), pictures)


def _markdown(pages: Sequence[Page]) -> bytes:
    environment = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["text"] = _markdown_text
    template = environment.from_string(_template("report.md.j2"))
    return template.render(pages=pages, most_rows=MOST_ROWS).encode()


def _html(pages: Sequence[Page]) -> bytes:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["base64"] = lambda content: b64encode(content).decode()
    return environment.from_string(_template("report.html.j2")).render(pages=pages).encode()


def _template(name: str) -> str:
    return (files("sparsebench.desk") / name).read_text()


def _markdown_text(text: str) -> str:
    """`text` that Markdown shows as it is, also in a table cell: one line, its marks and tags disarmed."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)


def _write(path: Path, content: bytes) -> None:
    """Write whole or not at all: a temporary file beside it, then a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
