"""A device at work: the dense kernels of a problem name its baselines, every sparse one is then timed beside them.

On a CPU many trials are under way at once, of several problems, and each takes its time in goes that come round in
turn: a trial that is timed in one go meets one mood of a shared machine (clock.py). Each request is still about one
trial, so what breaks has its culprit as before; a worker that died is asked again for what it had begun, and begins it
anew. Nobody shares a GPU: there a trial is timed in one go.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from sparsebench.lab import interleaved
from sparsebench.lab.baselines import Baselines, passing, screen
from sparsebench.lab.blame import BLAMED, twice
from sparsebench.lab.docket import Docket, Problem
from sparsebench.lab.executor import Executor
from sparsebench.lab.restless import together
from sparsebench.lab.wire import Answer, CheckDense, Lost, Measure, Peaks, Request, Screen
from sparsebench.suite import Trial

MOST_LOSSES = 3  # devices that may go away under the same request
UNDER_WAY = {"cpu": 32, "cuda": 1}  # at most so many trials at once
GOES = {"cpu": interleaved.GOES, "cuda": 1}  # in which each takes its time
ADMITTED = 4  # trials begun before those under way have their next go: they end one by one then, not all together


class _Hopeless(Exception):
    """Three devices went away under a request that is no single trial's; the rest of the problem waits."""


def work(docket: Docket, device: Executor) -> None:
    """Let `device` take problems until none is left; Lost when it goes away, and then nothing of it is lost."""
    if docket.claim_peaks():
        _peaks(docket, device)
    _Shift(docket, device).run()


def _peaks(docket: Docket, device: Executor) -> None:
    """Measure and store the machine's peaks; a run without a compiler goes on without them."""
    try:
        answer, _ = device.ask(Peaks(), docket.timeout_s)
    except BaseException:
        docket.peaks(None)
        raise
    docket.spent(answer)
    if answer.outcome == "ok":
        docket.peaks({name: value for name, value in answer.facts.items() if name != "spent"})


@dataclass(slots=True)
class _Shift:
    """The visits that a device pays to problems, and their trials that are under way, the longest rested first."""

    docket: Docket
    device: Executor
    visits: list[_Visit] = field(default_factory=list)
    under_way: deque[tuple[_Visit, Trial]] = field(default_factory=deque)
    full: bool = False  # whether trials under way hold all the memory that they may

    def run(self) -> None:
        """Make records until the docket is empty; what is in hand when that breaks off is given back in its order."""
        try:
            while self._admit() or self.under_way:
                for _ in range(len(self.under_way)):
                    self._go(*self.under_way.popleft())
                self._close()
        finally:
            for visit in reversed(self.visits):
                self.docket.give_back(visit.problem, visited=False)

    def _admit(self) -> bool:
        """Begin a few trials, as far as there is room; whether any was begun."""
        room = UNDER_WAY[self.docket.ledger.machine.device] - len(self.under_way)
        begun = 0
        while begun < min(room, ADMITTED) and not (self.full and self.under_way):
            if (found := self._due()) is None:
                break
            self._go(*found)
            begun += 1
        return begun > 0

    def _due(self) -> tuple[_Visit, Trial] | None:
        """A trial of the latest visit, or of a new one; None where there is no problem, for now or for good."""
        while not (self.visits and self.visits[-1].due):
            self._close()
            problem = self.docket.take(lambda: self.device.gone, wait=not self.under_way)
            if problem is None:
                return None
            self.visits.append(_Visit(self.docket, self.device, problem))
            self.visits[-1].prepare()
        visit = self.visits[-1]
        return visit, visit.due.popleft()

    def _go(self, visit: _Visit, trial: Trial) -> None:
        """Let a trial have a go, and a next one unless it has its record."""
        held = visit.go(trial)
        if held is not None:
            self.under_way.append((visit, trial))
            self.full = held >= 1

    def _close(self) -> None:
        """Give back the problems whose visits are over."""
        for visit in [visit for visit in self.visits if visit.over]:
            self.visits.remove(visit)
            self.docket.give_back(visit.problem, visited=True)


