"""Plants the faults of mutants.py in the CUDA C++ bodies, one at a time, and sees which the laws find.

    python tests/mutation.py [--out results.json] [--cache folder] [FILE ...]     FILE: below kernels/, default all

Every trial of cuda_trials.py is prepared once. Then a child process (two at a time) compiles what a fault changes, puts
the machine code under the prepared launches and runs trials until one law is broken. Those that found the latest faults
of a file go first. Results are kept by change and by content of the file, so that a run goes on where one stopped.

Outcomes
    killed     a law was broken, or the launch never ended, or the process died
    survived   some trial ran other machine code, and no law was broken; equivalent if docs/mutation.md says why Y is
               the same
    unchanged  no trial's machine code differs; docs/mutation.md must say why, as for survivors
    refused    g++ takes some trial's unit no more (static_assert, a constant that divides by zero): not counted

Writes the table of docs/mutation.md anew, where reasons stand (mutation_report.py). Exit status 1 if less than 95 % are
killed, or if there is no reason for a mutant that survived or changed nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cuda_on_cpu.build as build
from cuda_on_cpu.faults import Code
from cuda_on_cpu.toolchain import ShimFunction, ShimToolchain, unit_of
from cuda_trials import SOURCES, Trial, all_trials, loaded, sources_of
from elf_code import machine_code
from mutants import Mutant, mutants_of
from mutation_report import REPORT, Outcome, explained, reported

LIMIT_S = 20.0  # of processor time for a launch
CHILDREN = 2


# ------------------------------------------------------------------------------------------------------- one mutant


class Swapped:
    """The functions of trials with the machine code of one mutant, each compiled when it is first asked for."""

    def __init__(self, mutant: Mutant, ahead: Path, cache: Path, most: int) -> None:
        self.mutant, self.ahead, self.cache, self.most = mutant, ahead, cache, most
        self.made: dict[str, Path] = {}
        self.changed = self.skipped = 0

    def into(self, trial: Trial) -> bool:
        """Put it under the trial's functions; whether any has other machine code than before."""
        changed = False
        enough = self.changed >= self.most or len(self.made) >= 4 * self.most
        if enough and not self._has_all(trial):
            self.skipped += 1
            return False
        for function, body, name, defines in trial.functions:
            if self.mutant.file in sources_of(body):
                changed |= self._swap(function, body, name, defines)
        return changed

    def _has_all(self, trial: Trial) -> bool:
        units = [unit_of(*of, self.ahead) for _, *of in trial.functions if self.mutant.file in sources_of(of[0])]
        return all(text in self.made for text in units)

    def _swap(self, function: ShimFunction, body: Path, name: str, defines: dict[str, Any]) -> bool:
        text, old = unit_of(body, name, defines, self.ahead), function.code.path
        if text not in self.made:
            self.made[text] = build.body_library(self.cache, f"{body.parent.name}-{name}", text)
            self.changed += machine_code(self.made[text]) != machine_code(old)
        path = self.made[text]
        if path == old or machine_code(path) == machine_code(old):
            return False
        code = Code(path, loaded(path), body.name)
        object.__setattr__(function, "code", code)  # what launches that are bound already look up
        return True


def attempt(mutant: Mutant, trials: Sequence[Trial], cache: Path, most: int) -> Outcome:
    """Runs `trials` in their order with the fault, until one finds it. Leaves the trials with faulty code.

    Once `most` units have other machine code, or four times as many the same, only trials of these are run.
    """
    ran = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, mutant.file)
        file.parent.mkdir(parents=True, exist_ok=True)
        Path(folder, "include").mkdir(exist_ok=True)
        file.write_text(mutant.applied((SOURCES / mutant.file).read_text()))
        code = Swapped(mutant, Path(folder), Path(folder, "made"), most)
        link_runtime(cache, code.cache)
        for trial in trials:
            try:
                if not code.into(trial):
                    continue
            except build.SparsebenchError as refused:
                return Outcome("refused", trial.name, str(refused)[:300], ran)
            ran += 1
            trial.asked.toolchain.limit_s = LIMIT_S
            if said := trial.run():
                return Outcome("killed", trial.name, said[:300], ran)
    return Outcome("survived" if ran else "unchanged", trials=ran, skipped=code.skipped)


def link_runtime(cache: Path, into: Path) -> None:
    """The shim's runtime, loaded already, under the name by which a new library asks for it."""
    into.mkdir()
    made = build.runtime(cache)
    (into / made.name).symlink_to(made)


