"""Which records belong together when two sides are compared: what two must share, and which code made each.

A run of a pair is one record. The newest record of a (case, kernel, protocol, machine) says which code a side has; all
records of that side that the same code made are its runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sparsebench.errors import StoreError
from sparsebench.kernel import Kernel, load_kernels
from sparsebench.record import Protocol, Record
from sparsebench.store import read_lines, without_first

# Versions that matter only to kernels with this need (Kernel.needs); all others matter to every kernel.
TOOL_OF = {
    "cc": "cc", "scipy": "scipy", "triton": "triton", "mkl": "sparse_dot_mkl", "sparse_dot_mkl": "sparse_dot_mkl",
    "cupy": "cupy", "cupy-cuda12x": "cupy", "cupy-cuda13x": "cupy", "nvidia-cuda-nvrtc": "cupy",
    "nvidia-cuda-nvrtc-cu12": "cupy",
}  # fmt: skip


class About(NamedTuple):
    """What two records must share to be compared; across machines, `machine` is empty."""

    case: str
    kernel: str
    protocol: Protocol
    machine: str


Runs = Mapping[About, Sequence[Record]]


def read_side(path: Path) -> list[Record]:
    """Every record of a results folder, of one machine's folder in it, or of one file; StoreError if there is none."""
    if path.is_file():
        files = [path]
    elif path.is_dir():
        found = sorted([*path.glob("*.jsonl"), *path.glob("*/*.jsonl")])
        files = [file for file in found if file.name != "peaks.jsonl"]
    else:
        raise StoreError(f"{path} was not found; give a results folder, or one .jsonl file of records")
    if records := [record for file in files for record in read_lines(file)]:
        return records
    raise StoreError(f"no records were found in {path}; make some with `sparsebench run SUITE --results {path}`")


def runs_of(records: Iterable[Record], *, across: bool = False) -> dict[About, list[Record]]:
    """The runs of the newest code of each kernel on each case, oldest first; a newest record without times, alone."""
    groups: dict[About, list[Record]] = defaultdict(list)
    for record in without_first(records):
        machine = "" if across else record.machine
        groups[About(record.case.key, record.kernel, record.protocol, machine)].append(record)
    return {about: _of_newest_code(group) for about, group in groups.items()}


def _of_newest_code(group: list[Record]) -> list[Record]:
    ordered = sorted(group, key=lambda record: record.started_at)
    newest = ordered[-1]
    if newest.outcome != "ok":
        return [newest]
    code = code_of(newest, newest.kernel)
    return [record for record in ordered if record.outcome == "ok" and code_of(record, record.kernel) == code]


@lru_cache(maxsize=1)
def _known() -> Mapping[str, Kernel]:
    return {kernel.name: kernel for kernel in load_kernels()}


def code_of(record: Record, kernel: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What made `kernel` in `record`: its source_sha, and the versions that matter to it."""
    known = _known().get(kernel)
    matter = {
        name: version
        for name, version in record.versions.items()
        if known is None or TOOL_OF.get(name) is None or TOOL_OF[name] in known.needs
    }
    sha = record.source_sha if kernel == record.kernel else record.baselines.get(kernel, "")
    return sha, tuple(sorted(matter.items()))


def unchanged(base: Record, new: Record) -> tuple[str, ...]:
    """The named baselines that both records have with the same code."""
    return tuple(name for name in base.baselines if name in new.baselines and code_of(base, name) == code_of(new, name))
