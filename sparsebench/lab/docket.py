"""What a run has to do on one machine: problems that devices take, give back when they go away, and finish.

A problem remembers how far it has come. Trials that have a record are not run again, and baselines stay those that were
named; so a device that goes away costs the request under way, which the next device asks again.

A problem of many trials is not finished at once: after a visit it waits until all others had theirs. A shared machine
is faster or slower for seconds to minutes, and a problem timed within one such spell has all its times off alike, dense
ones too. Models then take the spell for the shape: sweeps whose 30 trials a problem took 2 to 13 s differed by 19 %
(standard deviation) in dense seconds; averaging two of them took models' errors on left-out shapes from 12 to 10 % and
from 16 to 13 % (54 shapes, two-core virtual machine).
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from sparsebench.kernel import Kernel
from sparsebench.lab.baselines import Baselines
from sparsebench.lab.blame import BLAMED, STRIKES, Quarantine
from sparsebench.lab.estimate import Costs
from sparsebench.lab.ledger import Ledger
from sparsebench.lab.restless import restless
from sparsebench.lab.stopwatch import PARTS
from sparsebench.lab.wire import Answer, Lost, Request
from sparsebench.machine import Machine
from sparsebench.record import Record
from sparsebench.suite import Trial

VISITS, VISIT = 6, 6  # at most so many of a problem, one for each so many trials: each prepares the baselines anew
LOOK_S = 0.2  # how often a device that waits for a problem looks whether it is still there


@dataclass(frozen=True, slots=True)
class Watch:
    """What a run tells while it works: planned(trials, settled, estimate_s), finished(record), said(a sentence)."""

    planned: Callable[[int, int, float], None] = lambda trials, settled, estimate_s: None
    finished: Callable[[Record], None] = lambda record: None
    said: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class Summary:
    """What came of a run: the records of its trials, new and kept, how many were kept, how many were never started.

    left_out  {kernel that broke three trials: how many of its other trials wait for another run}
    spent_s   {part of lab/stopwatch.py: seconds that devices spent on it}
    wall_s    seconds that the work took in all
    """

    machine: Machine
    path: Path
    records: list[Record] = field(default_factory=list)
    kept: int = 0
    not_started: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    spent_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    wall_s: float = 0.0

    @property
    def outcomes(self) -> Counter[str]:
        """How many records of each outcome."""
        return Counter(record.outcome for record in self.records)


@dataclass(slots=True, eq=False)
class Problem:
    """The trials of one dense question that have no record of this run yet.

    later   those that broke a worker in an earlier run: after all others, so that a quarantine cannot starve these
    visit   how many sparse trials a device takes at a time, at least 1
    losses  requests under way when a device went away
    first   {id of a trial: its record}, where its trials are timed again (lab/restless.py)
    """

    dense: list[Trial]
    sparse: deque[Trial]
    later: deque[Trial]
    visit: int = VISIT
    baselines: Baselines | None = None
    losses: list[Request] = field(default_factory=list)
    first: Mapping[int, Record] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many trials are left."""
        return len(self.dense) + len(self.sparse) + len(self.later)

    @property
    def of_this_visit(self) -> int:
        """How many sparse trials come before another problem's turn: all of a case, which share its matrices."""
        last = min(self.visit, len(self.sparse))
        while 0 < last < len(self.sparse) and self.sparse[last].case == self.sparse[last - 1].case:
            last += 1
        return last


def may_be_baseline(trial: Trial, kernels: Mapping[str, Kernel]) -> bool:
    """A dense kernel that rounds W or X is timed beside the baselines, as sparse kernels are, and is never one."""
    return trial.case.pattern == "dense" and not kernels[trial.kernel].lossy


def problems_of(trials: Sequence[Trial], ledger: Ledger) -> Iterator[Problem]:
    """The problems of a plan, in its order."""
    for _, group in groupby(trials, key=lambda trial: trial.case.problem):
        dense, sparse, later = [], deque[Trial](), deque[Trial]()
        for trial in group:
            if may_be_baseline(trial, ledger.kernels):
                dense.append(trial)
            else:
                (later if ledger.broke(trial) else sparse).append(trial)
        count = len(sparse) + len(later)
        visits = min(VISITS, math.ceil(count / VISIT)) or 1
        yield Problem(dense, dealt(sparse, visits), later, max(1, math.ceil(count / visits)))


def dealt(trials: Iterable[Trial], visits: int) -> deque[Trial]:
    """Cases dealt out to visits like cards, so that each visit has some of every arm.

    In a plan's order one kernel was timed on all problems within the same four minutes; between two runs its seconds
    differed by 42 %, and nothing in the run told that from the kernel.
    """
    cases = [list(group) for _, group in groupby(trials, key=lambda trial: trial.case)]
    return deque(trial for first in range(visits) for trial in chain.from_iterable(cases[first::visits]))


