"""What a worker says of itself when it joins, and why a run may not take it.

It is plain data that the scheduler passes on, so that a worker of another sparsebench is told apart before anything of
either is run by the other: records of one run come from one code.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import sparsebench
from sparsebench.kernel import all_kernels
from sparsebench.lab.executor import missing_needs
from sparsebench.lab.versions import code_versions
from sparsebench.machine import Machine

SAME = "install the same sparsebench on both sides and start that worker anew"


def code_of(package: Path) -> str:
    """sha256 of all Python files below a folder, in hex."""
    texts = (path.read_bytes() for path in sorted(package.rglob("*.py")))
    return hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).hexdigest()


@lru_cache(maxsize=1)
def own_code() -> str:
    """`code_of` this package as it was when first asked for: at the start of a worker or a run."""
    return code_of(Path(sparsebench.__file__).parent)


@dataclass(frozen=True, slots=True)
class About:
    """A worker's introduction.

    code     own_code() there
    place    the device as its host knows it: "gpu 0", or the CPU's core on which one thread would run, "core 3"
    """

    version: str
    code: str
    machine: Machine
    versions: Mapping[str, str]
    host: str
    place: str

    @classmethod
    def here(cls, machine: Machine) -> About:
        """The introduction of this process and a device of this machine."""
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
        gpu = f"gpu {os.environ.get('CUDA_VISIBLE_DEVICES', '0')}"
        place = gpu if machine.device == "cuda" else f"core {max(cores)}"
        return cls(sparsebench.__version__, own_code(), machine, code_versions(), socket.gethostname(), place)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "machine": self.machine.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> About:
        """What `to_json` wrote; KeyError or TypeError for anything else."""
        known = {name: data[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "machine": Machine.from_json(known["machine"])})

    def same_place(self, other: About) -> bool:
        """Whether both would measure on one device of one host."""
        return (self.host, self.place) == (other.host, other.place)

    def differs(self, versions: Mapping[str, str]) -> str | None:
        """Why this worker's records would not be those of an equal machine with these versions; None if they would."""
        for name in sorted({*versions, *self.versions}):
            ours, theirs = versions.get(name, "none"), self.versions.get(name, "none")
            if ours != theirs:
                return (
                    f"it has {name} {theirs}, and the first worker of {self.machine.id} has {ours}; records of one "
                    f"machine come from one set of versions, so install the same on both"
                )
        return None

    def why_not(self) -> str | None:
        """Why a run started here must not use that worker: another sparsebench; None where it is the same."""
        theirs, ours = (self.version, self.code), (sparsebench.__version__, own_code())
        if theirs == ours:
            return None
        names = [f"{version} (code {code[:8]})" for version, code in (theirs, ours)]
        return f"it runs sparsebench {names[0]}, this is {names[1]}; {SAME}"


@dataclass(frozen=True, slots=True)
class Survey:
    """What a worker finds of a run's kernels and files: source_sha of each kernel, unmet needs, files not there."""

    kernels: Mapping[str, str]
    missing: Mapping[str, str]
    absent: Sequence[Path]

    def why_not(self, shas: Mapping[str, str]) -> str | None:
        """Why its records would not be those of this run, whose kernels are `shas`; None where they would."""
        if self.absent:
            more = f" and {len(self.absent) - 1} more files" if len(self.absent) > 1 else ""
            return f"it has no {self.absent[0]}{more}; {SHARE}"
        odd = sorted(name for name in shas if self.kernels.get(name) != shas[name])
        if odd:
            return f"its source of {odd[0]} is another than here ({len(odd)} kernels differ); {SAME}"
        return None


SHARE = "put the run's data and plugins on a file system that all workers see under the same path"


def survey(plugins: Sequence[Path], files: Collection[Path]) -> Survey:
    """Look at kernels, needs and files here; BadInput for a plugin that cannot be loaded."""
    absent = [path for path in (*plugins, *files) if not path.is_file()]
    kernels = all_kernels([path for path in plugins if path not in absent])
    shas = {name: kernel.source_sha for name, kernel in kernels.items()}
    return Survey(shas, missing_needs(kernels.values()), absent)