def in_child(work: Callable[[], Outcome]) -> tuple[int, int]:
    """Process id and read end of a pipe of a child that does `work`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        signal.alarm(1800)
        found = work()
    except BaseException:
        found = Outcome("error", said=traceback.format_exc()[-1500:])
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(found, pipe)
    os._exit(0)


def outcome_of(pid: int, reading: int) -> Outcome:
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if said:
        found: Outcome = pickle.loads(said)
        return found
    return Outcome("killed", said=f"the process died of signal {os.WTERMSIG(status)}")


# ------------------------------------------------------------------------------------------------------- all mutants


class Killers:
    """The order of trials for a file: those that killed most recently, then all others."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = trials
        self.files = {trial.name: trial.files for trial in trials}
        self.latest: dict[str, list[str]] = {}

    def order(self, file: str) -> list[Trial]:
        rank = {name: -i for i, name in enumerate(self.latest.get(file, []))}
        meant = [trial for trial in self.trials if file in self.files[trial.name]]
        return sorted(meant, key=lambda trial: rank.get(trial.name, 1))

    def note(self, file: str, name: str) -> None:
        known = self.latest.setdefault(file, [])
        if name in known:
            known.remove(name)
        known.append(name)


def attempts(
    mutants: Iterable[Mutant], trials: Sequence[Trial], cache: Path, most: int
) -> Iterator[tuple[Mutant, Outcome]]:
    """Each mutant with its outcome, as they come in."""
    killers, waiting = Killers(trials), list(mutants)
    running: dict[int, tuple[Mutant, int]] = {}
    while waiting or running:
        while waiting and len(running) < CHILDREN:
            mutant = waiting.pop(0)
            order = killers.order(mutant.file)
            pid, reading = in_child(lambda mutant=mutant, order=order: attempt(mutant, order, cache, most))
            running[reading] = mutant, pid
        for reading in select.select(list(running), [], [])[0]:
            mutant, pid = running.pop(reading)
            found = outcome_of(pid, reading)
            if found.outcome == "killed" and found.by:
                killers.note(mutant.file, found.by)
            yield mutant, found


def prepared_trials(cache: Path, files: set[str], only: str) -> list[Trial]:
    """All trials that have to do with `files`, of names with `only` in them, each run with the bodies as they are."""
    every = all_trials(lambda **asked: ShimToolchain(cache, **asked))
    trials = [trial for trial in every if re.search(only, trial.name) and trial.files & files]
    for trial in trials:
        trial.prepare()
    return trials


def key_of(mutant: Mutant) -> str:
    """What its outcome is kept by: the change, and all of the file around it."""
    content = hashlib.sha256((SOURCES / mutant.file).read_bytes()).hexdigest()[:12]
    return f"{mutant.change} @ {mutant.line} {content}"


def all_mutants(files: Sequence[str]) -> list[Mutant]:
    """Those of `files`, of all bodies and headers if there are none."""
    paths = [SOURCES / file for file in files] or sorted([*SOURCES.rglob("*.cu"), *SOURCES.rglob("*.cuh")])
    return [mutant for path in paths for mutant in mutants_of(SOURCES, path)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="below kernels/; default: all")
    parser.add_argument("--out", type=Path, default=Path("mutation.json"), help="outcomes, kept from run to run")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "sparsebench-mutation"))
    parser.add_argument("--most", type=int, default=10**6, help="units with other machine code for one mutant")
    parser.add_argument("--only", default="", help="trials whose names match this alone, to look at a survivor")
    parser.add_argument("--again", nargs="*", default=["error"], help="outcomes to try again, but for those explained")
    asked = parser.parse_args()
    # What a fault makes strange is for the laws to find, not for the compiler's warnings.
    build.BODY_FLAGS = (*build.BODY_FLAGS, "-w")
    kept: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    mutants = all_mutants(asked.files)
    known = {change for group in explained(REPORT.read_text()).values() for change in group}
    old = {
        m for m in mutants if key_of(m) in kept and (m.change in known or kept[key_of(m)]["outcome"] not in asked.again)
    }
    new = [m for m in mutants if m not in old]
    trials = prepared_trials(asked.cache, {mutant.file for mutant in new}, asked.only)
    print(f"{len(new)} of {len(mutants)} mutants are new; {len(trials)} trials", flush=True)
    for mutant, found in attempts(new, trials, asked.cache, asked.most):
        kept[key_of(mutant)] = asdict(found)
        asked.out.write_text(json.dumps(kept, indent=1))
        print(f"{found.outcome:9} {mutant.id}   {found.by}", flush=True)
    return reported([(m, Outcome(**kept[key_of(m)])) for m in mutants], write=not asked.files)


if __name__ == "__main__":
    sys.exit(main())
