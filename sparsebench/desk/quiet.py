"""Rounds in which the machine was itself: what else runs on a shared one slows some rounds, and not all kernels alike.

A neighbour on the other half of the core (one Emerald Rapids core, a virtual machine of two) made dense products take
1.22 times as long for seconds or minutes, and csr.c beside them in the same rounds 1.57 times: 768 to 2304 features,
n = 197, 90 % sparse, was 2.4 times as fast as dense or 1.9. So pairing does not cancel it, and which of the two a trial
tells is chance. What a law is to know is the core's own. A round is quiet where its baseline took at most 1.15 times
the tenth percentile of all rounds of that baseline on that problem; the baseline alone decides, so that no kernel is
judged by its own luck. Where a record has fewer than six quiet ones, the six in which its baseline was fastest count.

Of several runs that are fitted together each has the weight of its quiet rounds: 3 + their number, 33 at most, since
what two runs differ by beyond their rounds no number of rounds makes less. Of three sweeps in two hours (one Emerald
Rapids core) the mean of the first two was off the third by 6.1 % (csr.c; 6.3 where all had counted alike but those of
fewer than six quiet rounds, which had not), 5.9 (bsr.c; 6.1), 6.3 (condensed.c; 6.5), 5.9 (rbgp4.c; 6.2), 5.4 (hbs.c;
5.5), 8.7 (csr.torch; 9.0) and 7.9 (csr.scipy; 7.9).

Verdicts, reports and `compare` look at all rounds. docs/model.md says what that changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from sparsebench.case import Case
from sparsebench.paired import quiet, undisturbed, usual
from sparsebench.record import Record

BETWEEN, MOST = 3, 30  # the weight of a run without quiet rounds, and up to how many of them it grows


@dataclass(frozen=True, slots=True)
class Quiet:
    """What each baseline takes on each problem where nothing disturbs it, in seconds; without any all rounds count."""

    usual_s: Mapping[tuple[Any, ...], float] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """From all rounds of the named baselines of `records`, several runs together."""
        seen: dict[tuple[Any, ...], list[Sequence[float]]] = defaultdict(list)
        for record in records:
            for cache in record.samples:
                for name in record.baselines:
                    if len(times_s := record.times_s(cache, name)):
                        seen[_about(record, cache, name)].append(times_s)
        return cls({about: usual(np.concatenate(rounds)) for about, rounds in seen.items()})

    def rounds(self, record: Record, cache: str) -> np.ndarray:
        """Which rounds of `record` in `cache` count, [rounds] of bool."""
        times_s, usual_s = self._baseline(record, cache)
        return np.ones(len(times_s), bool) if usual_s is None else quiet(times_s, usual_s)

    def weight(self, record: Record, cache: str) -> float:
        """What `record` in `cache` counts among other runs of its trial; where nothing tells all rounds are quiet."""
        times_s, usual_s = self._baseline(record, cache)
        count = len(times_s) if usual_s is None else int(undisturbed(times_s, usual_s).sum())
        return BETWEEN + min(count, MOST)

    def _baseline(self, record: Record, cache: str) -> tuple[np.ndarray, float | None]:
        """Seconds of its baseline in each round, and what that usually takes, if known; its own without one."""
        name = record.best_baseline(cache, total=True)
        times_s = np.asarray(record.times_s(cache, name) if name else record.times_s(cache), float)
        return times_s, self.usual_s.get(_about(record, cache, name)) if name else None


ALL = Quiet()  # all rounds count


def problem_of(case: Case, *about: str | int) -> tuple[Any, ...]:
    """What times on one problem share: the problem; machine, cache and threads, and the kernel where it is of one."""
    return case.op, case.dtype, case.math, case.layout, case.m, case.k, case.n, case.conv, *about


def _about(record: Record, cache: str, baseline: str) -> tuple[Any, ...]:
    about = record.machine, cache, record.protocol.threads, baseline, record.baselines[baseline]
    return problem_of(record.case, *about)
