"""How commands talk: sentences and tables, one JSON document on stdout with --json, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

# rich: a progress bar that knows what a terminal can do; plain lines where there is none.
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparsebench import units
from sparsebench.record import Record

PLAIN_STEPS = 10  # lines of progress where there is no terminal


class Voice:
    """A command's output. With `json` all talk goes to stderr, and stdout carries one document."""

    def __init__(self, json: bool) -> None:
        self._json = json

    def say(self, text: str = "") -> None:
        """One line or more for people."""
        print(text, file=sys.stderr if self._json else sys.stdout, flush=True)

    def document(self, data: Mapping[str, Any]) -> None:
        """The answer as data, printed with --json alone."""
        if self._json:
            print(json.dumps(data, indent=2, allow_nan=False))


class Showing:
    """Progress of a run: a bar with the time left on a terminal, a line at every tenth elsewhere. A context manager."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._total = self._done = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"),
        )
        self._console = Console(stderr=True)
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(suite, total=None, last="")

    def __enter__(self) -> Showing:
        self._bar.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._bar.stop()

    def planned(self, trials: int, settled: int, expected_s: float) -> None:
        """Say how many trials there are and how long they take at most; called before the first."""
        self._total = trials - settled
        kept = f", {settled} of them done before" if settled else ""
        time = f", at most about {units.duration(expected_s)}" if self._total else ""
        self._console.print(f"{self._suite}: {trials} trials{kept}{time}", highlight=False, soft_wrap=True)
        self._bar.update(self._task, total=self._total)

    def said(self, text: str) -> None:
        """A sentence about the run itself, above the bar."""
        self._console.print(f"{self._suite}: {text}", highlight=False, soft_wrap=True, markup=False)

    def finished(self, record: Record) -> None:
        """One more record; anything but ok and skipped is said at once."""
        self._done += 1
        name = f"{record.kernel} {record.case.describe()}"
        self._bar.update(self._task, completed=self._done, last=name)
        if record.outcome not in ("ok", "skipped"):
            self._console.print(
                f"{record.outcome}: {name}: {record.reason}", highlight=False, soft_wrap=True, markup=False
            )
        if not self._console.is_terminal and self._done * PLAIN_STEPS // max(self._total, 1) != (
            self._done - 1
        ) * PLAIN_STEPS // max(self._total, 1):
            self._console.print(f"{self._suite}: {self._done} of {self._total}", highlight=False, soft_wrap=True)
