"""Records as results of asv (airspeed velocity), which then shows, compares and publishes them.

They are written by asv's own classes, so that format and statistics are those of the asv that reads them. asv files
results by machine, commit and environment:

    commit       the one that is named, else HEAD. A record knows the sources of its kernel and no commit, so without a
                 name the records whose sources are not those installed here are left out, and counted
    environment  the versions that made the record's code; one file for each such set
    benchmark    what is tracked of a trial (desk/tracked.py), under the names that suites/asv uses
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import filterfalse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sparsebench.case import digest
from sparsebench.desk.tracked import Series, distinct, series_of
from sparsebench.errors import BadInput, StoreError
from sparsebench.kernel import load_kernels
from sparsebench.machine import Machine
from sparsebench.record import Record
from sparsebench.rest import is_rest
from sparsebench.store import each_record, read_machines


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of the repository in the current folder: its hash, and when it was made (milliseconds since 1970)."""

    hash: str
    date_ms: int


@dataclass(slots=True)
class ExportedAsv:
    """What was written: the files of results, how many benchmarks, and how many records were of other sources."""

    commit: str
    files: list[Path] = field(default_factory=list)
    benchmarks: int = 0
    left_out: int = 0


@dataclass(slots=True)
class _Environment:
    """One file of results: the newest record of each series, as (outcome, values, start)."""

    machine: str
    python: str
    versions: Mapping[str, str]
    system: str
    answers: dict[Series, tuple[str, list[float], str]] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """Keep what this record says of its series, unless a newer one was here."""
        for series in series_of([(record.case, record.kernel)], record.protocol):
            if record.started_at >= self.answers.get(series, ("", [], ""))[2]:
                values = series.values(record) if record.outcome == "ok" else []
                self.answers[series] = (record.outcome, values, record.started_at)


def export_asv(results: Path, out: Path, machine: str | None = None, commit: str | None = None) -> ExportedAsv:
    """Write the records in `results` into asv's results folder `out`, as those of `commit`; other results there stay.

    StoreError where there are no such records or `out` cannot be written; BadInput without asv, git or that commit.
    """
    asv, of = _asv(), find_commit(commit or "HEAD")
    exported = ExportedAsv(of.hash)
    environments = _environments(
        filterfalse(is_rest, each_record(results, machine)), exported, installed_only=commit is None
    )
    if not environments:
        raise StoreError(
            f"all {exported.left_out} records in {results} are of kernels whose sources are not those installed here;"
            f" measure again, or name their commit with --commit"
        )
    named = _named(environments)
    known = read_machines(results)
    try:
        _write_benchmarks(asv, out, named.values())
        for environment in environments:
            facts = _write_machine(asv, out, environment, known.get(environment.machine))
            exported.files.append(_write_results(asv, out, environment, of, facts, named))
    except OSError as error:
        raise StoreError(
            f"asv's results cannot be written to {out}: {error.strerror}; choose another folder with --out"
        ) from None
    exported.benchmarks = len({series.name for series in named.values()})
    return exported


