"""What parent and worker say to each other: requests down, answers up, as plain pickled dataclasses over one socket."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsebench.case import Case
from sparsebench.errors import SparsebenchError
from sparsebench.record import Outcome, Protocol

SUSPECT_BYTES = 256


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message: everything a worker needs to know for a run."""

    protocol: Protocol
    cache_bytes: int
    memory_bytes: int  # what it may allocate beyond its own start
    plugins: Sequence[Path] = ()
    rng_seed: int | None = None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Kit:
    """What a run brings to a device elsewhere, which makes a Setup of it; `run` tells runs apart."""

    run: str
    protocol: Protocol
    plugins: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class CheckDense:
    """Make dense kernel `kernel` ready for `case`, checked."""

    case: Case
    kernel: str


@dataclass(frozen=True, slots=True)
class Screen:
    """Time dense kernels against each other; with `twin` the first of them is entered twice."""

    case: Case
    kernels: Sequence[str]
    twin: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """One trial of a sparse kernel beside its baselines; `data` is the local file behind case.source.

    goes  in how many goes its time is taken. The same request asks for the first and for each one more: until the
          answer is whole it holds facts.under_way alone. A worker that does not know the trial begins it anew.
    """

    case: Case
    data: Path | None
    kernel: str
    baselines: Sequence[str]
    goes: int = 1


@dataclass(frozen=True, slots=True)
class Inspect:
    """List the tensors of a weight file that only torch can read, those that match a glob."""

    path: Path
    tensors: str


@dataclass(frozen=True, slots=True)
class Peaks:
    """Measure this machine's stream and multiply-add rates."""


@dataclass(frozen=True, slots=True)
class VerifyLayer:
    """One layer of a network: its dense problem, and what the plan makes of it.

    dense_kernels  the best dense kernel of the problem, or all that may be, of which the worker times the best
    kernel         of the sparse case
    """

    name: str
    dense: Case
    dense_kernels: Sequence[str]
    calls: int = 1
    sparse: Case | None = None
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class Verify:
    """Build the network of the Python file `builder`, run it dense and as planned, and time both, layer by layer."""

    builder: Path
    layers: Sequence[VerifyLayer]
    batch: int = 1
    seed: int = 0


Request = CheckDense | Screen | Measure | Inspect | Peaks | Verify


class Lost(SparsebenchError):
    """The device went away while it worked, which says nothing about the request; the message says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: an outcome with its reason, and the facts if it is ok."""

    outcome: Outcome
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def under_way(self) -> float | None:
        """What share of its memory the worker gives to trials under way, where this one wants more goes; else None."""
        return self.facts.get("under_way")


class Suspect:
    """A page shared by file: the worker writes what it is about to run, and the parent reads it after a death."""

    def __init__(self, file: int, *, fresh: bool = False) -> None:
        if fresh:
            os.ftruncate(file, SUSPECT_BYTES)
        self._page = mmap.mmap(file, SUSPECT_BYTES)

    def write(self, name: str) -> None:
        """Name what runs from now on."""
        text = name.encode()[: SUSPECT_BYTES - 1]
        self._page[: len(text) + 1] = text + b"\0"

    def read(self) -> str:
        """What was named last; empty when nothing was."""
        return self._page[:].split(b"\0", 1)[0].decode(errors="replace")

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()
