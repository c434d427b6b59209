"""Whether the machine is itself now: what a dense kernel takes, beside all that it ever took on the same problem.

desk/quiet.py asks the same of records; here a timing asks it while there is still time to take other rounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparsebench.paired import undisturbed, usual


@dataclass(frozen=True, slots=True)
class Calm:
    """What was heard of the dense kernels of one problem, by all timings that share this."""

    _heard: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def hear(self, cache: str, kernel: str, *times_s: float) -> None:
        """Note what `kernel` took in rounds that count, in cache state `cache`."""
        self._heard[cache, kernel].extend(times_s)

    def quiet(self, cache: str, kernel: str, times_s: Sequence[float]) -> int:
        """In how many rounds in which `kernel` took `times_s` nothing slowed it; all where it was never heard of."""
        heard = self._heard.get((cache, kernel))
        return int(undisturbed(times_s, usual(heard)).sum()) if heard else len(times_s)