def find_commit(name: str) -> Commit:
    """The commit that `name` stands for in the current folder's repository; BadInput where git finds none."""
    try:
        answer = subprocess.run(
            ["git", "show", "--no-patch", "--format=%H %ct", "--end-of-options", f"{name}^{{commit}}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()[0]
        raise BadInput(
            f"export asv files results by commit, and git does not know {name!r} here: {said}; run it in the"
            f" repository, or name a commit with --commit"
        ) from None
    commit, seconds = answer.stdout.split()
    return Commit(commit, 1000 * int(seconds))


def _environments(records: Iterable[Record], exported: ExportedAsv, installed_only: bool) -> list[_Environment]:
    """The records by machine and versions; those of kernels that are installed in another version are only counted."""
    installed = {kernel.name: kernel.source_sha for kernel in load_kernels()} if installed_only else {}
    found: dict[tuple[Any, ...], _Environment] = {}
    for record in records:
        if installed.get(record.kernel, record.source_sha) != record.source_sha:
            exported.left_out += 1
            continue
        python = ".".join(str(record.host.get("python", "")).split(".")[:2])
        about = (record.machine, python, tuple(sorted(record.versions.items())))
        if about not in found:
            system = str(record.host.get("system", ""))
            found[about] = _Environment(record.machine, python, dict(record.versions), system)
        found[about].take(record)
    return list(found.values())


def _named(environments: Iterable[_Environment]) -> dict[Series, Series]:
    """Every series with the name it goes by among all of them."""
    listed = list(dict.fromkeys(series for environment in environments for series in environment.answers))
    return dict(zip(listed, distinct(listed), strict=True))


def _write_benchmarks(asv: SimpleNamespace, out: Path, named: Iterable[Series]) -> None:
    """Add these benchmarks to those that asv knows of."""
    path = out / "benchmarks.json"
    known = asv.util.load_json(str(path), asv.Benchmarks.api_version) if path.is_file() else {}
    asv.util.write_json(str(path), known | {one.name: _benchmark(one) for one in named}, asv.Benchmarks.api_version)


def _benchmark(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "pretty_name": series.title,
        "type": "track",
        "unit": series.unit,
        "version": series.version,
        "params": [],
        "param_names": [],
        "code": f"# exported by sparsebench\n{series.title}",
    }


def _write_machine(asv: SimpleNamespace, out: Path, environment: _Environment, known: Machine | None) -> dict[str, str]:
    """The machine's facts, in asv's words; written where asv has none of its own."""
    facts = {
        "machine": environment.machine,
        "os": environment.system,
        "arch": " ".join(known.isa) if known else "",
        "cpu": known.name if known else environment.machine,
        "num_cpu": str(known.cores) if known else "",
        "ram": f"{known.memory_gib} GiB" if known else "",
    }
    path = out / environment.machine / "machine.json"
    if not path.is_file():
        asv.util.write_json(str(path), facts, asv.Machine.api_version)
    return facts


def _write_results(
    asv: SimpleNamespace,
    out: Path,
    environment: _Environment,
    commit: Commit,
    facts: Mapping[str, str],
    named: Mapping[Series, Series],
) -> Path:
    """One file of results; its path."""
    versions = dict(environment.versions)
    kind = {"torch": versions.get("torch", ""), "code": digest(versions)[:6]}
    name = asv.get_env_name("sparsebench", environment.python, kind, {})
    params = {**facts, "python": environment.python, **versions}
    answers = asv.Results(params, versions, commit.hash, commit.date_ms, environment.python, name, {})
    for series, (outcome, values, started_at) in environment.answers.items():
        answers.add_result(
            _benchmark(named[series]),
            _answer(asv, outcome, values),
            started_at=datetime.fromisoformat(started_at),
            record_samples=True,
        )
    answers.save(str(out))
    return out / str(asv.get_filename(environment.machine, commit.hash, name))


def _answer(asv: SimpleNamespace, outcome: str, values: list[float]) -> Any:
    """What asv makes of a benchmark's process: samples, NaN for what cannot run here, None for a failure."""
    result = True if values else math.nan if outcome == "skipped" else None
    return asv.BenchmarkResult(
        result=[result],
        samples=[values or None],
        number=[1 if values else None],
        errcode=0,
        stderr="",
        profile=None,
    )


def _asv() -> SimpleNamespace:
    """The parts of asv that write results; BadInput without it. The version is pinned: most of this is not its API."""
    try:
        from asv import util
        from asv.benchmarks import Benchmarks
        from asv.environment import get_env_name
        from asv.machine import Machine as AsvMachine
        from asv.results import Results, get_filename
        from asv.runner import BenchmarkResult
    except ImportError:
        raise BadInput(
            "export asv writes with asv itself, which is not installed; pip install 'sparsebench[asv]'"
        ) from None
    return SimpleNamespace(
        util=util, Benchmarks=Benchmarks, Machine=AsvMachine, Results=Results, BenchmarkResult=BenchmarkResult,
        get_env_name=get_env_name, get_filename=get_filename,
    )  # fmt: skip
