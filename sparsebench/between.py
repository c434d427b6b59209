"""The statistics between runs: is this kernel slower than it was, and how sure can two runs make us?

Rounds of one run share its memory, its neighbours and the hour, so a test on rounds alone takes two runs of the same
code for different. A difference of two runs therefore has two parts: what its rounds explain, and what two runs of the
same code differ by beyond that. The second is fitted to controls, pairs of runs of the same code, as a t distribution:
its scale and its tails (Lange, Little and Taylor, JASA 84, 1989), so that one run with a hiccup neither hides a
slow-down nor makes one. Over a table of pairs the chance of a single false FAST or SLOW is held below ALPHA (Holm,
Scand. J. Statist. 6, 1979), and SAME takes an equivalence test (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987). The
formulae and what was measured: docs/measuring.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# scipy.special: Student's t, which numpy lacks (scipy.stats loads ten times slower).
from scipy.special import gammaln, ndtri, stdtr

from sparsebench.paired import LEAST_ROUNDS, effective_rounds, rounds_interval

Word = Literal["SLOW", "UNSURE", "SAME", "FAST"]
WORDS: tuple[Word, ...] = ("SLOW", "UNSURE", "SAME", "FAST")  # worst first

ALPHA = 0.05  # chance of any false FAST or SLOW in a table, and of each false SAME
MARGIN = math.log(1.02)  # within 2 % is the same: what a kernel may differ from itself (contracts: A/A)
Z95 = 1.959964  # of the interval that rounds_interval gives
LEAST_CONTROLS = 8  # fewer tell too little of how far two runs differ
LEAST_SD = 0.003  # two runs never agree better than this, however alike the controls were: 0.3 %
MANY = 1e6  # degrees of freedom of what is taken as known
TAILS = (2.0, 3.0, 4.0, 6.0, 10.0, 20.0)  # degrees of freedom that controls may turn out to have, below normal
CONVINCING = 2.0  # log likelihood by which they must fit better than normal ones: a level of about 5 %

STEP = 0.1  # of the sum over a normal part, in its standard deviations; a t part narrower than that is taken as wide
NODES = np.arange(-7.0, 7.0 + STEP, STEP)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.sum(np.exp(-(NODES**2) / 2))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A log ratio of times, or a log time, with its standard error and the rounds behind it.

    `effective` is how many independent rounds they are worth (paired.effective_rounds); all of them unless said.
    """

    value: float
    error: float
    rounds: int
    effective: int = 0

    @property
    def variance(self) -> float:
        """Its error squared, and more after few rounds, which do not tell their own error well either."""
        return self.error**2 * (1 + 2 / max((self.effective or self.rounds) - 3, 1))

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference of two that share no rounds; it rests on as many as the one that has fewer."""
        fewer = min(self, other, key=lambda each: each.effective or each.rounds)
        error = math.hypot(self.error, other.error)
        return Estimate(self.value - other.value, error, fewer.rounds, fewer.effective)


def estimate(logs: Sequence[float]) -> Estimate:
    """The median of the logs of one run's rounds; its error is infinite below six rounds.

    The error is the half-width of the order-statistic interval in units of a normal one, so it assumes no distribution.
    """
    median, low, high = rounds_interval(logs)
    error = (high - low) / (2 * Z95) if len(logs) >= LEAST_ROUNDS else math.inf
    return Estimate(median, error, len(logs), effective_rounds(logs))


@dataclass(frozen=True, slots=True)
class Between:
    """What two runs of the same code differ by, beyond their rounds: t distributed with `freedom` and scale `sd`.

    `variance` is the scale squared, in log terms. Where there were too few controls, `controls` is 0 and it is assumed.
    """

    variance: float
    freedom: float = MANY
    controls: int = 0

    @property
    def sd(self) -> float:
        """The scale: 0.03 means that two runs differ by 3 % for no reason."""
        return math.sqrt(self.variance)


def between(differences: Sequence[float], variances: Sequence[float], assumed_sd: float) -> Between:
    """The part between runs, from differences of runs of the same code and the variances that their rounds explain.

    Fewer than LEAST_CONTROLS give what is assumed, or more where they differed by more.
    """
    d, explained = np.asarray(differences, float), np.asarray(variances, float)
    d, explained = d[np.isfinite(explained)], explained[np.isfinite(explained)]
    if len(d) < LEAST_CONTROLS:
        return Between(max(assumed_sd**2, float(np.max(d**2, initial=0.0))))
    fits = {freedom: _fit(d, explained, freedom) for freedom in (MANY, *TAILS)}
    likelier = max(fits, key=lambda freedom: fits[freedom][0])
    freedom = likelier if fits[likelier][0] > fits[MANY][0] + CONVINCING else MANY
    return Between(fits[freedom][1], min(float(len(d)), freedom), len(d))


def _fit(d: np.ndarray, explained: np.ndarray, freedom: float) -> tuple[float, float]:
    """(log likelihood, variance v) of the likeliest t distribution of scale sqrt(explained + v), v >= LEAST_SD**2."""
    low, high = math.log(LEAST_SD**2), math.log(max(float(np.max(d**2)), 2 * LEAST_SD**2))
    constant = float(gammaln((freedom + 1) / 2) - gammaln(freedom / 2)) - math.log(freedom * math.pi) / 2
    found = -math.inf, 0.0
    for _ in range(3):  # a grid of 32 scales, twice refined around its best
        grid = np.linspace(low, high, 32)
        squared = explained + np.exp(grid)[:, None]
        tails = (freedom + 1) / 2 * np.log1p(d**2 / squared / freedom)
        likelihood = np.sum(constant - np.log(squared) / 2 - tails, axis=1)
        best = int(np.argmax(likelihood))
        found = max(found, (float(likelihood[best]), float(np.exp(grid[best]))))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 31)]
    return found


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus base in log terms, each the mean of some runs; positive is slower.

    Its error is the sum of a normal part, which the rounds explain, and of what lies between runs: t distributed with
    `freedom`, `runs_variance` being its scale squared. A difference within `margin` is none.
    """

    value: float
    rounds_variance: float
    runs_variance: float
    freedom: float = MANY
    margin: float = MARGIN

    @property
    def error(self) -> float:
        """The scale of its error."""
        return math.sqrt(self.rounds_variance + self.runs_variance)

    @property
    def p(self) -> float:
        """How likely a difference this large is where there is none, either way."""
        return self.beyond(abs(self.value))

    def half_width(self, level: float) -> float:
        """Half the interval that misses the truth with probability `level`."""
        if not 0 < self.error < math.inf:
            return self.error
        low, high = 0.0, -float(ndtri(level / 2)) * self.error
        while self.beyond(high) > level:
            low, high = high, 2 * high
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self.beyond(middle) > level else (low, middle)
        return high

    def beyond(self, size: float) -> float:
        """How likely an error is of more than `size`, either way: that of the t part, summed over the normal one."""
        if not 0 < self.error < math.inf:
            return float(self.error > 0)
        normal = math.sqrt(self.rounds_variance)
        scale = max(math.sqrt(self.runs_variance), STEP * normal)
        return 2 * float(np.sum(WEIGHTS * stdtr(self.freedom, (normal * NODES - size) / scale)))


