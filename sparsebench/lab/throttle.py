"""The GPU's clock beside each round: what power or heat takes from it is flagged, and the GPU rests until it is back.

No sample is dropped: a harness that drops the throttled ones can end with none. A load of more than 5 ms can take a
fifth of a card's clock, and long loops as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sparsebench.lab.probes import GpuWatch

SLOW_SHARE = 0.75  # of the highest clock, below which a round counts as slow (NVBench's share)
REST_S, LONGEST_REST_S = 0.05, 0.8  # after a slow round; doubled while they follow each other


class Watch(Protocol):
    """Tells the GPU's clock, as probes.GpuWatch does."""

    most_mhz: float | None

    def look(self) -> tuple[float | None, int]:
        """(MHz now, bit mask of what holds it back)."""
        ...


@dataclass(slots=True)
class Throttle:
    """What held the clock in the rounds since `begin`. `watch` and `rest` can be replaced in tests."""

    watch: Watch = field(default_factory=GpuWatch)
    rest: Callable[[float], None] = time.sleep
    _seen: list[tuple[float | None, int]] = field(default_factory=list)
    _rest_s: float = REST_S

    def begin(self) -> None:
        """Forget earlier rounds."""
        self._seen, self._rest_s = [], REST_S

    def after_round(self) -> None:
        """Look at the clock, and rest where it has fallen."""
        self._seen.append(self.watch.look())
        if self._slow(self._seen[-1][0]):
            self.rest(self._rest_s)
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
        else:
            self._rest_s = REST_S

    def doubts(self) -> tuple[str, ...]:
        """`throttled:40%` where power or heat held the clock in that share of the rounds, `slow_clock:40%`."""
        shares = {
            "throttled": np.mean([bool(reasons) for _, reasons in self._seen] or [False]),
            "slow_clock": np.mean([self._slow(mhz) for mhz, _ in self._seen] or [False]),
        }
        return tuple(f"{name}:{share:.0%}" for name, share in shares.items() if share > 0)

    def clocks(self) -> dict[str, Any]:
        """{"round_mhz": the SM clock after each round, "reasons": NVML's bits of all that held it}."""
        known = [mhz for mhz, _ in self._seen if mhz is not None]
        if not known:
            return {}
        return {"round_mhz": known, "reasons": int(np.bitwise_or.reduce([reasons for _, reasons in self._seen]))}

    def _slow(self, mhz: float | None) -> bool:
        most_mhz = self.watch.most_mhz
        return mhz is not None and most_mhz is not None and mhz < SLOW_SHARE * most_mhz
