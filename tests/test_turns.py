"""Processes that measure on one core take turns."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise

import pytest

from sparsebench.lab import turns
from sparsebench.lab.turns import Turns, here

SIBLING = """
import sys, time
from pathlib import Path
from sparsebench.lab.turns import Turns
with Turns(Path(sys.argv[1]), go_s=0.05) as turn:
    print("has it", flush=True)
    for _ in range(int(sys.argv[2])):
        start_s = time.time()
        time.sleep(0.06)
        print(start_s, time.time(), flush=True)
        turn.pass_on()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "core.lock"


def test_a_turn_alone_is_passed_on_to_nobody_and_costs_a_blink(path):
    with Turns(path, go_s=0.05) as turn:
        assert turn.pass_on() == 0.0
        time.sleep(0.06)
        assert 0 < turn.pass_on() < 0.5
    assert turn.pass_on() == 0.0


def test_two_processes_take_turns_and_never_run_together(path):
    command = [sys.executable, "-c", SIBLING, str(path), "6"]
    siblings = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60)[0].split("\n")[1:-1] for process in siblings]
    spans = sorted((*map(float, line.split()), own) for own, lines in enumerate(told) for line in lines)
    assert len(spans) == 12
    for (_, ended_s, _), (start_s, _, _) in pairwise(spans):
        assert start_s >= ended_s
    assert sum(one[2] != other[2] for one, other in pairwise(spans)) >= 3, "they alternate"


def test_a_turn_ends_with_the_process_that_has_it(path):
    killed = subprocess.Popen([sys.executable, "-c", SIBLING, str(path), "1000"], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "has it\n"
    killed.kill()
    with Turns(path):
        killed.communicate()


def test_cores_and_gpus_have_turns_of_their_own(monkeypatch):
    assert here("cpu") != here("cuda")
    mine = here("cpu")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {977}, raising=False)
    assert here("cpu") != mine
    assert here("cpu").name.endswith("cpu-977.lock")


def test_nobody_waits_where_the_system_has_no_such_locks(path, monkeypatch):
    monkeypatch.setattr(turns, "fcntl", None)
    with Turns(path, go_s=0.0) as turn, Turns(path, go_s=0.0) as other:
        assert turn.pass_on() == other.pass_on() == 0.0
