"""Devices that answer at once, in this process, what a script says: the engine is tested without workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from replay_worker import Replay

from sparsebench.kernel import all_kernels
from sparsebench.lab.docket import Docket, Summary, Watch
from sparsebench.lab.ledger import Ledger
from sparsebench.lab.wire import Answer, Request, Screen
from sparsebench.machine import Machine
from sparsebench.record import Record
from sparsebench.store import Store, read_lines, without_first
from sparsebench.suite import Suite

SUITE = """
name: small
problems: [{{m: 32, k: 48, n: {n}, dtype: [float32]}}]
arms: [{{pattern: unstructured, sparsity: [0.5, 0.9], kernels: [{kernels}]}}]
"""
MACHINE = Machine(device="cpu", name="Test CPU", memory_gib=8, cores=2, isa=("avx2",), cache_bytes=2**20)
VERSIONS = {"torch": "2.13.0"}

Script = Callable[[Request, bool], Answer | tuple[Answer, str] | None]  # (request, alone) -> another answer, or None


class Device:
    """Replays, unless its script says or raises something else. `asked` lists (request, alone)."""

    gone = False
    host: Mapping[str, Any] = {"system": "test"}
    versions = VERSIONS
    missing: Mapping[str, str] = {}

    def __init__(self, script: Script = lambda request, alone: None) -> None:
        self.script, self.asked, self._replay = script, list[tuple[Request, bool]](), Replay()
        self._suspect = ""

    def write(self, name: str) -> None:
        self._suspect = name

    def ask(self, request: Request, timeout_s: float, *, alone: bool = False) -> tuple[Answer, str]:
        self.asked.append((request, alone))
        other = self.script(request, alone)
        if isinstance(other, tuple):
            return other
        if other is not None:
            return other, request.kernels[0] if isinstance(request, Screen) else getattr(request, "kernel", "")
        self._suspect = ""
        return self._replay.answer(request, self), self._suspect  # type: ignore[arg-type]


def small(folder: Path, *kernels: str, n: object = (4, 8)) -> Suite:
    """A suite of one tiny problem for each n, each with these kernels at two sparsities."""
    path = folder / "small.yaml"
    path.write_text(SUITE.format(n=list(n), kernels=", ".join(kernels)))  # type: ignore[call-overload]
    return Suite.load(path)


class Bout:
    """A docket of `suite` in `results`, as a run makes it. Use it as a context manager."""

    def __init__(self, suite: Suite, results: Path, fresh: bool = False) -> None:
        self._store = Store(results, MACHINE, suite.name)
        self._about, self.said = (suite, fresh), list[str]()

    def __enter__(self) -> Docket:
        suite, fresh = self._about
        store = self._store.__enter__()
        kernels = all_kernels()
        trials = suite.trials(kernels, device="cpu")
        ledger = Ledger(store, suite, MACHINE, kernels, fresh, VERSIONS)
        watch = Watch(said=self.said.append)
        return Docket(trials, ledger, Summary(MACHINE, store.path), watch, timeout_s=1)

    def __exit__(self, *about: Any) -> None:
        self._store.__exit__(None, None, None)


def stored(results: Path) -> list[Record]:
    """All lines of all machines, oldest first, but those of trials that were timed again in the same run."""
    paths = sorted(results.glob("*/small.jsonl"))
    return without_first(record for path in paths for record in read_lines(path))