@dataclass(slots=True, eq=False)
class Docket:
    """The problems of one suite on one machine. Devices share it, each from a thread of its own.

    deadline_s  time.monotonic() from which no trial is started
    lock        one for all dockets of a run, since they share `watch`
    """

    trials: Sequence[Trial]
    ledger: Ledger
    summary: Summary
    watch: Watch
    timeout_s: float
    deadline_s: float = math.inf
    lock: threading.RLock = field(default_factory=threading.RLock)
    quarantine: Quarantine = field(default_factory=Quarantine)
    todo: list[Trial] = field(init=False)
    _queue: deque[Problem] = field(init=False)
    _out: int = 0
    _timed: list[tuple[Trial, Record]] | None = field(default_factory=list)  # sparse trials; None once some are again
    _peaks_due: bool = field(init=False)
    _changed: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        self.todo = [trial for trial in self.trials if self.ledger.known(trial) is None]
        self._queue = deque(problems_of(self.trials, self.ledger))
        self._peaks_due = bool(self.todo)
        self._changed = threading.Condition(self.lock)

    def expected_s(self) -> float:
        """How long what is to do will take one device."""
        ledger = self.ledger
        return Costs.of(ledger.store.records.values()).seconds(self.todo, ledger.protocol, ledger.machine.device)

    # Handing out ------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether no problem is left, neither here nor with a device."""
        with self.lock:
            return not self._queue and not self._out

    @property
    def left(self) -> int:
        """How many trials wait for a device."""
        with self.lock:
            return sum(problem.left for problem in self._queue)

    @property
    def late(self) -> bool:
        """Whether the time limit has passed."""
        return time.monotonic() > self.deadline_s

    def take(self, gone: Callable[[], bool] = lambda: False, *, wait: bool = True) -> Problem | None:
        """The next problem, or None when all are done; waits while others hold the last ones. Lost when `gone`.

        wait  None too where others hold the last ones
        """
        with self._changed:
            while wait and not self._queue and self._out and not gone():
                self._changed.wait(LOOK_S)
            if gone():
                raise Lost("the device went away")
            if not self._queue:
                return None
            self._out += 1
            return self._queue.popleft()

    def give_back(self, problem: Problem, *, visited: bool) -> None:
        """Take a problem back: to the front where a visit was cut short, to the end what waits for its next one.

        What broke in an earlier run comes after all others of its problem.
        """
        with self._changed:
            self._out -= 1
            if problem.dense or problem.sparse:
                (self._queue.append if visited else self._queue.appendleft)(problem)
            elif problem.later:
                problem.sparse, problem.later = problem.later, deque()
                self._queue.append(problem)
            if self.done:
                self._queue.extend(self._again())
            self._changed.notify_all()

    def _again(self) -> Iterator[Problem]:
        """Problems of the trials that met too few quiet rounds; once a run, and on a CPU: nobody shares a GPU."""
        timed, self._timed = self._timed or [], None
        if self.ledger.machine.device != "cpu" or self.late or not (due := restless(timed)):
            return
        self.watch.said(f"{sum(map(len, due))} of {len(timed)} trials met few quiet moments and are timed again")
        for group in due:
            first = {id(trial): record for trial, record in group}
            trials = deque(trial for trial, _ in group)
            yield Problem([], trials, deque(), baselines=group[0][1].baselines, first=first)

    def close(self) -> None:
        """Count what is left as not started."""
        with self.lock:
            self.summary.not_started += sum(problem.left for problem in self._queue if not problem.first)
            self._queue.clear()

    def claim_peaks(self) -> bool:
        """Whether the caller is to measure the machine's peaks; true once, and again after `peaks(None)`."""
        with self.lock:
            claimed, self._peaks_due = self._peaks_due, False
            return claimed

    def peaks(self, facts: Mapping[str, Any] | None) -> None:
        """Store measured peaks, or let another device measure them."""
        with self.lock:
            if facts is None:
                self._peaks_due = True
            else:
                self.ledger.write_peaks(facts)

    # Writing down -----------------------------------------------------------------------------------------------------

    def kept(self, trial: Trial, baselines: Baselines) -> bool:
        """Whether a final record of this trial is stored already; then it counts as this run's."""
        with self.lock:
            record = self.ledger.settled(trial, baselines)
            if record is not None:
                self.summary.records.append(record)
                self.summary.kept += 1
            return record is not None

    def finish(
        self,
        baselines: Baselines,
        answers: Sequence[tuple[Trial, Answer]],
        host: Mapping[str, Any],
        culprit: str = "",
        first: Record | None = None,
    ) -> None:
        """Store the records of these trials; `culprit` broke them where it was not their own kernel.

        first  the record that this one replaces, where a trial was timed again
        """
        with self.lock:
            records = self.ledger.write(baselines, answers, host)
            if self._timed is not None:
                pairs = zip((trial for trial, _ in answers), records, strict=True)
                self._timed += [pair for pair in pairs if not may_be_baseline(pair[0], self.ledger.kernels)]
            for record in records:
                self._count(record, first)
                broke = culprit or record.kernel
                if record.outcome in BLAMED and self.quarantine.strike(broke):
                    self.watch.said(f"{broke} broke {STRIKES} trials: its others are left out and wait for another run")

    def _count(self, record: Record, first: Record | None) -> None:
        """Take a record among those of this run, in place of `first`."""
        if first is None:
            self.summary.records.append(record)
        else:
            at = next(at for at, other in enumerate(self.summary.records) if other is first)
            self.summary.records[at] = record
        if first is None or record.outcome != "ok":
            self.watch.finished(record)

    def spent(self, answer: Answer) -> None:
        """Add up where the time of an answer went."""
        with self.lock:
            for part, time_s in answer.facts.get("spent", {}).items():
                self.summary.spent_s[part] = self.summary.spent_s.get(part, 0.0) + time_s

    def left_out(self, trial: Trial, baselines: Baselines, host: Mapping[str, Any]) -> bool:
        """Whether a kernel of this trial broke too many others; if so its record, made here, says so.

        A trial that broke a worker in an earlier run keeps the record that says how.
        """
        with self.lock:
            reason = self.quarantine.bars(trial.kernel, baselines)
            if reason and (broke := self.ledger.broke(trial)):
                self.summary.records.append(broke)
            elif reason:
                self.finish(baselines, [(trial, Answer("skipped", reason))], host)
            if reason:
                self.summary.left_out[trial.kernel] += 1
            return reason is not None

    def not_started(self, trials: int) -> None:
        """Count trials that the time limit kept from being run."""
        with self.lock:
            self.summary.not_started += trials
