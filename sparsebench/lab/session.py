"""A device at work on one problem: the dense kernels name the baselines, every sparse one is then timed beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsebench.lab.baselines import Baselines, passing, screen
from sparsebench.lab.blame import BLAMED, twice
from sparsebench.lab.docket import Docket, Problem
from sparsebench.lab.executor import Executor
from sparsebench.lab.wire import Answer, CheckDense, Lost, Measure, Peaks, Request, Screen
from sparsebench.suite import Trial

MOST_LOSSES = 3  # devices that may go away under the same request


class _Hopeless(Exception):
    """Three devices went away under a request that is no single trial's; the rest of the problem waits."""


def work(docket: Docket, device: Executor) -> None:
    """Let `device` take problems until none is left; Lost when it goes away, and then nothing of it is lost."""
    if docket.claim_peaks():
        _peaks(docket, device)
    while problem := docket.take(lambda: device.gone):
        visited = False
        try:
            _Session(docket, device, problem).run()
            visited = True
        finally:
            docket.give_back(problem, visited=visited)


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
class _Session:
    docket: Docket
    device: Executor
    problem: Problem

    def run(self) -> None:
        """Make a record of every trial of this visit that has none, the time limit permitting."""
        problem, docket = self.problem, self.docket
        try:
            if problem.baselines is None:
                problem.dense = [trial for trial in problem.dense if not self._skipped(trial)]
                problem.baselines = self._baselines(list(problem.dense))
                problem.dense.clear()
            for _ in range(problem.of_this_visit):
                self._measure(problem.sparse[0], problem.baselines)
                problem.sparse.popleft()
        except _Hopeless as hopeless:
            docket.watch.said(str(hopeless))
            docket.not_started(problem.left)
            for trials in (problem.dense, problem.sparse, problem.later):
                trials.clear()

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

    def _measure(self, trial: Trial, baselines: Baselines) -> None:
        docket = self.docket
        if self._skipped(trial) or docket.kept(trial, baselines):
            return
        if docket.late:
            docket.not_started(1)
        elif not docket.left_out(trial, baselines, self.device.host):
            answer, suspect = self.ask(Measure(trial.case, trial.data, trial.kernel, list(baselines)))
            culprit = trial.kernel
            if suspect in baselines and answer.outcome not in ("ok", "skipped"):
                answer, culprit = self._of_baseline(trial, answer, suspect)
            docket.finish(baselines, [(trial, answer)], self.device.host, culprit)

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
        self.docket.finish(baselines, answers, self.device.host)
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
        """The device's answer, within a time that no honest trial needs."""
        losses = self.problem.losses
        if losses.count(request) >= MOST_LOSSES:
            told = f"{MOST_LOSSES} times a device went away while it ran"
            if isinstance(request, CheckDense | Measure):
                return Answer("crashed", told), request.kernel
            raise _Hopeless(f"{told}: {request}; the trials that are left of its problem wait for another run")
        try:
            answer, suspect = self.device.ask(request, self.docket.timeout_s, alone=alone)
        except Lost:
            losses.append(request)
            raise
        self.docket.spent(answer)
        return answer, suspect