@dataclass(slots=True, eq=False)
class _Visit:
    """A problem in hand: its baselines, and as many of its sparse trials as a visit takes, `due` those not begun."""

    docket: Docket
    device: Executor
    problem: Problem
    due: deque[Trial] = field(default_factory=deque)
    _began_s: float = field(default_factory=time.perf_counter)
    _spent_s: dict[int, float] = field(default_factory=dict)  # by trials under way
    _prepared: bool = False

    @property
    def over(self) -> bool:
        """Whether all of its trials have their records."""
        return self._prepared and not self.due and not self._spent_s

    def prepare(self) -> None:
        """Name the baselines, and see which trials are due."""
        problem, docket = self.problem, self.docket
        try:
            if problem.baselines is None:
                problem.dense = [trial for trial in problem.dense if not self._skipped(trial)]
                problem.baselines = self._baselines(list(problem.dense))
                problem.dense.clear()
            self.due.extend(islice(problem.sparse, problem.of_this_visit))
        except _Hopeless as hopeless:
            docket.watch.said(str(hopeless))
            docket.not_started(problem.left)
            for trials in (problem.dense, problem.sparse, problem.later):
                trials.clear()
        self._prepared = True

    def go(self, trial: Trial) -> float | None:
        """One go of a sparse trial. None when it has its record or gets none, else the share of memory held."""
        docket, baselines = self.docket, self.problem.baselines or {}
        first = id(trial) not in self._spent_s
        if self.problem.first:
            if (first and docket.late) or docket.quarantine.bars(trial.kernel, baselines):
                self._ended(trial)  # it has its record
                return None
            return self._measure(trial, baselines)
        if first and (self._skipped(trial) or docket.kept(trial, baselines)):
            self._ended(trial)
        elif first and docket.late:
            docket.not_started(1)
            self._ended(trial)
        elif docket.left_out(trial, baselines, self.device.host):
            self._ended(trial)
        else:
            return self._measure(trial, baselines)
        return None

    def _measure(self, trial: Trial, baselines: Baselines) -> float | None:
        start_s, goes = time.perf_counter(), GOES[self.docket.ledger.machine.device]
        answer, suspect = self.ask(Measure(trial.case, trial.data, trial.kernel, list(baselines), goes))
        spent_s = self._spent_s.get(id(trial), 0.0) + time.perf_counter() - start_s
        if answer.under_way is not None:
            self._spent_s[id(trial)] = spent_s
            return answer.under_way
        culprit = trial.kernel
        if suspect in baselines and answer.outcome not in ("ok", "skipped"):
            answer, culprit = self._of_baseline(trial, answer, suspect)
        answer, before = took(answer, spent_s), self.problem.first.get(id(trial))
        told = together(before, answer) if before else answer
        self.docket.finish(baselines, [(trial, told)], self.device.host, culprit, before)
        self._ended(trial)
        return None

    def _ended(self, trial: Trial) -> None:
        """Take a sparse trial off the problem."""
        self._spent_s.pop(id(trial), None)
        self.problem.sparse = deque(other for other in self.problem.sparse if other is not trial)

    def _skipped(self, trial: Trial) -> bool:
        """Whether a limit or a missing need keeps the kernel from this case; if so its record is made here."""
        kernel = self.docket.ledger.kernels[trial.kernel]
        needs = (self.device.missing[need] for need in kernel.needs if need in self.device.missing)
        reason = kernel.why_not(trial.case, self.docket.ledger.machine) or next(needs, None)
        if reason and not self.docket.kept(trial, {}):
            self._finish({}, [(trial, Answer("skipped", reason))])
        return reason is not None

    def _baselines(self, dense: Sequence[Trial]) -> Baselines:
        """The named baselines of a problem: those of its settled dense records, or by screening now."""
        docket, ledger = self.docket, self.docket.ledger
        common = ledger.common_baselines(dense)
        known = {trial.kernel: record.outcome for trial in dense if (record := ledger.known(trial))}
        settled = [trial for trial in dense if known.get(trial.kernel) == "ok"] if common is not None else []
        todo = [trial for trial in dense if known.get(trial.kernel, "ok") == "ok" and trial not in settled]
        for trial in dense:
            if trial not in settled and trial not in todo:
                self._kept(trial, {})
        if todo and docket.late:
            docket.not_started(len(todo))
            return common or {}
        todo = [trial for trial in todo if not self._left_out(trial)]
        passed = passing(todo, self.ask, self._finish)
        if common is None or passed:  # a new kernel may be faster than the baselines named before
            return screen([*settled, *passed], ledger, self.ask, self._finish)
        for trial in settled:
            self._kept(trial, common)
        return common

    def _of_baseline(self, trial: Trial, answer: Answer, baseline: str) -> tuple[Answer, str]:
        """What a trial's record says where `baseline` broke in it, and which kernel is to blame.

        A kernel that writes where it should not may kill its neighbour; a baseline that runs well alone is innocent.
        What a baseline did is never the last word on the trial: that outcome is one that a later run tries again.
        """
        if answer.outcome not in BLAMED:
            return Answer("failed", f"its baseline {baseline} broke: {answer.reason}"), baseline
        alone, _ = self._once(Screen(trial.case.problem, [baseline]), alone=True)
        if alone.outcome in BLAMED:
            return Answer(answer.outcome, f"its baseline {baseline} broke: {answer.reason}"), baseline
        told = f"its baseline {baseline} broke beside it, but not without it: {answer.reason}"
        return Answer(answer.outcome, told), trial.kernel

    # What each step leaves behind -------------------------------------------------------------------------------------

    def _kept(self, trial: Trial, baselines: Baselines) -> None:
        if self.docket.kept(trial, baselines):
            self._strike_off(trial)

    def _left_out(self, trial: Trial) -> bool:
        barred = self.docket.left_out(trial, {}, self.device.host)
        if barred:
            self._strike_off(trial)
        return barred

    def _finish(self, baselines: Baselines, answers: Sequence[tuple[Trial, Answer]]) -> None:
        """Record dense trials; what they took is shared by those that end together."""
        now_s = time.perf_counter()
        each_s, self._began_s = (now_s - self._began_s) / max(len(answers), 1), now_s
        told = [(trial, took(answer, each_s)) for trial, answer in answers]
        self.docket.finish(baselines, told, self.device.host)
        for trial, _ in answers:
            self._strike_off(trial)

    def _strike_off(self, trial: Trial) -> None:
        """Take a dense trial off the problem: it has its record."""
        self.problem.dense = [other for other in self.problem.dense if other is not trial]

    # Asking -----------------------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> tuple[Answer, str]:
        """The device's answer and what ran last; what breaks the worker is asked once more alone."""
        return twice(self._once, request)

    def _once(self, request: Request, *, alone: bool = False) -> tuple[Answer, str]:
        """The device's answer, within a time that no honest trial needs; alone a trial has one go."""
        whole = replace(request, goes=1) if isinstance(request, Measure) else request
        losses = self.problem.losses
        if losses.count(whole) >= MOST_LOSSES:
            told = f"{MOST_LOSSES} times a device went away while it ran"
            if isinstance(request, CheckDense | Measure):
                return Answer("crashed", told), request.kernel
            raise _Hopeless(f"{told}: {request}; the trials that are left of its problem wait for another run")
        try:
            answer, suspect = self.device.ask(whole if alone else request, self.docket.timeout_s, alone=alone)
        except Lost:
            losses.append(whole)
            raise
        self.docket.spent(answer)
        return answer, suspect


def took(answer: Answer, time_s: float) -> Answer:
    """`answer`, with the seconds of a device that its trial took among the facts of its record."""
    told = {**answer.facts.get("facts", {}), "took_s": round(time_s, 4)}
    return replace(answer, facts={**answer.facts, "facts": told})
