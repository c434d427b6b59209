"""Where a run's time goes: each moment belongs to the innermost part that is open, so that parts add up."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PARTS = ("import", "build", "peaks", "reference", "pack", "check", "clock")


@dataclass(slots=True)
class Stopwatch:
    """Seconds by part. `now_s` can be replaced in tests."""

    now_s: Callable[[], float] = time.perf_counter
    spent_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[str] = field(default_factory=list)
    _since_s: float = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within as `name`'s, but for parts inside it."""
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """What was counted since the last take."""
        self._count()
        taken = dict(self.spent_s)
        self.spent_s.clear()
        return taken

    def _count(self) -> None:
        now_s = self.now_s()
        if self._open:
            self.spent_s[self._open[-1]] += now_s - self._since_s
        self._since_s = now_s
