"""What happens on the device: a kernel is made ready (gates.py), timed beside its baselines, and checked again.

The bench lives in the worker process and outlives trials: the reference of a case and the dense contestants of a
problem serve every kernel that is asked about them. Many trials may be under way at once, each timed in goes
(clock.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

# psutil: free memory on Linux and macOS alike.
import psutil

from sparsebench.case import Case, FileData
from sparsebench.kernel import Kernel
from sparsebench.lab.calm import Calm
from sparsebench.lab.clock import Contestant
from sparsebench.lab.gates import Gates
from sparsebench.lab.interleaved import Interleaved, Timing
from sparsebench.lab.matrices import Matrices
from sparsebench.lab.memory import give_back
from sparsebench.lab.operands import spoil
from sparsebench.lab.ready import Ready, WrongAnswer
from sparsebench.lab.reference import Reference, weights_key
from sparsebench.lab.sides import Side
from sparsebench.lab.stopwatch import Stopwatch
from sparsebench.lab.wire import Measure
from sparsebench.patterns import Draw
from sparsebench.record import Protocol

AA = "dense.aa"  # the winning dense kernel entered a second time: its ratio to itself must be 1
HELD_SHARE = 0.2  # of the memory free at the start, for trials under way; a check takes as much again for a moment
OTHERS = 3  # trials that have a go between two of a timing that is asked for as a whole
GROWN = 1.5  # times that: more is what ended trials and checks have left, and goes back to the system


@dataclass(slots=True, eq=False)
class _Problem:
    """The dense side of a problem: its reference, and the dense kernels that are ready."""

    reference: Reference
    ready: dict[str, Ready] = field(default_factory=dict)

    def keep(self, names: Sequence[str]) -> None:
        """Drop the dense kernels that are not among `names`, with their copies of W."""
        self.ready = {name: ready for name, ready in self.ready.items() if name in names}


@dataclass(slots=True, eq=False)
class _Trial:
    """A trial under way: its kernel and the baselines beside it, and how far their timing has come."""

    reference: Reference
    own: Ready
    beside: Sequence[Ready]
    timing: Interleaved
    clocks: Mapping[str, Any]  # before the first go
    seen: Timing | None = None  # what all goes saw, where that came while another timing was asked for

    @property
    def held_bytes(self) -> int:
        """What it keeps from being freed: copies of W, and the operands and answers of its case."""
        return self.own.held_bytes + self.reference.held_bytes


@dataclass(slots=True, eq=False)
class Bench:
    """The device side of a run. `mark` hears what runs next."""

    kernels: Mapping[str, Kernel]
    protocol: Protocol
    side: Side
    load: Callable[[Path, str | None], FileData]
    mark: Callable[[str], None] = lambda name: None
    watch: Stopwatch = field(default_factory=Stopwatch)
    most_bytes: int = field(default_factory=lambda: int(HELD_SHARE * psutil.virtual_memory().available))
    _reference: Reference | None = None  # of the latest sparse case
    _problems: dict[Any, _Problem] = field(default_factory=dict)
    _calm: dict[Any, Calm] = field(default_factory=lambda: defaultdict(Calm))  # by problems: kept, they come back
    _under_way: dict[Any, _Trial] = field(default_factory=dict)
    _files: dict[tuple[Path, str | None], FileData] = field(default_factory=dict)
    _matrices: Matrices = field(default_factory=Matrices)
    _gates: Gates = field(init=False)

    def __post_init__(self) -> None:
        self._gates = Gates(self.protocol, self.side, self._matrices, self.mark, self.watch)

    # What the parent asks for -------------------------------------------------------------------------------------

    def check_dense(self, problem: Case, name: str) -> dict[str, Any]:
        """Make dense kernel `name` ready for `problem`; its facts, or WrongAnswer."""
        return self._facts(self._dense_ready(problem, name))

    def screen(self, problem: Case, names: Sequence[str]) -> dict[str, Any]:
        """One interleaved run of dense kernels: samples, and {name: reason} of those wrong afterwards."""
        ready = [self._dense_ready(problem, name) for name in names]
        timing = self._time(problem, [entry.contestant for entry in ready], names)
        return {**timing, **self._after(ready)}

    def again(self, problem: Case, names: Sequence[str]) -> dict[str, Any]:
        """The dense kernels `names` once more, the first of them entered twice: the second time as `dense.aa`."""
        ready = [self._dense_ready(problem, name) for name in names]
        twin = replace(ready[0].contestant, name=AA)
        timing = self._time(problem, [*(entry.contestant for entry in ready), twin], names)
        return {**timing, **self._after(ready)}

    def measure(self, asked: Measure) -> dict[str, Any]:
        """One go of a trial of a sparse kernel beside its baselines.

        After the last one all that only the device knows of it; before, {"under_way": share of most_bytes held}.
        """
        about = asked.case.identity, asked.kernel, tuple(asked.baselines)
        trial = self._under_way.pop(about, None) or self._begun(asked)
        with self.watch.part("clock"):
            timing = trial.seen or trial.timing.go()
            if trial.seen:
                trial.timing.once_more()  # checks of other trials have been at its baselines since
        if timing is None:
            self._under_way[about] = trial
            return {"under_way": self._held_bytes() / self.most_bytes}
        facts = self._finished(trial, timing)
        del trial
        self._give_back()
        return facts

    def _begun(self, asked: Measure) -> _Trial:
        reference = self._sparse_reference(asked.case, asked.data)
        own = self._ready(self.kernels[asked.kernel], reference)
        beside = [self._dense_ready(asked.case.problem, baseline) for baseline in asked.baselines]
        if beside:
            self._problems[asked.case.problem.identity].keep(asked.baselines)
        contestants = [entry.contestant for entry in (own, *beside)]
        spoil(y for contestant in contestants for y in contestant.rotation.outputs)
        timing = Interleaved(
            self.side.clock,
            contestants,
            self.protocol,
            asked.baselines or [asked.kernel],
            asked.goes,
            self.side.settling_rounds,
            self._calm[asked.case.problem.identity],
        )
        return _Trial(reference, own, beside, timing, self.side.clocks())

    def _finished(self, trial: _Trial, timed: Timing) -> dict[str, Any]:
        own, beside, name = trial.own, trial.beside, trial.own.kernel.name
        timing = self._told(timed, trial.clocks)
        self.mark(name)
        error_ratio = max(own.error_ratio, own.check_again(self.side, self.watch))
        for entry in beside:
            self.mark(entry.kernel.name)
            entry.check_again(self.side, self.watch)
        layout_s = {entry.kernel.name: entry.layout_s for entry in (own, *beside)}
        known = self._facts(own)
        usual_s = min(float(np.median(times_s[name])) for times_s in timing["samples"].values())
        facts = {**known["facts"], **self.side.facts(own.contestant.rotation.launches[0], usual_s)}
        return {**known, **timing, "facts": facts, "error_ratio": error_ratio, "layout_s": layout_s}

    # How it is done -----------------------------------------------------------------------------------------------

    def _time(self, problem: Case, contestants: Sequence[Contestant], against: Sequence[str]) -> dict[str, Any]:
        """Time `contestants` together, in goes between which trials under way have theirs."""
        spoil(y for contestant in contestants for y in contestant.rotation.outputs)
        before, side, calm = self.side.clocks(), self.side, self._calm[problem.identity]
        timing = Interleaved(
            side.clock, contestants, self.protocol, against, side.goes_together, side.settling_rounds, calm
        )
        with self.watch.part("clock"):
            while (seen := timing.go()) is None:
                self._others_go()
        return self._told(seen, before)

    def _others_go(self) -> None:
        """Let the trials that rested longest have a go."""
        for about in list(self._under_way)[:OTHERS]:
            trial = self._under_way.pop(about)
            trial.seen = trial.seen or trial.timing.go()
            self._under_way[about] = trial

    def _told(self, timing: Timing, before: Mapping[str, Any]) -> dict[str, Any]:
        """What a record says of a timing: samples, why it stopped, doubts, and the core's clock before and after."""
        after = dict(self.side.clocks())
        clocks = {"before_mhz": before["mhz"], "after_mhz": after.pop("mhz"), **after, **self.side.clock.clocks()}
        return {"samples": timing.samples, "stop": timing.stop, "flags": list(timing.flags), "clocks": clocks}

    def _after(self, ready: Sequence[Ready]) -> dict[str, Any]:
        wrong, ratios = {}, {}
        for entry in ready:
            self.mark(entry.kernel.name)
            try:
                ratios[entry.kernel.name] = max(entry.error_ratio, entry.check_again(self.side, self.watch))
            except WrongAnswer as error:
                wrong[entry.kernel.name] = str(error)
        return {"wrong": wrong, "error_ratios": ratios}

    def _dense_ready(self, problem: Case, name: str) -> Ready:
        """A dense kernel of a problem; problems of no trial under way make room for a new one."""
        about = problem.identity
        if about not in self._problems:
            needed = {trial.reference.case.problem.identity for trial in self._under_way.values()}
            self._problems = {known: kept for known, kept in self._problems.items() if known in needed}
            self._reference = None
            self._problems[about] = _Problem(self._reference_of(problem, None))
        dense = self._problems[about]
        if name not in dense.ready:
            dense.ready[name] = self._ready(self.kernels[name], dense.reference)
        return dense.ready[name]

    def _ready(self, kernel: Kernel, reference: Reference) -> Ready:
        ready = self._gates.ready(kernel, reference)
        self._give_back()  # its checks were of float64
        return ready

    def _give_back(self) -> None:
        give_back(unless_below=int(GROWN * self.most_bytes))

    def _sparse_reference(self, case: Case, data: Path | None) -> Reference:
        if self._reference is None or self._reference.case != case:
            file = self._file(data, case.source.tensor if case.source else None) if data else None
            self._reference = self._reference_of(case, file)
        return self._reference

    def _held_bytes(self) -> int:
        """What trials under way keep from being freed, their baselines included."""
        dense = sum(
            problem.reference.held_bytes + sum(ready.held_bytes for ready in problem.ready.values())
            for problem in self._problems.values()
        )
        return dense + sum(trial.held_bytes for trial in self._under_way.values())

    def _reference_of(self, case: Case, file: FileData | None) -> Reference:
        """The questions of a case, with its mask and operands from what is kept."""
        with self.watch.part("reference"):
            draw: Draw = self._matrices.get(("draw", weights_key(case)), lambda: case.draw(file))
        return Reference(case, draw, file, self.side.arithmetic, matrices=self._matrices)

    def _file(self, path: Path, tensor: str | None) -> FileData:
        if (path, tensor) not in self._files:
            self._files.clear()  # one file at a time: a weight file may be large
            self._files[path, tensor] = self.load(path, tensor)
        return self._files[path, tensor]

    def _facts(self, ready: Ready) -> dict[str, Any]:
        case, packed = ready.reference.case, ready.packed
        return {
            "nnz": packed.nnz,
            "format_bytes": packed.nbytes,
            "moved_bytes": ready.kernel.moved_bytes(ready.native, packed),
            "useful_flops": case.useful_flops(packed.nnz),
            "peak_memory_bytes": ready.peak_memory_bytes,
            "pack_s": ready.pack_s,
            "error_ratio": ready.error_ratio,
            "layout_s": {ready.kernel.name: ready.layout_s},
            "facts": {
                **ready.reference.draw.facts,
                **ready.contestant.rotation.launches[0].facts,
                **({"lossy": ready.kernel.lossy} if ready.kernel.lossy else {}),
                "ran": ready.contestant.rotation.launches[0].ran or ready.kernel.name,
                "copies": len(ready.contestant.rotation.launches),
                "outputs": len(ready.contestant.rotation.outputs),
            },
        }
