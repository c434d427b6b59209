"""A kernel ready to be timed, and what it must still show when the clock has stopped (tamper.py says against what)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sparsebench.case import Case
from sparsebench.formats import Format
from sparsebench.kernel import Kernel, Launch
from sparsebench.lab.check import Question, Verdict
from sparsebench.lab.clock import Contestant
from sparsebench.lab.operands import run_filled
from sparsebench.lab.reference import Reference
from sparsebench.lab.sides import Side
from sparsebench.lab.stopwatch import Stopwatch
from sparsebench.lab.tamper import Turning, written_beside

MORE_TURNS = 4  # calls after the clock, each with another sample of X turned, that must notice it


class WrongAnswer(Exception):
    """A gate refused an answer; the message says which gate, which entry and by how much."""

    def __init__(self, gate: str, verdict: Verdict) -> None:
        super().__init__(f"{gate}: {verdict.reason}")
        self.ratio = verdict.ratio if np.isfinite(verdict.ratio) else None


@dataclass(slots=True, eq=False)
class Ready:
    """A contestant that passed both gates, with what its record will say of it."""

    kernel: Kernel
    native: Case
    reference: Reference
    contestant: Contestant
    turning: Turning
    packed: Format
    pack_s: float
    error_ratio: float
    layout_s: float
    peak_memory_bytes: int | None
    held_bytes: int  # what its copies of W and its Ys take
    answered_fresh: bool = field(default=False, init=False)

    def check_again(self, side: Side, watch: Stopwatch) -> float:
        """Whether the clock saw honest work; the worst error ratio, or WrongAnswer.

        What the last timed call left in Y is judged, X must be what it was, and nothing may be written beside them.
        Then the launches just timed answer to fresh activations: once, for a baseline timed beside many kernels.
        """
        with watch.part("reference"):
            fresh = None if self.answered_fresh else self.reference.normal(fresh=1)
        with watch.part("check"):
            return self._checked(side, fresh)

    def _checked(self, side: Side, fresh: Question | None) -> float:
        question, x, rotation = self.reference.normal(), self.contestant.x, self.contestant.rotation
        latest, verdicts = rotation.last or rotation.launches[0], []
        if latest.y is not None:
            verdicts.append(question.turned(self.turning.column_signs()).judge(latest.y, self.native))
            refuse("precision gate on what the last timed call left", verdicts[-1])
            if fresh is not None:
                self._notice_turns(question, latest)
        self.turning.turn_back()
        if not side.same(x, side.place(question.x, self.native)):
            refuse("inputs", Verdict(False, float("inf"), "the kernel changed X; it may only read it"))
        for what, operand in (("X", x), *(("Y", y) for y in rotation.outputs)):
            if count := written_beside(operand):
                reason = f"the kernel wrote beside {what} {list(operand.shape)}; bytes changed: {count}"
                refuse("bounds", Verdict(False, float("inf"), reason))
        if fresh is not None:
            verdicts += self._answers(fresh, side)
            self.answered_fresh = True
        worst = max(verdicts, key=lambda verdict: verdict.ratio, default=Verdict(True, 0.0))
        refuse("precision gate after the clock, on fresh inputs", worst)
        return worst.ratio

    def _notice_turns(self, question: Question, launch: Launch) -> None:
        """A few more calls, each with another sample of X turned, which must show in Y."""
        for sample in self.turning.some(MORE_TURNS):
            self.turning.turn_one(sample)
            launch.run()
            turned, columns = question.turned(self.turning.column_signs()), self.turning.columns(sample)
            refuse("precision gate on what a later call left", turned.judge(launch.y, self.native, columns))

    def _answers(self, fresh: Question, side: Side) -> list[Verdict]:
        """The verdicts on the first and the last launch over fresh activations; X is put back."""
        x, launches = self.contestant.x, self.contestant.rotation.launches
        timed = side.keep(x)
        side.refill(x, side.place(fresh.x, self.native))
        try:
            asked = {id(launch): launch for launch in (launches[0], launches[-1])}.values()
            return [fresh.judge(run_filled(launch), self.native) for launch in asked]
        finally:
            side.refill(x, timed)


def refuse(gate: str, verdict: Verdict) -> None:
    """WrongAnswer unless the verdict is ok."""
    if not verdict.ok:
        raise WrongAnswer(gate, verdict)