def difference(base: Sequence[Estimate], new: Sequence[Estimate], apart: Between, margin: float = MARGIN) -> Difference:
    """New minus base, each the mean over its runs, weighted by what their rounds and `apart` say of them."""
    (before, *about), (after, *what) = (_mean(runs, apart.variance / 2) for runs in (base, new))
    return Difference(after - before, about[0] + what[0], about[1] + what[1], apart.freedom, margin)


def within_rounds(logs: Sequence[float]) -> Difference:
    """The difference of two kernels timed in the same rounds, from the log ratio of each: nothing lies between runs."""
    seen = estimate(logs)
    return Difference(seen.value, seen.variance, 0.0)


def _mean(runs: Sequence[Estimate], run_variance: float) -> tuple[float, float, float]:
    """The mean of a side's runs, the variance of it that rounds explain, and that between runs."""
    known = [run for run in runs if math.isfinite(run.error)] or list(runs)
    weights = np.array([1 / max(run.variance + run_variance, 1e-300) for run in known])
    if not weights.sum():
        return float(np.mean([run.value for run in known])), math.inf, 0.0
    weights /= weights.sum()
    rounds = float(np.sum(weights**2 * [run.variance for run in known]))
    return float(np.sum(weights * [run.value for run in known])), rounds, float(np.sum(weights**2) * run_variance)


@dataclass(frozen=True, slots=True)
class Judged:
    """A difference with its verdict, and the level at which Holm's procedure tested it."""

    difference: Difference
    word: Word
    level: float

    @property
    def interval(self) -> tuple[float, float]:
        """From where to where the truth lies; it lies elsewhere with probability `level`."""
        half = self.difference.half_width(self.level)
        return self.difference.value - half, self.difference.value + half


def judge(differences: Sequence[Difference], alpha: float = ALPHA) -> list[Judged]:
    """The verdict on each difference of one table.

    SAME    its interval of 1 - 2 alpha lies within the margin (two one-sided tests)
    SLOW, FAST   else, where it is beyond the margin and Holm's procedure rejects "no difference"
    UNSURE  else
    """
    levels, rejected = _holm([each.p for each in differences], alpha)
    return [_judged(*about, alpha) for about in zip(differences, levels, rejected, strict=True)]


def _judged(each: Difference, level: float, rejected: bool, alpha: float) -> Judged:
    word: Word = "UNSURE"
    if each.beyond(each.margin - abs(each.value)) <= 2 * alpha:
        word = "SAME"
    elif rejected and abs(each.value) > each.margin:
        word = "SLOW" if each.value > 0 else "FAST"
    return Judged(each, word, level)


def _holm(ps: Sequence[float], alpha: float) -> tuple[list[float], list[bool]]:
    """The level at which each hypothesis was tested, and whether it was rejected.

    >>> _holm([0.01, 0.04, 0.03], 0.05)
    ([0.016666666666666666, 0.025, 0.025], [True, False, False])
    """
    levels, rejected = [alpha] * len(ps), [False] * len(ps)
    level, going = alpha, True
    for place, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        level = alpha / (len(ps) - place) if going else level
        going = going and ps[i] <= level
        levels[i], rejected[i] = level, going
    return levels, rejected


@dataclass(frozen=True, slots=True)
class Needed:
    """What would decide an UNSURE pair: so many times the rounds, or so many times the runs of both sides, or neither.

    Where more rounds alone would do, `runs` is 1.
    """

    rounds: float
    runs: int


MOST_RUNS = 100  # beyond this a pair lies on the margin, and no honest number of runs decides it


def needed(judged: Judged, alpha: float = ALPHA) -> Needed | None:
    """About what would decide an UNSURE pair if its difference is what it seems to be; None where nothing would."""
    each = judged.difference
    size, now = abs(each.value), each.error**2
    if not math.isfinite(now):
        return None
    to_differ = size / each.half_width(judged.level) if size > each.margin else 0.0
    to_agree = (each.margin - size) / each.half_width(2 * alpha) if size < each.margin else 0.0
    wanted = now * max(to_differ, to_agree) ** 2
    if now > MOST_RUNS * wanted:
        return None
    if wanted > each.runs_variance:
        return Needed(max(each.rounds_variance / (wanted - each.runs_variance), 1.0), 1)
    return Needed(1.0, math.ceil(now / wanted))
