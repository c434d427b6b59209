"""Faults are planted as mutants.py says, and mutation.py tells one that is found from one that is not."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter

import mutation
import mutation_report
import pytest
from cuda_on_cpu.toolchain import ShimToolchain
from cuda_trials import SOURCES, all_trials
from mutants import Mutant, mutants_of
from mutation import attempt, in_child, outcome_of
from mutation_report import UNSEEN, Outcome, as_table, figures, reported, share_killed

PLANTED = {
    "    __syncthreads();  // why": [("barrier", "    ;  // why")],
    "    wait_copies<STAGES - 2>();": [("barrier", "    ;")],
    "    if (row < 0 || b) return;": [
        ("bound", "    if (row <= 0 || b) return;"),
        ("mask", "    if (false && (row < 0 || b)) return;"),
    ],
    "    if (c >= n) y = f(x, m > k ? 1 : 2);": [
        ("bound", "    if (c > n) y = f(x, m > k ? 1 : 2);"),
        ("bound", "    if (c >= n) y = f(x, m >= k ? 1 : 2);"),
        ("mask", "    if (true || (c >= n)) y = f(x, m > k ? 1 : 2);"),
        ("mask", "    if (c >= n) y = f(x, (true || (m > k)) ? 1 : 2);"),
    ],
    "    int at = i / ROWS * PITCH;": [("constant", "    int at = i / PITCH * ROWS;")],
    "    int size = ROWS * PITCH + i;": [],  # a product is the same either way
    "    x = a[ROWS * PITCH / ROWS];": [("constant", "    x = a[PITCH * ROWS / PITCH];")],
    "template <int Rows, bool Less = (Rows < 8)>": [],
    "#define THREADS (32 * WARPS)": [],
    "    y[i] = x[i];": [],
}


@pytest.mark.parametrize("line", PLANTED)
def test_each_kind_of_line_gets_its_faults(line, tmp_path):
    file = tmp_path / "include" / "tile.cuh"
    file.parent.mkdir()
    file.write_text(f"// tile.cuh\n{line}\n")
    found = mutants_of(tmp_path, file)
    assert [(mutant.kind, mutant.after) for mutant in found] == PLANTED[line]
    for mutant in found:
        assert (mutant.file, mutant.line) == ("include/tile.cuh", 2)
        assert mutant.applied(file.read_text()) == f"// tile.cuh\n{mutant.after}\n"


def test_every_barrier_of_the_bodies_is_deleted_once():
    for file in [*SOURCES.rglob("*.cu"), *SOURCES.rglob("*.cuh")]:
        deleted = [mutant for mutant in mutants_of(SOURCES, file) if mutant.kind == "barrier"]
        code = re.sub("//.*", "", file.read_text())
        barriers = r"\b(?:__syncthreads|__syncwarp|commit_copies|wait_copies<[^;]*>)\(\);"
        assert len(deleted) == len(re.findall(barriers, code)), file.name


def planted(kind: str, number: int) -> Mutant:
    return Mutant("include/tile.cuh", number, kind, "a", f"b{number}")


def test_figures_count_each_outcome_and_what_has_no_reason():
    outcomes = ["killed"] * 3 + ["survived"] * 3 + ["unchanged", "refused"]
    found = [(planted("mask", i), Outcome(outcome)) for i, outcome in enumerate(outcomes)]
    found.append((planted("bound", 9), Outcome("killed")))
    table = figures(found, {"equivalent": {found[3][0].change}, "unseen": {found[4][0].change}})
    assert list(table) == ["bound", "mask", "all"]
    outcomes_of_masks = {"killed": 3, "equivalent": 1, "survived": 2, "unchanged": 1, "refused": 1}
    assert table["mask"] == Counter({"planted": 8, "without a reason": 2, **outcomes_of_masks})
    assert share_killed(table["all"]) == pytest.approx(4 / 6)
    assert as_table(table).splitlines()[-1] == "| all | 9 | 1 | 1 | 1 | 4 | 2 | 2 | 66.7% |"


@pytest.mark.parametrize("killed, reason, status", [
    (19, "unseen", 0), (19, "none", 1), (18, "unseen", 1), (18, "equivalent", 0),
])  # fmt: skip
def test_status_says_whether_enough_was_killed_and_all_else_explained(killed, reason, status, tmp_path, monkeypatch):
    found = [(planted("mask", i), Outcome("killed")) for i in range(killed)]
    survivor = planted("bound", 99)
    line = f"- `{survivor.change}`: a hint alone\n"
    above, below = line if reason == "equivalent" else "", line if reason == "unseen" else ""
    report = tmp_path / "mutation.md"
    report.write_text(f"Figures\n\n<!-- figures -->\nold\n<!-- end -->\n\n{above}\n{UNSEEN}\n\n{below}")
    monkeypatch.setattr(mutation_report, "REPORT", report)
    assert reported([*found, (survivor, Outcome("survived"))], write=True) == status
    assert "old" not in report.read_text()
    assert f"| all | {killed + 1} |" in report.read_text()


def test_the_report_has_figures_and_reasons_of_faults_that_are_planted():
    text = mutation_report.REPORT.read_text()
    planted_now = {mutant.change for mutant in mutation.all_mutants([])}
    reasons = mutation_report.explained(text)
    assert reasons["equivalent"] | reasons["unseen"] <= planted_now
    assert "| all |" in text


@pytest.mark.shim
def test_a_planted_fault_is_found_and_a_changed_comment_is_not(monkeypatch, shim):
    cache = shim().cache
    trials = all_trials(lambda **asked: ShimToolchain(cache, **asked))
    trial = next(trial for trial in trials if trial.name == "slab direct, wide integers")
    trial.prepare()
    lines = (SOURCES / "include/slices.cuh").read_text().split("\n")

    def outcome(before: str, after: str) -> Outcome:
        number = next(i for i, line in enumerate(lines, start=1) if before in line)
        line = lines[number - 1]
        mutant = Mutant("include/slices.cuh", number, "mask", line, line.replace(before, after))
        return outcome_of(*in_child(lambda: attempt(mutant, [trial], cache, 9)))

    found = outcome("if (step + i < to) {", "if (step + i <= to) {")
    assert (found.outcome, found.by) == ("killed", trial.name)
    assert outcome("#pragma once", "// once, please").outcome == "unchanged"
    assert outcome("#pragma once", "static_assert(false);").outcome == "refused"
    monkeypatch.setattr(mutation, "LIMIT_S", 0.5)
    endless = outcome("step += AHEAD)", "step += 0)")
    assert "a loop without end" in endless.said
    assert not trial.run()  # here nothing was planted


def test_a_child_that_dies_has_found_the_fault():
    found = outcome_of(*in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert (found.outcome, found.said) == ("killed", "the process died of signal 9")


def test_a_child_that_fails_says_so():
    found = outcome_of(*in_child(lambda: 1 // 0))
    assert found.outcome == "error"
    assert "ZeroDivisionError" in found.said
