"""Who broke a worker: a trial that breaks is run once more alone, and a kernel that breaks three of them is left out.

A worker serves many trials, so what it dies of may have been planted by an earlier one. A trial that succeeds in a
fresh worker is innocent; one that breaks there too keeps its outcome, with both reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

from sparsebench.lab.wire import Answer, Request
from sparsebench.record import MISSING_NEED

BLAMED = frozenset({"crashed", "oom", "timeout"})  # outcomes that a neighbour in the same process may have caused
STRIKES = 3


class Ask(Protocol):
    """What a device answers, and the name of what ran last; `alone` asks in a fresh worker."""

    def __call__(self, request: Request, *, alone: bool = False) -> tuple[Answer, str]:
        """Ask the device."""
        ...


def twice(ask: Ask, request: Request) -> tuple[Answer, str]:
    """The answer to `request`, asked once more alone where it broke the worker; and what ran last.

    An answer that came at the second try tells of the first in facts.first_try of its record.
    """
    first, suspect = ask(request)
    if first.outcome not in BLAMED:
        return first, suspect
    again, suspect = ask(request, alone=True)
    if again.outcome in ("ok", "skipped", "wrong"):
        told = {**again.facts.get("facts", {}), "first_try": f"{first.outcome}: {first.reason}"}
        return replace(again, facts={**again.facts, "facts": told}), suspect
    second = "the same" if again.reason == first.reason else again.reason
    return Answer(first.outcome, f"{first.reason}; once more alone in a fresh worker: {second}"), suspect


@dataclass(slots=True)
class Quarantine:
    """How many trials of a run each kernel broke, and which kernels are left out of the rest of it."""

    _strikes: Counter[str] = field(default_factory=Counter)

    def strike(self, kernel: str) -> bool:
        """Count a trial that `kernel` broke; true when it is left out from now on."""
        self._strikes[kernel] += 1
        return self._strikes[kernel] == STRIKES

    def bars(self, kernel: str, baselines: Collection[str] = ()) -> str | None:
        """Why a trial of `kernel` beside `baselines` waits for another run, as its record says it; None if it need not.

        The reason is that of a missing need, so the record is not final and a later run tries the trial.
        """
        for name in (kernel, *baselines):
            if self._strikes[name] >= STRIKES:
                whose = name if name == kernel else f"its baseline {name}"
                return f"{MISSING_NEED}another run: {whose} broke {STRIKES} trials of this one and was left out"
        return None
