"""Scheduler, workers and runner as real processes on loopback: killed, late, shared. Trials are replayed, save in one.

What is counted: records, one a trial whatever happens; and from the workers' own log how often each trial was begun.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="distributed is not installed (extra cluster)")

from clusters import Cluster, cluster
from fake_devices import small, stored

from sparsebench.kernel import all_kernels
from sparsebench.record import Record
from sparsebench.shipped import resolve_suite
from sparsebench.suite import Suite

pytestmark = pytest.mark.slow

CLI = "from sparsebench.cli import main; main()"
RECORDED = Path(__file__).parent.parent / "results" / "intel-xeon-0248d1"


def trials(suite: Suite) -> set[tuple[str, str]]:
    """The plan on a CPU, as (case key, kernel)."""
    return {(trial.case.key, trial.kernel) for trial in suite.trials(all_kernels(), device="cpu")}


def begun(log: Path) -> Counter[str]:
    """How often each sparse trial was begun."""
    return Counter(log.read_text().splitlines() if log.exists() else [])


def check_once(found: list[Record]) -> None:
    """No trial has two records, save after one that is not final (three devices went away under it)."""
    final = Counter(record.key for record in found if record.final)
    assert not [key for key, count in final.items() if count > 1]


def test_from_the_command_line_with_real_trials(tmp_path):
    suite = small(tmp_path, "csr.scipy", n=(4,))
    with cluster(tmp_path) as there:
        there.start("worker", CLI, "worker", there.address, "--device", "cpu", "--name", "here")
        there.wait_for("worker", "waits for trials at")
        command = [sys.executable, "-c", CLI, "run", str(suite.path), "--results", str(tmp_path / "results")]
        done = subprocess.run(
            [*command, "--scheduler", there.address, "--json"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["suites"][0]["outcomes"] == {"ok": len(trials(suite))}
        planned = subprocess.run(
            [*command, "--scheduler", there.address, "--dry-run"], capture_output=True, text=True, check=False
        )
        assert f"{len(trials(suite))} trials on" in planned.stdout
        there.processes["worker"].send_signal(signal.SIGTERM)
        assert there.processes["worker"].wait(60) == 0
    found = stored(tmp_path / "results")
    assert {(record.case.key, record.kernel) for record in found} == trials(suite)
    assert all(record.speedup() for record in found)


def test_ctrl_c_at_home_ends_the_run_and_the_worker_s_trial(tmp_path):
    suite = small(tmp_path, "csr.scipy", n=(4,))
    with cluster(tmp_path, REPLAY_ELSE="600") as there:  # far longer than a loaded machine takes to stop
        there.worker("a")
        there.wait_for("a", "waits for trials")
        asked = ("run", str(suite.path), "--results", str(tmp_path / "results"), "--device", "cpu")
        there.start("home", CLI, *asked, "--scheduler", there.address)
        deadline_s = time.monotonic() + 60
        while there.child("a") is None and time.monotonic() < deadline_s:
            time.sleep(0.1)
        time.sleep(2)  # the checks are over, and a screening of ten minutes has begun
        there.processes["home"].send_signal(signal.SIGINT)
        assert there.processes["home"].wait(180) == 130
        assert "every finished trial is stored" in there.log("home")
        deadline_s = time.monotonic() + 30
        while there.child("a") and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert there.child("a") is None


@pytest.mark.parametrize("victim", ["worker", "its worker process"])
def test_a_worker_killed_in_mid_trial_costs_that_trial_a_re_run_and_nothing_else(tmp_path, victim):
    suite, log = small(tmp_path, "csr.scipy", "csr.torch", n=range(1, 7)), tmp_path / "begun.log"
    with cluster(tmp_path, REPLAY_ELSE="0.3", REPLAY_LOG=str(log)) as there:
        there.worker("a")
        there.worker("b")
        for name in "ab":
            there.wait_for(name, "waits for trials")
        there.runner(suite.path, tmp_path / "results")
        deadline_s = time.monotonic() + 60
        while len(begun(log)) < 6 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        if victim == "worker":
            there.kill("a")
        else:
            os.kill(there.child("a"), signal.SIGKILL)
        assert there.processes["runner"].wait(120) == 0, there.log("runner")
    found = stored(tmp_path / "results")
    assert {(record.case.key, record.kernel) for record in found} == trials(suite)
    assert len(found) == len({record.key for record in found})
    assert {record.outcome for record in found} == {"ok"}
    again = [trial for trial, times in begun(log).items() if times > 1]
    assert len(again) <= 1, "none where the kill fell between two trials, or into the checks of a baseline"
    assert sum(begun(log).values()) == len(begun(log)) + len(again)
    if victim == "worker":
        assert "went away; what it was doing is done again" in there.log("runner")
    elif again:
        (told,) = [record for record in found if "first_try" in record.facts]
        assert again == [f"{told.case.key} {told.kernel}"]
        assert "SIGKILL" in told.facts["first_try"]


def test_two_workers_take_at_most_six_tenths_of_the_time_of_one(tmp_path):
    """The suite `networks` as it was recorded on a real machine: 48 problems, 54 seconds of samples."""
    suite, spans_s = Suite.load(resolve_suite("networks")), {}
    for names in ("a", "ab"):
        folder = tmp_path / names
        folder.mkdir()
        with cluster(folder, REPLAY=str(RECORDED / "networks.jsonl"), REPLAY_ELSE="0.05") as there:
            for name in names:
                there.worker(name)
            for name in names:
                there.wait_for(name, "waits for trials")
            there.runner(suite.path, folder / "results")
            there.wait_for("runner", "takes part")
            start_s = time.monotonic()
            assert there.processes["runner"].wait(280) == 0, there.log("runner")
            spans_s[names] = time.monotonic() - start_s
    print(spans_s)
    assert spans_s["ab"] <= 0.6 * spans_s["a"], spans_s


KILLS = int(os.environ.get("KILLS", "30"))  # each takes seconds: whoever changes the cluster runs it with KILLS=200
IN_FLIGHT = {"a": 1, "b": 1, "child of a": 1, "child of b": 1, "scheduler": 2, "runner": 2}  # trials, at most


@pytest.mark.timeout(3600)
def test_kill_9_at_random_moments_and_the_plan_is_completed(tmp_path):
    """Worker, its worker process, runner or scheduler: nothing lost but trials in flight, nothing twice."""
    rng, killed, rounds = random.Random(0), Counter[str](), 0
    suite, log = small(tmp_path, "csr.scipy", "csr.torch", n=range(1, 31)), tmp_path / "begun.log"
    with cluster(tmp_path, REPLAY_ELSE="0.1", REPLAY_LOG=str(log)) as there:
        start_all(there)
        while sum(killed.values()) < KILLS:
            results = tmp_path / f"results{rounds}"
            there.runner(suite.path, results)
            before: set[str] = set()
            while sum(killed.values()) < KILLS and not ended(there):
                wait(there, rng, log)
                if there.processes["runner"].poll():  # it met no scheduler, and said so
                    assert "no Dask scheduler answered" in there.log("runner")
                    there.runner(suite.path, results)
                if (victim := kill(there, rng, suite, results)) is not None:
                    killed[victim] += 1
                found = stored(results)
                check_once(found)
                assert before <= {record.key for record in found}
                before = {record.key for record in found}
            check_complete(there, suite, results)
            rounds += 1
    extra = sum(times - 1 for times in begun_by_round(log, rounds).values())
    in_flight = sum(IN_FLIGHT[victim] * times for victim, times in killed.items())
    print(f"{dict(killed)}; {rounds} plans of {len(trials(suite))} trials; {extra} trials begun again")
    assert extra <= in_flight


def start_all(there: Cluster) -> None:
    there.worker("a")
    there.worker("b")


def ended(there: Cluster) -> bool:
    """Whether the runner finished its plan."""
    return there.processes["runner"].poll() == 0


def wait(there: Cluster, rng: random.Random, log: Path) -> None:
    """A random time: two of three times after trials are under way again, else whatever is starting or stopping."""
    size, deadline_s = log.stat().st_size if log.exists() else 0, time.monotonic() + 30
    at_work = rng.random() < 2 / 3
    while at_work and time.monotonic() < deadline_s and there.processes["runner"].poll() is None:
        if log.exists() and log.stat().st_size > size:
            break
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 1.5))


def kill(there: Cluster, rng: random.Random, suite: Suite, results: Path) -> str | None:
    """Kill one process and start it again, if it is one that nobody else starts; its name, None if it was not there."""
    victim = rng.choice(list(IN_FLIGHT))
    if victim.startswith("child of "):
        pid = there.child(victim[-1])
        if pid is None:
            return None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return victim
    if ended(there):
        return None
    there.kill(victim)
    {
        "scheduler": there.scheduler,
        "runner": lambda: there.runner(suite.path, results),
    }.get(victim, lambda: there.worker(victim))()
    return victim


def check_complete(there: Cluster, suite: Suite, results: Path) -> None:
    """Every trial has one final record; a trial that three kills fell upon gets it from a run more."""
    there.processes["runner"].wait(300)
    while not all(record.final for record in {r.key: r for r in stored(results)}.values()) or not ended(there):
        there.runner(suite.path, results)
        there.processes["runner"].wait(300)
    newest = {record.key: record for record in stored(results)}
    assert {(record.case.key, record.kernel) for record in newest.values()} == trials(suite)
    assert len(newest) == len(trials(suite))
    assert {record.outcome for record in newest.values()} == {"ok"}


def begun_by_round(log: Path, rounds: int) -> Counter[str]:
    """How often each trial was begun, beyond once for each plan that it was part of."""
    return Counter({trial: times - (rounds - 1) for trial, times in begun(log).items()})
